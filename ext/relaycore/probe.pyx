"""Probes of one transport; the contract stands in probe.pxd.

The ladder of libwebrtc's probe controller in short: three times the first estimate, and twice what a cluster measured as long
as it measured about what it was sent at; every few seconds anew while more is wanted than the path is believed to carry.
"""
from libc.stdint cimport int64_t, uint8_t
from relaycore.units cimport ms

cdef enum:
    FIRST_TIMES = 3
    TIMES = 2
    PERIOD_MS = 4000
    REST_MS = 2500                 # after overuse: the queue has drained and what arrives is measured again
    GAP_MS = 300                   # between a change of what is wanted and a cluster for it
    JUDGE_MS = 250                 # feedback comes that late at most, beside the round trip
    TICK_MS = 2

cdef double MORE_THAN_WANTED = 1.2
cdef double WORTHWHILE = 1.1       # a cluster below that much of the estimate teaches nothing
cdef double CONFIRMED = 0.7
cdef double SATURATED = 0.9        # measured that much less than sent: the path was full, and a little under it is safe
cdef double UNDER_FULL = 0.9
cdef double ARRIVED_LEAST = 0.8


cdef void probe_start(Probe* p, double estimate_bps, int64_t now_ns) noexcept nogil:
    p.next_bps = FIRST_TIMES * estimate_bps
    p.next_ns = now_ns
    p.periodic_ns = now_ns + ms(PERIOD_MS)


cdef void probe_want(Probe* p, double wanted_bps, double estimate_bps, int64_t now_ns) noexcept nogil:
    if wanted_bps > p.wanted_bps * WORTHWHILE and wanted_bps > estimate_bps and p.next_bps == 0.0 and p.periodic_ns:
        p.next_bps = TIMES * estimate_bps
        p.next_ns = max(p.next_ns, now_ns + ms(GAP_MS))
    p.wanted_bps = wanted_bps


cdef void probe_rest(Probe* p, int64_t now_ns) noexcept nogil:
    p.next_bps = 0.0
    p.next_ns = now_ns + ms(REST_MS)
    p.periodic_ns = max(p.periodic_ns, p.next_ns)


cdef bint probe_begins(Probe* p, double estimate_bps, int64_t now_ns) noexcept nogil:
    cdef double rate = p.next_bps
    cdef double most = MORE_THAN_WANTED * p.wanted_bps
    if p.begin_ns:
        return p.end_ns == 0
    if rate == 0.0 or now_ns < p.next_ns:
        if p.periodic_ns == 0 or now_ns < p.periodic_ns or estimate_bps >= p.wanted_bps:
            return False
        rate = TIMES * estimate_bps
    p.next_bps = 0.0
    p.periodic_ns = now_ns + ms(PERIOD_MS)
    rate = min(rate, most)
    if rate < WORTHWHILE * estimate_bps:
        return False
    p.rate_bps = rate
    p.begin_ns = now_ns
    p.end_ns = 0
    p.sent = 0
    p.sent_bytes = 0
    p.arrived = 0
    p.arrived_bytes = 0
    # 0 marks packets that are no probe's.
    p.cluster = <uint8_t>(p.cluster % 255 + 1)
    return True


cdef int64_t probe_bytes_due(const Probe* p, int64_t now_ns) noexcept nogil:
    if p.begin_ns == 0 or p.end_ns:
        return 0
    return max(0, <int64_t>(p.rate_bps / 8e9 * <double>(now_ns - p.begin_ns + ms(TICK_MS))) - p.sent_bytes)


cdef void probe_sent(Probe* p, int64_t size_bytes, int64_t now_ns) noexcept nogil:
    if p.sent == 0:
        p.first_sent_ns = now_ns
    p.sent += 1
    p.sent_bytes += size_bytes
    p.last_bytes = size_bytes
    p.last_sent_ns = now_ns
    if p.sent >= PROBE_PACKETS and now_ns - p.begin_ns >= ms(PROBE_MS):
        p.end_ns = now_ns


cdef void probe_arrived(Probe* p, uint8_t cluster, int64_t arrival_ns, int64_t size_bytes) noexcept nogil:
    if p.begin_ns == 0 or cluster != p.cluster:
        return
    if p.arrived == 0:
        p.first_arrival_ns = arrival_ns
        p.last_arrival_ns = arrival_ns
        p.first_bytes = size_bytes
    p.arrived += 1
    p.arrived_bytes += size_bytes
    p.last_arrival_ns = max(p.last_arrival_ns, arrival_ns)


cdef double probe_result(Probe* p, int64_t rtt_ns, int64_t now_ns) noexcept nogil:
    cdef double sent_bps, arrived_bps, measured
    if p.begin_ns == 0 or p.end_ns == 0:
        # Nothing to send it with: over.
        if p.begin_ns and now_ns - p.begin_ns > ms(1000):
            p.begin_ns = 0
        return 0.0
    if p.arrived < p.sent and now_ns - p.end_ns < rtt_ns + ms(JUDGE_MS):
        return 0.0
    p.begin_ns = 0
    if p.arrived < PROBE_PACKETS or p.arrived < ARRIVED_LEAST * p.sent:
        return 0.0
    # A rate is what lies between the first packet and the last: the last one's bytes leave after it, the first one's came before.
    if p.last_sent_ns <= p.first_sent_ns or p.last_arrival_ns <= p.first_arrival_ns:
        return 0.0
    sent_bps = <double>(p.sent_bytes - p.last_bytes) * 8e9 / <double>(p.last_sent_ns - p.first_sent_ns)
    arrived_bps = <double>(p.arrived_bytes - p.first_bytes) * 8e9 / <double>(p.last_arrival_ns - p.first_arrival_ns)
    if arrived_bps > 2.0 * sent_bps:
        # Packets were held up and came all at once: the gaps say nothing.
        return 0.0
    measured = min(sent_bps, arrived_bps)
    if arrived_bps < SATURATED * sent_bps:
        measured *= UNDER_FULL
    elif measured >= CONFIRMED * p.rate_bps:
        p.next_bps = TIMES * measured
        p.next_ns = now_ns
    return measured


cdef int64_t probe_due_ns(const Probe* p, double estimate_bps, int64_t rtt_ns) noexcept nogil:
    if p.begin_ns:
        if p.end_ns == 0:
            return (p.last_sent_ns if p.sent else p.begin_ns) + ms(TICK_MS)
        return p.end_ns + rtt_ns + ms(JUDGE_MS)
    if p.next_bps > 0.0:
        return p.next_ns
    return p.periodic_ns if estimate_bps < p.wanted_bps else 0
