"""From a received packet to its subscribers' queues: at once where they are few, in portions where they are many."""
from libc.stdint cimport int64_t
from relaycore.routes cimport Engine, PacketFacts, Receiver
from relaycore.slab cimport Slot

# Padding-only packets too: they get no number, but what follows them closes up.
cdef void route_packet(Engine* e, Receiver* r, Slot* slot, const PacketFacts* f, int64_t now_ns) noexcept nogil
# Queues the oldest packet that waits for its subscribers; returns how many those are (0: none waited).
cdef int fanout_next(Engine* e, int64_t now_ns) noexcept nogil
cdef void fanout_clear(Engine* e) noexcept nogil                      # drops what waits and frees the ring
