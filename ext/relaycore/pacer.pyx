"""Budgets of one transport; the contract stands in pacer.pxd.

Media (DESIGN section 4): unpaced while under 2.5 times the estimate over 40 ms, so that a keyframe leaves in a fortieth of a
second at most, else in quanta of 5 ms. Repair (RTX) always in quanta, and from what media leaves of the estimate: what a full
queue drops and is sent again on top would keep that queue full.
What comes from a keyframe cache is media in quanta: at less than the rate of media it would never reach the live packets.
"""
cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset
from relaycore.units cimport ms

cdef enum:
    MEDIA_GAIN_PERCENT = 250
    # A tenth of the estimate is repair's own, or a path that media fills would get none.
    MEDIA_SHARE_PERCENT = 90
    REPAIR_WAITS_MS = 50           # for one burst of media, at most
    # Repair while nobody knows the path: a tenth of 80 Mbit/s, more than a full grid of video loses at 10 %.
    REPAIR_UNKNOWN_BPS = 8000000


cdef inline int64_t _cost_ns(int64_t size_bytes, uint64_t rate_bps) noexcept nogil:
    return <int64_t>(<uint64_t>size_bytes * 8000000000u // rate_bps)


cdef inline uint64_t _media_rate(const Pacer* p) noexcept nogil:
    return p.rate_bps * MEDIA_GAIN_PERCENT // 100u


cdef inline uint64_t _repair_rate(const Pacer* p) noexcept nogil:
    if p.rate_bps == 0:
        return <uint64_t>REPAIR_UNKNOWN_BPS
    return p.repair_bps if p.repair_bps else p.rate_bps


cdef int64_t pacer_media_due(const Pacer* p, int64_t now_ns) noexcept nogil:
    if p.rate_bps == 0 or p.media_paid_ns - now_ns <= ms(PACER_BURST_MS):
        return 0
    return p.media_paid_ns - ms(PACER_BURST_MS - PACER_QUANTUM_MS)


cdef int64_t pacer_repair_due(const Pacer* p, int64_t now_ns) noexcept nogil:
    return 0 if p.repair_paid_ns - now_ns <= ms(PACER_QUANTUM_MS) else p.repair_paid_ns


cdef int64_t pacer_replay_due(const Pacer* p, int64_t now_ns) noexcept nogil:
    if p.rate_bps == 0:
        return pacer_repair_due(p, now_ns)
    return 0 if p.media_paid_ns - now_ns <= ms(PACER_QUANTUM_MS) else p.media_paid_ns


cdef void pacer_pay_media(Pacer* p, int64_t size_bytes, int64_t now_ns) noexcept nogil:
    if p.rate_bps == 0:
        return
    if p.media_paid_ns < now_ns:
        p.media_paid_ns = now_ns
    p.media_paid_ns += _cost_ns(size_bytes, _media_rate(p))
    if p.repair_paid_ns < now_ns:
        p.repair_paid_ns = now_ns
    if p.repair_paid_ns < now_ns + ms(REPAIR_WAITS_MS):
        # Of the estimate, also while a queue drains: by what repair has then, media alone would take all there is, and what was
        # lost behind a keyframe were asked for in vain until its receiver gave up.
        p.repair_paid_ns += _cost_ns(size_bytes, p.rate_bps) * MEDIA_SHARE_PERCENT // 100


cdef void pacer_pay_repair(Pacer* p, int64_t size_bytes, int64_t now_ns) noexcept nogil:
    if p.repair_paid_ns < now_ns:
        p.repair_paid_ns = now_ns
    p.repair_paid_ns += _cost_ns(size_bytes, _repair_rate(p))


cdef void pacer_pay_replay(Pacer* p, int64_t size_bytes, int64_t now_ns) noexcept nogil:
    if p.rate_bps == 0:
        pacer_pay_repair(p, size_bytes, now_ns)


@cython.final
cdef class PacerFace:
    """Test face: one `Pacer` driven from Python. rate_bps 0 = unknown, repair_bps 0 = as rate_bps."""
    cdef Pacer p

    def __cinit__(self, uint64_t rate_bps=0, uint64_t repair_bps=0):
        memset(&self.p, 0, sizeof(Pacer))
        self.p.rate_bps = rate_bps
        self.p.repair_bps = repair_bps

    def media_due(self, int64_t now_ns):
        return pacer_media_due(&self.p, now_ns)

    def repair_due(self, int64_t now_ns):
        return pacer_repair_due(&self.p, now_ns)

    def replay_due(self, int64_t now_ns):
        return pacer_replay_due(&self.p, now_ns)

    def pay_replay(self, int64_t size_bytes, int64_t now_ns):
        pacer_pay_replay(&self.p, size_bytes, now_ns)

    def pay_media(self, int64_t size_bytes, int64_t now_ns):
        pacer_pay_media(&self.p, size_bytes, now_ns)

    def pay_repair(self, int64_t size_bytes, int64_t now_ns):
        pacer_pay_repair(&self.p, size_bytes, now_ns)
