"""What the engine does for one subscriber's congestion control: notes what leaves, reads feedback, probes, tells the estimate."""
from libc.stdint cimport uint16_t, int64_t, uint64_t
from relaycore.routes cimport Bandwidth, Engine, Transport
from relaycore.rtcp cimport RtcpPacket

cdef enum:
    IP_UDP_BYTES = 28              # that a datagram costs beside its own; estimates are of whole datagrams

# An RTP packet with this transport-wide number leaves: bytes of its datagram.
cdef void bandwidth_departed(Engine* e, Transport* t, uint16_t number, int64_t size_bytes, int64_t now_ns) noexcept nogil
cdef void bandwidth_feedback(Engine* e, Transport* t, const RtcpPacket* p, int64_t now_ns) noexcept nogil
cdef void bandwidth_remb(Engine* e, Transport* t, uint64_t bps, int64_t now_ns) noexcept nogil
# What would be sent if the path allowed; probes go no further.
cdef void bandwidth_want(Engine* e, Transport* t, uint64_t bps, int64_t now_ns) noexcept nogil
cdef void bandwidth_run(Engine* e, Transport* t, int64_t now_ns) noexcept nogil           # at due_ns
cdef uint64_t bandwidth_bps(const Transport* t) noexcept nogil                            # 0 = unknown
cdef void bandwidth_free(Bandwidth* b) noexcept nogil
