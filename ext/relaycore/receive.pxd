"""The receive path of the engine: demultiplex, authenticate, unprotect, bind, parse, hand to the subscribers' queues."""
from libc.stdint cimport uint16_t, int64_t
from relaycore.routes cimport Engine
from relaycore.slab cimport Slot
from relaycore.stun cimport SockAddr

cdef void receive_datagram(Engine* e, Slot* slot, const SockAddr* remote, uint16_t socket_index, int64_t now_ns) noexcept nogil   # takes the slot
