"""One load endpoint: datagrams to where they belong, everything that is due at its time. Owned by one LoadThread."""
from libc.stdint cimport uint32_t, int64_t
from relaycore.lgmodel cimport Endpoint, LoadThread, Sender, Stream
from relaycore.stun cimport SockAddr

# Opens the socket and takes a place in the thread. NULL: no memory or no socket (errno).
cdef Endpoint* endpoint_new(LoadThread* t, uint32_t id, const SockAddr* local) noexcept nogil
cdef void endpoint_free(LoadThread* t, Endpoint* e) noexcept nogil
# Both take the pointer over. E_OK, E_MEMORY.
cdef int endpoint_add_sender(LoadThread* t, Endpoint* e, Sender* s) noexcept nogil
cdef int endpoint_add_stream(LoadThread* t, Endpoint* e, Stream* s) noexcept nogil
cdef void endpoint_remove_sender(LoadThread* t, Endpoint* e, uint32_t id) noexcept nogil
cdef void endpoint_remove_stream(LoadThread* t, Endpoint* e, uint32_t id) noexcept nogil
# Empties the socket, at most `batches` times LG_BATCH datagrams. True = there may be more.
cdef bint endpoint_drain(LoadThread* t, Endpoint* e, int batches, int64_t now_ns) noexcept nogil
# Runs what is due and sets the timer to what comes next.
cdef void endpoint_poll(LoadThread* t, Endpoint* e, int64_t now_ns) noexcept nogil
