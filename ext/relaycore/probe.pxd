"""When to try a path for more than runs over it, how much, and what came of it.

A probe is a cluster of packets at a higher rate, long enough to be measured and too short to fill a queue. Pure policy and
arithmetic; what the packets are is the caller's business.
"""
from libc.stdint cimport uint8_t, int32_t, int64_t

cdef enum:
    PROBE_MS = 25                  # a cluster lasts that long at least
    PROBE_PACKETS = 5              # and has that many packets at least

ctypedef struct Probe:             # zero-initialise
    double wanted_bps              # what would be sent if the path allowed; nothing is tried beyond that
    double rate_bps                # of the cluster under way
    double next_bps                # a cluster to follow, 0 = none
    int64_t next_ns                # and not before
    int64_t periodic_ns            # when to try again whether anything has changed
    int64_t begin_ns               # of the cluster under way; 0 = none is
    int64_t end_ns                 # its last packet has left; 0 = not yet
    int64_t sent_bytes
    int64_t last_bytes             # of its last packet
    int64_t first_sent_ns
    int64_t last_sent_ns
    int64_t arrived_bytes
    int64_t first_bytes            # of its first packet that arrived
    int64_t first_arrival_ns
    int64_t last_arrival_ns
    int32_t sent
    int32_t arrived
    uint8_t cluster                # number of the cluster under way, or of the last; 0 = none ever

# The first estimate is there: try for more at once.
cdef void probe_start(Probe* p, double estimate_bps, int64_t now_ns) noexcept nogil
cdef void probe_want(Probe* p, double wanted_bps, double estimate_bps, int64_t now_ns) noexcept nogil
# Overuse: leave the path alone for a while.
cdef void probe_rest(Probe* p, int64_t now_ns) noexcept nogil
# Begins a cluster when one is due. True: one is under way and has packets to send.
cdef bint probe_begins(Probe* p, double estimate_bps, int64_t now_ns) noexcept nogil
# Bytes that its next packets have together; 0: none now.
cdef int64_t probe_bytes_due(const Probe* p, int64_t now_ns) noexcept nogil
cdef void probe_sent(Probe* p, int64_t size_bytes, int64_t now_ns) noexcept nogil
cdef void probe_arrived(Probe* p, uint8_t cluster, int64_t arrival_ns, int64_t size_bytes) noexcept nogil
# What the cluster measured, once; 0: it is not over, or said nothing.
cdef double probe_result(Probe* p, int64_t rtt_ns, int64_t now_ns) noexcept nogil
# When to come back; 0: whenever something changes.
cdef int64_t probe_due_ns(const Probe* p, double estimate_bps, int64_t rtt_ns) noexcept nogil
