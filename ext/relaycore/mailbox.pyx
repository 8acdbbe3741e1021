"""Two lock-free single-producer single-consumer rings with eventfds between the control plane and one worker.

Positions count up for ever modulo 2^32 (the rings are powers of two), so full and empty never look alike. A producer
publishes a place with a release store of the tail after writing it; the consumer's acquire load of the tail makes the
contents visible, and its release store of the head gives the place back. Positions of the two sides stand on cache
lines of their own. Deliberately absent: blocking; a full ring is the producer's business.
"""
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from relaycore.errs cimport E_NO_SPACE, E_OK

cdef extern from *:
    """
    #include <pthread.h>
    #include <sched.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/eventfd.h>
    #include <unistd.h>
    static inline unsigned int veil_load_acquire(const unsigned int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline unsigned int veil_load_own(const unsigned int *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void veil_store_release(unsigned int *p, unsigned int v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline void veil_add(int *p, int v) { __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
    static inline int veil_load_int(const int *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    """
    uint32_t veil_load_acquire(const uint32_t* p) noexcept nogil
    uint32_t veil_load_own(const uint32_t* p) noexcept nogil
    void veil_store_release(uint32_t* p, uint32_t v) noexcept nogil
    void veil_add(int* p, int v) noexcept nogil
    int veil_load_int(const int* p) noexcept nogil
    int posix_memalign(void** out, size_t alignment, size_t bytes) noexcept nogil
    void explicit_bzero(void* p, size_t bytes) noexcept nogil
    int eventfd(unsigned int initial, int flags) noexcept nogil
    int EFD_NONBLOCK, EFD_CLOEXEC
    ssize_t read(int fd, void* buf, size_t bytes) noexcept nogil
    ssize_t write(int fd, const void* buf, size_t bytes) noexcept nogil
    int close(int fd) noexcept nogil
    ctypedef unsigned long pthread_t
    int pthread_create(pthread_t* out, const void* attributes, void* (*run)(void*) noexcept nogil, void* argument) noexcept nogil
    int pthread_join(pthread_t thread, void** result) noexcept nogil
    int sched_yield() noexcept nogil

cdef enum:
    CACHE_LINE_BYTES = 64

cdef struct Mailbox:
    uint32_t command_tail          # control plane
    uint32_t event_head            # control plane
    uint8_t between[56]
    uint32_t command_head          # worker
    uint32_t event_tail            # worker
    uint32_t unflushed             # worker: emitted since the last flush
    uint8_t behind[52]
    int command_fd
    int event_fd
    Command commands[1024]
    Event events[8192]

cdef int open_fds = 0


cdef Mailbox* mailbox_new() noexcept nogil:
    """Return an empty mailbox, NULL when memory or descriptors are short.   Owns: the caller frees it."""
    cdef void* memory = NULL
    cdef Mailbox* m
    if posix_memalign(&memory, CACHE_LINE_BYTES, sizeof(Mailbox)) != 0:
        return NULL
    m = <Mailbox*>memory
    memset(m, 0, sizeof(Mailbox))
    m.command_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    m.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    if m.command_fd < 0 or m.event_fd < 0:
        if m.command_fd >= 0:
            close(m.command_fd)
        if m.event_fd >= 0:
            close(m.event_fd)
        free(m)
        return NULL
    veil_add(&open_fds, 2)
    return m


cdef void mailbox_free(Mailbox* m) noexcept nogil:
    """Free a mailbox that neither side uses any more, with the payloads still queued in it."""
    cdef uint32_t i
    if m == NULL:
        return
    for i in range(m.command_tail - m.command_head):
        free(m.commands[(m.command_head + i) & (COMMAND_RING - 1u)].payload)
    for i in range(m.event_tail - m.event_head):
        free(m.events[(m.event_head + i) & (EVENT_RING - 1u)].payload)
    close(m.command_fd)
    close(m.event_fd)
    veil_add(&open_fds, -2)
    # Queued commands may hold SRTP keys.
    explicit_bzero(m.commands, sizeof(m.commands))
    free(m)


cdef int mailbox_command_fd(const Mailbox* m) noexcept nogil:
    return m.command_fd


cdef int mailbox_event_fd(const Mailbox* m) noexcept nogil:
    return m.event_fd


cdef inline void _ring(int fd) noexcept nogil:
    cdef uint64_t one = 1
    # Non-blocking: it only fails when the counter is full, and then the other side is awake anyway.
    cdef ssize_t done = write(fd, &one, sizeof(one))


cdef inline void _reset(int fd) noexcept nogil:
    cdef uint64_t count
    # EAGAIN says that nobody rang, which is as good as reset.
    cdef ssize_t done = read(fd, &count, sizeof(count))


cdef int mailbox_submit(Mailbox* m, const Command* c) noexcept nogil:
    """Queue one command and ring.   Owns: takes c.payload unless it answers E_NO_SPACE."""
    cdef int code = mailbox_queue(m, c)
    if code == E_OK:
        _ring(m.command_fd)
    return code


cdef void mailbox_ring_command_fd(Mailbox* m) noexcept nogil:
    _ring(m.command_fd)


cdef int mailbox_queue(Mailbox* m, const Command* c) noexcept nogil:
    cdef uint32_t tail = veil_load_own(&m.command_tail)
    if tail - veil_load_acquire(&m.command_head) >= COMMAND_RING:
        return E_NO_SPACE
    memcpy(&m.commands[tail & (COMMAND_RING - 1u)], c, sizeof(Command))
    veil_store_release(&m.command_tail, tail + 1)
    return E_OK


cdef int mailbox_take_command(Mailbox* m, Command* out) noexcept nogil:
    """Move the oldest command to `out` and answer 1, or answer 0.   Owns: the caller gets out.payload."""
    cdef uint32_t head = veil_load_own(&m.command_head)
    cdef Command* place
    if head == veil_load_acquire(&m.command_tail):
        return 0
    place = &m.commands[head & (COMMAND_RING - 1u)]
    memcpy(out, place, sizeof(Command))
    # Keys and ICE passwords do not linger in the ring until the place is used again.
    explicit_bzero(&place.body, sizeof(CommandBody))
    veil_store_release(&m.command_head, head + 1)
    return 1


cdef int mailbox_emit(Mailbox* m, const Event* e) noexcept nogil:
    """Queue one event without waking the reader.   Owns: takes e.payload unless it answers E_NO_SPACE.

    Acknowledgements and EV_STOPPED may use the last EVENT_RESERVE places: a flood of media events must not cost a
    caller its answer. As the control plane keeps at most COMMAND_RING commands unanswered, they always find room.
    """
    cdef uint32_t tail = veil_load_own(&m.event_tail)
    cdef uint32_t used = tail - veil_load_acquire(&m.event_head)
    cdef uint32_t usable = EVENT_RING
    if e.kind != EV_ACK and e.kind != EV_STOPPED:
        usable -= EVENT_RESERVE
    if used >= usable:
        return E_NO_SPACE
    memcpy(&m.events[tail & (EVENT_RING - 1u)], e, sizeof(Event))
    veil_store_release(&m.event_tail, tail + 1)
    m.unflushed = 1
    return E_OK


cdef int mailbox_take_event(Mailbox* m, Event* out) noexcept nogil:
    """Move the oldest event to `out` and answer 1, or answer 0.   Owns: the caller gets out.payload."""
    cdef uint32_t head = veil_load_own(&m.event_head)
    if head == veil_load_acquire(&m.event_tail):
        return 0
    memcpy(out, &m.events[head & (EVENT_RING - 1u)], sizeof(Event))
    veil_store_release(&m.event_head, head + 1)
    return 1


cdef void mailbox_flush_events(Mailbox* m) noexcept nogil:
    if m.unflushed:
        m.unflushed = 0
        _ring(m.event_fd)


cdef void mailbox_reset_command_fd(Mailbox* m) noexcept nogil:
    _reset(m.command_fd)


cdef void mailbox_reset_event_fd(Mailbox* m) noexcept nogil:
    _reset(m.event_fd)


cdef void mailbox_ring_event_fd(Mailbox* m) noexcept nogil:
    _ring(m.event_fd)


cdef uint32_t mailbox_command_count(const Mailbox* m) noexcept nogil:
    return veil_load_acquire(&m.command_tail) - veil_load_acquire(&m.command_head)


cdef uint32_t mailbox_event_count(const Mailbox* m) noexcept nogil:
    return veil_load_acquire(&m.event_tail) - veil_load_acquire(&m.event_head)


cdef int mailbox_open_fds() noexcept nogil:
    return veil_load_int(&open_fds)


cdef uint8_t* _copy(const char* data, size_t n) noexcept nogil:
    cdef uint8_t* copy = <uint8_t*>malloc(n if n > 0 else 1)
    if copy != NULL:
        memcpy(copy, data, n)
    return copy


@cython.final
cdef class MailboxFace:
    """Both sides of a mailbox in one thread, for tests."""
    cdef Mailbox* _mailbox

    def __cinit__(self):
        self._mailbox = mailbox_new()
        if self._mailbox == NULL:
            raise MemoryError("mailbox")

    def __dealloc__(self):
        mailbox_free(self._mailbox)

    def submit(self, uint32_t op, uint32_t number, uint32_t transport=0, bytes payload=b""):
        cdef Command c
        cdef int code
        memset(&c, 0, sizeof(Command))
        c.op = op
        c.number = number
        c.transport = transport
        c.payload = _copy(payload, <size_t>len(payload))
        c.payload_bytes = <uint32_t>len(payload)
        code = mailbox_submit(self._mailbox, &c)
        if code < 0:
            free(c.payload)
        return code

    def take_command(self):
        """Return (op, number, transport, payload) or None."""
        cdef Command c
        if not mailbox_take_command(self._mailbox, &c):
            return None
        payload = PyBytes_FromStringAndSize(<char*>c.payload, c.payload_bytes)
        free(c.payload)
        return c.op, c.number, c.transport, payload

    def emit(self, uint32_t kind, uint32_t number=0, bytes payload=b""):
        cdef Event e
        cdef int code
        memset(&e, 0, sizeof(Event))
        e.kind = kind
        e.number = number
        e.payload = _copy(payload, <size_t>len(payload))
        e.payload_bytes = <uint32_t>len(payload)
        code = mailbox_emit(self._mailbox, &e)
        if code < 0:
            free(e.payload)
        return code

    def take_event(self):
        """Return (kind, number, payload) or None."""
        cdef Event e
        if not mailbox_take_event(self._mailbox, &e):
            return None
        payload = PyBytes_FromStringAndSize(<char*>e.payload, e.payload_bytes)
        free(e.payload)
        return e.kind, e.number, payload

    def flush(self):
        mailbox_flush_events(self._mailbox)

    def counts(self):
        return mailbox_command_count(self._mailbox), mailbox_event_count(self._mailbox)

    def fds(self):
        return mailbox_command_fd(self._mailbox), mailbox_event_fd(self._mailbox)

    def reset(self):
        mailbox_reset_command_fd(self._mailbox)
        mailbox_reset_event_fd(self._mailbox)


def fds_open():
    """Return how many eventfds of mailboxes are open in this process."""
    return mailbox_open_fds()


cdef struct Stress:
    Mailbox* mailbox
    uint32_t count


cdef void* _stress_worker(void* argument) noexcept nogil:
    """Play a worker: answer each command by an event that carries the command's payload on."""
    cdef Stress* s = <Stress*>argument
    cdef Command c
    cdef Event e
    cdef uint32_t done = 0
    memset(&e, 0, sizeof(Event))
    while done < s.count:
        if not mailbox_take_command(s.mailbox, &c):
            mailbox_flush_events(s.mailbox)
            sched_yield()
            continue
        e.kind = EV_DTLS if c.number & 1 else EV_ACK
        e.number = c.number
        e.payload = c.payload
        e.payload_bytes = c.payload_bytes
        while mailbox_emit(s.mailbox, &e) < 0:
            mailbox_flush_events(s.mailbox)
            sched_yield()
        done += 1
    mailbox_flush_events(s.mailbox)
    return NULL


def stress(uint32_t count):
    """Send `count` commands with payloads through a second thread and back as fast as they go, without the GIL.

    Returns how many came back out of order, with a wrong payload, or not at all: (disordered, damaged, missing).
    """
    cdef Stress s
    cdef pthread_t thread
    cdef Command c
    cdef Event e
    cdef uint32_t sent = 0
    cdef uint32_t seen = 0
    cdef uint32_t disordered = 0
    cdef uint32_t damaged = 0
    cdef uint32_t* word
    s.mailbox = mailbox_new()
    s.count = count
    if s.mailbox == NULL:
        raise MemoryError("mailbox")
    memset(&c, 0, sizeof(Command))
    with nogil:
        if pthread_create(&thread, NULL, _stress_worker, &s) == 0:
            while seen < count:
                # As many as fit, then whatever came back: both rings run full and empty in turn.
                while sent < count:
                    word = <uint32_t*>malloc(sizeof(uint32_t))
                    word[0] = sent * 2654435761u
                    c.number = sent
                    c.payload = <uint8_t*>word
                    c.payload_bytes = sizeof(uint32_t)
                    if mailbox_submit(s.mailbox, &c) < 0:
                        free(word)
                        break
                    sent += 1
                if not mailbox_take_event(s.mailbox, &e):
                    sched_yield()
                    continue
                while True:
                    if e.number != seen:
                        disordered += 1
                    if e.payload_bytes != sizeof(uint32_t) or (<uint32_t*>e.payload)[0] != e.number * 2654435761u:
                        damaged += 1
                    free(e.payload)
                    seen += 1
                    if not mailbox_take_event(s.mailbox, &e):
                        break
            pthread_join(thread, NULL)
        mailbox_free(s.mailbox)
    return disordered, damaged, count - seen
