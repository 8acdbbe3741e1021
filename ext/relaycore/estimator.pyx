"""Bandwidth estimation of one transport; the contract stands in estimator.pxd.

Delay: draft-ietf-rmcat-gcc-02 sections 5.1 to 5.5, with the line through the last 20 groups that libwebrtc has in the place
of the Kalman filter. Loss: what is lost at rate r is inherent + (1 - inherent) (1 - capacity / r) above capacity; of a few
capacities around the present one, the likeliest is taken (the idea of libwebrtc's second loss-based estimator).
"""
cimport cython
from libc.math cimport fabs, log, sqrt
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memset
from relaycore.units cimport ms

cdef enum:
    BURST_MS = 5                   # what leaves within it is one group
    BUCKET_MS = 20
    ACKED_MS = 500                 # over which what arrived is measured; at a fall the present counts:
    ACKED_SHORT_MS = 100
    MOST_DELTAS = 60
    OVER_MS = 10                   # that long over the threshold is overuse
    RESET_MS = 3000                # a pause, or a clock that jumped
    PERIOD_MS = 250
    PERIOD_LEAST = 20              # packets
    RESPONSE_MS = 100              # that an estimator takes, beside the round trip (section 5.5)
    RTT_UNKNOWN_MS = 100
    RECENT_MS = 60                 # two of these: frames of a few images, between which a queue that only bursts make is empty
    BASE_MS = 10000                # clocks drift a few ms in two of these
    STANDING_MS = 10               # a queue that never is shorter than this, and half a packet, stands
    PROBED_MS = 40
    LONG_MS = 40
    HEAVY_MS = 100
    LONG_PACE_MS = 1000
    STEADY_MS = 5000               # after a fall; a queue of 300 ms takes two seconds to drain
    START_MS = 500                 # for so long what arrives is believed at once
    MEASURED_PACKETS = 8           # that a fall is measured by, at least

cdef double SMOOTHING = 0.9
cdef double GAIN = 4.0
# The threshold follows slopes up slowly and down quickly, so that a loss-based flow beside us does not starve us (section 5.4).
cdef double FOLLOW_UP = 0.0087
cdef double FOLLOW_DOWN = 0.039
cdef double THRESHOLD_FIRST_MS = 12.5
cdef double THRESHOLD_LEAST_MS = 6.0
cdef double THRESHOLD_MOST_MS = 600.0
cdef double THRESHOLD_JUMP_MS = 15.0
cdef double BACK_OFF = 0.87
cdef double LIMITED_KEEPS = 1.1
cdef double GROWTH = 1.08          # a second, while the capacity is not known
# A second, while it is: 50 kbit/s at 1 Mbit/s.
cdef double NEAR_STEP = 50.0
cdef double NEAR_MOST = 0.06
cdef double LEAST_BPS = 30000.0
cdef double PACKET_BITS = 9600.0
# Loss below this is nobody's fault: no path is lowered for it.
cdef double LOSS_IGNORED = 0.02
cdef double INHERENT_MOST = 0.3


# --- what arrived ---------------------------------------------------------------------------------------------------

cdef void _count_arrival(Arrivals* a, int64_t arrival_ns, int64_t size_bytes) noexcept nogil:
    cdef int64_t bucket = arrival_ns // ms(BUCKET_MS)
    cdef int64_t i
    if not a.started or bucket >= a.bucket + RATE_BUCKETS or bucket <= a.bucket - RATE_BUCKETS:
        memset(a, 0, sizeof(Arrivals))
        a.started = 1
        a.first_bucket = bucket
        a.bucket = bucket
    for i in range(a.bucket + 1, bucket + 1):
        a.bytes[i % RATE_BUCKETS] = 0
    a.bucket = max(a.bucket, bucket)
    a.bytes[bucket % RATE_BUCKETS] += size_bytes


cdef double arrivals_bps(const Arrivals* a, int span_ms) noexcept nogil:
    cdef int64_t count = min(max(1, span_ms // BUCKET_MS), <int>RATE_BUCKETS)
    cdef int64_t total = 0
    cdef int64_t i
    # The newest bucket is still filling.
    count = min(count, a.bucket - a.first_bucket)
    if not a.started or count < 1:
        return 0.0
    for i in range(a.bucket - count, a.bucket):
        total += a.bytes[i % RATE_BUCKETS]
    return <double>total * 8000.0 / <double>(count * BUCKET_MS)


# --- queue ---------------------------------------------------------------------------------------------------------

cdef void _note_delay(DelayFloor* f, int64_t delay_ns, int64_t arrival_ns) noexcept nogil:
    if not f.started or arrival_ns - f.recent_begin_ns > ms(RESET_MS) or arrival_ns < f.base_begin_ns:
        # After a pause the recent past is this packet's; what the path is without a queue stays known.
        if not f.started or arrival_ns < f.base_begin_ns:
            f.base_ns = delay_ns
            f.base_before_ns = delay_ns
            f.base_begin_ns = arrival_ns
        f.recent_ns = delay_ns
        f.recent_before_ns = delay_ns
        f.recent_begin_ns = arrival_ns
        f.started = 1
    if arrival_ns - f.recent_begin_ns > ms(RECENT_MS):
        f.recent_before_ns = f.recent_ns
        f.recent_ns = delay_ns
        f.recent_begin_ns = arrival_ns
    if arrival_ns - f.base_begin_ns > ms(BASE_MS):
        f.base_before_ns = f.base_ns
        f.base_ns = delay_ns
        f.base_begin_ns = arrival_ns
    f.recent_ns = min(f.recent_ns, delay_ns)
    f.base_ns = min(f.base_ns, delay_ns)


cdef int64_t estimator_standing_ns(const Estimator* x) noexcept nogil:
    return min(x.floor.recent_ns, x.floor.recent_before_ns) - min(x.floor.base_ns, x.floor.base_before_ns)


cdef bint _stands(const Estimator* x) noexcept nogil:
    """Whether there is a queue that does not empty between bursts."""
    return (<double>(estimator_standing_ns(x) - (ms(PROBED_MS) if x.is_probed else 0))
            > <double>ms(STANDING_MS) + PACKET_BITS / 2.0 * 1e9 / x.delay_bps)


# --- delay ----------------------------------------------------------------------------------------------------------

cdef double _slope(const Trend* t) noexcept nogil:
    """Return the least-squares slope of delay over time, 0 where all times are one."""
    cdef double x = 0.0
    cdef double y = 0.0
    cdef double above = 0.0
    cdef double below = 0.0
    cdef int32_t i
    for i in range(t.points):
        x += t.times_ms[i]
        y += t.delays_ms[i]
    x /= t.points
    y /= t.points
    for i in range(t.points):
        above += (t.times_ms[i] - x) * (t.delays_ms[i] - y)
        below += (t.times_ms[i] - x) * (t.times_ms[i] - x)
    return above / below if below > 0.0 else 0.0


cdef void _judge(Trend* t, double sent_delta_ms, int64_t arrival_ns) noexcept nogil:
    """Compare the slope with the threshold, and let that follow."""
    cdef double modified = min(t.deltas, <int32_t>MOST_DELTAS) * t.slope * GAIN
    cdef double elapsed_ms
    if t.deltas < 2:
        t.usage = USAGE_NORMAL
        return
    if modified > t.threshold_ms:
        t.over_ms = t.over_ms + sent_delta_ms if t.over_count else sent_delta_ms / 2.0
        t.over_count += 1
        if t.over_ms > OVER_MS and t.over_count > 1:
            t.over_ms = 0.0
            t.over_count = 0
            t.usage = USAGE_OVER
    elif modified < -t.threshold_ms:
        t.over_ms = 0.0
        t.over_count = 0
        t.usage = USAGE_UNDER
    else:
        t.over_ms = 0.0
        t.over_count = 0
        t.usage = USAGE_NORMAL
    elapsed_ms = min(100.0, <double>(arrival_ns - t.judged_ns) / 1e6) if t.judged_ns else 0.0
    t.judged_ns = arrival_ns
    # A jump, of a route or of a Wi-Fi link that slept, is not followed.
    if fabs(modified) > t.threshold_ms + THRESHOLD_JUMP_MS:
        return
    t.threshold_ms += ((FOLLOW_DOWN if fabs(modified) < t.threshold_ms else FOLLOW_UP)
                       * (fabs(modified) - t.threshold_ms) * elapsed_ms)
    t.threshold_ms = min(max(t.threshold_ms, THRESHOLD_LEAST_MS), THRESHOLD_MOST_MS)


cdef void _add_delta(Trend* t, double sent_delta_ms, double arrival_delta_ms, int64_t arrival_ns) noexcept nogil:
    cdef double before = t.slope
    cdef int32_t at
    if t.deltas == 0:
        t.begin_ns = arrival_ns
    t.deltas = <int32_t>min(t.deltas + 1, 1000)
    t.delay_ms += arrival_delta_ms - sent_delta_ms
    t.smoothed_ms = SMOOTHING * t.smoothed_ms + (1.0 - SMOOTHING) * t.delay_ms
    at = t.place if t.points == TREND_POINTS else t.points
    t.times_ms[at] = <double>(arrival_ns - t.begin_ns) / 1e6
    t.delays_ms[at] = t.smoothed_ms
    if t.points == TREND_POINTS:
        t.place = <int32_t>((t.place + 1) % TREND_POINTS)
        t.slope = _slope(t)
    else:
        t.points += 1
    _judge(t, sent_delta_ms, arrival_ns)
    # A queue that has begun to drain needs no further step down.
    if t.usage == USAGE_OVER and t.slope < before:
        t.usage = USAGE_NORMAL


cdef void _reset(Trend* t) noexcept nogil:
    cdef double threshold_ms = t.threshold_ms
    memset(t, 0, sizeof(Trend))
    t.threshold_ms = threshold_ms


cdef bint _is_same_group(const PacketGroup* g, int64_t sent_ns, int64_t arrival_ns) noexcept nogil:
    """Whether a packet belongs to the present group: it left in the same burst, or what queued up came out in one go."""
    cdef int64_t sent_delta = sent_ns - g.last_sent_ns
    cdef int64_t arrival_delta = arrival_ns - g.last_arrival_ns
    if sent_ns - g.first_sent_ns <= ms(BURST_MS):
        return True
    return (arrival_delta < sent_delta and arrival_delta <= ms(BURST_MS)
            and arrival_ns - g.first_arrival_ns < ms(100))


cdef void _add_packet(Trend* t, int64_t sent_ns, int64_t arrival_ns) noexcept nogil:
    cdef PacketGroup* g = &t.present
    if t.has_present and (sent_ns < g.first_sent_ns or _is_same_group(g, sent_ns, arrival_ns)):
        # What was overtaken says nothing about the queue.
        if sent_ns >= g.first_sent_ns:
            g.last_sent_ns = max(g.last_sent_ns, sent_ns)
            g.last_arrival_ns = max(g.last_arrival_ns, arrival_ns)
        return
    if t.has_present and t.has_last:
        if sent_ns - g.last_sent_ns > ms(RESET_MS) or fabs(<double>(arrival_ns - g.last_arrival_ns)) > <double>ms(RESET_MS):
            _reset(t)
            g = &t.present
        elif g.last_arrival_ns >= t.last.last_arrival_ns:
            _add_delta(t, <double>(g.last_sent_ns - t.last.last_sent_ns) / 1e6,
                       <double>(g.last_arrival_ns - t.last.last_arrival_ns) / 1e6, g.last_arrival_ns)
    if t.has_present:
        t.last = g[0]
        t.has_last = 1
    g.first_sent_ns = sent_ns
    g.last_sent_ns = sent_ns
    g.first_arrival_ns = arrival_ns
    g.last_arrival_ns = arrival_ns
    t.has_present = 1


# --- loss -----------------------------------------------------------------------------------------------------------

cdef double _inherent_of(const LossModel* l, double capacity_bps) noexcept nogil:
    """Return the share lost at any rate that explains the periods best, given the capacity."""
    cdef double lost = 0.0
    cdef double room = 0.0
    cdef double own
    cdef int32_t i
    for i in range(l.count):
        own = max(0.0, 1.0 - capacity_bps / l.periods[i].rate_bps)
        lost += l.periods[i].lost - l.periods[i].sent * own
        room += l.periods[i].sent * (1.0 - own)
    return min(max(lost / room, 0.0), INHERENT_MOST) if room > 0.0 else 0.0


cdef double _likelihood(const LossModel* l, double capacity_bps, double inherent) noexcept nogil:
    cdef double total = 0.0
    cdef double share
    cdef int32_t i
    for i in range(l.count):
        share = inherent + (1.0 - inherent) * max(0.0, 1.0 - capacity_bps / l.periods[i].rate_bps)
        share = min(max(share, 0.001), 0.999)
        total += l.periods[i].lost * log(share) + (l.periods[i].sent - l.periods[i].lost) * log(1.0 - share)
    return total


cdef void _close_period(Estimator* x) noexcept nogil:
    """Take the period that ran into the model, and choose the capacity anew."""
    cdef LossModel* l = &x.loss
    cdef LossPeriod* p = &l.periods[l.place if l.count == LOSS_PERIODS else l.count]
    cdef double candidates[6]
    cdef double best = 0.0
    cdef double best_value = 0.0
    cdef double inherent, value
    cdef double sent = 0.0
    cdef double lost = 0.0
    cdef int32_t i, recent
    p.sent = l.sent
    p.lost = l.lost
    p.rate_bps = max(<double>l.bytes * 8e9 / <double>max(l.end_ns - l.begin_ns, ms(BURST_MS)) + x.beside_bps, LEAST_BPS)
    if l.count == LOSS_PERIODS:
        l.place = <int32_t>((l.place + 1) % LOSS_PERIODS)
    else:
        l.count += 1
    l.sent = 0
    l.lost = 0
    l.bytes = 0
    recent = min(l.count, <int32_t>4)
    for i in range(recent):
        p = &l.periods[(l.place + l.count - 1 - i) % l.count if l.count == LOSS_PERIODS else l.count - 1 - i]
        sent += p.sent
        lost += p.lost
    x.loss_share = lost / sent if sent > 0.0 else 0.0
    if x.loss_share < LOSS_IGNORED and l.bound_bps == 0.0:
        return
    # No bound, the present one and its neighbours, and what arrived.
    candidates[0] = x.most_bps
    candidates[1] = l.bound_bps * 1.05 if l.bound_bps > 0.0 else x.delay_bps
    candidates[2] = l.bound_bps if l.bound_bps > 0.0 else x.delay_bps * 0.95
    candidates[3] = candidates[2] * 0.92
    candidates[4] = x.acked_bps if x.acked_bps > 0.0 else candidates[2]
    candidates[5] = candidates[4] * 0.85
    for i in range(6):
        inherent = _inherent_of(l, candidates[i])
        # A little for the higher: of two that explain as much, the path deserves it.
        value = _likelihood(l, candidates[i], inherent) + 1.5 * log(candidates[i])
        if i == 0 or value > best_value:
            best = candidates[i]
            best_value = value
            l.inherent = inherent
    # A second without loss is no reason to go down, whatever older periods say while they go out of the model.
    if x.loss_share < LOSS_IGNORED:
        best = max(best, l.bound_bps)
    l.bound_bps = 0.0 if best >= x.most_bps else max(best, LEAST_BPS)


cdef void _count_loss(Estimator* x, int64_t sent_ns, int64_t size_bytes, bint is_lost) noexcept nogil:
    cdef LossModel* l = &x.loss
    if l.sent == 0:
        l.begin_ns = sent_ns
        l.end_ns = sent_ns
    l.sent += 1
    l.lost += is_lost
    l.bytes += size_bytes
    l.end_ns = max(l.end_ns, sent_ns)
    if l.sent >= PERIOD_LEAST and l.end_ns - l.begin_ns >= ms(PERIOD_MS):
        _close_period(x)


# --- the estimate ---------------------------------------------------------------------------------------------------

cdef void estimator_init(Estimator* x, double start_bps, double most_bps) noexcept nogil:
    memset(x, 0, sizeof(Estimator))
    x.delay_bps = start_bps
    x.most_bps = most_bps
    x.rtt_ns = ms(RTT_UNKNOWN_MS)
    x.trend.threshold_ms = THRESHOLD_FIRST_MS


cdef void estimator_arrived(Estimator* x, int64_t sent_ns, int64_t arrival_ns, int64_t size_bytes) noexcept nogil:
    _count_arrival(&x.arrivals, arrival_ns, size_bytes)
    _note_delay(&x.floor, arrival_ns - sent_ns, arrival_ns)
    _add_packet(&x.trend, sent_ns, arrival_ns)
    _count_loss(x, sent_ns, size_bytes, False)


cdef void estimator_missing(Estimator* x, int64_t sent_ns, int64_t size_bytes) noexcept nogil:
    _count_loss(x, sent_ns, size_bytes, True)


cdef void _learn_link(Estimator* x, double measured_bps) noexcept nogil:
    """Remember what arrived when the queue grew: near that, steps up are small (section 5.5)."""
    cdef double error
    if x.link_mean_bps == 0.0:
        x.link_mean_bps = measured_bps
        x.link_deviation = 0.1
        return
    error = measured_bps / x.link_mean_bps - 1.0
    x.link_mean_bps += 0.1 * (measured_bps - x.link_mean_bps)
    x.link_deviation = min(max(sqrt(0.9 * x.link_deviation * x.link_deviation + 0.1 * error * error), 0.05), 0.25)


cdef bint _is_near_link(const Estimator* x, double bps) noexcept nogil:
    return x.link_mean_bps > 0.0 and fabs(bps / x.link_mean_bps - 1.0) <= 3.0 * x.link_deviation


cdef void _fall(Estimator* x, int64_t now_ns) noexcept nogil:
    cdef double span_ms = min(max(MEASURED_PACKETS * PACKET_BITS * 1000.0 / x.delay_bps, <double>ACKED_SHORT_MS), <double>ACKED_MS)
    cdef double measured = arrivals_bps(&x.arrivals, <int>span_ms)
    cdef double lower
    # A tenth of a second is a few frames, of which others on the path may have delayed one: only a long queue is judged by it.
    if estimator_standing_ns(x) < ms(HEAVY_MS):
        measured = max(measured, arrivals_bps(&x.arrivals, ACKED_MS))
    measured = measured + x.beside_bps if measured > 0.0 else x.delay_bps
    if x.link_mean_bps > 0.0 and not _is_near_link(x, measured):
        # The path has changed: what was known of it is worth nothing.
        x.link_mean_bps = 0.0
    lower = BACK_OFF * measured
    # Who was allowed more than he sent is not thrown down to what he happened to send.
    if x.is_limited and estimator_standing_ns(x) < ms(HEAVY_MS):
        lower = max(lower, LIMITED_KEEPS * measured)
    if x.is_limited and x.link_mean_bps > 0.0:
        lower = max(lower, BACK_OFF * min(x.link_mean_bps, x.delay_bps))
    if lower < x.delay_bps:
        x.before_fall_bps = x.delay_bps
        x.delay_bps = lower
        x.fell_ns = now_ns
    if not x.is_limited:
        _learn_link(x, measured)
    x.holds = 1


cdef void _rise(Estimator* x, int64_t now_ns) noexcept nogil:
    cdef double elapsed_s = min(1.0, <double>(now_ns - x.changed_ns) / 1e9)
    cdef double most = 1.5 * x.acked_bps + 10000.0
    cdef double risen = x.delay_bps
    cdef int32_t i
    if x.link_mean_bps > 0.0 and x.acked_bps > x.link_mean_bps * (1.0 + 3.0 * x.link_deviation):
        x.link_mean_bps = 0.0
    if _is_near_link(x, x.delay_bps):
        # Less than in proportion, so that of two flows on a path the smaller gains on the larger; not so little that the way
        # back up from a fall is long.
        risen += min(NEAR_STEP * sqrt(x.delay_bps), NEAR_MOST * x.delay_bps) * elapsed_s
    else:
        risen += (GROWTH - 1.0) * x.delay_bps * elapsed_s
    # Nobody knows more of a path than was tried on it.
    if risen > most:
        risen = max(x.delay_bps, most) if x.delay_bps < most else x.delay_bps
    x.delay_bps = min(risen, x.most_bps)


cdef void estimator_conclude(Estimator* x, int64_t now_ns) noexcept nogil:
    x.acked_bps = arrivals_bps(&x.arrivals, ACKED_MS)
    if x.acked_bps > 0.0:
        x.acked_bps += x.beside_bps
    if x.changed_ns == 0:
        x.changed_ns = now_ns
        x.begun_ns = now_ns
    if now_ns - x.begun_ns < ms(START_MS) and x.fell_ns == 0 and x.acked_bps > 0.0:
        # Nobody knows more than what arrives; over a queue that is the path's rate.
        x.delay_bps = BACK_OFF * x.acked_bps if _stands(x) else max(x.delay_bps, x.acked_bps)
    # What bursts make grow and what empties between them is no overuse. A long queue is, whoever saw it grow: all flows
    # over it fall then, and the larger ones by more.
    if (x.trend.usage == USAGE_OVER and _stands(x)) or (
            x.trend.usage != USAGE_UNDER and estimator_standing_ns(x) > ms(LONG_MS) and not x.is_probed
            and now_ns - x.fell_ns > ms(LONG_PACE_MS)):
        # Once per response: what is measured before that is still the queue of the rate before.
        if not x.holds or now_ns - x.fell_ns > x.rtt_ns + ms(RESPONSE_MS):
            _fall(x, now_ns)
    elif x.trend.usage == USAGE_UNDER:
        # The queue drains; only when it is empty does a rise tell anything.
        x.holds = 0
    elif now_ns - x.fell_ns < ms(STEADY_MS) and x.fell_ns and _stands(x):
        # It has to drain first. One that stands for longer is somebody else's: who waited for that would never rise again.
        x.holds = 0
    elif x.is_limited:
        # Who sends little learns nothing of the path; probes do.
        x.holds = 0
    else:
        x.holds = 0
        _rise(x, now_ns)
    x.changed_ns = now_ns


cdef void estimator_probed(Estimator* x, double measured_bps, int64_t now_ns) noexcept nogil:
    measured_bps += x.beside_bps
    if measured_bps > x.delay_bps and x.trend.usage != USAGE_OVER:
        x.delay_bps = min(measured_bps, x.most_bps)
        x.changed_ns = now_ns
        if x.link_mean_bps > 0.0 and not _is_near_link(x, measured_bps):
            x.link_mean_bps = 0.0


cdef double estimator_bps(const Estimator* x) noexcept nogil:
    cdef double bps = x.delay_bps
    if x.loss.bound_bps > 0.0:
        bps = min(bps, x.loss.bound_bps)
    return max(bps, LEAST_BPS)


@cython.final
cdef class EstimatorFace:
    """Test face of one Estimator. Rates in bits per second."""
    cdef Estimator x

    def __cinit__(self, double start_bps=300_000.0, double most_bps=100_000_000.0):
        estimator_init(&self.x, start_bps, most_bps)

    def feed(self, packets, int64_t now_ns, *, int64_t rtt_ns=100_000_000, bint is_limited=False):
        """Take one feedback: (sent_ns, arrival_ns or None, bytes) in the order of sending; return the estimate."""
        self.x.rtt_ns = rtt_ns
        self.x.is_limited = 1 if is_limited else 0
        for sent_ns, arrival_ns, size_bytes in packets:
            if arrival_ns is None:
                estimator_missing(&self.x, sent_ns, size_bytes)
            else:
                estimator_arrived(&self.x, sent_ns, arrival_ns, size_bytes)
        estimator_conclude(&self.x, now_ns)
        return estimator_bps(&self.x)

    def probed(self, double measured_bps, int64_t now_ns):
        """A probe measured that much; return the estimate."""
        estimator_probed(&self.x, measured_bps, now_ns)
        return estimator_bps(&self.x)

    @property
    def usage(self):
        return self.x.trend.usage

    @property
    def acked_bps(self):
        return self.x.acked_bps

    @property
    def loss(self):
        """(share of the last second, share that is lost at any rate, bound or 0)."""
        return self.x.loss_share, self.x.loss.inherent, self.x.loss.bound_bps
