"""How long a subscriber should hold video back so that repairs come in time (RTP extension playout-delay)."""
from libc.stdint cimport uint8_t, uint32_t, int64_t

cdef enum:
    PLAYOUT_MAX_MS = 400           # beyond that a late picture is better than a late answer
    PLAYOUT_EXT_BYTES = 3

ctypedef struct LossGauge:         # zero-initialise: losses of late, each forgotten by half in GAUGE_HALF_MS
    int64_t since_ns
    uint32_t level                 # in 1/256

ctypedef struct Playout:           # zero-initialise
    uint8_t is_told                # the receiver was given a value once: it must be told of 0 too
    uint32_t delay_ms              # present minimum, a multiple of 10
    int64_t lowered_ns

cdef void gauge_loss(LossGauge* g, int64_t now_ns) noexcept nogil
cdef bint gauge_is_lossy(LossGauge* g, int64_t now_ns) noexcept nogil
# What repair takes on the two paths (0 = that path loses nothing) becomes the delay: raised at once, lowered slowly.
cdef void playout_update(Playout* p, int64_t upstream_ns, int64_t downstream_ns, int64_t now_ns) noexcept nogil
cdef void playout_write(const Playout* p, uint8_t* dst) noexcept nogil          # PLAYOUT_EXT_BYTES
