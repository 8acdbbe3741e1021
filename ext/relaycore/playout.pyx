"""Playout delay under loss; the contract stands in playout.pxd.

A receiver plays a frame as soon as its jitter estimate lets it, and skips one of an upper temporal layer that is still
being repaired. libwebrtc adds a round trip where it has one, which a receive-only transport never does. We know how long a
repair takes, so we say it: webrtc.org's playout-delay extension carries a minimum and a maximum in 10 ms, 12 bits each.
"""
cimport cython
from libc.stdint cimport uint8_t, uint32_t, int64_t, uint64_t
from libc.string cimport memset
from relaycore.be cimport put_u24
from relaycore.units cimport ms

cdef enum:
    GAUGE_HALF_MS = 8000
    GAUGE_UNIT = 256
    LOSSY_LEVEL = 3 * 256          # as libwebrtc: one lost packet does not make a path lossy
    LOWER_EVERY_MS = 1000
    LOWER_STEP_MS = 20
    LONGEST_10MS = 1000            # the maximum told: libwebrtc's own, 10 s


cdef void _forget(LossGauge* g, int64_t now_ns) noexcept nogil:
    cdef int64_t halves = (now_ns - g.since_ns) // ms(GAUGE_HALF_MS)
    if halves <= 0:
        return
    g.level = g.level >> <uint32_t>halves if halves < 16 else 0
    g.since_ns += halves * ms(GAUGE_HALF_MS)


cdef void gauge_loss(LossGauge* g, int64_t now_ns) noexcept nogil:
    _forget(g, now_ns)
    if g.level == 0:
        g.since_ns = now_ns
    if g.level < 64 * GAUGE_UNIT:
        g.level += GAUGE_UNIT


cdef bint gauge_is_lossy(LossGauge* g, int64_t now_ns) noexcept nogil:
    _forget(g, now_ns)
    return g.level >= LOSSY_LEVEL


cdef void playout_update(Playout* p, int64_t upstream_ns, int64_t downstream_ns, int64_t now_ns) noexcept nogil:
    cdef int64_t wanted_ms = (upstream_ns + downstream_ns + 9999999) // 10000000 * 10
    if wanted_ms > PLAYOUT_MAX_MS:
        wanted_ms = PLAYOUT_MAX_MS
    if wanted_ms >= <int64_t>p.delay_ms:
        if wanted_ms:
            p.is_told = 1
        p.delay_ms = <uint32_t>wanted_ms
        p.lowered_ns = now_ns
    elif now_ns - p.lowered_ns >= ms(LOWER_EVERY_MS):
        # In small steps: each one makes the receiver play a little faster for a moment.
        p.delay_ms = <uint32_t>max(wanted_ms, <int64_t>p.delay_ms - LOWER_STEP_MS)
        p.lowered_ns = now_ns


cdef void playout_write(const Playout* p, uint8_t* dst) noexcept nogil:
    put_u24(dst, (p.delay_ms // 10u) << 12 | <uint32_t>LONGEST_10MS)


@cython.final
cdef class PlayoutFace:
    """Test face: a gauge and a delay driven from Python."""
    cdef LossGauge g
    cdef Playout p

    def __cinit__(self):
        memset(&self.g, 0, sizeof(LossGauge))
        memset(&self.p, 0, sizeof(Playout))

    def loss(self, int64_t now_ns):
        gauge_loss(&self.g, now_ns)

    def is_lossy(self, int64_t now_ns):
        return bool(gauge_is_lossy(&self.g, now_ns))

    def update(self, int64_t upstream_ns, int64_t downstream_ns, int64_t now_ns):
        """Return the delay in ms."""
        playout_update(&self.p, upstream_ns, downstream_ns, now_ns)
        return self.p.delay_ms

    def write(self):
        cdef uint8_t data[3]
        playout_write(&self.p, data)
        return bytes([data[0], data[1], data[2]])
