"""Lag of a socket by kernel timestamps (SO_TIMESTAMPNS); the contract stands in backlog.pxd.

They cost 30 ns a datagram read, and 25 ns each one that the machine receives anywhere (measured on loopback, recvmmsg of 64), so
they are on while there is a backlog only; what came before they were reads as fresh. How full the queue is (SO_MEMINFO) costs
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
    /* How long ago the kernel got a message; 0 when it does not say, or its clock was set meanwhile. */
    static inline long long backlog_age_ns(void *message)
    {
        struct msghdr *m = message;
        struct timespec at, now;
        long long age = 0;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c))
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
                __builtin_memcpy(&at, CMSG_DATA(c), sizeof(at));
                clock_gettime(CLOCK_REALTIME, &now);
                age = (long long)(now.tv_sec - at.tv_sec) * 1000000000LL + (now.tv_nsec - at.tv_nsec);
            }
        return age > 0 && age < 10000000000LL ? age : 0;
    }
    """
    int backlog_set_stamps(int fd, int on) noexcept nogil
    int64_t backlog_age_ns(void* message) noexcept nogil

cdef enum:
    BACKLOG_BATCHES = 2
    OVER_MS = 1000                 # switching stamps on and off costs the machine's other sockets too
    OVERFLOW_LAG_MS = 1000         # what the kernel drops has waited for longer than anybody waits


cdef void backlog_note(Backlog* b, int fd, void* first, bint is_full, bint overflowed, int64_t now_ns) noexcept nogil:
    b.lag_ns = ms(OVERFLOW_LAG_MS) if overflowed else 0
    if not is_full:
        b.full_batches = 0
    else:
        b.full_ns = now_ns
        if b.full_batches < BACKLOG_BATCHES:
            b.full_batches += 1
    if b.takes_stamps:
        if first != NULL:
            b.lag_ns = max(b.lag_ns, backlog_age_ns(first))
        if now_ns - b.full_ns > ms(OVER_MS):
            backlog_set_stamps(fd, 0)
            b.takes_stamps = 0
    elif b.full_batches == BACKLOG_BATCHES:
        b.takes_stamps = 1 if backlog_set_stamps(fd, 1) == 0 else 0
