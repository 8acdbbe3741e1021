"""The event loop of a worker: epoll over its sockets, its mailbox and one timer; the only code that waits.

One turn: at most one batch per readable socket, a bounded number of commands and what other workers sent go into the engine,
then the engine runs what is due, for about 250 us, and its outbox leaves, then the events wake the control plane once.
Whatever is left over makes the next turn start without waiting, so that a flood on one side starves no other. The thread
never takes the GIL: a Python that stands still for a second costs no packet. Deliberately absent: any knowledge of what the
datagrams mean.
"""
from libc.errno cimport errno, EINTR
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t, uint64_t, INT64_MAX
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from relaycore.engine cimport (
    engine_command, engine_counters, engine_exchange, engine_free, engine_has_tuple, engine_join, engine_lag, engine_lose_tuple,
    engine_new, engine_poll,
    engine_receive, engine_set_slice,
)
from relaycore.errs cimport E_OK, E_OS, E_STATE
from relaycore.exchange cimport Exchange, exchange_awake, exchange_fd, exchange_flush, exchange_may_sleep
from relaycore.mailbox cimport (
    CMD_STOP, CMD_TCP, EV_ACK, EV_STOPPED, Command, Event, Mailbox, mailbox_command_count, mailbox_command_fd, mailbox_emit,
    mailbox_flush_events, mailbox_free, mailbox_new, mailbox_reset_command_fd, mailbox_take_command,
)
from relaycore.outbox cimport Outbox, outbox_clear
from relaycore.routes cimport Engine
from relaycore.slab cimport Slab, Slot, slab_free, slab_new, slab_used
from relaycore.stages cimport STAGE_SAMPLE_TURNS
from relaycore.stun cimport SockAddr
from relaycore.tcp cimport (
    TCP_CONNECTIONS, TCP_FIRST_INDEX, Tcp, tcp_add, tcp_close, tcp_count, tcp_fd, tcp_flush, tcp_free, tcp_has_rest, tcp_new, tcp_next,
    tcp_opened_ns, tcp_read, tcp_remote, tcp_send,
)
from relaycore.udp cimport (
    UDP_MAX_SOCKETS, Udp, UdpArrival, UdpSocket, udp_count, udp_free, udp_new, udp_next, udp_open, udp_receive,
    udp_send, udp_socket, udp_takes_gso, udp_unblock,
)
from relaycore.units cimport ms

cdef extern from *:
    """
    #include <pthread.h>
    #include <signal.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/epoll.h>
    #include <sys/timerfd.h>
    #include <time.h>
    #include <unistd.h>

    static int thread_live = 0, thread_fds = 0;
    static long long thread_leaked_slots = 0;
    static inline void thread_count_live(int n) { __atomic_fetch_add(&thread_live, n, __ATOMIC_RELAXED); }
    static inline void thread_count_fds(int n) { __atomic_fetch_add(&thread_fds, n, __ATOMIC_RELAXED); }
    static inline void thread_count_leaked(long long n) { __atomic_fetch_add(&thread_leaked_slots, n, __ATOMIC_RELAXED); }
    static inline int thread_get_live(void) { return __atomic_load_n(&thread_live, __ATOMIC_RELAXED); }
    static inline int thread_get_fds(void) { return __atomic_load_n(&thread_fds, __ATOMIC_RELAXED); }
    static inline long long thread_get_leaked(void) { return __atomic_load_n(&thread_leaked_slots, __ATOMIC_RELAXED); }

    static inline long long thread_now_ns(void)
    {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (long long)t.tv_sec * 1000000000LL + t.tv_nsec;
    }
    /* Start with every signal blocked: Python's handlers belong to Python's threads. */
    static int thread_create_quiet(pthread_t *thread, void *(*run)(void *), void *argument, const char *name)
    {
        sigset_t all, before;
        int code;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, &before);
        code = pthread_create(thread, NULL, run, argument);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (code == 0)
            pthread_setname_np(*thread, name);
        return code;
    }
    static int thread_timed_join(pthread_t thread, long long timeout_ms)
    {
        struct timespec t;
        long long at;
        clock_gettime(CLOCK_REALTIME, &t);
        at = (long long)t.tv_sec * 1000000000LL + t.tv_nsec + timeout_ms * 1000000LL;
        t.tv_sec = at / 1000000000LL;
        t.tv_nsec = at % 1000000000LL;
        return pthread_timedjoin_np(thread, NULL, &t);
    }
    static int thread_arm_timer(int fd, long long at_ns)
    {
        struct itimerspec t;
        memset(&t, 0, sizeof(t));
        t.it_value.tv_sec = at_ns / 1000000000LL;
        t.it_value.tv_nsec = at_ns % 1000000000LL;
        return timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, NULL);
    }
    static int thread_watch(int epoll, int operation, int fd, unsigned int events, unsigned int tag)
    {
        struct epoll_event e;
        memset(&e, 0, sizeof(e));
        e.events = events;
        e.data.u32 = tag;
        return epoll_ctl(epoll, operation, fd, &e);
    }
    static unsigned int thread_event_tag(const struct epoll_event *e) { return e->data.u32; }
    static unsigned int thread_event_bits(const struct epoll_event *e) { return e->events; }
    static void thread_bug(const char *what) { perror(what); abort(); }
    """
    ctypedef unsigned long pthread_t
    cdef struct epoll_event:
        pass
    unsigned int EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLET
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, CLOCK_MONOTONIC, TFD_NONBLOCK, TFD_CLOEXEC
    int epoll_create1(int flags) noexcept nogil
    int epoll_wait(int epoll, epoll_event* out, int capacity, int timeout_ms) noexcept nogil
    int timerfd_create(int clock, int flags) noexcept nogil
    int close(int fd) noexcept nogil
    int snprintf(char* out, size_t bytes, const char* format, ...) noexcept nogil
    void thread_count_live(int n) noexcept nogil
    void thread_count_fds(int n) noexcept nogil
    void thread_count_leaked(int64_t n) noexcept nogil
    int thread_get_live() noexcept nogil
    int thread_get_fds() noexcept nogil
    int64_t thread_get_leaked() noexcept nogil
    int64_t thread_now_ns() noexcept nogil
    int thread_create_quiet(pthread_t* thread, void* (*run)(void*) noexcept nogil, void* argument, const char* name) noexcept nogil
    int thread_timed_join(pthread_t thread, int64_t timeout_ms) noexcept nogil
    int thread_arm_timer(int fd, int64_t at_ns) noexcept nogil
    int thread_watch(int epoll, int operation, int fd, unsigned int events, unsigned int tag) noexcept nogil
    unsigned int thread_event_tag(const epoll_event* e) noexcept nogil
    unsigned int thread_event_bits(const epoll_event* e) noexcept nogil
    void thread_bug(const char* what) noexcept nogil

cdef enum:
    TAG_COMMANDS = 1000            # below: socket index
    TAG_TIMER = 1001
    TAG_EXCHANGE = 1002
    TAG_TCP = 2000                 # and above: connections
    TCP_READS = 4                  # of one connection in a turn
    # A connection that brings no valid check is nobody's; one whose transport went has nothing left to carry.
    TCP_SWEEP_MS = 1000
    TCP_GRACE_MS = 3000
    WAIT_EVENTS = 32
    COMMANDS_PER_TURN = 64
    # A turn's sending; then the sockets and the other lanes have theirs (DESIGN section 4). The engine has no clock, so it is
    # told a number of packets, from what sending one has cost lately.
    SLICE_NS = 250000
    SLICE_LEAST = 64               # two full GSO runs and more: below, turns cost more than what they do
    SLICE_MOST = 960
    MEASURED_LEAST = 16            # packets; fewer say more about the turn than about packets
    FIRST_PACKET_NS = 2000
    COST_SMOOTHING = 8

cdef struct WorkerThread:
    uint32_t number
    uint32_t turn                  # of the loop, for sampling
    Slab* slab
    Outbox* outbox
    Mailbox* mailbox
    Udp* udp
    Tcp* tcp
    Engine* engine
    Exchange* exchange             # borrowed; NULL = this is the only worker
    int epoll_fd
    int timer_fd
    int64_t packet_ns              # smoothed cost of sending one
    int64_t timer_armed_ns         # what the timer is set to; 0 = nothing
    uint8_t watching_output[16]    # by socket: EPOLLOUT is armed
    uint8_t watching_tcp[1024]     # by connection
    int64_t sweep_ns               # when connections are looked through next
    uint8_t stopping
    uint8_t started
    pthread_t thread
    UdpArrival arrivals[64]


cdef WorkerThread* thread_new(uint32_t number, uint32_t small_slots, uint32_t large_slots, int srtp_backend,
                              uint64_t seed) noexcept nogil:
    cdef WorkerThread* w = <WorkerThread*>calloc(1, sizeof(WorkerThread))
    if w == NULL:
        return NULL
    w.number = number
    w.packet_ns = FIRST_PACKET_NS
    w.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
    w.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
    thread_count_fds((w.epoll_fd >= 0) + (w.timer_fd >= 0))
    w.slab = slab_new(small_slots, large_slots)
    w.outbox = <Outbox*>calloc(1, sizeof(Outbox))
    w.mailbox = mailbox_new()
    if w.slab != NULL and w.outbox != NULL and w.mailbox != NULL:
        w.engine = engine_new(w.slab, w.outbox, w.mailbox, srtp_backend, seed)
    if w.engine != NULL:
        w.udp = udp_new(w.slab, engine_counters(w.engine))
        w.tcp = tcp_new(w.slab, engine_counters(w.engine))
    if (w.udp == NULL or w.tcp == NULL or w.epoll_fd < 0 or w.timer_fd < 0
            or thread_watch(w.epoll_fd, EPOLL_CTL_ADD, mailbox_command_fd(w.mailbox), EPOLLIN, TAG_COMMANDS) != 0
            # Edge-triggered: an expired timer needs no read, setting it again makes the next edge.
            or thread_watch(w.epoll_fd, EPOLL_CTL_ADD, w.timer_fd, EPOLLIN | EPOLLET, TAG_TIMER) != 0):
        thread_free(w)
        return NULL
    return w


cdef void thread_free(WorkerThread* w) noexcept nogil:
    if w == NULL:
        return
    # The sockets point at the engine's counters, and both hold slots: sockets first, slab last.
    udp_free(w.udp)
    tcp_free(w.tcp)
    if w.engine != NULL:
        engine_free(w.engine)
    if w.slab != NULL:
        if w.outbox != NULL:
            outbox_clear(w.outbox, w.slab, 0)
        thread_count_leaked(slab_used(w.slab))
        slab_free(w.slab)
    free(w.outbox)
    mailbox_free(w.mailbox)
    if w.epoll_fd >= 0:
        close(w.epoll_fd)
    if w.timer_fd >= 0:
        close(w.timer_fd)
    thread_count_fds(-((w.epoll_fd >= 0) + (w.timer_fd >= 0)))
    free(w)


cdef int thread_open(WorkerThread* w, const SockAddr* local, int buffer_bytes) noexcept nogil:
    cdef int index = udp_open(w.udp, local, buffer_bytes)
    if index < 0:
        return index
    if thread_watch(w.epoll_fd, EPOLL_CTL_ADD, udp_socket(w.udp, index).fd, EPOLLIN, <unsigned int>index) != 0:
        return E_OS
    return index


cdef int thread_join_exchange(WorkerThread* w, Exchange* x) noexcept nogil:
    # Edge-triggered: every ring is an edge, so nobody has to read.
    if thread_watch(w.epoll_fd, EPOLL_CTL_ADD, exchange_fd(x, w.number), EPOLLIN | EPOLLET, TAG_EXCHANGE) != 0:
        return E_OS
    engine_join(w.engine, x, w.number)
    w.exchange = x
    return E_OK


cdef int thread_start(WorkerThread* w) noexcept nogil:
    cdef char name[16]
    cdef int code
    # The kernel keeps 15 characters of a thread's name.
    snprintf(name, sizeof(name), "veil-worker-%d", <int>(w.number % 1000))
    # Counted here and not in the thread: whoever asks right after start sees it.
    thread_count_live(1)
    code = thread_create_quiet(&w.thread, _run, w, name)
    if code != 0:
        thread_count_live(-1)
        (&errno)[0] = code
        return E_OS
    w.started = 1
    return E_OK


cdef int thread_join(WorkerThread* w, int64_t timeout_ms) noexcept nogil:
    if not w.started:
        return E_OK
    if thread_timed_join(w.thread, timeout_ms) != 0:
        return E_STATE
    w.started = 0
    thread_count_live(-1)
    return E_OK


cdef Mailbox* thread_mailbox(WorkerThread* w) noexcept nogil:
    return w.mailbox


cdef Engine* thread_engine(WorkerThread* w) noexcept nogil:
    return w.engine


cdef const UdpSocket* thread_socket(const WorkerThread* w, int index) noexcept nogil:
    return udp_socket(w.udp, index)


cdef int threads_live() noexcept nogil:
    return thread_get_live()


cdef int64_t threads_slots_leaked() noexcept nogil:
    return thread_get_leaked()


cdef int threads_open_fds() noexcept nogil:
    return thread_get_fds()


cdef void _receive(WorkerThread* w, int index, int64_t now_ns) noexcept nogil:
    """Take one batch of a socket. More stays readable, so the next turn comes back to it after the others."""
    cdef int arrived = 0
    cdef int i
    udp_receive(w.udp, index, now_ns, w.arrivals, &arrived)
    engine_lag(w.engine, udp_socket(w.udp, index).backlog.lag_ns, now_ns)
    for i in range(arrived):
        engine_receive(w.engine, w.arrivals[i].slot, &w.arrivals[i].remote, <uint16_t>index, now_ns)


cdef void _close_tcp(WorkerThread* w, int index, int64_t now_ns) noexcept nogil:
    """End a connection and tell the engine. Closing its last descriptor takes it out of the epoll set."""
    cdef SockAddr remote = tcp_remote(w.tcp, index)[0]
    tcp_close(w.tcp, index)
    w.watching_tcp[index] = 0
    engine_counters(w.engine).tcp_closed += 1
    engine_lose_tuple(w.engine, &remote, <uint16_t>(TCP_FIRST_INDEX + index), now_ns)


cdef void _take_frames(WorkerThread* w, int index, int64_t now_ns) noexcept nogil:
    cdef Slot* slot = tcp_next(w.tcp, index, now_ns)
    while slot != NULL:
        engine_receive(w.engine, slot, tcp_remote(w.tcp, index), <uint16_t>(TCP_FIRST_INDEX + index), now_ns)
        slot = tcp_next(w.tcp, index, now_ns)


cdef void _serve_tcp(WorkerThread* w, int index, unsigned int bits, int64_t now_ns) noexcept nogil:
    """Do what one connection is ready for; more stays readable for the next turn."""
    cdef int got = 1
    cdef int reads = 0
    if tcp_fd(w.tcp, index) < 0:
        return
    if bits & EPOLLOUT and tcp_flush(w.tcp, index) < 0:
        _close_tcp(w, index, now_ns)
        return
    while got > 0 and reads < TCP_READS:
        got = tcp_read(w.tcp, index)
        reads += 1
        if got < 0:
            _close_tcp(w, index, now_ns)
            return
        _take_frames(w, index, now_ns)


cdef int _add_tcp(WorkerThread* w, const Command* c, int64_t now_ns) noexcept nogil:
    cdef int index = tcp_add(w.tcp, c.body.tcp.fd, &c.body.tcp.remote, c.payload, c.payload_bytes, now_ns)
    if index < 0:
        return index
    if thread_watch(w.epoll_fd, EPOLL_CTL_ADD, tcp_fd(w.tcp, index), EPOLLIN, TAG_TCP + <unsigned int>index) != 0:
        tcp_close(w.tcp, index)
        return E_OS
    engine_counters(w.engine).tcp_opened += 1
    if w.sweep_ns == 0:
        w.sweep_ns = now_ns + ms(TCP_SWEEP_MS)
    _take_frames(w, index, now_ns)
    return E_OK


cdef void _sweep_tcp(WorkerThread* w, int64_t now_ns) noexcept nogil:
    """Close the connections that belong to no transport."""
    cdef int i
    for i in range(TCP_CONNECTIONS):
        if (tcp_fd(w.tcp, i) >= 0 and now_ns - tcp_opened_ns(w.tcp, i) > ms(TCP_GRACE_MS)
                and not engine_has_tuple(w.engine, tcp_remote(w.tcp, i), <uint16_t>(TCP_FIRST_INDEX + i))):
            _close_tcp(w, i, now_ns)
    w.sweep_ns = now_ns + ms(TCP_SWEEP_MS) if tcp_count(w.tcp) else 0


cdef void _acknowledge(WorkerThread* w, uint32_t number, int code, int64_t now_ns) noexcept nogil:
    cdef Event e
    memset(&e, 0, sizeof(Event))
    e.kind = EV_ACK
    e.number = number
    e.code = code
    e.now_ns = now_ns
    mailbox_emit(w.mailbox, &e)


cdef bint _run_commands(WorkerThread* w, int64_t now_ns) noexcept nogil:
    """Execute waiting commands; true when some are left for the next turn. Those behind a CMD_STOP never run."""
    cdef Command c
    cdef int i
    for i in range(COMMANDS_PER_TURN):
        if not mailbox_take_command(w.mailbox, &c):
            return False
        if c.op == CMD_STOP:
            free(c.payload)
            _acknowledge(w, c.number, E_OK, now_ns)
            w.stopping = 1
            return False
        if c.op == CMD_TCP:
            _acknowledge(w, c.number, _add_tcp(w, &c, now_ns), now_ns)
            free(c.payload)
            continue
        engine_command(w.engine, &c, now_ns)
    return mailbox_command_count(w.mailbox) > 0


cdef int64_t _poll(WorkerThread* w) noexcept nogil:
    """Let the engine run what is due and send it; returns when to come back (a past time: at once)."""
    cdef int64_t now_ns = thread_now_ns()
    cdef int64_t next_ns
    cdef int count
    w.outbox.takes_gso = 1 if udp_takes_gso(w.udp) else 0
    engine_set_slice(w.engine, <int>max(<int64_t>SLICE_LEAST, min(<int64_t>SLICE_MOST, SLICE_NS // w.packet_ns)))
    next_ns = engine_poll(w.engine, now_ns)
    count = w.outbox.count
    if count == 0:
        return next_ns
    if tcp_count(w.tcp):
        tcp_send(w.tcp, w.outbox)
    if udp_send(w.udp, w.outbox, now_ns) > 0:
        # The kernel's queue is full: the engine's packets wait where they can still be chosen among.
        return max(now_ns + ms(1), min(next_ns, udp_next(w.udp)))
    if count >= MEASURED_LEAST:
        w.packet_ns += ((thread_now_ns() - now_ns) // count - w.packet_ns) // COST_SMOOTHING
        w.packet_ns = max(w.packet_ns, <int64_t>1)
    return next_ns


cdef void _watch_output(WorkerThread* w) noexcept nogil:
    """Arm EPOLLOUT for sockets whose queue is full and disarm it for the others (armed, it would fire all the time)."""
    cdef int i
    cdef uint8_t blocked
    cdef unsigned int bits
    for i in range(udp_count(w.udp)):
        blocked = udp_socket(w.udp, i).blocked
        if blocked != w.watching_output[i]:
            w.watching_output[i] = blocked
            bits = EPOLLIN
            if blocked:
                bits |= EPOLLOUT
            thread_watch(w.epoll_fd, EPOLL_CTL_MOD, udp_socket(w.udp, i).fd, bits, <unsigned int>i)
    if tcp_count(w.tcp) == 0:
        return
    for i in range(TCP_CONNECTIONS):
        if tcp_fd(w.tcp, i) < 0:
            continue
        blocked = 1 if tcp_has_rest(w.tcp, i) else 0
        if blocked != w.watching_tcp[i]:
            w.watching_tcp[i] = blocked
            bits = EPOLLIN
            if blocked:
                bits |= EPOLLOUT
            thread_watch(w.epoll_fd, EPOLL_CTL_MOD, tcp_fd(w.tcp, i), bits, TAG_TCP + <unsigned int>i)


cdef int _wait_ms(WorkerThread* w, int64_t next_ns) noexcept nogil:
    """Set the timer to `next_ns` and return epoll's timeout: 0 when that has passed, else -1 (the timer wakes us).

    A timerfd because epoll_wait counts milliseconds, too coarse for pacing, and its nanosecond sibling needs Linux 5.11.
    """
    if next_ns <= thread_now_ns():
        return 0
    if next_ns != w.timer_armed_ns:
        # Armed at 0 it is off.
        thread_arm_timer(w.timer_fd, 0 if next_ns == INT64_MAX else next_ns)
        w.timer_armed_ns = next_ns
    return -1


cdef int _wait(WorkerThread* w, epoll_event* events, int64_t next_ns) noexcept nogil:
    """Block until something happens or `next_ns` has come; return the number of events."""
    cdef int timeout_ms = _wait_ms(w, next_ns)
    cdef bint sleeps = False
    cdef int n
    if timeout_ms != 0 and w.exchange != NULL:
        sleeps = exchange_may_sleep(w.exchange, w.number)
        if not sleeps:
            timeout_ms = 0
    n = epoll_wait(w.epoll_fd, events, WAIT_EVENTS, timeout_ms)
    if sleeps:
        exchange_awake(w.exchange, w.number)
    if n < 0:
        if errno != EINTR:
            thread_bug("worker: epoll_wait")
        n = 0
    return n


cdef void* _run(void* argument) noexcept nogil:
    """The thread."""
    cdef WorkerThread* w = <WorkerThread*>argument
    cdef epoll_event events[32]
    cdef Event stopped
    cdef bint commands_left = False
    cdef bint more_waits = False
    cdef int64_t next_ns = 0
    cdef int64_t now_ns
    cdef unsigned int tag, bits
    cdef int i, n
    while not w.stopping:
        n = _wait(w, events, 0 if commands_left or more_waits else next_ns)
        now_ns = thread_now_ns()
        w.turn += 1
        engine_counters(w.engine).stages_on = (w.turn & (STAGE_SAMPLE_TURNS - 1u)) == 0
        for i in range(n):
            tag = thread_event_tag(&events[i])
            bits = thread_event_bits(&events[i])
            if tag == TAG_COMMANDS:
                mailbox_reset_command_fd(w.mailbox)
                commands_left = True
            elif tag < UDP_MAX_SOCKETS:
                if bits & EPOLLOUT:
                    udp_unblock(w.udp, <int>tag)
                if bits & (EPOLLIN | EPOLLERR):
                    _receive(w, <int>tag, now_ns)
            elif tag >= TAG_TCP:
                _serve_tcp(w, <int>(tag - TAG_TCP), bits, now_ns)
        if commands_left:
            commands_left = _run_commands(w, now_ns)
        more_waits = engine_exchange(w.engine, now_ns)
        if w.sweep_ns and w.sweep_ns <= now_ns:
            _sweep_tcp(w, now_ns)
        next_ns = _poll(w)
        if w.sweep_ns:
            next_ns = min(next_ns, w.sweep_ns)
        if w.exchange != NULL:
            # What timers had to ask of other workers.
            exchange_flush(w.exchange, w.number)
        _watch_output(w)
        mailbox_flush_events(w.mailbox)
    memset(&stopped, 0, sizeof(Event))
    stopped.kind = EV_STOPPED
    stopped.now_ns = thread_now_ns()
    mailbox_emit(w.mailbox, &stopped)
    mailbox_flush_events(w.mailbox)
    return NULL
