"""How much one path carries, from the feedback on what was sent over it: delay first, loss beside it.

After Google congestion control (draft-ietf-rmcat-gcc-02 and what libwebrtc made of it): groups of packets, a line through
their delays, a threshold that adapts; up slowly, down to a share of what arrived. Loss as a model of two causes, the path's
own and too high a rate. Sans-IO: the caller brings times and facts.
"""
from libc.stdint cimport uint8_t, int32_t, int64_t, uint32_t, uint64_t

cdef enum:
    RATE_BUCKETS = 25              # of 20 ms of arrivals
    TREND_POINTS = 20
    LOSS_PERIODS = 16

cdef enum PathUsage:
    USAGE_NORMAL = 0
    USAGE_OVER = 1                 # the queue grows
    USAGE_UNDER = 2                # it drains

ctypedef struct Arrivals:          # what arrived in the last half second, by arrival
    int64_t bytes[25]
    int64_t bucket                 # the newest, in 20 ms
    int64_t first_bucket           # since the estimator began
    uint8_t started

ctypedef struct DelayFloor:        # least one-way delays, on an offset of their own; each the least of two spans that follow each other
    int64_t recent_ns              # of about the last tenth of a second
    int64_t recent_before_ns
    int64_t recent_begin_ns
    int64_t base_ns                # of about the last twenty seconds: the path without a queue
    int64_t base_before_ns
    int64_t base_begin_ns
    uint8_t started

ctypedef struct PacketGroup:       # packets that left within one burst
    int64_t first_sent_ns
    int64_t last_sent_ns
    int64_t first_arrival_ns
    int64_t last_arrival_ns

ctypedef struct Trend:
    PacketGroup present
    PacketGroup last
    uint8_t has_present
    uint8_t has_last
    uint8_t usage                  # PathUsage
    int32_t points                 # in the arrays
    int32_t place                  # of the oldest
    int32_t deltas                 # seen, at most 60
    double times_ms[20]
    double delays_ms[20]
    int64_t begin_ns
    double delay_ms                # accumulated
    double smoothed_ms
    double threshold_ms
    double slope
    double over_ms                 # time over the threshold
    int32_t over_count
    int64_t judged_ns

ctypedef struct LossPeriod:
    int32_t sent
    int32_t lost
    double rate_bps                # at which it was sent

ctypedef struct LossModel:
    LossPeriod periods[16]
    int32_t count                  # filled
    int32_t place                  # of the oldest
    int32_t sent                   # of the period that runs
    int32_t lost
    int64_t bytes
    int64_t begin_ns               # of its first and last packets' departure
    int64_t end_ns
    double bound_bps               # 0: loss says nothing
    double inherent                # share that is lost at any rate

ctypedef struct Estimator:         # estimator_init before anything else
    double delay_bps               # what delay allows
    double most_bps
    double link_mean_bps           # what arrived whenever the queue grew; 0 unknown
    double link_deviation
    int64_t changed_ns             # when delay_bps was last moved
    int64_t fell_ns                # by overuse; 0 never
    double before_fall_bps
    int64_t rtt_ns
    uint8_t holds                  # the queue of the last overuse may still be there
    uint8_t is_limited             # the sender had less to send than it was allowed
    uint8_t is_probed              # a cluster is on the way: the queue is of our making, and short
    double acked_bps               # what arrived lately, with what is not reported; 0 unknown
    double beside_bps              # sent without numbers: sound, RTCP
    int64_t begun_ns               # first conclusion
    double loss_share              # of what was reported in the last second
    Arrivals arrivals
    DelayFloor floor
    Trend trend
    LossModel loss

cdef void estimator_init(Estimator* x, double start_bps, double most_bps) noexcept nogil
# A packet that arrived, in the order of numbers; times on two clocks.
cdef void estimator_arrived(Estimator* x, int64_t sent_ns, int64_t arrival_ns, int64_t size_bytes) noexcept nogil
cdef void estimator_missing(Estimator* x, int64_t sent_ns, int64_t size_bytes) noexcept nogil
# After all packets of one feedback: draw the conclusions.
cdef void estimator_conclude(Estimator* x, int64_t now_ns) noexcept nogil
# A probe measured that much: the path carries it.
cdef void estimator_probed(Estimator* x, double measured_bps, int64_t now_ns) noexcept nogil
# How long a packet waits at least that arrives now.
cdef int64_t estimator_standing_ns(const Estimator* x) noexcept nogil
# What may be sent: bits per second of datagrams with their headers.
cdef double estimator_bps(const Estimator* x) noexcept nogil
# What arrived in the last `span_ms` (20 to 500) before the newest arrival; 0 unknown.
cdef double arrivals_bps(const Arrivals* a, int span_ms) noexcept nogil
