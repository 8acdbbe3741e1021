"""UDP sockets of load endpoints: one each, connected to its remote, with large buffers and the kernel's receive times."""
from libc.stdint cimport uint8_t, int64_t
from relaycore.lgmodel cimport Endpoint, LoadThread
from relaycore.stun cimport SockAddr

ctypedef struct Arrival:
    uint8_t* data                  # borrowed until the next socket_receive of the thread
    int bytes
    int64_t arrival_ns             # CLOCK_MONOTONIC; the kernel's receive time where it is asked for

cdef int socket_io_new(LoadThread* t) noexcept nogil                   # makes t.io; E_OK, E_MEMORY
cdef void socket_io_free(LoadThread* t) noexcept nogil
# Opens e.fd bound to `local` (port 0 = any) and fills e.local. E_OK, E_OS (errno).
cdef int socket_open(LoadThread* t, Endpoint* e, const SockAddr* local) noexcept nogil
cdef int socket_connect(Endpoint* e, const SockAddr* remote) noexcept nogil   # E_OK, E_OS
cdef void socket_close(Endpoint* e) noexcept nogil
cdef int socket_send(Endpoint* e, const uint8_t* data, Py_ssize_t n) noexcept nogil   # E_OK, E_OS; counted
# A batch is written into places 0..LG_BATCH-1 and sent at once. Returns how many the kernel took; the rest is lost and counted.
cdef uint8_t* socket_place(LoadThread* t, int place) noexcept nogil
cdef int socket_send_batch(LoadThread* t, Endpoint* e, int count) noexcept nogil
cdef void socket_set_bytes(LoadThread* t, int place, int n) noexcept nogil
# Up to LG_BATCH datagrams. Returns how many; fewer than LG_BATCH = the queue was empty.
cdef int socket_receive(LoadThread* t, Endpoint* e, int64_t now_ns) noexcept nogil
cdef const Arrival* socket_arrivals(LoadThread* t) noexcept nogil
# Measures CLOCK_REALTIME against CLOCK_MONOTONIC anew; the kernel's times are in the former.
cdef void socket_sync_clock(LoadThread* t) noexcept nogil
