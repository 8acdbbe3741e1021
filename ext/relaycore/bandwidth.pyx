"""Congestion control towards subscribers; the contract stands in bandwidth.pxd.

Estimates come from transport-wide feedback where the client sends it, else from REMB. Until the first estimate everything is
sent: a path is known only by what runs over it.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from relaycore.departures cimport (
    Departure, FATE_ARRIVED, FATE_MISSING, FATE_UNDER_WAY, departure_ns, departures_find, departures_free, departures_new,
    departures_note,
)
from relaycore.estimator cimport (
    USAGE_OVER, estimator_arrived, estimator_bps, estimator_conclude, estimator_init, estimator_missing, estimator_probed,
    estimator_standing_ns,
)
from relaycore.mailbox cimport EV_ESTIMATE, Event
from relaycore.probe cimport (
    probe_arrived, probe_begins, probe_bytes_due, probe_due_ns, probe_rest, probe_result, probe_sent, probe_start, probe_want,
)
from relaycore.reports cimport count_error, is_sendable
from relaycore.resend cimport resend_copy, resend_padding
from relaycore.routes cimport Bandwidth, Egress, Engine, Transport, emit, schedule
from relaycore.rtcp cimport RtcpPacket
from relaycore.twccread cimport FeedbackWalk, feedback_begin, feedback_next
from relaycore.units cimport ms

cdef enum:
    START_BPS = 300000
    MOST_BPS = 500000000
    LEAST_BPS = 30000              # the estimator's; at a few bits a second the pacer would owe hours for one packet
    TICK_NS = 250000               # of feedback
    MEASURE_MS = 250               # over which the sending rate is taken
    FIRST_MS = 400                 # of feedback before the first estimate is made
    FIRST_PROBE_MS = 400           # it may wait that much longer for the first cluster
    RISE_PACE_MS = 100             # between tellings of a higher one
    FALL_PACE_MS = 10              # of a lower one: a client may claim anything, as often as it likes
    RTT_SMOOTHING = 16
    PROBE_DRAINS_MS = 250
    DRAIN_MS = 50
    LARGE_FROM_BPS = 2000000       # of a cluster: five packets of full size are 20 ms
    PROBE_BURST = 32               # packets at a time
    PROBE_REACH = 16               # of what was sent last, these are sent again

cdef double DRAINING = 0.8
cdef double TELL_FALL = 0.97
cdef double TELL_RISE = 1.05
# Who sends less than that share of the estimate is limited by what there is to send.
cdef double LIMITED = 0.8


cdef inline uint64_t _bytes_of(const Transport* t) noexcept nogil:
    """Return what was sent over the path, with headers."""
    return t.bytes_sent + IP_UDP_BYTES * t.packets_sent


cdef Bandwidth* _bandwidth_of(Transport* t, int64_t now_ns) noexcept nogil:
    """Return a transport's congestion control, begun where it was not; NULL where there is no memory."""
    cdef Bandwidth* b = t.bandwidth
    if b != NULL:
        return b
    b = <Bandwidth*>calloc(1, sizeof(Bandwidth))
    if b == NULL:
        return NULL
    b.departures = departures_new()
    if b.departures == NULL:
        free(b)
        return NULL
    estimator_init(&b.estimator, START_BPS, MOST_BPS)
    b.bytes_before = _bytes_of(t)
    b.bytes_before_ns = now_ns
    t.bandwidth = b
    return b


cdef void bandwidth_free(Bandwidth* b) noexcept nogil:
    if b != NULL:
        departures_free(b.departures)
        free(b)


cdef uint64_t bandwidth_bps(const Transport* t) noexcept nogil:
    if t.bandwidth == NULL:
        return 0
    if t.bandwidth.first_feedback_ns:
        return <uint64_t>estimator_bps(&t.bandwidth.estimator)
    return t.bandwidth.remb_bps


cdef void bandwidth_departed(Engine* e, Transport* t, uint16_t number, int64_t size_bytes, int64_t now_ns) noexcept nogil:
    cdef Bandwidth* b = _bandwidth_of(t, now_ns)
    cdef uint8_t cluster = 0
    if b == NULL:
        return
    size_bytes += IP_UDP_BYTES
    b.noted_bytes += <uint64_t>size_bytes
    # Whatever leaves while a cluster does is part of it.
    if b.probe.begin_ns and b.probe.end_ns == 0:
        cluster = b.probe.cluster
        probe_sent(&b.probe, size_bytes, now_ns)
    departures_note(b.departures, number, size_bytes, cluster, now_ns)


cdef void _tell(Engine* e, Transport* t, int64_t now_ns) noexcept nogil:
    """Tell the control plane when the estimate has moved, and let the pacer follow it."""
    cdef Bandwidth* b = t.bandwidth
    cdef double bps = <double>bandwidth_bps(t)
    cdef Event event
    t.pacer.rate_bps = <uint64_t>bps
    # A queue drains sooner without repairs that come too late anyway.
    t.pacer.repair_bps = <uint64_t>(DRAINING * bps) if estimator_standing_ns(&b.estimator) > ms(DRAIN_MS) else 0
    if b.told_bps > 0.0:
        if TELL_FALL * b.told_bps < bps < TELL_RISE * b.told_bps:
            return
        if now_ns - b.told_ns < (ms(RISE_PACE_MS) if bps > b.told_bps else ms(FALL_PACE_MS)):
            return
    memset(&event, 0, sizeof(event))
    event.kind = EV_ESTIMATE
    event.transport = t.id
    event.rate_bps = <uint64_t>bps
    event.code = <int32_t>(b.estimator.loss_share * 1000.0)
    event.number = <uint32_t>(b.estimator.rtt_ns // 1000000)
    event.now_ns = now_ns
    if emit(e, &event) >= 0:
        b.told_bps = bps
        b.told_ns = now_ns


cdef void _plan(Engine* e, Transport* t, int64_t now_ns) noexcept nogil:
    cdef Bandwidth* b = t.bandwidth
    cdef int64_t due_ns = probe_due_ns(&b.probe, estimator_bps(&b.estimator), b.estimator.rtt_ns)
    # Never now: a cluster that finds nothing to send would keep the worker.
    b.due_ns = max(due_ns, now_ns + ms(1)) if due_ns else 0
    schedule(e, t)


cdef void _measure_sending(Transport* t, int64_t now_ns) noexcept nogil:
    cdef Bandwidth* b = t.bandwidth
    cdef uint64_t sent = _bytes_of(t)
    cdef double per_byte
    if now_ns - b.bytes_before_ns < ms(MEASURE_MS):
        return
    per_byte = 8e9 / <double>(now_ns - b.bytes_before_ns)
    b.sent_bps = <double>(sent - b.bytes_before) * per_byte
    b.estimator.beside_bps = max(0.0, b.sent_bps - <double>(b.noted_bytes - b.noted_before) * per_byte)
    b.bytes_before = sent
    b.noted_before = b.noted_bytes
    b.bytes_before_ns = now_ns
    b.estimator.is_limited = 1 if b.sent_bps < LIMITED * estimator_bps(&b.estimator) else 0


cdef void _take_statuses(Bandwidth* b, FeedbackWalk* w, int64_t now_ns) noexcept nogil:
    cdef Departure* x
    cdef uint16_t number = 0
    cdef int64_t ticks = 0
    cdef int64_t sent_ns
    cdef int64_t rtt_ns = -1
    cdef int status = feedback_next(w, &number, &ticks)
    while status:
        x = departures_find(b.departures, number)
        if x != NULL and (x.fate == FATE_UNDER_WAY or x.fate == FATE_MISSING):
            sent_ns = departure_ns(x, now_ns)
            if status == 1:
                # The reference counts 32 bits of ticks.
                b.clock_ticks += <int32_t><uint32_t>((<uint64_t>ticks - <uint64_t>b.clock_ticks) & 0xffffffffu)
                x.fate = FATE_ARRIVED
                estimator_arrived(&b.estimator, sent_ns, b.clock_ticks * TICK_NS, x.size_bytes)
                if x.cluster:
                    probe_arrived(&b.probe, x.cluster, b.clock_ticks * TICK_NS, x.size_bytes)
                rtt_ns = now_ns - sent_ns
            elif x.fate == FATE_UNDER_WAY:
                x.fate = FATE_MISSING
                estimator_missing(&b.estimator, sent_ns, x.size_bytes)
        status = feedback_next(w, &number, &ticks)
    # What arrived last waited least for the feedback; the rest of that wait is averaged low.
    if rtt_ns > 0:
        if rtt_ns < b.estimator.rtt_ns:
            b.estimator.rtt_ns = rtt_ns
        else:
            b.estimator.rtt_ns += (rtt_ns - b.estimator.rtt_ns) // RTT_SMOOTHING


cdef inline bint _is_first_under_way(const Bandwidth* b, int64_t now_ns) noexcept nogil:
    if now_ns - b.first_feedback_ns > ms(FIRST_MS + FIRST_PROBE_MS):
        return False
    return b.probe.begin_ns != 0 or b.probe.next_bps > 0.0


cdef void bandwidth_feedback(Engine* e, Transport* t, const RtcpPacket* p, int64_t now_ns) noexcept nogil:
    cdef Bandwidth* b = t.bandwidth
    cdef FeedbackWalk w
    cdef int code = feedback_begin(&w, p)
    cdef double measured
    if code < 0:
        count_error(e, code)
        return
    if b == NULL:
        return
    _take_statuses(b, &w, now_ns)
    _measure_sending(t, now_ns)
    b.estimator.is_probed = 1 if b.probe.begin_ns or now_ns - b.probe.end_ns < b.estimator.rtt_ns + ms(PROBE_DRAINS_MS) else 0
    estimator_conclude(&b.estimator, now_ns)
    if b.estimator.trend.usage == USAGE_OVER:
        probe_rest(&b.probe, now_ns)
    measured = probe_result(&b.probe, b.estimator.rtt_ns, now_ns)
    if measured > 0.0:
        estimator_probed(&b.estimator, measured, now_ns)
    if b.first_feedback_ns == 0:
        b.first_feedback_ns = now_ns
    if b.told_bps == 0.0:
        if now_ns - b.first_feedback_ns < ms(FIRST_MS):
            return
        if not b.is_begun:
            b.is_begun = 1
            probe_start(&b.probe, estimator_bps(&b.estimator), now_ns)
        # The start rate is a guess: videos would be paused for it, and come back when the first cluster is judged.
        if measured <= 0.0 and b.estimator.trend.usage != USAGE_OVER and _is_first_under_way(b, now_ns):
            _plan(e, t, now_ns)
            return
    _tell(e, t, now_ns)
    _plan(e, t, now_ns)


cdef void bandwidth_remb(Engine* e, Transport* t, uint64_t bps, int64_t now_ns) noexcept nogil:
    cdef Bandwidth* b = _bandwidth_of(t, now_ns)
    # Feedback says more, and a client may send both.
    if b == NULL or b.first_feedback_ns:
        return
    b.remb_bps = min(max(bps, <uint64_t>LEAST_BPS), <uint64_t>MOST_BPS)
    _tell(e, t, now_ns)


cdef void bandwidth_want(Engine* e, Transport* t, uint64_t bps, int64_t now_ns) noexcept nogil:
    cdef Bandwidth* b = _bandwidth_of(t, now_ns)
    if b == NULL:
        return
    probe_want(&b.probe, <double>min(bps, <uint64_t>MOST_BPS), estimator_bps(&b.estimator), now_ns)
    _plan(e, t, now_ns)


cdef inline bint _carries_better(const Egress* g, const Egress* other) noexcept nogil:
    if (g.wanted >= 0) != (other.wanted >= 0):
        return g.wanted >= 0
    return g.projection.last_arrival_ns > other.projection.last_arrival_ns


cdef Egress* _carrier(Engine* e, Transport* t) noexcept nogil:
    """Return a video subscription whose RTX stream can carry probes, one that is sent now if there is one; NULL: none."""
    cdef Egress* g
    cdef Egress* found = NULL
    cdef uint32_t i
    for i in range(t.egress_count):
        g = e.egresses[t.egresses[i]]
        if not g.is_video or not g.spec.rtx_ssrc or g.sent == NULL or g.sent.mapping_count == 0:
            continue
        # One that is paused for want of room would stay so without a probe.
        if found == NULL or _carries_better(g, found):
            found = g
    return found


cdef void _send_probe(Engine* e, Transport* t, int64_t now_ns) noexcept nogil:
    """Send what of the cluster is due: packets that went out lately once more, since padding alone is cut into 255 bytes."""
    cdef Bandwidth* b = t.bandwidth
    cdef Egress* g = _carrier(e, t)
    cdef int64_t due = probe_bytes_due(&b.probe, now_ns)
    cdef int i, n
    if g == NULL or not is_sendable(t):
        return
    for i in range(PROBE_BURST):
        if due <= 0 or b.probe.end_ns:
            break
        n = 0
        # Small ones where large ones would make the cluster last, and of what is paused nothing once more.
        if b.probe.rate_bps >= LARGE_FROM_BPS and g.wanted >= 0:
            n = resend_copy(e, t, g, <uint16_t>((g.projection.next_out - 1 - b.probe.sent % PROBE_REACH) & 0xffff), now_ns)
        if n <= 0:
            n = resend_padding(e, t, g, now_ns)
        if n <= 0:
            break
        e.counters.probe_bytes += <uint64_t>n
        due -= n + IP_UDP_BYTES


cdef void bandwidth_run(Engine* e, Transport* t, int64_t now_ns) noexcept nogil:
    cdef Bandwidth* b = t.bandwidth
    cdef bint was_under_way = b.probe.begin_ns != 0
    cdef double measured = probe_result(&b.probe, b.estimator.rtt_ns, now_ns)
    if measured > 0.0:
        estimator_probed(&b.estimator, measured, now_ns)
        _tell(e, t, now_ns)
    if probe_begins(&b.probe, estimator_bps(&b.estimator), now_ns):
        e.counters.probes += 0 if was_under_way and b.probe.sent else 1
        _send_probe(e, t, now_ns)
    _plan(e, t, now_ns)
