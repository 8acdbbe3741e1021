"""Projection of a received rtp_stream for one subscriber (RFC 7667 section 3.7): numbers, timestamps, picture ids.

A subscriber sees one stream whatever encodings feed it: output numbers have no hole that the source did not have, and
time never steps back. Holes of the source keep a reserved number each, so that a late packet finds its place.
"""
from libc.stdint cimport uint8_t, int8_t, uint16_t, int32_t, uint32_t, int64_t
from relaycore.views cimport FrameView

cdef enum:
    PROJECTION_WINDOW = 512        # source packets whose mapping is remembered; power of two
    SLEW_PER = 1024                # less than 1 ms/s
    BEND_BEHIND = 1
    BEND_SLEW = 2

cdef enum MapState:
    MAP_NONE = 0
    MAP_HOLE = 1                   # number reserved, packet not seen yet
    MAP_SENT = 2
    MAP_DROPPED = 3                # seen, has no number

ctypedef struct Projection:
    uint8_t started
    uint8_t has_picture_id
    uint8_t picture_bits           # 7 or 15 of the last frame
    int64_t segment_start          # ext_seq of the source at which the present source began; older packets are not ours
    int64_t highest_in             # ext_seq of the source
    int64_t next_out               # ext_seq of the next new output packet
    uint32_t ts_offset             # out = in + offset (mod 2^32), save where it bends
    uint32_t last_ts               # newest output timestamp
    uint32_t last_in_ts            # of the source
    int64_t last_arrival_ns        # of its packet
    uint8_t bends                  # 0: neither of the two
    uint32_t behind_in             # the source began at what was shown already: its pictures follow behind_out closely until they
    uint32_t behind_out            # are newer
    uint32_t slew_in               # from this source timestamp on the offset moves by slew_ticks, SLEW_PER of them for each
    int32_t slew_ticks
    uint16_t picture_offset        # out = in + offset (mod 2^15), from the next picture on
    uint16_t last_picture_id
    uint16_t frame_offset          # of the Dependency Descriptor's frame numbers: out = in + offset (mod 2^16)
    uint16_t last_frame
    uint8_t has_frame
    uint8_t tl0_offset
    uint8_t last_tl0
    uint16_t out_low[512]          # low 16 bits of the output number, by source number mod window
    uint8_t state[512]             # MapState

cdef uint32_t ticks_of(int64_t elapsed_ns, uint32_t clock_rate_hz) noexcept nogil
# first_out: < 2^15 so that the receiver's roll-over guess cannot go wrong on the first packets (RFC 3711 section 3.3.1).
cdef void projection_init(Projection* p, uint16_t first_out) noexcept nogil
# A (new) source starts with packet `ext_seq`; ts_offset, picture offsets are set so that the output goes on seamlessly.
# source_ts_offset: ticks to add to the new source's timestamps to reach the old source's scale (from sender reports);
# known = 0 uses arrival times: last_ts advances by what lies between those of the packets. Returns whether the offset was believed.
cdef bint projection_rebase(Projection* p, int64_t ext_seq, uint32_t rtp_ts, const FrameView* view, bint known, uint32_t new_ts_offset, uint32_t clock_rate_hz, int64_t arrival_ns) noexcept nogil
# The offset was a guess, and this is the right one: it is gone over to slowly, from the next picture on. False: try again later.
cdef bint projection_slew(Projection* p, uint32_t ts_offset, uint32_t clock_rate_hz) noexcept nogil
# The offset that the projection has, or is going over to.
cdef uint32_t projection_offset(const Projection* p) noexcept nogil
# Number for a source packet: >= 0 output ext_seq; E_TOO_OLD (before the segment or the window), E_REPLAY (already mapped).
cdef int64_t projection_map(Projection* p, int64_t ext_seq) noexcept nogil
# The source packet is not sent (padding only, layer not wanted): later packets close up behind it. Returns the number (>= 0)
# that had been reserved for it while it was missing, which nothing else will use; else -1.
cdef int64_t projection_drop(Projection* p, int64_t ext_seq) noexcept nogil
cdef uint32_t projection_ts(const Projection* p, uint32_t rtp_ts) noexcept nogil
# Records what was sent, so that the next rebase can go on behind it.
cdef void projection_sent(Projection* p, uint32_t rtp_ts, uint32_t out_ts, const FrameView* view, uint16_t picture_offset,
                          int64_t arrival_ns) noexcept nogil
