"""Names of the engine's counters, in the order of `Counters`, for snapshots and metrics."""
from libc.stdint cimport uint64_t

SCALARS = (
    "datagrams_received", "bytes_received", "datagrams_sent", "bytes_sent",
    "stun_received", "dtls_received", "rtp_received", "rtcp_received",
    "rtp_forwarded", "padding_dropped", "rtx_received", "unbound_dropped",
    "keyframe_requests_received", "keyframe_requests_sent", "keyframe_requests_coalesced",
    "nacks_received", "send_errors", "receive_overflow", "queue_dropped", "events_dropped",
    "slots_exhausted", "stun_answered", "stun_refused", "feedback_sent",
    "rtx_sent", "rtx_refused", "rtx_unknown", "rtx_queue_dropped",
    "gso_sends", "gso_datagrams", "gso_fallbacks", "levelling_bytes",
    "transport_feedback_received",
    "nacks_sent", "nacks_given_up", "rtx_recovered", "rtx_padding", "duplicates_dropped",
    "exported", "export_dropped_video", "export_dropped_audio", "imported", "exchange_unknown",
    "policed", "police_reserved", "shed_layers", "shed_video", "overload_rises",
    "captured", "capture_missed",
    "frames_judged", "frames_marked", "frames_unmarked", "frames_plain", "unannounced_dropped", "receivers_stopped",
    "stopped_dropped", "frames_parsed", "frames_unparsed", "undeclared_encryption",
    "cache_hits", "cache_bytes", "cache_incomplete", "cache_outgrown", "cache_aborted",
    "probes", "probe_bytes",
    "tcp_opened", "tcp_closed", "tcp_dropped",
    "red_stripped",
)

# The struct is read as an array of 64-bit words: names and fields must agree in number.
assert <Py_ssize_t>(sizeof(Counters) // sizeof(uint64_t)) == len(SCALARS) + <Py_ssize_t>(COUNTER_ERRORS + 2 * COUNTER_STAGES + 1)
