"""The UDP sockets of one worker: batches in from the kernel, an outbox out to it. Non-blocking, one thread."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t
from relaycore.backlog cimport Backlog
from relaycore.counters cimport Counters
from relaycore.outbox cimport Outbox
from relaycore.slab cimport Slab, Slot
from relaycore.stun cimport SockAddr

cdef enum:
    UDP_MAX_SOCKETS = 16
    UDP_BATCH = 64                 # datagrams per system call
    UDP_GSO_SEGMENTS = 16          # datagrams in one send; the gain flattens behind that (LIMITS section 4a)
    UDP_STALE_MS = 20              # what a full kernel queue held back for longer is shed

ctypedef struct UdpSocket:
    int fd
    uint8_t family                 # 4 or 6
    uint8_t blocked                # EAGAIN: nothing is sent until udp_unblock (EPOLLOUT)
    uint8_t takes_gso              # runs go out as one send each (UDP_SEGMENT), until a device refuses one
    uint16_t port                  # really bound
    int receive_buffer_bytes       # really obtained, counted as the caller asked (the kernel's figure is twice that)
    int send_buffer_bytes
    uint32_t overflow_seen         # last SO_RXQ_OVFL value
    int64_t retry_ns               # after ENOBUFS: not before; 0 = now
    Backlog backlog
    int64_t waiting_since_ns       # first refusal of the present queue; 0 = none waits

ctypedef struct UdpArrival:
    Slot* slot                     # one reference, the reader's
    SockAddr remote

cdef struct Udp                    # defined in udp.pyx

cdef Udp* udp_new(Slab* slab, Counters* counters) noexcept nogil      # borrows both; NULL: no memory
cdef void udp_free(Udp* u) noexcept nogil                             # closes sockets, gives armed slots back
# Binds one more socket (port 0 = any). Returns its index, E_LIMIT, or E_OS (errno left as it was).
cdef int udp_open(Udp* u, const SockAddr* local, int buffer_bytes) noexcept nogil
cdef int udp_count(const Udp* u) noexcept nogil
cdef const UdpSocket* udp_socket(const Udp* u, int index) noexcept nogil
# One recvmmsg. Fills out[0:*arrived] (UDP_BATCH places) and returns how many datagrams left the kernel's queue; UDP_BATCH =
# there may be more. Datagrams without a slot and those above SLOT_LARGE_BYTES are read, counted and gone.
cdef int udp_receive(Udp* u, int index, int64_t now_ns, UdpArrival* out, int* arrived) noexcept nogil
# Sends what the sockets take and returns how many items stay in the outbox, in order.
cdef int udp_send(Udp* u, Outbox* o, int64_t now_ns) noexcept nogil
cdef void udp_unblock(Udp* u, int index) noexcept nogil
cdef bint udp_takes_gso(const Udp* u) noexcept nogil                  # some socket does
# Time at which udp_send is worth calling again for ENOBUFS or stale items; INT64_MAX = nothing waits.
cdef int64_t udp_next(const Udp* u) noexcept nogil
cdef int udp_open_fds() noexcept nogil                                # of the process, for leak checks
