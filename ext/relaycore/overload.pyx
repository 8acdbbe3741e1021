"""Overload: noticed by lag, relieved by leaving out video; the contract stands in overload.pxd.

A relay that cannot keep up lets the kernel's queue overflow, which loses voices like anything else. So the worst wait is judged
over spans of 40 ms: two in a row above a threshold raise the level, a calm that lasts lowers it by one. Every return from
OVERLOAD_VIDEO costs each subscriber a keyframe; where it does not last, the next one comes later.
A stream's frames are shed whole: what holds for a frame is decided at its first packet, late packets of earlier frames are
judged by what held then. A temporal layer comes back where its sender says that one may switch up to it, at a keyframe at the
latest, since other frames of it build on what was left out.
"""
cimport cython
from libc.stdint cimport uint8_t, uint32_t, int64_t
from libc.string cimport memset
from relaycore.units cimport ms

cdef enum:
    SPAN_MS = 40                   # a thread that the machine held up for a moment has caught up in less
    SPANS = 2
    VIDEO_FACTOR = 3               # the second level begins at three times the lag of the first
    CALM_PART = 4                  # calm is a quarter of it
    LAYERS_HOLD_MS = 500
    HOLD_MS = 1000
    HOLD_LIMIT_MS = 8000
    RELAPSE_MS = 10000             # a rise so soon after a fall doubles the hold
    LAYERS = 8


cdef void _fall(Overload* o, int64_t now_ns) noexcept nogil:
    if o.level == OVERLOAD_VIDEO:
        o.fell_ns = now_ns
    o.level -= 1
    o.calm_since_ns = now_ns
    o.spans_above = 0


cdef void _rise(Overload* o, int64_t now_ns) noexcept nogil:
    o.level += 1
    o.spans_above = 0
    o.calm_since_ns = 0
    if o.level == OVERLOAD_VIDEO:
        if o.fell_ns and now_ns - o.fell_ns < ms(RELAPSE_MS):
            o.hold_ns = min(2 * o.hold_ns, ms(HOLD_LIMIT_MS))
        else:
            o.hold_ns = ms(HOLD_MS)


cdef bint _judge(Overload* o, int64_t now_ns) noexcept nogil:
    """Judge the span that has ended."""
    cdef int64_t threshold = o.limit_ns if o.level == OVERLOAD_NONE else VIDEO_FACTOR * o.limit_ns
    if o.worst_ns * CALM_PART < o.limit_ns:
        if o.calm_since_ns == 0:
            o.calm_since_ns = now_ns
    else:
        o.calm_since_ns = 0
    if o.level < OVERLOAD_VIDEO and o.worst_ns >= threshold:
        o.spans_above += 1
        if o.spans_above >= SPANS:
            _rise(o, now_ns)
            return True
        return False
    o.spans_above = 0
    if o.level and o.calm_since_ns and now_ns - o.calm_since_ns >= (o.hold_ns if o.level == OVERLOAD_VIDEO else ms(LAYERS_HOLD_MS)):
        _fall(o, now_ns)
        return True
    return False


cdef bint overload_feel(Overload* o, int64_t lag_ns, int64_t now_ns) noexcept nogil:
    cdef bint changed = False
    if o.limit_ns == 0:
        return False
    if now_ns >= o.span_ends_ns:
        changed = _judge(o, now_ns)
        o.worst_ns = 0
        o.span_ends_ns = now_ns + ms(SPAN_MS)
    o.worst_ns = max(o.worst_ns, lag_ns)
    return changed


cdef void overload_hear(Overload* o, int64_t lag_ns) noexcept nogil:
    o.worst_ns = max(o.worst_ns, lag_ns)


cdef uint8_t _hidden(const Shedding* s, int level, const FrameView* v) noexcept nogil:
    """Return what stays out from this frame on."""
    if level == OVERLOAD_VIDEO:
        return LAYERS
    if level == OVERLOAD_LAYERS:
        return LAYERS - 1
    # After a standstill whoever is shown the stream waits for a keyframe anyway.
    if s.hidden == LAYERS or (v.keyframe and v.start_of_frame):
        return 0
    if v.switch_up and v.temporal_id + s.hidden >= LAYERS:
        return <uint8_t>(LAYERS - 1 - v.temporal_id)
    return s.hidden


cdef int shed_judge(Shedding* s, int level, const FrameView* v, uint32_t rtp_ts, int64_t ext_seq, bint* changed) noexcept nogil:
    cdef uint8_t hidden
    changed[0] = False
    if not s.started or (ext_seq > s.newest_seq and rtp_ts != s.rtp_ts):
        s.started = 1
        s.rtp_ts = rtp_ts
        hidden = _hidden(s, level, v)
        if hidden != s.hidden:
            changed[0] = (hidden == LAYERS) != (s.hidden == LAYERS)
            s.hidden_before = s.hidden
            s.hidden = hidden
            s.since_seq = ext_seq
    s.newest_seq = max(s.newest_seq, ext_seq)
    hidden = s.hidden if ext_seq >= s.since_seq else s.hidden_before
    if hidden == LAYERS:
        return SHED_ALL
    if v.temporal_id + hidden >= LAYERS or (v.discardable and hidden == LAYERS - 1):
        return SHED_LAYER
    return SHED_NOT


@cython.final
cdef class OverloadFace:
    """Test face: an engine's level, and one stream under it."""
    cdef Overload o
    cdef Shedding s

    def __cinit__(self, int64_t limit_ns):
        memset(&self.o, 0, sizeof(Overload))
        memset(&self.s, 0, sizeof(Shedding))
        self.o.limit_ns = limit_ns

    def feel(self, int64_t lag_ns, int64_t now_ns):
        return bool(overload_feel(&self.o, lag_ns, now_ns))

    @property
    def level(self):
        return self.o.level

    def judge(self, int level, uint32_t rtp_ts, int64_t ext_seq, *, int temporal_id=0, bint switch_up=False, bint keyframe=False,
              bint discardable=False):
        """Return the verdict and whether the stream stopped or went on."""
        cdef FrameView v
        cdef bint changed = False
        cdef int verdict
        memset(&v, 0, sizeof(FrameView))
        v.start_of_frame = 1
        v.temporal_id = <uint8_t>(temporal_id & 7)
        v.switch_up = 1 if switch_up else 0
        v.keyframe = 1 if keyframe else 0
        v.discardable = 1 if discardable else 0
        verdict = shed_judge(&self.s, level, &v, rtp_ts, ext_seq, &changed)
        return verdict, bool(changed)
