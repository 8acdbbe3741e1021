"""Binary heap of deadlines; see timers.pxd for why it is not a wheel."""
cimport cython
from libc.stdint cimport int32_t, uint32_t, int64_t, INT64_MAX
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset
from relaycore.errs cimport E_OK, E_MEMORY


cdef int timers_init(Timers* t, uint32_t owners) noexcept nogil:
    memset(t, 0, sizeof(Timers))
    return timers_grow(t, owners)


cdef void timers_free(Timers* t) noexcept nogil:
    free(t.heap)
    free(t.place)
    memset(t, 0, sizeof(Timers))


cdef int timers_grow(Timers* t, uint32_t owners) noexcept nogil:
    """Make room for owners 0..owners-1; existing deadlines stay."""
    cdef TimerEntry* heap
    cdef int32_t* place
    cdef uint32_t i
    if owners <= t.owners:
        return E_OK
    heap = <TimerEntry*>realloc(t.heap, owners * sizeof(TimerEntry))
    if heap == NULL:
        return E_MEMORY
    t.heap = heap
    place = <int32_t*>realloc(t.place, owners * sizeof(int32_t))
    if place == NULL:
        return E_MEMORY
    t.place = place
    for i in range(t.owners, owners):
        place[i] = -1
    t.owners = owners
    return E_OK


cdef inline void _store(Timers* t, uint32_t index, TimerEntry entry) noexcept nogil:
    t.heap[index] = entry
    t.place[entry.owner] = <int32_t>index


cdef void _sift(Timers* t, uint32_t index) noexcept nogil:
    cdef TimerEntry entry = t.heap[index]
    cdef uint32_t parent, child
    while index > 0:
        parent = (index - 1u) >> 1
        if t.heap[parent].deadline_ns <= entry.deadline_ns:
            break
        _store(t, index, t.heap[parent])
        index = parent
    while True:
        child = 2 * index + 1
        if child >= t.count:
            break
        if child + 1 < t.count and t.heap[child + 1].deadline_ns < t.heap[child].deadline_ns:
            child += 1
        if t.heap[child].deadline_ns >= entry.deadline_ns:
            break
        _store(t, index, t.heap[child])
        index = child
    _store(t, index, entry)


cdef void timers_set(Timers* t, int32_t owner, int64_t deadline_ns) noexcept nogil:
    cdef int32_t index = t.place[owner]
    if index < 0:
        index = <int32_t>t.count
        t.count += 1
        t.heap[index].owner = owner
    t.heap[index].deadline_ns = deadline_ns
    _sift(t, <uint32_t>index)


cdef void timers_cancel(Timers* t, int32_t owner) noexcept nogil:
    cdef int32_t index = t.place[owner]
    if index < 0:
        return
    t.place[owner] = -1
    t.count -= 1
    if <uint32_t>index < t.count:
        t.heap[index] = t.heap[t.count]
        _sift(t, <uint32_t>index)


cdef int32_t timers_due(Timers* t, int64_t now_ns) noexcept nogil:
    cdef int32_t owner
    if t.count == 0 or t.heap[0].deadline_ns > now_ns:
        return -1
    owner = t.heap[0].owner
    timers_cancel(t, owner)
    return owner


cdef int64_t timers_next(const Timers* t) noexcept nogil:
    return t.heap[0].deadline_ns if t.count else INT64_MAX


@cython.final
cdef class TimerHeap:
    """Test face of `Timers`."""
    cdef Timers timers

    def __cinit__(self, uint32_t owners):
        if timers_init(&self.timers, owners) < 0:
            raise MemoryError("timers")

    def __dealloc__(self):
        timers_free(&self.timers)

    cdef int _owner(self, int owner) except -1:
        if not 0 <= owner < <int>self.timers.owners:
            raise ValueError(f"owner {owner} is not below {self.timers.owners}")
        return owner

    def set(self, int owner, int64_t deadline_ns):
        """Add or move the deadline of `owner`."""
        timers_set(&self.timers, self._owner(owner), deadline_ns)

    def cancel(self, int owner):
        """Forget the deadline of `owner`, if any."""
        timers_cancel(&self.timers, self._owner(owner))

    def due(self, int64_t now_ns):
        """Pop one owner whose deadline is <= now_ns; -1 = none."""
        return timers_due(&self.timers, now_ns)

    def next(self):
        """Return the earliest deadline, or None."""
        cdef int64_t at = timers_next(&self.timers)
        return None if at == INT64_MAX else at
