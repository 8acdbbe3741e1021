"""One worker: its thread, and everything that thread owns (sockets, slab, engine, mailbox, epoll, timer)."""
from libc.stdint cimport uint32_t, int64_t, uint64_t
from relaycore.exchange cimport Exchange
from relaycore.mailbox cimport Mailbox
from relaycore.routes cimport Engine
from relaycore.stun cimport SockAddr
from relaycore.udp cimport UdpSocket

cdef struct WorkerThread           # defined in thread.pyx

# Makes all parts but the sockets and does not run yet. NULL: no memory or descriptors (errno).
cdef WorkerThread* thread_new(uint32_t number, uint32_t small_slots, uint32_t large_slots, int srtp_backend, uint64_t seed) noexcept nogil
cdef int thread_open(WorkerThread* w, const SockAddr* local, int buffer_bytes) noexcept nogil   # as udp_open; before thread_start only
cdef int thread_join_exchange(WorkerThread* w, Exchange* x) noexcept nogil   # before thread_start only; E_OK, E_OS; it outlives the thread
cdef int thread_start(WorkerThread* w) noexcept nogil                 # E_OK, E_OS (errno)
# Waits for the thread's end, which CMD_STOP in its mailbox brings about. E_OK, or E_STATE when it still runs after the timeout.
cdef int thread_join(WorkerThread* w, int64_t timeout_ms) noexcept nogil
cdef void thread_free(WorkerThread* w) noexcept nogil                 # never started, or joined
cdef Mailbox* thread_mailbox(WorkerThread* w) noexcept nogil
cdef Engine* thread_engine(WorkerThread* w) noexcept nogil            # before start or after join only
cdef const UdpSocket* thread_socket(const WorkerThread* w, int index) noexcept nogil   # what it bound and obtained

# Leak counters of the process.
cdef int threads_live() noexcept nogil
cdef int64_t threads_slots_leaked() noexcept nogil                    # still held when their slab was freed
cdef int threads_open_fds() noexcept nogil                            # epoll and timers
