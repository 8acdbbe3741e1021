"""The engine's rings of transports with work; the contract stands in ready.pxd."""
from libc.stdint cimport int32_t, uint32_t
from libc.stdlib cimport free, malloc
from relaycore.errs cimport E_MEMORY, E_OK
from relaycore.overload cimport overload_hear
from relaycore.routes cimport Engine, NO_INDEX, ReadyRing, Transport

cdef enum:
    FIRST_CAPACITY = 64


cdef void mark_ready(Engine* e, Transport* t, int lane) noexcept nogil:
    cdef ReadyRing* ring = &e.ready[lane]
    if t.is_ready:
        return
    t.is_ready = 1
    t.ready_since_ns = e.now_ns
    ring.places[(ring.head + ring.count) & (ring.capacity - 1)] = t.index
    ring.count += 1


cdef int take_ready(Engine* e, int lane, int32_t* out, int most) noexcept nogil:
    cdef ReadyRing* ring = &e.ready[lane]
    cdef int n = 0
    while ring.count and n < most:
        out[n] = ring.places[ring.head]
        ring.head = (ring.head + 1) & (ring.capacity - 1)
        ring.count -= 1
        if out[n] != NO_INDEX:
            overload_hear(&e.overload, e.now_ns - e.transports[out[n]].ready_since_ns)
            n += 1
    return n


cdef int _grow(ReadyRing* ring, uint32_t least) noexcept nogil:
    cdef uint32_t larger = <uint32_t>FIRST_CAPACITY if ring.capacity == 0 else ring.capacity
    cdef uint32_t i
    cdef int32_t* grown
    while larger < least:
        larger *= 2
    if larger == ring.capacity:
        return E_OK
    grown = <int32_t*>malloc(larger * sizeof(int32_t))
    if grown == NULL:
        return E_MEMORY
    for i in range(ring.count):
        grown[i] = ring.places[(ring.head + i) & (ring.capacity - 1)]
    free(ring.places)
    ring.places = grown
    ring.head = 0
    ring.capacity = larger
    return E_OK


cdef int grow_ready(Engine* e) noexcept nogil:
    cdef int code = _grow(&e.ready[LANE_FAST], <uint32_t>e.transport_capacity)
    return code if code < 0 else _grow(&e.ready[LANE_BULK], <uint32_t>e.transport_capacity)


cdef void leave_ready(Engine* e, Transport* t) noexcept nogil:
    cdef ReadyRing* ring
    cdef uint32_t i
    cdef int lane
    for lane in range(2):
        ring = &e.ready[lane]
        for i in range(ring.count):
            if ring.places[(ring.head + i) & (ring.capacity - 1)] == t.index:
                ring.places[(ring.head + i) & (ring.capacity - 1)] = NO_INDEX
                return
