"""Datagrams of load endpoints in and out of the kernel.

A socket per endpoint, connected, so that nothing from elsewhere reaches it and sending needs no address. Receive times are
the kernel's (SO_TIMESTAMPNS, taken when the datagram entered the stack), so that a thread that drains late measures the
relay and not itself. They come in CLOCK_REALTIME; the offset to CLOCK_MONOTONIC is measured ten times a second between two
readings of the latter, of which the closest pair counts. SO_RXQ_OVFL says what the queue could not hold.
"""
from libc.errno cimport errno, EAGAIN
from libc.stdint cimport uint8_t, uint32_t, int64_t
from libc.stdlib cimport calloc, free
from relaycore.errs cimport E_MEMORY, E_OK, E_OS
from relaycore.lgmodel cimport LG_BATCH, LG_DATAGRAM_BYTES, Endpoint, LoadThread
from relaycore.sockaddr cimport read_sockaddr, write_sockaddr
from relaycore.stun cimport SockAddr
from relaycore.units cimport ms

cdef extern from *:
    """
    #include <netinet/in.h>
    #include <stdint.h>
    #include <sys/socket.h>
    #include <time.h>
    #include <unistd.h>
    #ifndef SO_RXQ_OVFL
    #define SO_RXQ_OVFL 40
    #endif
    #define LG_CONTROL_BYTES 128

    static inline void lg_read_control(struct msghdr *m, int64_t *real_ns, uint32_t *dropped)
    {
        for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
            if (c->cmsg_level != SOL_SOCKET)
                continue;
            if (c->cmsg_type == SCM_TIMESTAMPNS) {
                struct timespec t;
                __builtin_memcpy(&t, CMSG_DATA(c), sizeof(t));
                *real_ns = t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
            } else if (c->cmsg_type == SO_RXQ_OVFL)
                __builtin_memcpy(dropped, CMSG_DATA(c), sizeof(*dropped));
        }
    }
    static inline long long lg_clock_ns(clockid_t clock)
    {
        struct timespec t;
        clock_gettime(clock, &t);
        return (long long)t.tv_sec * 1000000000LL + t.tv_nsec;
    }
    """
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        pass
    cdef struct sockaddr_storage:
        unsigned short ss_family
    cdef struct iovec:
        void* iov_base
        size_t iov_len
    cdef struct msghdr:
        void* msg_name
        socklen_t msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
    cdef struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    int LG_CONTROL_BYTES, AF_INET, AF_INET6, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_CLOEXEC, SOL_SOCKET, SO_RCVBUF, SO_SNDBUF
    int SO_RCVBUFFORCE, SO_SNDBUFFORCE, SO_RXQ_OVFL, SO_TIMESTAMPNS, MSG_DONTWAIT, MSG_NOSIGNAL, CLOCK_REALTIME, CLOCK_MONOTONIC
    int socket(int domain, int kind, int protocol) noexcept nogil
    int bind(int fd, const sockaddr* address, socklen_t bytes) noexcept nogil
    int connect(int fd, const sockaddr* address, socklen_t bytes) noexcept nogil
    int close(int fd) noexcept nogil
    int getsockname(int fd, sockaddr* address, socklen_t* bytes) noexcept nogil
    int setsockopt(int fd, int level, int name, const void* value, socklen_t bytes) noexcept nogil
    int getsockopt(int fd, int level, int name, void* value, socklen_t* bytes) noexcept nogil
    Py_ssize_t send(int fd, const void* data, size_t bytes, int flags) noexcept nogil
    int recvmmsg(int fd, mmsghdr* messages, unsigned int count, int flags, void* timeout) noexcept nogil
    int sendmmsg(int fd, mmsghdr* messages, unsigned int count, int flags) noexcept nogil
    void lg_read_control(msghdr* m, int64_t* real_ns, uint32_t* dropped) noexcept nogil
    int64_t lg_clock_ns(int clock) noexcept nogil

cdef enum:
    CLOCK_TRIES = 5
    # NTP slews by 50 us in 100 ms at most; the rest is what the five readings may err.
    CLOCK_STEP_NS = 200000

ctypedef struct SocketIo:
    mmsghdr incoming[64]
    iovec incoming_iov[64]
    uint8_t incoming_data[64][2048]
    uint8_t incoming_control[64][128]
    Arrival arrivals[64]
    mmsghdr outgoing[64]
    iovec outgoing_iov[64]
    uint8_t outgoing_data[64][1472]


cdef int socket_io_new(LoadThread* t) noexcept nogil:
    cdef SocketIo* io = <SocketIo*>calloc(1, sizeof(SocketIo))
    cdef int i
    if io == NULL:
        return E_MEMORY
    for i in range(LG_BATCH):
        io.incoming_iov[i].iov_base = io.incoming_data[i]
        io.incoming_iov[i].iov_len = LG_DATAGRAM_BYTES
        io.incoming[i].msg_hdr.msg_iov = &io.incoming_iov[i]
        io.incoming[i].msg_hdr.msg_iovlen = 1
        io.incoming[i].msg_hdr.msg_control = io.incoming_control[i]
        io.incoming[i].msg_hdr.msg_controllen = <size_t>LG_CONTROL_BYTES
        io.arrivals[i].data = io.incoming_data[i]
        io.outgoing_iov[i].iov_base = io.outgoing_data[i]
        io.outgoing[i].msg_hdr.msg_iov = &io.outgoing_iov[i]
        io.outgoing[i].msg_hdr.msg_iovlen = 1
    t.io = io
    socket_sync_clock(t)
    return E_OK


cdef void socket_io_free(LoadThread* t) noexcept nogil:
    free(t.io)
    t.io = NULL


cdef void _set_buffer(int fd, int name, int force_name, int wanted_bytes) noexcept nogil:
    """Ask for a buffer; beyond net.core.rmem_max or wmem_max only a privileged process gets it."""
    cdef int got = 0
    cdef socklen_t size = sizeof(int)
    setsockopt(fd, SOL_SOCKET, name, &wanted_bytes, sizeof(int))
    getsockopt(fd, SOL_SOCKET, name, &got, &size)
    # The kernel reports twice what it was asked for.
    if got >> 1 < wanted_bytes:
        setsockopt(fd, SOL_SOCKET, force_name, &wanted_bytes, sizeof(int))


cdef int socket_open(LoadThread* t, Endpoint* e, const SockAddr* local) noexcept nogil:
    cdef sockaddr_storage address
    cdef socklen_t size = sizeof(sockaddr_storage)
    cdef int on = 1
    e.fd = socket(AF_INET if local.family == 4 else AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if e.fd < 0:
        return E_OS
    _set_buffer(e.fd, SO_RCVBUF, SO_RCVBUFFORCE, t.receive_buffer_bytes)
    _set_buffer(e.fd, SO_SNDBUF, SO_SNDBUFFORCE, t.send_buffer_bytes)
    setsockopt(e.fd, SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof(int))
    if t.has_kernel_time and setsockopt(e.fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(int)) != 0:
        return E_OS
    if bind(e.fd, <sockaddr*>&address, write_sockaddr(local, &address)) != 0:
        return E_OS
    if getsockname(e.fd, <sockaddr*>&address, &size) != 0:
        return E_OS
    read_sockaddr(&address, &e.local)
    return E_OK


cdef int socket_connect(Endpoint* e, const SockAddr* remote) noexcept nogil:
    cdef sockaddr_storage address
    if connect(e.fd, <sockaddr*>&address, write_sockaddr(remote, &address)) != 0:
        return E_OS
    e.remote = remote[0]
    e.has_remote = 1
    return E_OK


cdef void socket_close(Endpoint* e) noexcept nogil:
    if e.fd >= 0:
        close(e.fd)
    e.fd = -1


cdef int socket_send(Endpoint* e, const uint8_t* data, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t taken = send(e.fd, data, <size_t>n, MSG_DONTWAIT | MSG_NOSIGNAL)
    if taken < 0 and errno != EAGAIN:
        # A connected socket first reports what came back for an earlier datagram (ECONNREFUSED).
        taken = send(e.fd, data, <size_t>n, MSG_DONTWAIT | MSG_NOSIGNAL)
    if taken < 0:
        e.counts.refused += 1
        return E_OS
    e.counts.packets_sent += 1
    e.counts.bytes_sent += <size_t>n
    return E_OK


cdef uint8_t* socket_place(LoadThread* t, int place) noexcept nogil:
    return (<SocketIo*>t.io).outgoing_data[place]


cdef void socket_set_bytes(LoadThread* t, int place, int n) noexcept nogil:
    (<SocketIo*>t.io).outgoing_iov[place].iov_len = <size_t>n


cdef int socket_send_batch(LoadThread* t, Endpoint* e, int count) noexcept nogil:
    cdef SocketIo* io = <SocketIo*>t.io
    cdef int done = 0
    cdef int taken, i
    cdef int tries = 0
    while done < count:
        taken = sendmmsg(e.fd, &io.outgoing[done], <unsigned int>(count - done), MSG_DONTWAIT | MSG_NOSIGNAL)
        if taken <= 0:
            tries += 1
            # The first error may belong to an earlier datagram.
            if tries < 2 and errno != EAGAIN:
                continue
            break
        for i in range(done, done + taken):
            e.counts.bytes_sent += io.outgoing_iov[i].iov_len
        done += taken
    e.counts.packets_sent += <uint32_t>done
    e.counts.refused += <uint32_t>(count - done)
    return done


cdef int socket_receive(LoadThread* t, Endpoint* e, int64_t now_ns) noexcept nogil:
    cdef SocketIo* io = <SocketIo*>t.io
    cdef int got = recvmmsg(e.fd, io.incoming, LG_BATCH, MSG_DONTWAIT, NULL)
    cdef int i
    cdef uint32_t dropped = e.overflow_seen
    cdef int64_t real_ns
    if got < 0 and errno != EAGAIN:
        # An ICMP error was read in place of a datagram.
        got = recvmmsg(e.fd, io.incoming, LG_BATCH, MSG_DONTWAIT, NULL)
    if got <= 0:
        return 0
    for i in range(got):
        real_ns = 0
        lg_read_control(&io.incoming[i].msg_hdr, &real_ns, &dropped)
        io.incoming[i].msg_hdr.msg_controllen = <size_t>LG_CONTROL_BYTES
        io.arrivals[i].bytes = <int>io.incoming[i].msg_len
        io.arrivals[i].arrival_ns = real_ns - t.real_offset_ns if real_ns else now_ns
        e.counts.bytes_received += io.incoming[i].msg_len
    e.counts.packets_received += <uint32_t>got
    e.counts.receive_overflow += dropped - e.overflow_seen
    e.overflow_seen = dropped
    return got


cdef const Arrival* socket_arrivals(LoadThread* t) noexcept nogil:
    return (<SocketIo*>t.io).arrivals


cdef void socket_sync_clock(LoadThread* t) noexcept nogil:
    cdef int64_t before, real, after, offset
    cdef int64_t best_gap = 0
    cdef int64_t best = 0
    cdef int i
    for i in range(CLOCK_TRIES):
        before = lg_clock_ns(CLOCK_MONOTONIC)
        real = lg_clock_ns(CLOCK_REALTIME)
        after = lg_clock_ns(CLOCK_MONOTONIC)
        offset = real - before - ((after - before) >> 1)
        if i == 0 or after - before < best_gap:
            best_gap = after - before
            best = offset
    offset = best - t.real_offset_ns
    if t.offset_due_ns and (offset > CLOCK_STEP_NS or offset < -CLOCK_STEP_NS):
        t.counts.clock_steps += 1
    t.real_offset_ns = best
    t.offset_due_ns = lg_clock_ns(CLOCK_MONOTONIC) + ms(100)
