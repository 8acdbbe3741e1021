"""Single-producer single-consumer rings between workers; the contract stands in exchange.pxd.

A byte ring instead of places of one size: a place would have to hold the largest packet (2 kB with its facts), and audio,
most of the packets of a large room, needs a quarter of that. A record lies in one piece; one that does not fit in front of
the ring's end leaves a filler there. Memory is touched only where records were written, so a pair of workers that shares
no room costs address space alone.

Positions count bytes (or signals) up for ever, so full and empty never look alike. A producer works on a position of its own
and publishes it once per batch, by a sequentially consistent store of the tail that is followed by a load of the
consumer's `sleeping`; the consumer stores `sleeping` before it looks at the tails for the last time. One of the two sees the other
(Dekker), so no wake-up is lost and none is made for a consumer that is awake. What either side writes stands on a
cache line of its own. Deliberately absent: blocking, and any knowledge of what a body means.
"""
cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset
from relaycore.errs cimport E_NO_SPACE, E_OK

cdef extern from *:
    """
    #include <pthread.h>
    #include <sched.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <sys/eventfd.h>
    #include <sys/mman.h>
    #include <unistd.h>
    static inline uint64_t exchange_load_acquire(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void exchange_store_release(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline uint64_t exchange_load_ordered(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
    static inline void exchange_store_ordered(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
    static inline uint32_t exchange_load_flag(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
    static inline void exchange_store_flag(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
    static inline uint32_t exchange_swap_flag(uint32_t *p, uint32_t v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
    static inline void exchange_count_fds(int *p, int n) { __atomic_fetch_add(p, n, __ATOMIC_RELAXED); }
    static inline int exchange_get_fds(const int *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    """
    uint64_t exchange_load_acquire(const uint64_t* p) noexcept nogil
    void exchange_store_release(uint64_t* p, uint64_t v) noexcept nogil
    uint64_t exchange_load_ordered(const uint64_t* p) noexcept nogil
    void exchange_store_ordered(uint64_t* p, uint64_t v) noexcept nogil
    uint32_t exchange_load_flag(const uint32_t* p) noexcept nogil
    void exchange_store_flag(uint32_t* p, uint32_t v) noexcept nogil
    uint32_t exchange_swap_flag(uint32_t* p, uint32_t v) noexcept nogil
    void exchange_count_fds(int* p, int n) noexcept nogil
    int exchange_get_fds(const int* p) noexcept nogil
    int posix_memalign(void** out, size_t alignment, size_t bytes) noexcept nogil
    void* mmap(void* address, size_t bytes, int protection, int flags, int fd, long offset) noexcept nogil
    int munmap(void* address, size_t bytes) noexcept nogil
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE
    void* MAP_FAILED
    int eventfd(unsigned int initial, int flags) noexcept nogil
    int EFD_NONBLOCK, EFD_CLOEXEC
    ssize_t write(int fd, const void* buf, size_t bytes) noexcept nogil
    int close(int fd) noexcept nogil
    ctypedef unsigned long pthread_t
    int pthread_create(pthread_t* out, const void* attributes, void* (*run)(void*) noexcept nogil, void* argument) noexcept nogil
    int pthread_join(pthread_t thread, void** result) noexcept nogil
    int sched_yield() noexcept nogil

cdef enum:
    CACHE_LINE_BYTES = 64
    MEDIA_BYTES = 2097152          # 1,200 packets of video: 50 ms of 100 publishers at 2.5 Mbit/s

ctypedef struct Positions:
    uint64_t written               # producer alone: behind the last claim
    uint64_t seen_head             # producer alone: the head as it last looked
    uint8_t gap_0[48]
    uint64_t tail                  # producer writes: published
    uint8_t gap_1[56]
    uint64_t head                  # consumer writes: given back
    uint8_t gap_2[56]
    uint64_t taken                 # consumer alone: behind the last record looked at
    uint64_t seen_tail             # consumer alone
    uint8_t gap_3[48]

ctypedef struct Pair:
    Positions media
    Positions signals
    Signal places[4096]

ctypedef struct Party:
    uint32_t sleeping              # set by the worker itself, taken back by it or by who wakes it
    uint32_t dirty                 # worker alone: bit per worker for which something is unpublished
    uint64_t wakes                 # worker alone: times that it rang for another
    int fd
    uint8_t gap[44]

cdef struct Exchange:
    uint32_t workers
    uint32_t media_bytes
    uint8_t* memory                # owned; the media rings one after the other
    size_t memory_bytes
    Pair* pairs                    # owned; [source * workers + destination]
    Party parties[32]

cdef int open_fds = 0


cdef Exchange* exchange_new(uint32_t workers, uint32_t media_bytes) noexcept nogil:
    """Return the rings of `workers` workers, NULL when memory or descriptors are short.   Owns: the caller frees it."""
    cdef void* memory = NULL
    cdef Exchange* x
    cdef uint32_t i
    cdef size_t count = <size_t>workers * workers
    if workers > MAX_WORKERS or posix_memalign(&memory, CACHE_LINE_BYTES, sizeof(Exchange)) != 0:
        return NULL
    x = <Exchange*>memory
    memset(x, 0, sizeof(Exchange))
    x.workers = workers
    x.media_bytes = media_bytes
    for i in range(<uint32_t>MAX_WORKERS):
        x.parties[i].fd = -1
    x.memory_bytes = count * (media_bytes + sizeof(Pair))
    # Untouched pages cost nothing, also those of the pairs of a worker with itself.
    memory = mmap(NULL, x.memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if memory == MAP_FAILED:
        free(x)
        return NULL
    x.memory = <uint8_t*>memory
    x.pairs = <Pair*>(x.memory + count * media_bytes)
    for i in range(workers):
        x.parties[i].fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if x.parties[i].fd < 0:
            exchange_free(x)
            return NULL
        exchange_count_fds(&open_fds, 1)
    return x


cdef void exchange_free(Exchange* x) noexcept nogil:
    cdef uint32_t i
    if x == NULL:
        return
    for i in range(x.workers):
        if x.parties[i].fd >= 0:
            close(x.parties[i].fd)
            exchange_count_fds(&open_fds, -1)
    munmap(x.memory, x.memory_bytes)
    free(x)


cdef uint32_t exchange_workers(const Exchange* x) noexcept nogil:
    return x.workers


cdef int exchange_fd(const Exchange* x, uint32_t me) noexcept nogil:
    return x.parties[me].fd


cdef int exchange_open_fds() noexcept nogil:
    return exchange_get_fds(&open_fds)


cdef inline Pair* _pair(const Exchange* x, uint32_t source, uint32_t destination) noexcept nogil:
    return &x.pairs[<size_t>source * x.workers + destination]


cdef inline uint8_t* _ring(const Exchange* x, uint32_t source, uint32_t destination) noexcept nogil:
    return x.memory + (<size_t>source * x.workers + destination) * x.media_bytes


cdef inline uint64_t _usable(const Exchange* x, int fill) noexcept nogil:
    if fill == FILL_FRAME_START:
        return x.media_bytes // 2u
    if fill == FILL_FRAME_REST:
        return x.media_bytes - x.media_bytes // 8u
    return x.media_bytes


# --- producer -------------------------------------------------------------------------------------------------------

cdef Record* exchange_claim(Exchange* x, uint32_t me, uint32_t to, uint32_t body_bytes, int fill) noexcept nogil:
    """Return a record with room for `body_bytes` behind its head, its `bytes` set; NULL = no room at this fill."""
    cdef Positions* p = &_pair(x, me, to).media
    cdef uint8_t* ring = _ring(x, me, to)
    cdef uint64_t usable = _usable(x, fill)
    cdef uint32_t needed = (<uint32_t>sizeof(Record) + body_bytes + (RECORD_ALIGNMENT - 1u)) & ~(RECORD_ALIGNMENT - 1u)
    cdef uint32_t offset = <uint32_t>(p.written & (x.media_bytes - 1u))
    cdef uint32_t filler = x.media_bytes - offset if offset + needed > x.media_bytes else 0u
    cdef Record* record
    if p.written + filler + needed - p.seen_head > usable:
        p.seen_head = exchange_load_acquire(&p.head)
        if p.written + filler + needed - p.seen_head > usable:
            return NULL
    if filler:
        record = <Record*>(ring + offset)
        record.bytes = filler
        record.kind = RECORD_REST
        p.written += filler
        offset = 0
    record = <Record*>(ring + offset)
    record.bytes = needed
    p.written += needed
    x.parties[me].dirty |= 1u << to
    return record


cdef int exchange_signal(Exchange* x, uint32_t me, uint32_t to, const Signal* s) noexcept nogil:
    cdef Pair* pair = _pair(x, me, to)
    cdef Positions* p = &pair.signals
    if p.written - p.seen_head >= SIGNAL_PLACES:
        p.seen_head = exchange_load_acquire(&p.head)
        if p.written - p.seen_head >= SIGNAL_PLACES:
            return E_NO_SPACE
    pair.places[p.written & (SIGNAL_PLACES - 1u)] = s[0]
    p.written += 1
    x.parties[me].dirty |= 1u << to
    return E_OK


cdef void exchange_flush(Exchange* x, uint32_t me) noexcept nogil:
    """Publish what was claimed and signalled since the last flush; ring for each destination that may sleep."""
    cdef Party* party = &x.parties[me]
    cdef Pair* pair
    cdef uint64_t one = 1
    cdef ssize_t done
    cdef uint32_t to
    if party.dirty == 0:
        return
    for to in range(x.workers):
        if not party.dirty >> to & 1:
            continue
        pair = _pair(x, me, to)
        exchange_store_ordered(&pair.media.tail, pair.media.written)
        exchange_store_ordered(&pair.signals.tail, pair.signals.written)
        if exchange_load_flag(&x.parties[to].sleeping) and exchange_swap_flag(&x.parties[to].sleeping, 0):
            party.wakes += 1
            # It only fails when its counter is full, and then the other is awake anyway.
            done = write(x.parties[to].fd, &one, sizeof(one))
    party.dirty = 0


# --- consumer -------------------------------------------------------------------------------------------------------

cdef const Record* exchange_next(Exchange* x, uint32_t me, uint32_t source) noexcept nogil:
    """Return the next record, NULL when none is published.   Owns: borrowed until exchange_release."""
    cdef Positions* p = &_pair(x, source, me).media
    cdef uint8_t* ring = _ring(x, source, me)
    cdef const Record* record
    while True:
        if p.taken == p.seen_tail:
            p.seen_tail = exchange_load_acquire(&p.tail)
            if p.taken == p.seen_tail:
                return NULL
        record = <const Record*>(ring + (p.taken & (x.media_bytes - 1u)))
        p.taken += record.bytes
        if record.kind != RECORD_REST:
            return record


cdef void exchange_release(Exchange* x, uint32_t me, uint32_t source) noexcept nogil:
    """Give back the room of all records that exchange_next has returned."""
    cdef Positions* p = &_pair(x, source, me).media
    # Without anything to give back the producer keeps its line.
    if p.head != p.taken:
        exchange_store_release(&p.head, p.taken)


cdef int exchange_take_signal(Exchange* x, uint32_t me, uint32_t source, Signal* out) noexcept nogil:
    cdef Pair* pair = _pair(x, source, me)
    cdef Positions* p = &pair.signals
    if p.taken == p.seen_tail:
        p.seen_tail = exchange_load_acquire(&p.tail)
        if p.taken == p.seen_tail:
            return 0
    out[0] = pair.places[p.taken & (SIGNAL_PLACES - 1u)]
    p.taken += 1
    exchange_store_release(&p.head, p.taken)
    return 1


cdef bint exchange_waiting(Exchange* x, uint32_t me) noexcept nogil:
    cdef Pair* pair
    cdef uint32_t source
    for source in range(x.workers):
        pair = _pair(x, source, me)
        if (source != me and (exchange_load_ordered(&pair.media.tail) != pair.media.taken
                              or exchange_load_ordered(&pair.signals.tail) != pair.signals.taken)):
            return True
    return False


cdef bint exchange_may_sleep(Exchange* x, uint32_t me) noexcept nogil:
    exchange_store_flag(&x.parties[me].sleeping, 1)
    if exchange_waiting(x, me):
        exchange_store_flag(&x.parties[me].sleeping, 0)
        return False
    return True


cdef void exchange_awake(Exchange* x, uint32_t me) noexcept nogil:
    exchange_store_flag(&x.parties[me].sleeping, 0)


# --- Python's edge --------------------------------------------------------------------------------------------------

@cython.final
cdef class WorkerExchange:
    """The rings between `workers` workers (or SansIoEngines), for their `exchange` argument. It outlives them."""

    def __cinit__(self, uint32_t workers, uint32_t media_bytes=MEDIA_BYTES):
        if not 1 <= workers <= MAX_WORKERS:
            raise ValueError(f"{workers} workers, not 1 to {MAX_WORKERS}")
        if media_bytes < 4096 or media_bytes & (media_bytes - 1):
            raise ValueError("media_bytes is no power of two from 4096")
        self.exchange = exchange_new(workers, media_bytes)
        if self.exchange == NULL:
            raise MemoryError("exchange")

    def __dealloc__(self):
        exchange_free(self.exchange)

    @property
    def workers(self):
        return exchange_workers(self.exchange)

    # Both sides in one thread, for tests.

    def put(self, uint32_t me, uint32_t to, uint32_t receiver, bytes body, int fill=FILL_ALL):
        """Claim a record and fill it; False = full at this fill."""
        cdef Record* record
        cdef const uint8_t* data = body
        cdef Py_ssize_t i
        self._check(me, to)
        record = exchange_claim(self.exchange, me, to, <uint32_t>len(body), fill)
        if record == NULL:
            return False
        record.kind = RECORD_PACKET
        record.receiver = receiver
        record.packet_bytes = <uint16_t>len(body)
        for i in range(len(body)):
            (<uint8_t*>(record + 1))[i] = data[i]
        return True

    def take(self, uint32_t me, uint32_t source, uint32_t most=1000):
        """Return [(receiver, body)] and give their room back."""
        cdef const Record* record
        self._check(me, source)
        out = []
        while len(out) < most:
            record = exchange_next(self.exchange, me, source)
            if record == NULL:
                break
            out.append((record.receiver, (<const uint8_t*>(record + 1))[:record.packet_bytes]))
        exchange_release(self.exchange, me, source)
        return out

    def signal(self, uint32_t me, uint32_t to, uint32_t kind, uint32_t receiver, uint32_t value):
        cdef Signal s
        self._check(me, to)
        s.kind, s.receiver, s.value, s.reserved = kind, receiver, value, 0
        return exchange_signal(self.exchange, me, to, &s)

    def take_signals(self, uint32_t me, uint32_t source):
        cdef Signal s
        self._check(me, source)
        out = []
        while exchange_take_signal(self.exchange, me, source, &s):
            out.append((s.kind, s.receiver, s.value))
        return out

    def flush(self, uint32_t me):
        self._check(me, 0)
        exchange_flush(self.exchange, me)

    def may_sleep(self, uint32_t me):
        self._check(me, 0)
        return bool(exchange_may_sleep(self.exchange, me))

    def awake(self, uint32_t me):
        self._check(me, 0)
        exchange_awake(self.exchange, me)

    def fd(self, uint32_t me):
        self._check(me, 0)
        return exchange_fd(self.exchange, me)

    def wakes(self, uint32_t me):
        """How often a worker rang for another."""
        self._check(me, 0)
        return self.exchange.parties[me].wakes

    cdef int _check(self, uint32_t a, uint32_t b) except -1:
        if a >= self.exchange.workers or b >= self.exchange.workers:
            raise IndexError(f"workers {a}, {b}")
        return 0


def fds_open():
    """Return how many eventfds of exchanges are open in this process."""
    return exchange_open_fds()


cdef struct Stress:
    Exchange* exchange
    uint32_t count


cdef inline uint32_t _mix(uint32_t x) noexcept nogil:
    return (x * 2654435761u) ^ (x >> 13)


cdef void* _stress_sender(void* argument) noexcept nogil:
    """Send `count` records of many lengths in batches; every keyframe signal that comes back is counted by the record heads."""
    cdef Stress* s = <Stress*>argument
    cdef Record* record
    cdef Signal signal
    cdef uint32_t sent = 0
    cdef uint32_t heard = 0
    cdef uint32_t words, i
    while sent < s.count or heard < s.count:
        while exchange_take_signal(s.exchange, 0, 1, &signal):
            # The signals come back in order too; a wrong one stops the count, which the other side reports as missing.
            if signal.value == _mix(heard):
                heard += 1
        if sent == s.count:
            sched_yield()
            continue
        words = _mix(sent) % 300u
        record = exchange_claim(s.exchange, 0, 1, words * 4u, FILL_ALL)
        if record == NULL:
            exchange_flush(s.exchange, 0)
            sched_yield()
            continue
        record.kind = RECORD_PACKET
        record.receiver = sent
        record.packet_bytes = <uint16_t>(words * 4u)
        for i in range(words):
            (<uint32_t*>(record + 1))[i] = _mix(sent + i)
        sent += 1
        if sent % 17u == 0 or sent == s.count:
            exchange_flush(s.exchange, 0)
    return NULL


def stress(uint32_t count, uint32_t media_bytes=16384):
    """Send `count` records through a small ring to this thread, and a signal back for each, without the GIL.

    Returns how many came out of order, with a wrong body, or not at all: (disordered, damaged, missing).
    """
    cdef Stress s
    cdef pthread_t thread
    cdef const Record* record
    cdef Signal signal
    cdef uint32_t seen = 0
    cdef uint32_t answered = 0
    cdef uint32_t disordered = 0
    cdef uint32_t damaged = 0
    cdef uint32_t batch, i, words
    s.exchange = exchange_new(2, media_bytes)
    s.count = count
    if s.exchange == NULL:
        raise MemoryError("exchange")
    memset(&signal, 0, sizeof(signal))
    with nogil:
        if pthread_create(&thread, NULL, _stress_sender, &s) == 0:
            while seen < count or answered < count:
                batch = 0
                while batch < 23:
                    record = exchange_next(s.exchange, 1, 0)
                    if record == NULL:
                        break
                    words = _mix(seen) % 300u
                    if record.receiver != seen:
                        disordered += 1
                    if record.packet_bytes != words * 4u:
                        damaged += 1
                    else:
                        for i in range(words):
                            if (<const uint32_t*>(record + 1))[i] != _mix(seen + i):
                                damaged += 1
                                break
                    seen += 1
                    batch += 1
                exchange_release(s.exchange, 1, 0)
                while answered < seen:
                    signal.value = _mix(answered)
                    if exchange_signal(s.exchange, 1, 0, &signal) < 0:
                        break
                    answered += 1
                exchange_flush(s.exchange, 1)
                if batch == 0:
                    # As a worker does before it blocks; both answers must leave the rings usable.
                    exchange_may_sleep(s.exchange, 1)
                    sched_yield()
                    exchange_awake(s.exchange, 1)
            pthread_join(thread, NULL)
        exchange_free(s.exchange)
    return disordered, damaged, count - seen
