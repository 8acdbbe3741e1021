"""Counts of the load generator for Python: rows per endpoint, sender and receiver, histograms, and the verdict.

A row is a run of 64-bit words: a few facts, then the C struct of counts as it is; the names below are its fields in order,
and a struct that changes without them stops the import.
"""
import numpy as np

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from relaycore.lghistogram cimport HISTOGRAM_BUCKETS, histogram_bucket, histogram_lower_ns
from relaycore.lgmodel cimport (
    Endpoint, EndpointCounts, LoadThread, ReceiveCounts, SendCounts, SendEncoding, Sender, Stream, ThreadCounts, stream_lost,
)

BUCKETS = int(HISTOGRAM_BUCKETS)
# Lower edge of each bucket, and where the last one ends.
HISTOGRAM_EDGES_NS = np.array([histogram_lower_ns(<uint32_t>i) for i in range(<int>HISTOGRAM_BUCKETS + 1)], dtype=np.int64)

_ENDPOINT_FACTS = ("endpoint", "thread", "connected", "dead", "rtt_ns", "checks_sent", "checks_answered", "requests_answered",
                   "stun_refused")
_ENDPOINT_COUNTS = ("packets_received", "bytes_received", "packets_sent", "bytes_sent", "refused", "receive_overflow", "unbound",
                    "unauthentic", "malformed", "dtls_received", "rtcp_received", "feedback_received", "feedback_sent")
_SENDER_FACTS = ("sender", "endpoint", "encoding", "ssrc", "active", "fraction_lost", "total_lost", "rtt_ns")
_SENDER_COUNTS = ("frames", "keyframes", "packets", "bytes", "retransmitted", "nacked", "plis", "firs", "refused", "reports")
_RECEIVER_FACTS = ("receiver", "endpoint", "is_video", "ssrc", "lost", "waiting", "last_stream", "last_number", "first_frame_ns")
_RECEIVER_COUNTS = (
    "packets", "bytes", "rtx_packets", "reordered", "duplicates", "late", "recovered", "given_up", "refused", "verified",
    "padding", "frame_ends", "frames_complete", "frames_incomplete", "frames_corrupt", "frames_out_of_order",
    "frames_duplicate", "frames_missing", "frames_skipped", "frames_undecodable", "keyframes", "switches", "nacks_sent",
    "plis_sent", "freezes", "freeze_ns", "longest_freeze_ns", "delays", "delay_sum_ns", "delay_min_ns", "delay_max_ns",
    "delay_negative",
)
THREAD_COUNTS = ("turns", "drains", "hold_exhausted", "events_dropped", "frames_skipped", "clock_steps", "no_memory")

for _names, _bytes in ((_ENDPOINT_COUNTS, sizeof(EndpointCounts)), (_SENDER_COUNTS, sizeof(SendCounts)),
                       (_RECEIVER_COUNTS, sizeof(ReceiveCounts)), (THREAD_COUNTS, sizeof(ThreadCounts))):
    assert len(_names) * 8 == _bytes, _names

ENDPOINT_DTYPE = np.dtype([(name, "i8") for name in _ENDPOINT_FACTS + _ENDPOINT_COUNTS])
SENDER_DTYPE = np.dtype([(name, "i8") for name in _SENDER_FACTS + _SENDER_COUNTS])
RECEIVER_DTYPE = np.dtype([(name, "i8") for name in _RECEIVER_FACTS + _RECEIVER_COUNTS])


cdef void _fill_endpoint(int64_t* row, const LoadThread* t, const Endpoint* e) noexcept nogil:
    row[0] = e.id
    row[1] = t.number
    row[2] = e.ice.connected
    row[3] = e.ice.is_dead
    row[4] = e.ice.rtt_ns
    row[5] = <int64_t>e.ice.checks_sent
    row[6] = <int64_t>e.ice.checks_answered
    row[7] = <int64_t>e.ice.requests_answered
    row[8] = <int64_t>e.ice.refused
    memcpy(row + 9, &e.counts, sizeof(EndpointCounts))


cdef void _fill_sender(int64_t* row, const Endpoint* e, const Sender* s, int encoding) noexcept nogil:
    cdef const SendEncoding* x = &s.encodings[encoding]
    row[0] = s.id
    row[1] = e.id
    row[2] = encoding
    row[3] = x.ssrc
    row[4] = x.is_active and s.is_started
    row[5] = x.fraction_lost
    row[6] = x.total_lost
    row[7] = x.rtt_ns
    memcpy(row + 8, &x.counts, sizeof(SendCounts))


cdef void _fill_receiver(int64_t* row, const Endpoint* e, const Stream* s) noexcept nogil:
    row[0] = s.id
    row[1] = e.id
    row[2] = s.is_video
    row[3] = s.ssrc
    row[4] = stream_lost(s) - s.lost_mark if s.seen.started else -s.lost_mark
    row[5] = s.repair.missing_count if s.repair != NULL else 0
    row[6] = s.last_stream
    row[7] = s.last_number
    row[8] = s.first_frame_ns
    memcpy(row + 9, &s.counts, sizeof(ReceiveCounts))


cdef object _rows(Py_ssize_t count, object dtype):
    return np.zeros((count, len(dtype.names)), dtype=np.int64)


cdef int64_t* _words(object rows) except? NULL:
    cdef int64_t[:, ::1] view = rows
    return &view[0, 0] if view.shape[0] else NULL


cdef object collect(LoadThread* t, dict parts):
    cdef Py_ssize_t endpoint_count = 0
    cdef Py_ssize_t encoding_count = 0
    cdef Py_ssize_t stream_count = 0
    cdef int64_t* at
    cdef Endpoint* e
    cdef int i, k, m
    cdef uint32_t[:, ::1] delays
    for i in range(t.endpoint_count):
        e = t.endpoints[i]
        if e != NULL:
            endpoint_count += 1
            stream_count += e.stream_count
            for k in range(e.sender_count):
                encoding_count += e.senders[k].encoding_count
    endpoints = _rows(endpoint_count, ENDPOINT_DTYPE)
    senders = _rows(encoding_count, SENDER_DTYPE)
    receivers = _rows(stream_count, RECEIVER_DTYPE)
    delay = np.zeros((stream_count, BUCKETS), dtype=np.uint32)
    delays = delay
    at = _words(endpoints)
    for i in range(t.endpoint_count):
        if t.endpoints[i] != NULL:
            _fill_endpoint(at, t, t.endpoints[i])
            at += sizeof(EndpointCounts) // 8 + 9
    at = _words(senders)
    for i in range(t.endpoint_count):
        e = t.endpoints[i]
        if e != NULL:
            for k in range(e.sender_count):
                for m in range(e.senders[k].encoding_count):
                    _fill_sender(at, e, e.senders[k], m)
                    at += sizeof(SendCounts) // 8 + 8
    at = _words(receivers)
    stream_count = 0
    for i in range(t.endpoint_count):
        e = t.endpoints[i]
        if e != NULL:
            for k in range(e.stream_count):
                _fill_receiver(at, e, e.streams[k])
                at += sizeof(ReceiveCounts) // 8 + 9
                if e.streams[k].delays != NULL:
                    memcpy(&delays[stream_count, 0], e.streams[k].delays, HISTOGRAM_BUCKETS * sizeof(uint32_t))
                stream_count += 1
    lateness = np.zeros(BUCKETS, dtype=np.uint32)
    drain_gap = np.zeros(BUCKETS, dtype=np.uint32)
    _copy_histogram(lateness, t.lateness)
    _copy_histogram(drain_gap, t.drain_gap)
    counts = {name: (<const uint64_t*>&t.counts)[k] for k, name in enumerate(THREAD_COUNTS)}
    for name, part in (("endpoints", endpoints), ("senders", senders), ("receivers", receivers), ("delay", delay),
                       ("lateness", lateness), ("drain_gap", drain_gap), ("counts", counts)):
        parts.setdefault(name, []).append(part)


cdef int _copy_histogram(object array, const uint32_t* counts) except -1:
    cdef uint32_t[::1] view = array
    memcpy(&view[0], counts, HISTOGRAM_BUCKETS * sizeof(uint32_t))
    return 0


cdef void _reset_stream(Stream* s) noexcept nogil:
    memset(&s.counts, 0, sizeof(ReceiveCounts))
    if s.delays != NULL:
        memset(s.delays, 0, HISTOGRAM_BUCKETS * sizeof(uint32_t))
    s.lost_mark = stream_lost(s) if s.seen.started else 0


cdef void reset_counts(LoadThread* t) noexcept nogil:
    """Begin a window. What streams, encodings and agents need to go on stays."""
    cdef Endpoint* e
    cdef int i, k, m
    for i in range(t.endpoint_count):
        e = t.endpoints[i]
        if e == NULL:
            continue
        memset(&e.counts, 0, sizeof(EndpointCounts))
        for k in range(e.sender_count):
            for m in range(e.senders[k].encoding_count):
                memset(&e.senders[k].encodings[m].counts, 0, sizeof(SendCounts))
        for k in range(e.stream_count):
            _reset_stream(e.streams[k])
    memset(&t.counts, 0, sizeof(ThreadCounts))
    memset(t.lateness, 0, sizeof(t.lateness))
    memset(t.drain_gap, 0, sizeof(t.drain_gap))


def merge(dict parts):
    """Return the arrays of all threads as one dict: structured rows, histograms by thread, counts summed."""
    found = {}
    for name, dtype in (("endpoints", ENDPOINT_DTYPE), ("senders", SENDER_DTYPE), ("receivers", RECEIVER_DTYPE)):
        found[name] = np.concatenate(parts[name]).view(dtype)[:, 0]
    found["delay"] = np.concatenate(parts["delay"])
    found["lateness"] = np.stack(parts["lateness"])
    found["drain_gap"] = np.stack(parts["drain_gap"])
    found["counters"] = {name: sum(counts[name] for counts in parts["counts"]) for name in THREAD_COUNTS}
    return found


def bucket_of(int64_t value_ns):
    """Test face: the bucket a duration counts in."""
    return histogram_bucket(value_ns)


def percentile(counts, double q):
    """Return the duration in ns that q percent of a histogram's values do not exceed (upper edge of its bucket); None when empty."""
    counts = np.asarray(counts, dtype=np.int64)
    if counts.ndim > 1:
        counts = counts.reshape(-1, BUCKETS).sum(axis=0)
    total = int(counts.sum())
    if total == 0:
        return None
    if not 0 < q <= 100:
        raise ValueError("q is above 0 and at most 100")
    bucket = int(np.searchsorted(np.cumsum(counts), np.ceil(total * q / 100)))
    return int(HISTOGRAM_EDGES_NS[bucket + 1])


# A sender later than this at its 99th percentile shapes the traffic itself: a quarter of a 50 fps frame.
LATE_NS = 5_000_000
# Lazy draining that comes round later than this many intervals (99th percentile) risks full queues and late feedback.
DRAIN_FACTOR = 5
# A thread's share of a processor, and how long it may stand runnable without one, in windows that say something.
BUSY = 0.85
WAITING = 0.2
SHORTEST_WINDOW_NS = 200_000_000


def verdict(dict stats, double drain_ms, bint is_lazy):
    """Return {"was_bottleneck", "reasons"}: whether the figures of `stats` say something of the generator instead of the relay."""
    reasons = []
    counters = stats["counters"]
    overflow = int(stats["endpoints"]["receive_overflow"].sum())
    refused = int(stats["endpoints"]["refused"].sum())
    if overflow:
        reasons.append(f"{overflow} datagrams did not fit the receive queues (SO_RXQ_OVFL)")
    if refused:
        reasons.append(f"the kernel refused {refused} datagrams to be sent")
    for name, sentence in (("frames_skipped", "frames were not sent because the schedule was late"),
                           ("hold_exhausted", "packets behind a hole found no room (hold_slots)"),
                           ("events_dropped", "events were dropped because nobody took them"),
                           ("clock_steps", "steps of the clock: delays are not to be trusted"),
                           ("no_memory", "allocations failed")):
        if counters[name]:
            reasons.append(f"{counters[name]} {sentence}")
    for thread, late in zip(stats["threads"], stats["lateness"]):
        late_ns = percentile(late, 99)
        if late_ns is not None and late_ns > LATE_NS:
            reasons.append(f"thread {thread['thread']} sent late: p99 {late_ns / 1e6:.1f} ms")
    for thread, gap in zip(stats["threads"], stats["drain_gap"]):
        gap_ns = percentile(gap, 99)
        if is_lazy and gap_ns is not None and gap_ns > DRAIN_FACTOR * drain_ms * 1e6:
            reasons.append(f"thread {thread['thread']} drained late: p99 {gap_ns / 1e6:.1f} ms")
    for thread in stats["threads"]:
        if thread["wall_ns"] < SHORTEST_WINDOW_NS:
            continue
        if thread["cpu_ns"] > BUSY * thread["wall_ns"]:
            reasons.append(f"thread {thread['thread']} was busy {100 * thread['cpu_ns'] / thread['wall_ns']:.0f} % of the time")
        if thread["wait_ns"] > WAITING * thread["wall_ns"]:
            reasons.append(f"thread {thread['thread']} waited for a processor {100 * thread['wait_ns'] / thread['wall_ns']:.0f} % of the time")
    return {"was_bottleneck": bool(reasons), "reasons": reasons}
