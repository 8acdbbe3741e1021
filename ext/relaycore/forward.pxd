"""From the publisher's packet to the subscribers' datagrams: queue now, project and protect at dequeue."""
from libc.stdint cimport int64_t
from relaycore.routes cimport Engine, PacketFacts, Receiver, RtpStream, Transport
from relaycore.slab cimport Slot

cdef void route_packet(Engine* e, Receiver* r, Slot* slot, const PacketFacts* f, int64_t now_ns) noexcept nogil
# A packet without payload: no subscriber gets a number for it.
cdef void skip_packet(Engine* e, Receiver* r, const RtpStream* s, const PacketFacts* f) noexcept nogil
# Sends what waits for one transport while the outbox has room; puts the transport back on the ready list if not all.
cdef void forward_queue(Engine* e, Transport* t, int64_t now_ns) noexcept nogil
