"""Packet slots of one worker: two size classes, plain-int reference counts, no locks (a slab never leaves its thread)."""
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t

cdef enum:
    SLOT_SMALL_BYTES = 256
    SLOT_LARGE_BYTES = 1600

ctypedef struct Slot:
    uint8_t* data                  # SLOT_*_BYTES, inside the slab
    uint16_t capacity
    uint16_t length                # bytes in use
    int32_t refs                   # owner thread only; 0 = free
    uint32_t next_free             # free list link (slot number)
    int64_t arrival_ns

ctypedef struct Slab:
    Slot* slots                    # small ones first
    uint8_t* memory                # owned
    uint32_t small_count
    uint32_t large_count
    uint32_t free_small
    uint32_t free_large
    uint32_t used_small
    uint32_t used_large

cdef Slab* slab_new(uint32_t small_count, uint32_t large_count) noexcept nogil
cdef void slab_free(Slab* s) noexcept nogil
cdef Slot* slab_take(Slab* s, Py_ssize_t bytes) noexcept nogil       # refs = 1; small class first if it fits, large when small is empty; NULL = exhausted
cdef void slot_hold(Slot* slot) noexcept nogil                        # +1
cdef void slot_drop(Slab* s, Slot* slot) noexcept nogil               # -1; frees at 0 (debug twin poisons with 0xDD)
cdef uint32_t slab_used(const Slab* s) noexcept nogil
