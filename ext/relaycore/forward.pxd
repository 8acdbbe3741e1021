"""From the publisher's packet to the subscribers' datagrams: queue now, project and protect at dequeue."""
from libc.stdint cimport int64_t
from relaycore.routes cimport Engine, PacketFacts, Receiver
from relaycore.slab cimport Slot

# Queues the packet for every subscriber that may want it; padding-only packets too, which get no number.
cdef void route_packet(Engine* e, Receiver* r, Slot* slot, const PacketFacts* f, int64_t now_ns) noexcept nogil
# Sends what waits for the next few transports while the outbox has room; who has more left becomes ready again.
cdef void forward_ready(Engine* e, int64_t now_ns) noexcept nogil
