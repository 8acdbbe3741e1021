"""How fast one transport may send: budgets for media and for repair, as virtual scheduling (GCRA, ITU-T I.371 annex A).

A budget is one time: up to when what was sent has been paid for. Sending n bytes moves it on by their time at the rate.
"""
from libc.stdint cimport int64_t, uint64_t

cdef enum:
    PACER_BURST_MS = 40            # media goes out at once while at most this much is unpaid
    PACER_QUANTUM_MS = 5           # after that, what is sent at a time

ctypedef struct Pacer:             # zero-initialise: no estimate, media unpaced
    uint64_t rate_bps              # what the path is believed to carry; 0 = nobody knows
    uint64_t repair_bps            # what media and repair may take together; 0 = as rate_bps
    int64_t media_paid_ns
    int64_t repair_paid_ns

# 0 = may send now; else the time (ns) from which a quantum may go.
cdef int64_t pacer_media_due(const Pacer* p, int64_t now_ns) noexcept nogil
cdef int64_t pacer_repair_due(const Pacer* p, int64_t now_ns) noexcept nogil
# Of what a keyframe cache holds: never more than a quantum at a time, yet faster than it grows.
cdef int64_t pacer_replay_due(const Pacer* p, int64_t now_ns) noexcept nogil
cdef void pacer_pay_media(Pacer* p, int64_t size_bytes, int64_t now_ns) noexcept nogil
cdef void pacer_pay_repair(Pacer* p, int64_t size_bytes, int64_t now_ns) noexcept nogil
cdef void pacer_pay_replay(Pacer* p, int64_t size_bytes, int64_t now_ns) noexcept nogil    # beside pacer_pay_media
