"""The ICE-TCP connections of one worker (RFC 6544, passive side): frames in from streams, an outbox out to them.

A connection is one more socket to the engine: TCP_FIRST_INDEX plus its place. Non-blocking, one thread.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t
from relaycore.counters cimport Counters
from relaycore.outbox cimport Outbox
from relaycore.slab cimport Slab, Slot
from relaycore.stun cimport SockAddr

cdef enum:
    TCP_FIRST_INDEX = 64           # above every UDP socket's
    TCP_CONNECTIONS = 1024         # of one worker

cdef struct Tcp                    # defined in tcp.pyx

cdef Tcp* tcp_new(Slab* slab, Counters* counters) noexcept nogil      # borrows both; NULL: no memory
cdef void tcp_free(Tcp* t) noexcept nogil                             # closes all connections
# Takes a connection over by a descriptor of its own; `first` are bytes that were read of it already. Returns its index, or
# E_LIMIT, E_LENGTH, E_MEMORY, E_OS.
cdef int tcp_add(Tcp* t, int fd, const SockAddr* remote, const uint8_t* first, uint32_t bytes, int64_t now_ns) noexcept nogil
cdef void tcp_close(Tcp* t, int index) noexcept nogil
cdef int tcp_count(const Tcp* t) noexcept nogil
cdef int tcp_fd(const Tcp* t, int index) noexcept nogil               # -1: no such connection
cdef const SockAddr* tcp_remote(const Tcp* t, int index) noexcept nogil
cdef int64_t tcp_opened_ns(const Tcp* t, int index) noexcept nogil
# One read. Above 0: something came; 0: nothing now; E_OS: the connection is over.
cdef int tcp_read(Tcp* t, int index) noexcept nogil
# The next whole frame that was read, as a slot that the caller owns; NULL: there is none.
cdef Slot* tcp_next(Tcp* t, int index, int64_t now_ns) noexcept nogil
# Sends the outbox's items of connections and takes them out; whole frames are dropped where a connection takes no more.
cdef void tcp_send(Tcp* t, Outbox* o) noexcept nogil
# Sends what of a frame is left. 1: all of it went, 0: not yet, E_OS: the connection is over.
cdef int tcp_flush(Tcp* t, int index) noexcept nogil
cdef bint tcp_has_rest(const Tcp* t, int index) noexcept nogil
cdef int tcp_open_fds() noexcept nogil                                # of the process, for leak checks
