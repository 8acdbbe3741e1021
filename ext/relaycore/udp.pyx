"""UDP sockets of one worker: recvmmsg into slab slots, sendmmsg out of the outbox, what the kernel refuses.

One socket per local address, IPv4 and IPv6 apart (IPV6_V6ONLY), so that an answer leaves from the address it was asked
at. sendmmsg saves little over sendto; what saves is GSO (LIMITS section 4a): equally long datagrams of one run, the last
one perhaps shorter, are one message with UDP_SEGMENT.
Errors on sending: EAGAIN and ENOBUFS keep the rest in order. EIO on a GSO message (a device without checksum offload)
turns GSO off for that socket; EMSGSIZE and EINVAL on one send its datagrams singly. Anything else (EPERM, ENETUNREACH,
EHOSTUNREACH, ECONNREFUSED …) costs that message, like a loss on the path. Deliberately absent: epoll, threads, retransmission.
"""
import os

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport errno, EAGAIN, EINTR, EINVAL, EIO, EMSGSIZE, ENOBUFS, ENOMEM
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t, uint64_t, INT64_MAX
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from relaycore.backlog cimport backlog_note, backlog_read
from relaycore.counters cimport Counters
from relaycore.errs cimport E_LENGTH, E_LIMIT, E_OS
from relaycore.outbox cimport Outbox, OutDatagram, outbox_clear, outbox_compact, outbox_put
from relaycore.slab cimport (
    SLOT_LARGE_BYTES, SLOT_SMALL_BYTES, Slab, Slot, slab_free, slab_new, slab_take, slab_used, slot_drop,
)
from relaycore.sockaddr cimport format_address, parse_address, read_sockaddr, write_sockaddr
from relaycore.stages cimport STAGE_RECEIVE, STAGE_SEND, stage_begin, stage_end
from relaycore.stun cimport SockAddr
from relaycore.units cimport ms

cdef extern from *:
    """
    #include <netinet/in.h>
    #include <sys/socket.h>
    #include <unistd.h>
    #ifndef SO_RXQ_OVFL
    #define SO_RXQ_OVFL 40
    #endif
    #ifndef UDP_SEGMENT
    #define UDP_SEGMENT 103
    #endif
    #include <time.h>
    #define UDP_CONTROL_BYTES (CMSG_SPACE(sizeof(unsigned int)) + CMSG_SPACE(sizeof(struct timespec)))
    #define UDP_SEGMENT_BYTES CMSG_SPACE(sizeof(unsigned short))

    /* Ask for the message to be cut into datagrams of this length. `control` has UDP_SEGMENT_BYTES. */
    static inline void udp_set_segment(struct msghdr *m, void *control, unsigned short bytes)
    {
        struct cmsghdr *c;
        m->msg_control = control;
        m->msg_controllen = UDP_SEGMENT_BYTES;
        c = CMSG_FIRSTHDR(m);
        c->cmsg_level = IPPROTO_UDP;
        c->cmsg_type = UDP_SEGMENT;
        c->cmsg_len = CMSG_LEN(sizeof(unsigned short));
        __builtin_memcpy(CMSG_DATA(c), &bytes, sizeof(bytes));
    }

    /* Last SO_RXQ_OVFL value of one message; 0 when it carries none (the kernel leaves it out while it is 0). */
    static inline unsigned int udp_overflow_of(struct msghdr *m)
    {
        unsigned int dropped = 0;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c))
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL)
                __builtin_memcpy(&dropped, CMSG_DATA(c), sizeof(dropped));
        return dropped;
    }
    static int udp_fds = 0;
    static inline void udp_count_fd(int change) { __atomic_fetch_add(&udp_fds, change, __ATOMIC_RELAXED); }
    static inline int udp_counted_fds(void) { return __atomic_load_n(&udp_fds, __ATOMIC_RELAXED); }
    """
    int UDP_CONTROL_BYTES, UDP_SEGMENT_BYTES, IPPROTO_UDP, UDP_SEGMENT
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
        int msg_flags
    cdef struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    int AF_INET, AF_INET6, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_CLOEXEC, SOL_SOCKET, SO_RCVBUF, SO_SNDBUF, SO_RCVBUFFORCE
    int SO_SNDBUFFORCE, SO_RXQ_OVFL, IPPROTO_IP, IPPROTO_IPV6, IPV6_V6ONLY, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER
    int IP_PMTUDISC_OMIT, IP_PMTUDISC_DONT, IPV6_PMTUDISC_DONT, MSG_DONTWAIT, MSG_TRUNC
    int socket(int domain, int kind, int protocol) noexcept nogil
    int bind(int fd, const sockaddr* address, socklen_t bytes) noexcept nogil
    int close(int fd) noexcept nogil
    int getsockname(int fd, sockaddr* address, socklen_t* bytes) noexcept nogil
    int setsockopt(int fd, int level, int name, const void* value, socklen_t bytes) noexcept nogil
    int getsockopt(int fd, int level, int name, void* value, socklen_t* bytes) noexcept nogil
    int recvmmsg(int fd, mmsghdr* messages, unsigned int count, int flags, void* timeout) noexcept nogil
    int sendmmsg(int fd, mmsghdr* messages, unsigned int count, int flags) noexcept nogil
    uint32_t udp_overflow_of(msghdr* m) noexcept nogil
    void udp_set_segment(msghdr* m, void* control, unsigned short bytes) noexcept nogil
    void udp_count_fd(int change) noexcept nogil
    int udp_counted_fds() noexcept nogil

cdef enum:
    SCRATCH_BYTES = 2048
    CONTROL_BYTES = 64             # >= UDP_CONTROL_BYTES, checked in udp_new
    SEGMENT_BYTES = 64             # >= UDP_SEGMENT_BYTES, checked in udp_new
    GSO_MAX_BYTES = 65000          # the kernel's limit is one UDP length, 65,507
    RETRY_MS = 1                   # after ENOBUFS

cdef struct Udp:
    Slab* slab                     # borrowed
    Counters* counters             # borrowed
    UdpSocket sockets[16]
    int count
    # Receive: large slots wait armed in the vectors between calls; a place without one reads into `scratch`.
    Slot* armed[64]
    mmsghdr incoming[64]
    iovec incoming_iov[64]
    sockaddr_storage incoming_name[64]
    uint8_t incoming_control[64][64]
    uint8_t scratch[2048]
    mmsghdr outgoing[64]           # messages; the datagrams of one are neighbours in the next two
    iovec outgoing_iov[1024]
    int outgoing_item[1024]        # index in the outbox
    int outgoing_first[64]         # place of a message's first datagram in these
    sockaddr_storage outgoing_name[64]
    uint8_t outgoing_control[64][64]


cdef Udp* udp_new(Slab* slab, Counters* counters) noexcept nogil:
    cdef Udp* u = <Udp*>calloc(1, sizeof(Udp))
    cdef int i
    if u == NULL or UDP_CONTROL_BYTES > CONTROL_BYTES or UDP_SEGMENT_BYTES > SEGMENT_BYTES:
        free(u)
        return NULL
    u.slab = slab
    u.counters = counters
    for i in range(UDP_BATCH):
        u.incoming[i].msg_hdr.msg_name = &u.incoming_name[i]
        u.incoming[i].msg_hdr.msg_iov = &u.incoming_iov[i]
        u.incoming[i].msg_hdr.msg_iovlen = 1
        u.incoming[i].msg_hdr.msg_control = &u.incoming_control[i][0]
        u.outgoing[i].msg_hdr.msg_name = &u.outgoing_name[i]
    return u


cdef void udp_free(Udp* u) noexcept nogil:
    cdef int i
    if u == NULL:
        return
    for i in range(u.count):
        close(u.sockets[i].fd)
        udp_count_fd(-1)
    for i in range(UDP_BATCH):
        if u.armed[i] != NULL:
            slot_drop(u.slab, u.armed[i])
    free(u)


cdef int _set_int(int fd, int level, int name, int value) noexcept nogil:
    return setsockopt(fd, level, name, &value, sizeof(int))


cdef int _ask_buffer(int fd, int name, int force_name, int wanted_bytes) noexcept nogil:
    """Ask for a socket buffer and return what the kernel really gave.   Units: bytes, as asked for.

    The kernel doubles the figure for its own bookkeeping and reports the double; it caps silently at net.core.rmem_max
    or wmem_max unless the process may force it (CAP_NET_ADMIN).
    """
    cdef int got = 0
    cdef socklen_t size = sizeof(int)
    _set_int(fd, SOL_SOCKET, name, wanted_bytes)
    getsockopt(fd, SOL_SOCKET, name, &got, &size)
    if got >> 1 < wanted_bytes and _set_int(fd, SOL_SOCKET, force_name, wanted_bytes) == 0:
        getsockopt(fd, SOL_SOCKET, name, &got, &size)
    return got >> 1


cdef void _set_mtu_policy(int fd, int family) noexcept nogil:
    """Let large datagrams be fragmented rather than vanish, without trusting ICMP more than needed.

    The default (IP_PMTUDISC_WANT) sets DF, so that a publisher's 1,400-byte packet dies on a subscriber's VPN or PPPoE
    link, and believes ICMP "fragmentation needed", which anybody can forge, down to EMSGSIZE. IPv4: OMIT leaves DF
    clear (routers fragment) and ignores the learned MTU. IPv6 routers never fragment, so there we do it ourselves:
    DONT uses the learned MTU, which cannot be forged below 1,280, where our own packets (<= 1,232 bytes) still fit.
    """
    if family == 6:
        _set_int(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT)
    elif _set_int(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_OMIT) != 0:
        _set_int(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)


cdef int udp_open(Udp* u, const SockAddr* local, int buffer_bytes) noexcept nogil:
    cdef UdpSocket* s
    cdef sockaddr_storage name
    cdef socklen_t name_bytes = write_sockaddr(local, &name)
    cdef SockAddr bound
    cdef int fd, kept
    if u.count >= UDP_MAX_SOCKETS:
        return E_LIMIT
    fd = socket(AF_INET6 if local.family == 6 else AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        return E_OS
    if ((local.family == 6 and _set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1) != 0)
            or bind(fd, <sockaddr*>&name, name_bytes) != 0):
        kept = errno
        close(fd)
        (&errno)[0] = kept
        return E_OS
    _set_mtu_policy(fd, local.family)
    _set_int(fd, SOL_SOCKET, SO_RXQ_OVFL, 1)
    name_bytes = sizeof(sockaddr_storage)
    getsockname(fd, <sockaddr*>&name, &name_bytes)
    read_sockaddr(&name, &bound)
    s = &u.sockets[u.count]
    memset(s, 0, sizeof(UdpSocket))
    s.fd = fd
    s.family = local.family
    s.port = bound.port
    s.receive_buffer_bytes = _ask_buffer(fd, SO_RCVBUF, SO_RCVBUFFORCE, buffer_bytes)
    s.send_buffer_bytes = _ask_buffer(fd, SO_SNDBUF, SO_SNDBUFFORCE, buffer_bytes)
    # Linux 4.18 and later know it; 0 = no segments unless a message asks.
    s.takes_gso = 1 if _set_int(fd, IPPROTO_UDP, UDP_SEGMENT, 0) == 0 else 0
    udp_count_fd(1)
    u.count += 1
    return u.count - 1


cdef int udp_count(const Udp* u) noexcept nogil:
    return u.count


cdef const UdpSocket* udp_socket(const Udp* u, int index) noexcept nogil:
    return &u.sockets[index]


cdef void _arm(Udp* u) noexcept nogil:
    """Refill the receive vectors: what the last call used up gets a new slot, or scratch when the slab is empty."""
    cdef int i
    for i in range(UDP_BATCH):
        if u.armed[i] == NULL:
            u.armed[i] = slab_take(u.slab, SLOT_LARGE_BYTES)
            if u.armed[i] != NULL:
                u.incoming_iov[i].iov_base = u.armed[i].data
                u.incoming_iov[i].iov_len = SLOT_LARGE_BYTES
            else:
                u.incoming_iov[i].iov_base = u.scratch
                u.incoming_iov[i].iov_len = SCRATCH_BYTES
        u.incoming[i].msg_hdr.msg_namelen = sizeof(sockaddr_storage)
        u.incoming[i].msg_hdr.msg_controllen = <size_t>UDP_CONTROL_BYTES


cdef Slot* _take_arrived(Udp* u, int i, unsigned int length) noexcept nogil:
    """Return the slot that holds message i: a small one copied, so that audio and RTCP do not pin 1,600 bytes each."""
    cdef Slot* slot = u.armed[i]
    cdef Slot* small
    if length <= SLOT_SMALL_BYTES and u.slab.used_small < u.slab.small_count:
        small = slab_take(u.slab, <Py_ssize_t>length)
        memcpy(small.data, slot.data, length)
        slot = small
    else:
        u.armed[i] = NULL
    slot.length = <uint16_t>(length & 0xffffu)
    return slot


cdef int udp_receive(Udp* u, int index, int64_t now_ns, UdpArrival* out, int* arrived) noexcept nogil:
    cdef UdpSocket* s = &u.sockets[index]
    cdef int got, i
    cdef uint32_t overflow, seen
    cdef UdpArrival* a
    cdef uint64_t began = stage_begin(u.counters)
    arrived[0] = 0
    _arm(u)
    backlog_read(&s.backlog)
    got = recvmmsg(s.fd, u.incoming, UDP_BATCH, MSG_DONTWAIT, NULL)
    # A negative answer is EAGAIN or a pending ICMP error, which the call has cleared: both mean "nothing now".
    seen = s.overflow_seen
    for i in range(got):
        overflow = udp_overflow_of(&u.incoming[i].msg_hdr)
        if overflow != 0:
            u.counters.receive_overflow += <uint64_t><uint32_t>(overflow - s.overflow_seen)
            s.overflow_seen = overflow
        if u.armed[i] == NULL:
            u.counters.slots_exhausted += 1
            continue
        if u.incoming[i].msg_hdr.msg_flags & MSG_TRUNC:
            u.counters.by_error[-E_LENGTH] += 1
            continue
        a = &out[arrived[0]]
        read_sockaddr(&u.incoming_name[i], &a.remote)
        a.slot = _take_arrived(u, i, u.incoming[i].msg_len)
        a.slot.arrival_ns = now_ns
        arrived[0] += 1
    backlog_note(&s.backlog, s.fd, &u.incoming[0].msg_hdr if got > 0 else NULL, got == UDP_BATCH, s.overflow_seen != seen, now_ns)
    stage_end(u.counters, STAGE_RECEIVE, began, <uint64_t>arrived[0])
    return got if got > 0 else 0


cdef inline bint _continues(const Outbox* o, const OutDatagram* first, const OutDatagram* item, int segments, size_t total) noexcept nogil:
    """Whether a datagram may go into the same GSO message as the run's `first`."""
    return (item.run == first.run and item.transport == first.transport and item.slot.length <= first.slot.length
            and segments < UDP_GSO_SEGMENTS and total + item.slot.length <= GSO_MAX_BYTES)


cdef int _gather(Udp* u, Outbox* o, int index, bint with_gso, int* from_item) noexcept nogil:
    """Point the send vectors at the next items of one socket; returns how many messages, moves from_item behind the last."""
    cdef int n = 0                 # messages
    cdef int places = 0            # datagrams
    cdef int segments = 0          # of the last message; 0 = nothing more goes into it
    cdef size_t total = 0
    cdef OutDatagram* item
    cdef OutDatagram* first = NULL
    while from_item[0] < o.count:
        item = &o.items[from_item[0]]
        if item.slot == NULL or item.socket_index != index:
            from_item[0] += 1
            continue
        if not (with_gso and segments and _continues(o, first, item, segments, total)):
            if n == UDP_BATCH:
                break
            first = item
            segments = 0
            total = 0
            u.outgoing[n].msg_hdr.msg_namelen = write_sockaddr(&item.remote, &u.outgoing_name[n])
            u.outgoing[n].msg_hdr.msg_iov = &u.outgoing_iov[places]
            u.outgoing[n].msg_hdr.msg_control = NULL
            u.outgoing[n].msg_hdr.msg_controllen = 0
            u.outgoing_first[n] = places
            n += 1
        elif segments == 1:
            udp_set_segment(&u.outgoing[n - 1].msg_hdr, &u.outgoing_control[n - 1][0], first.slot.length)
        u.outgoing_iov[places].iov_base = item.slot.data
        u.outgoing_iov[places].iov_len = item.slot.length
        u.outgoing_item[places] = from_item[0]
        places += 1
        segments += 1
        total += item.slot.length
        u.outgoing[n - 1].msg_hdr.msg_iovlen = <size_t>segments
        if item.slot.length < first.slot.length:
            # The kernel takes a shorter datagram as the last one only.
            segments = 0
        from_item[0] += 1
    return n


cdef void _finish(Udp* u, Outbox* o, int message, bint was_sent) noexcept nogil:
    """Let go of a message's datagrams and count them."""
    cdef int count = <int>u.outgoing[message].msg_hdr.msg_iovlen
    cdef int i
    cdef OutDatagram* item
    for i in range(u.outgoing_first[message], u.outgoing_first[message] + count):
        item = &o.items[u.outgoing_item[i]]
        if was_sent:
            u.counters.datagrams_sent += 1
            u.counters.bytes_sent += item.slot.length
        else:
            u.counters.send_errors += 1
            u.counters.by_error[-E_OS] += 1
        slot_drop(u.slab, item.slot)
        item.slot = NULL
    if was_sent and count > 1:
        u.counters.gso_sends += 1
        u.counters.gso_datagrams += <uint64_t>count


cdef bint _refuses_gso(Udp* u, UdpSocket* s, int message) noexcept nogil:
    """Whether an error on a GSO message says that its datagrams should go out singly; errno as sendmmsg left it."""
    if u.outgoing[message].msg_hdr.msg_controllen == 0 or (errno != EIO and errno != EMSGSIZE and errno != EINVAL):
        return False
    if errno == EIO:
        s.takes_gso = 0
        u.counters.gso_fallbacks += 1
    return True


cdef void _send_socket(Udp* u, Outbox* o, int index, int64_t now_ns) noexcept nogil:
    cdef UdpSocket* s = &u.sockets[index]
    cdef int item = 0
    cdef int n, first, sent, i
    cdef bint singly = False
    while True:
        n = _gather(u, o, index, s.takes_gso and not singly, &item)
        singly = False
        if n == 0:
            s.waiting_since_ns = 0
            return
        first = 0
        while first < n:
            sent = sendmmsg(s.fd, &u.outgoing[first], <unsigned int>(n - first), MSG_DONTWAIT)
            if sent > 0:
                s.waiting_since_ns = 0
                for i in range(first, first + sent):
                    _finish(u, o, i, True)
                first += sent
            elif errno == EINTR:
                continue
            elif errno == EAGAIN or errno == ENOBUFS or errno == ENOMEM:
                # ENOBUFS comes from below the socket (a full device queue): EPOLLOUT would answer at once and spin.
                if errno == EAGAIN:
                    s.blocked = 1
                else:
                    s.retry_ns = now_ns + ms(RETRY_MS)
                if s.waiting_since_ns == 0:
                    s.waiting_since_ns = now_ns
                return
            elif _refuses_gso(u, s, first):
                # From this message on they are gathered anew.
                item = u.outgoing_item[u.outgoing_first[first]]
                singly = True
                break
            else:
                # The first message is the one refused; the call reports errors only for that.
                _finish(u, o, first, False)
                first += 1


cdef void _shed(Udp* u, Outbox* o, int index) noexcept nogil:
    """Drop what waits for one socket: it is stale, and the other sockets need the outbox."""
    cdef int i
    for i in range(o.count):
        if o.items[i].slot != NULL and o.items[i].socket_index == index:
            slot_drop(u.slab, o.items[i].slot)
            o.items[i].slot = NULL
            u.counters.queue_dropped += 1


cdef int udp_send(Udp* u, Outbox* o, int64_t now_ns) noexcept nogil:
    cdef UdpSocket* s
    cdef int i, misplaced
    cdef uint64_t began = stage_begin(u.counters)
    cdef uint64_t sent_before = u.counters.datagrams_sent
    if o.count == 0:
        return 0
    for i in range(u.count):
        s = &u.sockets[i]
        if not s.blocked and now_ns >= s.retry_ns:
            s.retry_ns = 0
            _send_socket(u, o, i, now_ns)
        if s.waiting_since_ns != 0 and now_ns - s.waiting_since_ns >= ms(UDP_STALE_MS):
            _shed(u, o, i)
            s.waiting_since_ns = now_ns if s.blocked else 0
    misplaced = 0
    for i in range(o.count):
        if o.items[i].slot != NULL and o.items[i].socket_index >= u.count:
            misplaced += 1
            slot_drop(u.slab, o.items[i].slot)
            o.items[i].slot = NULL
    u.counters.send_errors += <uint64_t>misplaced
    outbox_compact(o)
    stage_end(u.counters, STAGE_SEND, began, u.counters.datagrams_sent - sent_before)
    return o.count


cdef void udp_unblock(Udp* u, int index) noexcept nogil:
    u.sockets[index].blocked = 0
    u.sockets[index].waiting_since_ns = 0


cdef bint udp_takes_gso(const Udp* u) noexcept nogil:
    cdef int i
    for i in range(u.count):
        if u.sockets[i].takes_gso:
            return True
    return False


cdef int64_t udp_next(const Udp* u) noexcept nogil:
    cdef int64_t due = INT64_MAX
    cdef const UdpSocket* s
    cdef int i
    for i in range(u.count):
        s = &u.sockets[i]
        if s.waiting_since_ns == 0:
            continue
        due = min(due, s.waiting_since_ns + ms(UDP_STALE_MS))
        if not s.blocked:
            due = min(due, s.retry_ns)
    return due


cdef int udp_open_fds() noexcept nogil:
    return udp_counted_fds()


@cython.final
cdef class UdpFace:
    """Sockets, slab and outbox without a thread, for tests; time is the caller's."""
    cdef Slab* _slab
    cdef Counters _counters
    cdef Outbox* _outbox
    cdef Udp* _udp

    def __cinit__(self, uint32_t large_slots=256, uint32_t small_slots=2048):
        memset(&self._counters, 0, sizeof(Counters))
        self._slab = slab_new(small_slots, large_slots)
        self._outbox = <Outbox*>calloc(1, sizeof(Outbox))
        if self._slab == NULL or self._outbox == NULL:
            raise MemoryError("udp")
        self._udp = udp_new(self._slab, &self._counters)
        if self._udp == NULL:
            raise MemoryError("udp")

    def __dealloc__(self):
        udp_free(self._udp)
        free(self._outbox)
        slab_free(self._slab)

    def open(self, str ip, int port=0, int buffer_bytes=8 * 1024 * 1024):
        """Return (fd, port, receive buffer, send buffer) of a new socket; OSError as the kernel says."""
        cdef SockAddr local
        cdef int index
        cdef const UdpSocket* s
        parse_address(ip, port, &local)
        index = udp_open(self._udp, &local, buffer_bytes)
        if index == E_LIMIT:
            raise ValueError("too many sockets")
        if index < 0:
            raise OSError(errno, f"{ip}:{port}: {os.strerror(errno)}")
        s = udp_socket(self._udp, index)
        return s.fd, s.port, s.receive_buffer_bytes, s.send_buffer_bytes

    def receive(self, int index=0, int64_t now_ns=1):
        """Return [(data, (ip, port), slot capacity, arrival)] of one batch."""
        cdef UdpArrival arrivals[64]
        cdef int arrived = 0
        cdef int i
        if not 0 <= index < udp_count(self._udp):
            raise IndexError(index)
        udp_receive(self._udp, index, now_ns, arrivals, &arrived)
        out = []
        for i in range(arrived):
            slot = arrivals[i].slot
            data = PyBytes_FromStringAndSize(<const char*>slot.data, slot.length)
            out.append((data, format_address(&arrivals[i].remote), slot.capacity, slot.arrival_ns))
            slot_drop(self._slab, slot)
        return out

    def put(self, bytes data, str ip, int port, uint16_t index=0, run=None):
        """Queue a datagram; those with the same `run` are of one frame and subscriber. None: a run of its own."""
        cdef SockAddr remote
        cdef Slot* slot
        parse_address(ip, port, &remote)
        slot = slab_take(self._slab, len(data))
        if slot == NULL:
            raise MemoryError("slab")
        memcpy(slot.data, <const char*>data, <size_t>len(data))
        slot.length = <uint16_t>len(data)
        self._outbox.next_run += 1
        if outbox_put(self._outbox, slot, &remote, index, self._outbox.next_run if run is None else run, 0) < 0:
            slot_drop(self._slab, slot)
            raise ValueError("outbox full")

    def send(self, int64_t now_ns=1):
        """Return how many datagrams wait on."""
        return udp_send(self._udp, self._outbox, now_ns)

    def block(self, int index, int64_t now_ns):
        """Put a socket into the state that EAGAIN leaves behind."""
        if not 0 <= index < udp_count(self._udp):
            raise IndexError(index)
        self._udp.sockets[index].blocked = 1
        self._udp.sockets[index].waiting_since_ns = now_ns

    def unblock(self, int index):
        if not 0 <= index < udp_count(self._udp):
            raise IndexError(index)
        udp_unblock(self._udp, index)

    def next_ns(self):
        return udp_next(self._udp)

    def clear(self):
        outbox_clear(self._outbox, self._slab, 0)

    def slots_used(self):
        return slab_used(self._slab)

    def counters(self):
        cdef Counters* c = &self._counters
        return {
            "datagrams_sent": c.datagrams_sent, "bytes_sent": c.bytes_sent, "send_errors": c.send_errors,
            "receive_overflow": c.receive_overflow, "slots_exhausted": c.slots_exhausted,
            "queue_dropped": c.queue_dropped, "too_long": c.by_error[-E_LENGTH], "refused": c.by_error[-E_OS],
            "gso_sends": c.gso_sends, "gso_datagrams": c.gso_datagrams, "gso_fallbacks": c.gso_fallbacks,
        }


def fds_open():
    """Return how many sockets of this module are open in this process."""
    return udp_open_fds()
