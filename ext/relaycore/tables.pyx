"""Open-addressing hash table (linear probing, deletion by shifting back: no tombstones that pile up under churn).

The hash is seeded per table, because keys come from peers (addresses, user fragments, SSRCs).
"""
cimport cython
from libc.stdint cimport uint8_t, int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from relaycore.errs cimport E_OK, E_MEMORY


cdef inline uint64_t _mix(uint64_t x) noexcept nogil:
    # Finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    x = (x ^ (x >> 30)) * <uint64_t>0xbf58476d1ce4e5b9u
    x = (x ^ (x >> 27)) * <uint64_t>0x94d049bb133111ebu
    return x ^ (x >> 31)


cdef uint64_t hash_bytes(const uint8_t* p, Py_ssize_t n, uint64_t seed) noexcept nogil:
    """Return a seeded 64-bit hash of n bytes. Not cryptographic: hits are always compared with the real bytes."""
    cdef uint64_t h = _mix(seed ^ <uint64_t>n)
    cdef uint64_t word = 0
    cdef Py_ssize_t i
    for i in range(n):
        word = (word << 8) | p[i]
        if (i & 7) == 7:
            h = _mix(h ^ word) + <uint64_t>0x9e3779b97f4a7c15u
            word = 0
    return _mix(h ^ word)


cdef inline uint32_t _home(const Table* t, uint64_t key) noexcept nogil:
    return <uint32_t>(_mix(key ^ t.seed) & (t.capacity - 1))


cdef int table_init(Table* t, uint32_t capacity, uint64_t seed) noexcept nogil:
    cdef uint32_t size = 16
    while size < capacity:
        size = size * 2
    memset(t, 0, sizeof(Table))
    t.entries = <TableEntry*>calloc(size, sizeof(TableEntry))
    if t.entries == NULL:
        return E_MEMORY
    t.capacity = size
    t.seed = seed
    cdef uint32_t i
    for i in range(size):
        t.entries[i].value = TABLE_MISSING
    return E_OK


cdef void table_free(Table* t) noexcept nogil:
    free(t.entries)
    memset(t, 0, sizeof(Table))


cdef int32_t table_get(const Table* t, uint64_t key) noexcept nogil:
    cdef uint32_t i = _home(t, key)
    while t.entries[i].value != TABLE_MISSING:
        if t.entries[i].key == key:
            return t.entries[i].value
        i = (i + 1) & (t.capacity - 1)
    return TABLE_MISSING


cdef int _grow(Table* t) noexcept nogil:
    cdef Table bigger
    cdef uint32_t i
    if table_init(&bigger, t.capacity * 2, t.seed) < 0:
        return E_MEMORY
    for i in range(t.capacity):
        if t.entries[i].value != TABLE_MISSING:
            table_put(&bigger, t.entries[i].key, t.entries[i].value)
    free(t.entries)
    t[0] = bigger
    return E_OK


cdef int table_put(Table* t, uint64_t key, int32_t value) noexcept nogil:
    cdef uint32_t i
    if (t.count + 1) * 2 > t.capacity and _grow(t) < 0:
        return E_MEMORY
    i = _home(t, key)
    while t.entries[i].value != TABLE_MISSING:
        if t.entries[i].key == key:
            t.entries[i].value = value
            return E_OK
        i = (i + 1) & (t.capacity - 1)
    t.entries[i].key = key
    t.entries[i].value = value
    t.count += 1
    return E_OK


cdef int32_t table_remove(Table* t, uint64_t key) noexcept nogil:
    cdef uint32_t mask = t.capacity - 1
    cdef uint32_t i = _home(t, key)
    cdef uint32_t j, home
    cdef int32_t old
    while t.entries[i].value != TABLE_MISSING and t.entries[i].key != key:
        i = (i + 1) & mask
    old = t.entries[i].value
    if old == TABLE_MISSING:
        return TABLE_MISSING
    j = i
    while True:
        j = (j + 1) & mask
        if t.entries[j].value == TABLE_MISSING:
            break
        home = _home(t, t.entries[j].key)
        # Move an entry back only if the hole lies between its home and where it stands now.
        if ((j - home) & mask) >= ((j - i) & mask):
            t.entries[i] = t.entries[j]
            i = j
    t.entries[i].value = TABLE_MISSING
    t.count -= 1
    return old


@cython.final
cdef class HashTable:
    """Test face of `Table`: a mapping from int (64 bit) to int (0..2^31-1)."""
    cdef Table table

    def __cinit__(self, uint64_t seed=0):
        if table_init(&self.table, 16, seed) < 0:
            raise MemoryError("hash table")

    def __dealloc__(self):
        table_free(&self.table)

    def __len__(self):
        return self.table.count

    def get(self, uint64_t key):
        """Return the value under `key`, or -1."""
        return table_get(&self.table, key)

    def put(self, uint64_t key, int32_t value):
        """Store `value` (>= 0) under `key`."""
        if value < 0:
            raise ValueError("values are 0..2^31-1")
        if table_put(&self.table, key, value) < 0:
            raise MemoryError("hash table")

    def remove(self, uint64_t key):
        """Remove `key`; return its value, or -1."""
        return table_remove(&self.table, key)
