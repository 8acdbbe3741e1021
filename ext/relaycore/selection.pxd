"""Which spatial and temporal layers of a stream one subscriber gets: decided once per picture, kept while its packets come."""
from libc.stdint cimport int8_t, uint8_t, uint16_t, uint32_t, uint64_t
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
    uint8_t is_begun               # some of it was forwarded: its top stays
    int8_t target                  # decode target that it was forwarded for

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
    # By the Dependency Descriptor (targets.pxd)
    uint8_t has_targets            # this source has one
    uint8_t serial                 # of the structure that `target` is of
    uint8_t waits                  # for a keyframe: other spatial layers are wanted than are forwarded
    uint8_t names_active           # the receiver was told other active targets than its structure began with
    int8_t target                  # forwarded now; -1 none
    uint8_t has_frames
    uint16_t newest_frame
    uint32_t active                # targets that the receiver is told are active
    uint64_t judged[2]             # bit i: a decision was made about the frame i before newest_frame
    uint64_t sent[2]               # bit i: that frame was forwarded

cdef void selection_init(Selection* x) noexcept nogil
# A source starts, with a keyframe: all that is wanted is forwarded from here on.
cdef void selection_begin(Selection* x, bint has_targets) noexcept nogil
# From the next picture on other layers are wanted. `shown_ts`: source timestamp of the picture sent last, where there is one.
cdef void selection_want(Selection* x, uint8_t spatial, uint8_t temporal, bint is_shown, uint32_t shown_ts, uint16_t picture_offset) noexcept nogil
# The picture of a timestamp; NULL: nothing was decided about it.
cdef Picture* find_picture(Selection* x, uint32_t rtp_ts) noexcept nogil
# Takes the place of the oldest one.
cdef Picture* keep_picture(Selection* x, uint32_t rtp_ts, uint16_t picture_offset, uint8_t top) noexcept nogil
# The newest one before a timestamp; NULL: too long ago.
cdef const Picture* picture_before(const Selection* x, uint32_t rtp_ts) noexcept nogil
# The decision about the picture of this packet; NULL: it comes too late to be placed. While `looks`.
cdef Picture* select_picture(Selection* x, Projection* p, int codec, const FrameView* v, uint32_t rtp_ts) noexcept nogil
# Whether a keyframe would bring a layer that is wanted, of which this packet is.
cdef bint selection_waits(const Selection* x, const FrameView* v) noexcept nogil
