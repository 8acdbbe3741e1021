"""The loop of one load thread: timers when they are due, sockets eagerly or lazily, Python in between.

Lazy: sockets are read every `drain_ns` and never waited for, because a reader that is woken per packet charges its wake-up to
the sender it measures (a factor of 2 to 3 on one machine). Eager: epoll over all sockets, for figures of delay. A mutex keeps
Python's changes apart from the loop's turns; the loop waits without it and steps back when somebody asks for it. No turn takes
the GIL.
"""
from libc.errno cimport errno
from libc.stdint cimport uint8_t, int32_t, uint32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy
from relaycore.errs cimport E_OK, E_OS, E_STATE
from relaycore.lgendpoint cimport endpoint_drain, endpoint_free, endpoint_poll
from relaycore.lghistogram cimport histogram_add
from relaycore.lgmodel cimport LG_FRAME_BYTES, Endpoint, LoadEvent, LoadThread
from relaycore.lgsocket cimport socket_io_free, socket_io_new, socket_sync_clock
from relaycore.lgtrace cimport trace_seed
from relaycore.slab cimport slab_free, slab_new
from relaycore.timers cimport timers_due, timers_free, timers_init, timers_next

cdef extern from *:
    """
    #include <errno.h>
    #include <pthread.h>
    #include <signal.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/syscall.h>
    #include <sys/timerfd.h>
    #include <time.h>
    #include <unistd.h>

    static inline long long lg_now_ns(void)
    {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (long long)t.tv_sec * 1000000000LL + t.tv_nsec;
    }
    /* Signals belong to Python's threads. */
    static int lg_create_thread(pthread_t *thread, void *(*run)(void *), void *argument)
    {
        sigset_t all, before;
        int code;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, &before);
        code = pthread_create(thread, NULL, run, argument);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return code;
    }
    static int lg_timed_join(pthread_t thread, long long timeout_ms)
    {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        t.tv_sec += timeout_ms / 1000;
        t.tv_nsec += timeout_ms % 1000 * 1000000L;
        if (t.tv_nsec >= 1000000000L) {
            t.tv_sec += 1;
            t.tv_nsec -= 1000000000L;
        }
        return pthread_timedjoin_np(thread, NULL, &t);
    }
    static int lg_arm(int fd, long long at_ns)
    {
        struct itimerspec t;
        memset(&t, 0, sizeof(t));
        t.it_value.tv_sec = at_ns / 1000000000LL;
        t.it_value.tv_nsec = at_ns % 1000000000LL;
        return timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, NULL);
    }
    static int lg_watch(int epoll, int fd, unsigned int events, unsigned int tag)
    {
        struct epoll_event e;
        memset(&e, 0, sizeof(e));
        e.events = events;
        e.data.u32 = tag;
        return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
    }
    static unsigned int lg_tag(const struct epoll_event *e) { return e->data.u32; }
    static void lg_ring(int fd)
    {
        unsigned long long one = 1;
        if (write(fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
            perror("load generator: eventfd");
    }
    static void lg_unring(int fd)
    {
        unsigned long long count;
        if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
            perror("load generator: eventfd");
    }
    static void lg_sleep_us(long us)
    {
        struct timespec t = {0, us * 1000};
        nanosleep(&t, NULL);
    }
    static long long lg_thread_cpu_ns(pthread_t thread)
    {
        clockid_t clock;
        struct timespec t;
        if (pthread_getcpuclockid(thread, &clock) != 0 || clock_gettime(clock, &t) != 0)
            return 0;
        return (long long)t.tv_sec * 1000000000LL + t.tv_nsec;
    }
    static void lg_name_thread(unsigned int number)
    {
        char name[16];
        snprintf(name, sizeof(name), "veil-load-%u", number % 1000);
        pthread_setname_np(pthread_self(), name);
    }
    static int lg_own_tid(void) { return (int)syscall(SYS_gettid); }
    static void lg_store(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static int lg_load(const int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static void lg_add(int *p, int v) { __atomic_fetch_add(p, v, __ATOMIC_ACQ_REL); }
    """
    ctypedef unsigned long pthread_t
    ctypedef struct pthread_mutex_t:
        pass
    cdef struct epoll_event:
        pass
    unsigned int EPOLLIN, EPOLLET
    int EPOLL_CLOEXEC, EFD_NONBLOCK, EFD_CLOEXEC, CLOCK_MONOTONIC, TFD_NONBLOCK, TFD_CLOEXEC
    int epoll_create1(int flags) noexcept nogil
    int epoll_wait(int epoll, epoll_event* out, int capacity, int timeout_ms) noexcept nogil
    int eventfd(unsigned int value, int flags) noexcept nogil
    int timerfd_create(int clock, int flags) noexcept nogil
    int close(int fd) noexcept nogil
    int pthread_mutex_init(pthread_mutex_t* mutex, void* attributes) noexcept nogil
    int pthread_mutex_destroy(pthread_mutex_t* mutex) noexcept nogil
    int pthread_mutex_lock(pthread_mutex_t* mutex) noexcept nogil
    int pthread_mutex_unlock(pthread_mutex_t* mutex) noexcept nogil
    pthread_t pthread_self() noexcept nogil
    int64_t lg_now_ns() noexcept nogil
    int lg_create_thread(pthread_t* thread, void* (*run)(void*) noexcept nogil, void* argument) noexcept nogil
    int lg_timed_join(pthread_t thread, int64_t timeout_ms) noexcept nogil
    int lg_arm(int fd, int64_t at_ns) noexcept nogil
    int lg_watch(int epoll, int fd, unsigned int events, unsigned int tag) noexcept nogil
    unsigned int lg_tag(const epoll_event* e) noexcept nogil
    void lg_ring(int fd) noexcept nogil
    void lg_unring(int fd) noexcept nogil
    void lg_sleep_us(long us) noexcept nogil
    int64_t lg_thread_cpu_ns(pthread_t thread) noexcept nogil
    void lg_name_thread(unsigned int number) noexcept nogil
    int lg_own_tid() noexcept nogil
    void lg_store(int* p, int v) noexcept nogil
    int lg_load(const int* p) noexcept nogil
    void lg_add(int* p, int v) noexcept nogil

cdef enum:
    TAG_WAKE = 0xffffffff
    TAG_TIMER = 0xfffffffe
    WAIT_EVENTS = 256
    BATCHES = 4                    # of one socket in one turn
    TIMERS_PER_TURN = 4096
    ENDPOINTS_BETWEEN = 16         # sockets drained before senders get their turn again

cdef struct Runner:
    LoadThread* t
    pthread_mutex_t mutex
    pthread_t thread
    int waiting                    # atomic: callers that want the lock
    int stopping                   # atomic
    int running
    int tid                        # atomic
    int wake_fd
    int timer_fd
    int epoll_fd
    int64_t timer_armed_ns
    int64_t drain_due_ns
    int64_t final_cpu_ns


cdef int64_t load_now_ns() noexcept nogil:
    return lg_now_ns()


cdef LoadThread* _new_thread(uint32_t number, const RunnerOptions* o) noexcept nogil:
    cdef LoadThread* t = <LoadThread*>calloc(1, sizeof(LoadThread))
    if t == NULL:
        return NULL
    t.number = number
    t.is_eager = o.is_eager
    t.has_kernel_time = o.has_kernel_time
    t.verify_every = o.verify_every
    t.srtp_backend = o.srtp_backend
    t.drain_ns = o.drain_ns
    t.receive_buffer_bytes = o.receive_buffer_bytes
    t.send_buffer_bytes = o.send_buffer_bytes
    t.event_fd = o.event_fd
    t.sending = o.sending
    memcpy(t.key, o.key, 16)
    # Transactions and SSRCs of reports only: no two runs need them alike.
    t.random = trace_seed(<uint64_t>lg_now_ns(), number)
    t.reset_ns = lg_now_ns()
    t.slab = slab_new(0, o.hold_slots)
    t.scratch = <uint8_t*>malloc(LG_FRAME_BYTES)
    if t.slab == NULL or t.scratch == NULL or timers_init(&t.timers, 1) < 0 or socket_io_new(t) < 0:
        _free_thread(t)
        return NULL
    return t


cdef void _free_thread(LoadThread* t) noexcept nogil:
    cdef LoadEvent* v
    cdef int32_t i
    for i in range(t.endpoint_count):
        if t.endpoints[i] != NULL:
            endpoint_free(t, t.endpoints[i])
    while t.first_event != NULL:
        v = t.first_event
        t.first_event = v.next
        free(v.payload)
        free(v)
    free(t.endpoints)
    free(t.scratch)
    timers_free(&t.timers)
    socket_io_free(t)
    if t.slab != NULL:
        slab_free(t.slab)
    free(t)


cdef Runner* runner_new(uint32_t number, const RunnerOptions* options) noexcept nogil:
    cdef Runner* r = <Runner*>calloc(1, sizeof(Runner))
    if r == NULL:
        return NULL
    pthread_mutex_init(&r.mutex, NULL)
    r.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
    r.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
    r.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    r.t = _new_thread(number, options)
    if (r.t == NULL or r.epoll_fd < 0 or r.timer_fd < 0 or r.wake_fd < 0
            or lg_watch(r.epoll_fd, r.wake_fd, EPOLLIN, TAG_WAKE) != 0
            # Edge-triggered: setting the timer again makes the next edge, nobody reads it.
            or lg_watch(r.epoll_fd, r.timer_fd, EPOLLIN | EPOLLET, TAG_TIMER) != 0):
        runner_free(r)
        return NULL
    return r


cdef void runner_free(Runner* r) noexcept nogil:
    if r == NULL:
        return
    if r.t != NULL:
        _free_thread(r.t)
    if r.epoll_fd >= 0:
        close(r.epoll_fd)
    if r.timer_fd >= 0:
        close(r.timer_fd)
    if r.wake_fd >= 0:
        close(r.wake_fd)
    pthread_mutex_destroy(&r.mutex)
    free(r)


cdef int runner_start(Runner* r) noexcept nogil:
    cdef int code = lg_create_thread(&r.thread, _run, r)
    if code != 0:
        (&errno)[0] = code
        return E_OS
    r.running = 1
    return E_OK


cdef int runner_stop(Runner* r, int64_t timeout_ms) noexcept nogil:
    if not r.running:
        return E_OK
    lg_store(&r.stopping, 1)
    lg_ring(r.wake_fd)
    if lg_timed_join(r.thread, timeout_ms) != 0:
        return E_STATE
    r.running = 0
    return E_OK


cdef LoadThread* runner_enter(Runner* r) noexcept nogil:
    lg_add(&r.waiting, 1)
    pthread_mutex_lock(&r.mutex)
    lg_add(&r.waiting, -1)
    return r.t


cdef void runner_leave(Runner* r) noexcept nogil:
    pthread_mutex_unlock(&r.mutex)
    if r.running:
        lg_ring(r.wake_fd)


cdef int runner_watch(Runner* r, Endpoint* e) noexcept nogil:
    if r.t.is_eager and lg_watch(r.epoll_fd, e.fd, EPOLLIN, <unsigned int>e.index) != 0:
        return E_OS
    return E_OK


cdef int64_t runner_cpu_ns(Runner* r) noexcept nogil:
    return lg_thread_cpu_ns(r.thread) if r.running else r.final_cpu_ns


cdef int runner_tid(Runner* r) noexcept nogil:
    return lg_load(&r.tid)


cdef bint runner_is_running(Runner* r) noexcept nogil:
    return r.running


# --- the loop --------------------------------------------------------------------------------------------------------

cdef void _run_timers(LoadThread* t) noexcept nogil:
    cdef int64_t now_ns = lg_now_ns()
    cdef int32_t owner
    cdef int i
    for i in range(TIMERS_PER_TURN):
        owner = timers_due(&t.timers, now_ns)
        if owner < 0:
            # What has become due while the others were served is not left for the next turn.
            now_ns = lg_now_ns()
            owner = timers_due(&t.timers, now_ns)
            if owner < 0:
                return
        endpoint_poll(t, t.endpoints[owner], lg_now_ns())


cdef void _drain_all(Runner* r) noexcept nogil:
    cdef LoadThread* t = r.t
    cdef int64_t now_ns = lg_now_ns()
    cdef int32_t i
    if t.last_drain_ns:
        histogram_add(t.drain_gap, now_ns - t.last_drain_ns)
    t.last_drain_ns = now_ns
    t.counts.drains += 1
    for i in range(t.endpoint_count):
        if t.endpoints[i] == NULL:
            continue
        endpoint_drain(t, t.endpoints[i], BATCHES, lg_now_ns())
        if i % ENDPOINTS_BETWEEN == 0 and timers_next(&t.timers) <= lg_now_ns():
            _run_timers(t)
    r.drain_due_ns = max(now_ns + t.drain_ns, lg_now_ns())


cdef int64_t _next_ns(Runner* r) noexcept nogil:
    cdef int64_t next_ns = timers_next(&r.t.timers)
    if not r.t.is_eager:
        next_ns = min(next_ns, r.drain_due_ns)
    return min(next_ns, r.t.offset_due_ns)


cdef int _wait(Runner* r, epoll_event* events, int64_t next_ns) noexcept nogil:
    cdef int got
    if next_ns > lg_now_ns():
        if next_ns != r.timer_armed_ns:
            lg_arm(r.timer_fd, next_ns)
            r.timer_armed_ns = next_ns
        got = epoll_wait(r.epoll_fd, events, WAIT_EVENTS, -1)
    else:
        got = epoll_wait(r.epoll_fd, events, WAIT_EVENTS, 0)
    return 0 if got < 0 else got


cdef void _step_back(Runner* r) noexcept nogil:
    """Leave the lock to who waits for it: a mutex alone would let the loop take it again before they wake."""
    cdef int i
    for i in range(50):
        if not lg_load(&r.waiting):
            return
        lg_sleep_us(20)


cdef void _turn(Runner* r, const epoll_event* events, int count) noexcept nogil:
    cdef LoadThread* t = r.t
    cdef unsigned int tag
    cdef int i
    t.counts.turns += 1
    for i in range(count):
        tag = lg_tag(&events[i])
        if tag == <unsigned int>TAG_WAKE:
            lg_unring(r.wake_fd)
        elif tag < <unsigned int>t.endpoint_count and t.endpoints[tag] != NULL:
            endpoint_drain(t, t.endpoints[tag], BATCHES, lg_now_ns())
    if not t.is_eager and lg_now_ns() >= r.drain_due_ns:
        _drain_all(r)
    _run_timers(t)
    if lg_now_ns() >= t.offset_due_ns:
        socket_sync_clock(t)
    if t.first_event != NULL and not t.rang:
        t.rang = 1
        lg_ring(t.event_fd)


cdef void* _run(void* argument) noexcept nogil:
    """The thread."""
    cdef Runner* r = <Runner*>argument
    cdef epoll_event[256] events
    cdef int count
    cdef int64_t next_ns = 0
    lg_name_thread(r.t.number)
    lg_store(&r.tid, lg_own_tid())
    while not lg_load(&r.stopping):
        count = _wait(r, events, next_ns)
        pthread_mutex_lock(&r.mutex)
        _turn(r, events, count)
        next_ns = _next_ns(r)
        pthread_mutex_unlock(&r.mutex)
        if lg_load(&r.waiting):
            _step_back(r)
    r.final_cpu_ns = lg_thread_cpu_ns(pthread_self())
    return NULL
