"""From the publisher's packet to the subscribers' datagrams: queue now, project and protect at dequeue."""
from libc.stdint cimport int64_t
from relaycore.routes cimport Engine, PacketFacts, Receiver, Transport
from relaycore.slab cimport Slot

# Queues the packet for every subscriber that may want it; padding-only packets too, which get no number.
cdef void route_packet(Engine* e, Receiver* r, Slot* slot, const PacketFacts* f, int64_t now_ns) noexcept nogil
# Sends what waits for one transport while the outbox has room; puts the transport back on the ready list if not all.
cdef void forward_queue(Engine* e, Transport* t, int64_t now_ns) noexcept nogil
