"""The end of a publication that was stopped: nothing of it leaves this worker any more (DESIGN section 5, fail closed)."""
from relaycore.routes cimport Engine, Receiver

# A receiver or a mirror of one: forgets what was kept for retransmissions and what the sockets have not taken yet. What waits
# elsewhere (queues, jobs, requests, records under way) is refused by `is_stopped` where it comes up.
cdef void halt_receiver(Engine* e, Receiver* r) noexcept nogil
