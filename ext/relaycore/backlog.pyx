"""Lag of a socket by kernel timestamps (SO_TIMESTAMPNS); the contract stands in backlog.pxd.

They cost 30 ns a datagram read, and 25 ns each one that the machine receives anywhere (measured on loopback, recvmmsg of 64), so
they are on while there is a backlog only. What came before they were gets its stamp when it is read, by which it is known: it has
waited at least since they were switched on. Before that, the time between two full batches is all that is known. How full the queue is (SO_MEMINFO) costs
less, but the kernel gives room back late, up to a quarter of the buffer, and says nothing of time.
"""
from libc.stdint cimport int64_t
from relaycore.units cimport ms

cdef extern from *:
    """
    #include <sys/socket.h>
    #include <time.h>

    static inline int backlog_set_stamps(int fd, int on)
    {
        return setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on));
    }
    static inline long long backlog_wall_ns(void)
    {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        return (long long)t.tv_sec * 1000000000LL + t.tv_nsec;
    }
    /* When the kernel got a message, on the wall clock; 0 when it does not say. */
    static inline long long backlog_stamp_ns(void *message)
    {
        struct msghdr *m = message;
        struct timespec at;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c))
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
                __builtin_memcpy(&at, CMSG_DATA(c), sizeof(at));
                return (long long)at.tv_sec * 1000000000LL + at.tv_nsec;
            }
        return 0;
    }
    """
    int backlog_set_stamps(int fd, int on) noexcept nogil
    int64_t backlog_wall_ns() noexcept nogil
    int64_t backlog_stamp_ns(void* message) noexcept nogil

cdef enum:
    OVER_MS = 1000                 # switching stamps on and off costs the machine's other sockets too
    OVERFLOW_LAG_MS = 1000         # what the kernel drops has waited for longer than anybody waits
    WAITING_MS = 10
    ABSURD_MS = 10000              # an age above that is a clock that was set


cdef void backlog_read(Backlog* b) noexcept nogil:
    if b.takes_stamps:
        b.read_wall_ns = backlog_wall_ns()


cdef int64_t _age_ns(const Backlog* b, void* first, bint is_full, int64_t now_ns) noexcept nogil:
    """Return how long the first message of a batch had waited when reading began."""
    cdef int64_t stamp_ns = backlog_stamp_ns(first)
    cdef int64_t age_ns = b.read_wall_ns - stamp_ns
    if stamp_ns == 0 or age_ns > ms(ABSURD_MS):
        return 0
    # Stamped while it was read: what is first of a full batch came before there were stamps.
    if age_ns <= 0:
        return now_ns - b.stamped_ns if is_full else 0
    return age_ns


cdef void backlog_note(Backlog* b, int fd, void* first, bint is_full, bint overflowed, int64_t now_ns) noexcept nogil:
    b.lag_ns = 0
    if b.takes_stamps:
        if first != NULL:
            b.lag_ns = max(b.lag_ns, _age_ns(b, first, is_full, now_ns))
        if not is_full and now_ns - b.full_ns > ms(OVER_MS):
            backlog_set_stamps(fd, 0)
            b.takes_stamps = 0
    elif is_full and b.was_full:
        b.lag_ns = max(b.lag_ns, now_ns - b.full_ns)
        if backlog_set_stamps(fd, 1) == 0:
            b.takes_stamps = 1
            b.stamped_ns = now_ns
    # The kernel counts as dropped also what a filter or a wrong checksum refused, which anybody can send: it is an overflow
    # only where datagrams wait.
    if overflowed and b.lag_ns >= ms(WAITING_MS):
        b.lag_ns = max(b.lag_ns, ms(OVERFLOW_LAG_MS))
    b.was_full = 1 if is_full else 0
    if is_full:
        b.full_ns = now_ns
