"""Packet slots: one block of memory per slab, a free list per size class, plain-int reference counts.

Nothing here locks or allocates after `slab_new`: a slab belongs to one worker's thread (DESIGN section 4). What an
exhausted slab means is the caller's business; it answers NULL and stays whole.
"""
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, uint32_t, UINT32_MAX
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #include <stdio.h>
    #include <stdlib.h>
    #include <sys/mman.h>
    static void slab_bug(const char *what) { fputs(what, stderr); abort(); }
    """
    const bint RELAY_DEBUG
    int posix_memalign(void** out, size_t alignment, size_t bytes) noexcept nogil
    void slab_bug(const char* what) noexcept nogil
    int madvise(void* address, size_t bytes, int advice) noexcept nogil
    const int MADV_DONTDUMP

cdef enum:
    POISON = 0xDD
    PAGE_BYTES = 4096


cdef Slab* slab_new(uint32_t small_count, uint32_t large_count) noexcept nogil:
    """Return a slab with all its slots free, NULL when memory is short.   Owns: the caller frees it with slab_free."""
    cdef Slab* s = <Slab*>calloc(1, sizeof(Slab))
    cdef size_t total = <size_t>small_count + large_count
    cdef size_t memory_bytes = <size_t>small_count * SLOT_SMALL_BYTES + <size_t>large_count * SLOT_LARGE_BYTES
    cdef void* memory = NULL
    if s == NULL:
        return NULL
    s.slots = <Slot*>calloc(total if total > 0 else 1, sizeof(Slot))
    # Both slot sizes are multiples of a cache line, so that no two packets share one. Whole pages, so that they alone are
    # left out of core files.
    memory_bytes = (memory_bytes + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES
    if s.slots == NULL or posix_memalign(&memory, PAGE_BYTES, memory_bytes if memory_bytes > 0 else PAGE_BYTES) != 0:
        free(s.slots)
        free(s)
        return NULL
    # Advice: where a kernel does not take it, the process is still not dumpable.
    madvise(memory, memory_bytes, MADV_DONTDUMP)
    s.memory = <uint8_t*>memory
    s.small_count = small_count
    s.large_count = large_count
    s.free_small = _chain(s.slots, 0, small_count, s.memory, SLOT_SMALL_BYTES)
    s.free_large = _chain(s.slots, small_count, large_count,
                          s.memory + <size_t>small_count * SLOT_SMALL_BYTES, SLOT_LARGE_BYTES)
    return s


cdef uint32_t _chain(Slot* slots, uint32_t first, uint32_t count, uint8_t* memory, uint16_t slot_bytes) noexcept nogil:
    """Give `count` slots their memory and link them into one free list; returns its head."""
    cdef uint32_t i
    for i in range(count):
        slots[first + i].data = memory + <size_t>i * slot_bytes
        slots[first + i].capacity = slot_bytes
        slots[first + i].next_free = first + i + 1
    if count > 0:
        slots[first + count - 1].next_free = UINT32_MAX
    return first if count > 0 else UINT32_MAX


cdef void slab_free(Slab* s) noexcept nogil:
    """Give all memory back, slots still held included; who wants to know of those asks slab_used first."""
    if s == NULL:
        return
    free(s.memory)
    free(s.slots)
    free(s)


cdef Slot* slab_take(Slab* s, Py_ssize_t bytes) noexcept nogil:
    """Return a slot of at least `bytes` with one reference, NULL when none is left.

    Owns: the caller drops it. A small packet may sit in a large slot when small ones ran out; never the other way.
    """
    cdef Slot* slot
    cdef uint32_t number
    if bytes < 0 or bytes > SLOT_LARGE_BYTES:
        return NULL
    if bytes <= SLOT_SMALL_BYTES and s.free_small != UINT32_MAX:
        number = s.free_small
        slot = &s.slots[number]
        s.free_small = slot.next_free
        s.used_small += 1
    elif s.free_large != UINT32_MAX:
        number = s.free_large
        slot = &s.slots[number]
        s.free_large = slot.next_free
        s.used_large += 1
    else:
        return NULL
    slot.next_free = UINT32_MAX
    slot.refs = 1
    slot.length = 0
    slot.arrival_ns = 0
    return slot


cdef void slot_hold(Slot* slot) noexcept nogil:
    if RELAY_DEBUG and slot.refs <= 0:
        slab_bug("slab: hold of a free slot\n")
    slot.refs += 1


cdef void slot_drop(Slab* s, Slot* slot) noexcept nogil:
    """Give one reference back. A drop too many is our bug: the debug twin aborts, else the free list stays whole."""
    cdef uint32_t number
    if slot.refs <= 0:
        if RELAY_DEBUG:
            slab_bug("slab: double drop\n")
        return
    slot.refs -= 1
    if slot.refs > 0:
        return
    if RELAY_DEBUG:
        memset(slot.data, POISON, slot.capacity)
    number = <uint32_t>(slot - s.slots)
    if number < s.small_count:
        slot.next_free = s.free_small
        s.free_small = number
        s.used_small -= 1
    else:
        slot.next_free = s.free_large
        s.free_large = number
        s.used_large -= 1


cdef uint32_t slab_used(const Slab* s) noexcept nogil:
    return s.used_small + s.used_large


@cython.final
cdef class SlabFace:
    """A slab for tests, slots by number. Holding, dropping or reading a number that does not exist raises IndexError."""
    cdef Slab* _slab

    def __cinit__(self, uint32_t small_count, uint32_t large_count):
        self._slab = slab_new(small_count, large_count)
        if self._slab == NULL:
            raise MemoryError("slab")

    def __dealloc__(self):
        slab_free(self._slab)

    cdef Slot* _at(self, uint32_t number) except NULL:
        if number >= self._slab.small_count + self._slab.large_count:
            raise IndexError(number)
        return &self._slab.slots[number]

    def take(self, Py_ssize_t size):
        """Return a slot number, None when the slab is exhausted."""
        cdef Slot* slot = slab_take(self._slab, size)
        return None if slot == NULL else <uint32_t>(slot - self._slab.slots)

    def hold(self, uint32_t number):
        slot_hold(self._at(number))

    def drop(self, uint32_t number):
        slot_drop(self._slab, self._at(number))

    def capacity(self, uint32_t number):
        return self._at(number).capacity

    def refs(self, uint32_t number):
        return self._at(number).refs

    def write(self, uint32_t number, bytes data):
        cdef Slot* slot = self._at(number)
        if len(data) > slot.capacity:
            raise ValueError(f"{len(data)} bytes do not fit a slot of {slot.capacity}")
        memcpy(slot.data, <const char*>data, <size_t>len(data))
        slot.length = <uint16_t>len(data)

    def memory(self, uint32_t number):
        """Return a copy of the slot's whole memory, whatever its length says."""
        cdef Slot* slot = self._at(number)
        return PyBytes_FromStringAndSize(<char*>slot.data, slot.capacity)

    def used(self):
        return slab_used(self._slab)


def is_debug():
    """True in the debug twin (RELAY_DEBUG=1 at build time)."""
    return bool(RELAY_DEBUG)
