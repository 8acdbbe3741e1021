"""Deadlines of one engine: a binary heap with one movable entry per owner.

A heap instead of a wheel: it gives the exact next deadline (an idle worker sleeps until then, with no tick), and moving an
owner's single entry costs O(log n) only when its earliest deadline changes.
"""
from libc.stdint cimport int32_t, uint32_t, int64_t

ctypedef struct TimerEntry:
    int64_t deadline_ns
    int32_t owner

ctypedef struct Timers:
    TimerEntry* heap               # owned
    int32_t* place                 # owned; owner -> index in heap, -1 = none
    uint32_t count
    uint32_t owners                # size of `place`

cdef int timers_init(Timers* t, uint32_t owners) noexcept nogil
cdef void timers_free(Timers* t) noexcept nogil
cdef int timers_grow(Timers* t, uint32_t owners) noexcept nogil
cdef void timers_set(Timers* t, int32_t owner, int64_t deadline_ns) noexcept nogil     # adds or moves
cdef void timers_cancel(Timers* t, int32_t owner) noexcept nogil
cdef int32_t timers_due(Timers* t, int64_t now_ns) noexcept nogil                       # pops one due owner, -1 = none
cdef int64_t timers_next(const Timers* t) noexcept nogil                                # INT64_MAX = none
