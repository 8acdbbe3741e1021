"""Which spatial and temporal layers of a stream one subscriber gets: decided once per picture, kept while its packets come."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from relaycore.projection cimport Projection
from relaycore.views cimport FrameView

cdef enum:
    LAYERS_ALL = 7                 # all there are: ids have 3 bits
    PICTURES = 16                  # decisions kept: half a second of pictures; power of two
    TOP_NONE = 255                 # nothing of this picture is forwarded

ctypedef struct Picture:           # what was decided of one picture
    uint32_t rtp_ts                # of the source
    uint16_t picture_offset        # for its picture ids (mod 2^15)
    uint8_t top                    # highest spatial id forwarded, or TOP_NONE
    uint8_t temporal               # highest temporal id forwarded from here on
    uint8_t is_skipped             # left out, and the ids of later pictures close up behind it
    uint8_t is_used

ctypedef struct Selection:
    uint8_t wanted_spatial         # LAYERS_ALL: all
    uint8_t wanted_temporal
    uint8_t looks                  # 0: everything is forwarded as it comes
    uint8_t spatial                # highest ids forwarded now
    uint8_t temporal
    uint8_t seen_temporal          # bit per temporal id of this source
    uint8_t has_newest
    uint8_t head
    uint8_t last                   # where the last decision was found
    uint32_t newest_ts
    Picture pictures[16]

cdef void selection_init(Selection* x) noexcept nogil
# A source starts, with a keyframe: all that is wanted is forwarded from here on.
cdef void selection_begin(Selection* x) noexcept nogil
# From the next picture on other layers are wanted. `shown_ts`: source timestamp of the picture sent last, where there is one.
cdef void selection_want(Selection* x, uint8_t spatial, uint8_t temporal, bint is_shown, uint32_t shown_ts, uint16_t picture_offset) noexcept nogil
# The decision about the picture of this packet; NULL: it comes too late to be placed. While `looks`.
cdef Picture* select_picture(Selection* x, Projection* p, int codec, const FrameView* v, uint32_t rtp_ts) noexcept nogil
# Whether a keyframe would bring a layer that is wanted, of which this packet is.
cdef bint selection_waits(const Selection* x, const FrameView* v) noexcept nogil
