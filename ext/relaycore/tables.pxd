"""Open-addressing hash table from 64-bit keys to small integers; keys are hashes or packed ids chosen by the caller."""
from libc.stdint cimport uint8_t, int32_t, uint32_t, uint64_t

cdef enum:
    TABLE_MISSING = -1

ctypedef struct TableEntry:
    uint64_t key
    int32_t value                  # TABLE_MISSING = free place

ctypedef struct Table:
    TableEntry* entries            # owned; capacity is a power of two
    uint32_t capacity
    uint32_t count
    uint64_t seed                  # peers choose addresses and SSRCs: an unseeded table could be flooded

cdef int table_init(Table* t, uint32_t capacity, uint64_t seed) noexcept nogil     # E_OK, E_MEMORY
cdef void table_free(Table* t) noexcept nogil
cdef int32_t table_get(const Table* t, uint64_t key) noexcept nogil                 # value or TABLE_MISSING
cdef int table_put(Table* t, uint64_t key, int32_t value) noexcept nogil            # replaces; E_MEMORY
cdef int32_t table_remove(Table* t, uint64_t key) noexcept nogil                    # old value or TABLE_MISSING
cdef uint64_t hash_bytes(const uint8_t* p, Py_ssize_t n, uint64_t seed) noexcept nogil
