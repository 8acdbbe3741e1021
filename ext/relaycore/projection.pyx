"""Rewriting rules of one subscriber's view of a stream; the contract stands in projection.pxd.

Rules (DESIGN section 4, "Numbers" and "Time"):
- source in order: output number = the next one; a gap in the source reserves as many output numbers (at most a window);
- a packet that is dropped before sending takes no number; if it fills a reserved hole, the caller is told its number;
- a source whose numbers jump by more than the window starts a new segment: nothing is reserved;
- timestamps keep one offset per source; a new source goes on behind the last output timestamp and never before it;
- what a new source has of a time that was shown already is given the ticks right behind it, until the source has caught up: its
  offset stays the true one, so that sound and picture do not drift apart switch by switch;
- an offset that turns out wrong is gone over to at less than 1 ms/s, as a function of the source's time: late packets of a picture
  get the timestamp that the others got.
"""
cimport cython
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t
from libc.stdlib cimport abs
from libc.string cimport memset
from relaycore.errs cimport E_REPLAY, E_TOO_OLD
from relaycore.seq cimport diff_u16, diff_u32, unwrap_u16
from relaycore.views cimport FrameView

cdef enum:
    MASK = PROJECTION_WINDOW - 1
    # A source may claim at most this many seconds of jump against arrival time before arrival is believed instead.
    MAX_JUMP_S = 5
    BEHIND_PER = 512               # source ticks for one of output: pictures of 120 a second (750 ticks) still differ
    BEND_OVER_TICKS = 360000       # 4 s of video: what is repaired is younger


cdef uint32_t ticks_of(int64_t elapsed_ns, uint32_t clock_rate_hz) noexcept nogil:
    """Return the RTP ticks of `elapsed_ns` >= 0 at this clock rate, mod 2^32."""
    return <uint32_t>((<uint64_t>elapsed_ns // 1000u * clock_rate_hz // 1000000u) & 0xffffffffu)


cdef void projection_init(Projection* p, uint16_t first_out) noexcept nogil:
    memset(p, 0, sizeof(Projection))
    p.next_out = first_out


cdef inline void _set(Projection* p, int64_t ext_seq, uint8_t state, int64_t out) noexcept nogil:
    p.state[ext_seq & MASK] = state
    p.out_low[ext_seq & MASK] = <uint16_t>(out & 0xffff)


cdef inline uint32_t _arrived(const Projection* p, uint32_t clock_rate_hz, int64_t arrival_ns) noexcept nogil:
    """Where a packet stands by its arrival: as far from the last one as they came apart."""
    cdef int64_t apart_ns = arrival_ns - p.last_arrival_ns
    if apart_ns < 0:
        return p.last_ts - ticks_of(-apart_ns, clock_rate_hz)
    # At least one tick, so that two sources never share a timestamp.
    return p.last_ts + 1 + ticks_of(apart_ns, clock_rate_hz)


cdef bint projection_rebase(Projection* p, int64_t ext_seq, uint32_t rtp_ts, const FrameView* view, bint known,
                            uint32_t new_ts_offset, uint32_t clock_rate_hz, int64_t arrival_ns) noexcept nogil:
    cdef uint32_t by_arrival
    cdef int64_t ahead
    memset(p.state, MAP_NONE, sizeof(p.state))
    p.segment_start = ext_seq
    p.highest_in = ext_seq - 1
    p.bends = 0
    if p.last_arrival_ns == 0:
        p.started = 1
        p.ts_offset = new_ts_offset if known else 0
        p.picture_offset = 0
        p.tl0_offset = 0
        return known
    by_arrival = _arrived(p, clock_rate_hz, arrival_ns)
    ahead = diff_u32(rtp_ts + new_ts_offset, by_arrival)
    if not -<int64_t>clock_rate_hz < ahead < <int64_t>clock_rate_hz * MAX_JUMP_S:
        known = False
    p.ts_offset = new_ts_offset if known else by_arrival - rtp_ts
    if diff_u32(rtp_ts + p.ts_offset, p.last_ts) <= 0:
        p.bends = BEND_BEHIND
        p.behind_in = rtp_ts
        p.behind_out = p.last_ts + 1
    if view.picture_id_bytes and p.has_picture_id:
        p.picture_offset = <uint16_t>((<uint32_t>p.last_picture_id + 1 - view.picture_id) & 0x7fffu)
        p.tl0_offset = <uint8_t>((<uint32_t>p.last_tl0 + 1 - view.tl0) & 0xffu)
    if view.source == 2 and p.has_frame:
        # A keyframe with an older number would be thrown away at the receiver.
        p.frame_offset = <uint16_t>((<uint32_t>p.last_frame + 1 - view.frame_number) & 0xffffu)
    return known


cdef bint projection_slew(Projection* p, uint32_t ts_offset, uint32_t clock_rate_hz) noexcept nogil:
    cdef int64_t apart = diff_u32(ts_offset, p.ts_offset)
    if p.bends:
        return False
    # Further off than a source may be it cannot be right either.
    if apart and -MAX_JUMP_S * <int64_t>clock_rate_hz < apart < MAX_JUMP_S * <int64_t>clock_rate_hz:
        p.bends = BEND_SLEW
        p.slew_in = p.last_in_ts + 1
        p.slew_ticks = <int32_t>apart
    return True


cdef uint32_t projection_offset(const Projection* p) noexcept nogil:
    return p.ts_offset + <uint32_t>p.slew_ticks if p.bends == BEND_SLEW else p.ts_offset


cdef int64_t projection_map(Projection* p, int64_t ext_seq) noexcept nogil:
    cdef int64_t gap = ext_seq - p.highest_in
    cdef int64_t number
    cdef int64_t i
    if gap > PROJECTION_WINDOW:
        memset(p.state, MAP_NONE, sizeof(p.state))
        p.segment_start = ext_seq
    elif gap > 0:
        for i in range(p.highest_in + 1, ext_seq):
            _set(p, i, MAP_HOLE, p.next_out)
            p.next_out += 1
    elif ext_seq < p.segment_start or gap <= -PROJECTION_WINDOW:
        return E_TOO_OLD
    else:
        if p.state[ext_seq & MASK] != MAP_HOLE:
            return E_REPLAY
        p.state[ext_seq & MASK] = MAP_SENT
        return unwrap_u16(p.next_out, p.out_low[ext_seq & MASK])
    p.highest_in = ext_seq
    number = p.next_out
    p.next_out += 1
    _set(p, ext_seq, MAP_SENT, number)
    return number


cdef int64_t projection_drop(Projection* p, int64_t ext_seq) noexcept nogil:
    cdef int64_t gap = ext_seq - p.highest_in
    cdef int64_t i
    if not p.started:
        return -1
    if gap > PROJECTION_WINDOW:
        memset(p.state, MAP_NONE, sizeof(p.state))
        p.segment_start = ext_seq
        p.highest_in = ext_seq
    elif gap > 0:
        for i in range(p.highest_in + 1, ext_seq):
            _set(p, i, MAP_HOLE, p.next_out)
            p.next_out += 1
        p.highest_in = ext_seq
    elif ext_seq < p.segment_start or gap <= -PROJECTION_WINDOW:
        return -1
    elif p.state[ext_seq & MASK] != MAP_HOLE:
        return -1
    else:
        p.state[ext_seq & MASK] = MAP_DROPPED
        return unwrap_u16(p.next_out, p.out_low[ext_seq & MASK])
    p.state[ext_seq & MASK] = MAP_DROPPED
    return -1


cdef uint32_t _bent(const Projection* p, uint32_t rtp_ts) noexcept nogil:
    """Return the output timestamp while the source catches up with what was shown, or its offset moves."""
    cdef uint32_t out = rtp_ts + p.ts_offset
    cdef uint32_t close
    cdef int64_t ticks
    if p.bends == BEND_BEHIND:
        if diff_u32(rtp_ts, p.behind_in) < 0:
            return out
        close = p.behind_out + (rtp_ts - p.behind_in) // BEHIND_PER
        return close if diff_u32(out, close) < 0 else out
    ticks = max(<int64_t>0, diff_u32(rtp_ts, p.slew_in)) // SLEW_PER
    return out + <uint32_t>(min(ticks, <int64_t>p.slew_ticks) if p.slew_ticks > 0 else max(-ticks, <int64_t>p.slew_ticks))


cdef uint32_t projection_ts(const Projection* p, uint32_t rtp_ts) noexcept nogil:
    return _bent(p, rtp_ts) if p.bends else rtp_ts + p.ts_offset


cdef void _straighten(Projection* p) noexcept nogil:
    """End a bend that no packet under way can be part of any more."""
    if p.bends == BEND_BEHIND:
        if diff_u32(p.last_ts, p.behind_out) > BEND_OVER_TICKS:
            p.bends = 0
    elif diff_u32(p.last_in_ts, p.slew_in) > <int64_t>abs(p.slew_ticks) * SLEW_PER + BEND_OVER_TICKS:
        p.bends = 0
        p.ts_offset += <uint32_t>p.slew_ticks


cdef void projection_sent(Projection* p, uint32_t rtp_ts, uint32_t out_ts, const FrameView* view, uint16_t picture_offset,
                          int64_t arrival_ns) noexcept nogil:
    cdef uint16_t picture_id, frame
    cdef uint32_t span
    if p.last_arrival_ns == 0 or diff_u32(out_ts, p.last_ts) > 0:
        p.last_ts = out_ts
        p.last_in_ts = rtp_ts
        p.last_arrival_ns = arrival_ns
        if p.bends:
            _straighten(p)
    # A late packet of an earlier picture moves nothing back.
    if view.source == 2:
        frame = <uint16_t>((<uint32_t>view.frame_number + p.frame_offset) & 0xffffu)
        if not p.has_frame or diff_u16(frame, p.last_frame) > 0:
            p.has_frame = 1
            p.last_frame = frame
    if view.picture_id_bytes:
        picture_id = <uint16_t>((<uint32_t>view.picture_id + picture_offset) & 0x7fffu)
        span = <uint32_t>0x80 if view.picture_id_bytes == 1 else <uint32_t>0x8000
        if p.has_picture_id and ((<uint32_t>picture_id - p.last_picture_id) & (span - 1)) >= span >> 1:
            return
        p.has_picture_id = 1
        p.last_picture_id = picture_id
    if view.tl0_bytes:
        p.last_tl0 = <uint8_t>((<uint32_t>view.tl0 + p.tl0_offset) & 0xffu)


@cython.final
cdef class ProjectionMap:
    """Test face: one `Projection` driven from Python; numbers as plain ints."""
    cdef Projection p

    def __cinit__(self, uint16_t first_out=0):
        projection_init(&self.p, first_out)

    def rebase(self, int64_t ext_seq, uint32_t rtp_ts, int64_t arrival_ns, ts_offset=None, uint32_t clock_rate_hz=90000):
        """Start a new source at (ext_seq, rtp_ts), `ts_offset` None = unknown; return whether that was believed."""
        cdef FrameView view
        memset(&view, 0, sizeof(view))
        return projection_rebase(&self.p, ext_seq, rtp_ts, &view, ts_offset is not None,
                          0 if ts_offset is None else <uint32_t>ts_offset, clock_rate_hz, arrival_ns)

    def map(self, int64_t ext_seq):
        """Return the output ext_seq, or a negative error code."""
        return projection_map(&self.p, ext_seq)

    def drop(self, int64_t ext_seq):
        """Tell that the source packet takes no number; return the one that was reserved for it, or -1."""
        return projection_drop(&self.p, ext_seq)

    def slew(self, uint32_t ts_offset, uint32_t clock_rate_hz=90000):
        """Tell the right offset; return whether it was heard."""
        return projection_slew(&self.p, ts_offset, clock_rate_hz)

    @property
    def offset(self):
        return projection_offset(&self.p)

    def send(self, uint32_t rtp_ts, int64_t arrival_ns):
        """Return the output timestamp and remember it as sent."""
        cdef FrameView view
        cdef uint32_t out = projection_ts(&self.p, rtp_ts)
        memset(&view, 0, sizeof(view))
        projection_sent(&self.p, rtp_ts, out, &view, self.p.picture_offset, arrival_ns)
        return out
