"""ICE-TCP connections; the contract stands in tcp.pxd. A frame is two bytes of length and a packet (RFC 4571).

A stream cannot lose a packet, so a slow one would delay all that follows. What the kernel's buffer (SEND_BYTES) does not take
is dropped, a whole frame at a time: for the packets in it that is loss on a network, which congestion control understands.
"""
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memmove, memset
from relaycore.be cimport get_u16, put_u16
from relaycore.errs cimport E_LENGTH, E_LIMIT, E_MEMORY, E_OS
from relaycore.outbox cimport OutDatagram, outbox_compact, outbox_put
from relaycore.slab cimport SLOT_LARGE_BYTES, slab_free, slab_new, slab_take, slab_used, slot_drop

cdef extern from *:
    """
    #include <fcntl.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <stdatomic.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <unistd.h>
    static atomic_int tcp_fds_open;
    static void tcp_count_fds(int n) { atomic_fetch_add(&tcp_fds_open, n); }
    static int tcp_get_fds(void) { return atomic_load(&tcp_fds_open); }
    static int tcp_take_over(int fd, int send_bytes)
    {
        int on = 1, own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (own < 0)
            return -1;
        fcntl(own, F_SETFL, fcntl(own, F_GETFL) | O_NONBLOCK);
        setsockopt(own, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(own, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof send_bytes);
        return own;
    }
    static ssize_t tcp_send_frame(int fd, const unsigned char *head, const unsigned char *body, size_t bytes)
    {
        struct iovec parts[2] = {{(void *)head, 2}, {(void *)body, bytes}};
        struct msghdr message = {0};
        message.msg_iov = parts;
        message.msg_iovlen = 2;
        return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    static ssize_t tcp_send_bytes(int fd, const unsigned char *data, size_t bytes)
    {
        return send(fd, data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    static ssize_t tcp_receive_bytes(int fd, unsigned char *data, size_t bytes) { return recv(fd, data, bytes, MSG_DONTWAIT); }
    """
    void tcp_count_fds(int n) noexcept nogil
    int tcp_get_fds() noexcept nogil
    int tcp_take_over(int fd, int send_bytes) noexcept nogil
    Py_ssize_t tcp_send_frame(int fd, const uint8_t* head, const uint8_t* body, size_t bytes) noexcept nogil
    Py_ssize_t tcp_send_bytes(int fd, const uint8_t* data, size_t bytes) noexcept nogil
    Py_ssize_t tcp_receive_bytes(int fd, uint8_t* data, size_t bytes) noexcept nogil
    int close(int fd) noexcept nogil

cdef enum:
    HEAD_BYTES = 2
    READ_BYTES = 8192              # of one connection at a time
    # A quarter of a second at 2 Mbit/s: more would be a queue that nobody asked for. The kernel doubles it for its own needs.
    SEND_BYTES = 65536

cdef struct Connection:
    int fd
    SockAddr remote
    int64_t opened_ns
    uint32_t read_from             # where the first byte not yet looked at stands in `read`
    uint32_t read_to
    uint32_t skip                  # bytes of a frame too long to be a packet, still to come
    uint16_t rest_bytes            # of a frame that went out in part
    uint16_t rest_from
    uint8_t rest[1602]             # SLOT_LARGE_BYTES and the head
    uint8_t read[8192]

cdef struct Tcp:
    Slab* slab
    Counters* counters
    int count
    int top                        # behind the highest place in use
    Connection* connections[1024]  # owned


cdef Tcp* tcp_new(Slab* slab, Counters* counters) noexcept nogil:
    cdef Tcp* t = <Tcp*>calloc(1, sizeof(Tcp))
    if t != NULL:
        t.slab = slab
        t.counters = counters
    return t


cdef void tcp_free(Tcp* t) noexcept nogil:
    cdef int i
    if t == NULL:
        return
    for i in range(t.top):
        tcp_close(t, i)
    free(t)


cdef int tcp_add(Tcp* t, int fd, const SockAddr* remote, const uint8_t* first, uint32_t bytes, int64_t now_ns) noexcept nogil:
    cdef Connection* c
    cdef int index = 0
    if bytes > READ_BYTES:
        return E_LENGTH
    while index < t.top and t.connections[index] != NULL:
        index += 1
    if index == TCP_CONNECTIONS:
        return E_LIMIT
    c = <Connection*>calloc(1, sizeof(Connection))
    if c == NULL:
        return E_MEMORY
    c.fd = tcp_take_over(fd, SEND_BYTES)
    if c.fd < 0:
        free(c)
        return E_OS
    tcp_count_fds(1)
    c.remote = remote[0]
    c.opened_ns = now_ns
    memcpy(c.read, first, bytes)
    c.read_to = bytes
    t.connections[index] = c
    t.count += 1
    if index >= t.top:
        t.top = index + 1
    return index


cdef void tcp_close(Tcp* t, int index) noexcept nogil:
    cdef Connection* c = t.connections[index]
    if c == NULL:
        return
    close(c.fd)
    tcp_count_fds(-1)
    free(c)
    t.connections[index] = NULL
    t.count -= 1
    while t.top and t.connections[t.top - 1] == NULL:
        t.top -= 1


cdef int tcp_count(const Tcp* t) noexcept nogil:
    return t.count


cdef int tcp_fd(const Tcp* t, int index) noexcept nogil:
    return t.connections[index].fd if 0 <= index < t.top and t.connections[index] != NULL else -1


cdef const SockAddr* tcp_remote(const Tcp* t, int index) noexcept nogil:
    return &t.connections[index].remote


cdef int64_t tcp_opened_ns(const Tcp* t, int index) noexcept nogil:
    return t.connections[index].opened_ns


cdef int tcp_read(Tcp* t, int index) noexcept nogil:
    cdef Connection* c = t.connections[index]
    cdef Py_ssize_t got
    # Frames are taken out between two reads, so that one whole frame always finds room.
    if c.read_from:
        memmove(c.read, c.read + c.read_from, c.read_to - c.read_from)
        c.read_to -= c.read_from
        c.read_from = 0
    got = tcp_receive_bytes(c.fd, c.read + c.read_to, READ_BYTES - c.read_to)
    if got < 0:
        return 0 if errno == EAGAIN or errno == EINTR else E_OS
    if got == 0:
        return E_OS
    c.read_to += <uint32_t>got
    return <int>got


cdef Slot* tcp_next(Tcp* t, int index, int64_t now_ns) noexcept nogil:
    cdef Connection* c = t.connections[index]
    cdef Slot* slot
    cdef uint32_t length, ready
    while True:
        ready = c.read_to - c.read_from
        if c.skip:
            length = min(c.skip, ready)
            c.skip -= length
            c.read_from += length
            if c.skip:
                return NULL
            continue
        if ready < HEAD_BYTES:
            return NULL
        length = get_u16(c.read + c.read_from)
        if length > SLOT_LARGE_BYTES:
            t.counters.by_error[-E_LENGTH] += 1
            c.read_from += HEAD_BYTES
            c.skip = length
            continue
        if ready < HEAD_BYTES + length:
            return NULL
        c.read_from += HEAD_BYTES + length
        if length == 0:
            continue
        slot = slab_take(t.slab, length)
        if slot == NULL:
            t.counters.slots_exhausted += 1
            continue
        memcpy(slot.data, c.read + c.read_from - length, length)
        slot.length = <uint16_t>length
        slot.arrival_ns = now_ns
        return slot


cdef void _send_item(Tcp* t, Connection* c, const OutDatagram* item) noexcept nogil:
    cdef uint8_t head[2]
    cdef Py_ssize_t sent
    cdef uint16_t whole = <uint16_t>(HEAD_BYTES + item.slot.length)
    if c.rest_bytes:
        t.counters.tcp_dropped += 1
        return
    put_u16(head, item.slot.length)
    sent = tcp_send_frame(c.fd, head, item.slot.data, item.slot.length)
    if sent <= 0:
        # Full, or over: what is over is found by its next read.
        t.counters.tcp_dropped += 1
        return
    t.counters.datagrams_sent += 1
    t.counters.bytes_sent += item.slot.length
    if sent < whole:
        c.rest[0] = head[0]
        c.rest[1] = head[1]
        memcpy(c.rest + HEAD_BYTES, item.slot.data, item.slot.length)
        c.rest_from = <uint16_t>sent
        c.rest_bytes = <uint16_t>(whole - <uint16_t>sent)


cdef void tcp_send(Tcp* t, Outbox* o) noexcept nogil:
    cdef OutDatagram* item
    cdef Connection* c
    cdef int i, index
    for i in range(o.count):
        item = &o.items[i]
        if item.slot == NULL or item.socket_index < TCP_FIRST_INDEX:
            continue
        index = item.socket_index - TCP_FIRST_INDEX
        c = t.connections[index] if index < t.top else NULL
        # A place may have got another connection since the engine last heard of this one.
        if c != NULL and memcmp(&c.remote, &item.remote, sizeof(SockAddr)) == 0:
            _send_item(t, c, item)
        else:
            t.counters.send_errors += 1
        slot_drop(t.slab, item.slot)
        item.slot = NULL


cdef int tcp_flush(Tcp* t, int index) noexcept nogil:
    cdef Connection* c = t.connections[index]
    cdef Py_ssize_t sent
    if c.rest_bytes == 0:
        return 1
    sent = tcp_send_bytes(c.fd, c.rest + c.rest_from, c.rest_bytes)
    if sent < 0:
        return 0 if errno == EAGAIN or errno == EINTR else E_OS
    c.rest_from = <uint16_t>(c.rest_from + sent)
    c.rest_bytes = <uint16_t>(c.rest_bytes - sent)
    return 1 if c.rest_bytes == 0 else 0


cdef bint tcp_has_rest(const Tcp* t, int index) noexcept nogil:
    return t.connections[index].rest_bytes != 0


cdef int tcp_open_fds() noexcept nogil:
    return tcp_get_fds()


@cython.final
cdef class TcpFace:
    """One connection over a stream socket of the caller's, without a thread, for tests."""
    cdef Slab* _slab
    cdef Counters _counters
    cdef Outbox* _outbox
    cdef Tcp* _tcp
    cdef SockAddr _remote

    def __cinit__(self, int fd, bytes first=b"", uint32_t slots=64):
        memset(&self._counters, 0, sizeof(Counters))
        memset(&self._remote, 0, sizeof(SockAddr))
        self._remote.family = 4
        self._slab = slab_new(slots, slots)
        self._outbox = <Outbox*>calloc(1, sizeof(Outbox))
        self._tcp = tcp_new(self._slab, &self._counters)
        if self._slab == NULL or self._outbox == NULL or self._tcp == NULL:
            raise MemoryError("tcp")
        if len(first) > READ_BYTES or tcp_add(self._tcp, fd, &self._remote, first, <uint32_t>len(first), 1) != 0:
            raise ValueError("the connection was not taken")

    def __dealloc__(self):
        tcp_free(self._tcp)
        free(self._outbox)
        slab_free(self._slab)

    def read(self):
        """One read: above 0 when something came, 0 when nothing did, negative when the connection is over."""
        return tcp_read(self._tcp, 0)

    def take(self):
        """Return the packets that are whole."""
        cdef Slot* slot = tcp_next(self._tcp, 0, 1)
        out = []
        while slot != NULL:
            out.append(PyBytes_FromStringAndSize(<const char*>slot.data, slot.length))
            slot_drop(self._slab, slot)
            slot = tcp_next(self._tcp, 0, 1)
        return out

    def send(self, packets, bint is_former=False):
        """Send packets of up to SLOT_LARGE_BYTES; `is_former`: to who had this place before."""
        cdef SockAddr remote = self._remote
        cdef Slot* slot
        cdef bytes packet
        if is_former:
            remote.port = 7
        for packet in packets:
            slot = slab_take(self._slab, len(packet)) if len(packet) <= SLOT_LARGE_BYTES else NULL
            if slot == NULL:
                raise ValueError("too long, or no slot is free")
            memcpy(slot.data, <const char*>packet, <size_t>len(packet))
            slot.length = <uint16_t>len(packet)
            if outbox_put(self._outbox, slot, &remote, TCP_FIRST_INDEX, 0, 0) < 0:
                slot_drop(self._slab, slot)
                raise ValueError("outbox full")
            tcp_send(self._tcp, self._outbox)
            outbox_compact(self._outbox)

    def flush(self):
        """1: the begun frame went, 0: not yet, negative: the connection is over."""
        return tcp_flush(self._tcp, 0)

    def has_rest(self):
        return bool(tcp_has_rest(self._tcp, 0))

    def slots_used(self):
        return slab_used(self._slab)

    def counters(self):
        cdef Counters* c = &self._counters
        return {
            "sent": c.datagrams_sent, "bytes_sent": c.bytes_sent, "dropped": c.tcp_dropped, "send_errors": c.send_errors,
            "too_long": c.by_error[-E_LENGTH], "slots_exhausted": c.slots_exhausted,
        }
