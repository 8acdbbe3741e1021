"""From the publisher's packet to the subscribers' datagrams: queue now, project and protect at dequeue."""
from libc.stdint cimport int64_t
from relaycore.routes cimport Engine, PacketFacts, Receiver
from relaycore.slab cimport Slot

# Queues the packet for every subscriber that may want it; they become ready in `lane`.
cdef void spread_packet(Engine* e, Receiver* r, Slot* slot, const PacketFacts* f, int lane, int64_t now_ns) noexcept nogil
# Sends what waits for the next few transports of e.lane up to e.out_limit; who has more left becomes ready again.
cdef void forward_ready(Engine* e, int64_t now_ns) noexcept nogil
