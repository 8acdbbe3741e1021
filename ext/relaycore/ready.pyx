"""The engine's ring of transports with work; the contract stands in ready.pxd."""
from libc.stdint cimport int32_t, uint32_t
from libc.stdlib cimport free, malloc
from relaycore.errs cimport E_MEMORY, E_OK
from relaycore.overload cimport overload_hear
from relaycore.routes cimport Engine, NO_INDEX, Transport

cdef enum:
    FIRST_CAPACITY = 64


cdef void mark_ready(Engine* e, Transport* t) noexcept nogil:
    if t.is_ready:
        return
    t.is_ready = 1
    t.ready_since_ns = e.now_ns
    e.ready[(e.ready_head + e.ready_count) & (e.ready_capacity - 1)] = t.index
    e.ready_count += 1


cdef int take_ready(Engine* e, int32_t* out, int most) noexcept nogil:
    cdef int n = 0
    while e.ready_count and n < most:
        out[n] = e.ready[e.ready_head]
        e.ready_head = (e.ready_head + 1) & (e.ready_capacity - 1)
        e.ready_count -= 1
        if out[n] != NO_INDEX:
            overload_hear(&e.overload, e.now_ns - e.transports[out[n]].ready_since_ns)
            n += 1
    return n


cdef int grow_ready(Engine* e) noexcept nogil:
    """Make the ready ring large enough for every transport there can be now."""
    cdef uint32_t larger = <uint32_t>FIRST_CAPACITY if e.ready_capacity == 0 else e.ready_capacity
    cdef uint32_t i
    cdef int32_t* grown
    while larger < <uint32_t>e.transport_capacity:
        larger *= 2
    if larger == e.ready_capacity:
        return E_OK
    grown = <int32_t*>malloc(larger * sizeof(int32_t))
    if grown == NULL:
        return E_MEMORY
    for i in range(e.ready_count):
        grown[i] = e.ready[(e.ready_head + i) & (e.ready_capacity - 1)]
    free(e.ready)
    e.ready = grown
    e.ready_head = 0
    e.ready_capacity = larger
    return E_OK


cdef void leave_ready(Engine* e, Transport* t) noexcept nogil:
    cdef uint32_t i
    for i in range(e.ready_count):
        if e.ready[(e.ready_head + i) & (e.ready_capacity - 1)] == t.index:
            e.ready[(e.ready_head + i) & (e.ready_capacity - 1)] = NO_INDEX
            return
