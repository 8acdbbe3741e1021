"""Bounds and completeness of one stream's keyframe cache; the contract stands in keycache.pxd.

Bounds: 1.5 s and 300 kB per stream (DESIGN section 4), and a quarter of the slab for all streams of a worker. A cache that outgrows one
is dropped until the next keyframe, never cut: somebody who began at a part of it would see a broken picture.
Galene keeps the keyframe alone; here all packets since are kept, so that the live ones follow without a hole.
"""
cimport cython
from libc.stdint cimport uint16_t, uint32_t, int64_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset
from relaycore.seq cimport diff_u32
from relaycore.slab cimport Slab, Slot, slab_free, slab_new, slab_take, slab_used, slot_drop, slot_hold
from relaycore.units cimport ms

cdef enum:
    SLAB_PART = 4                  # of the slab's large slots may be held by caches: the rest is live media and repair


cdef void cache_clear(KeyCache* c, CacheLedger* l, Slab* slab) noexcept nogil:
    cdef int64_t i
    cdef int64_t places = c.newest_seq - c.start_seq + 1
    if not c.is_open:
        return
    for i in range(places):
        if c.slots[i] != NULL:
            slot_drop(slab, c.slots[i])
            c.slots[i] = NULL
            l.slots -= 1
    memset(c.known, 0, sizeof(c.known))
    c.known_count = 0
    c.bytes = 0
    c.is_open = 0


cdef void cache_free(KeyCache* c, CacheLedger* l, Slab* slab) noexcept nogil:
    if c != NULL:
        cache_clear(c, l, slab)
        free(c)


cdef inline bint _is_old(const KeyCache* c, int64_t now_ns) noexcept nogil:
    return now_ns - c.start_ns > ms(CACHE_MS) and now_ns - c.read_ns > ms(CACHE_IN_USE_MS)


cdef void cache_trim(KeyCache* c, CacheLedger* l, Slab* slab, int64_t now_ns) noexcept nogil:
    if c.is_open and _is_old(c, now_ns):
        cache_clear(c, l, slab)


cdef inline bint _begins(const KeyCache* c, int64_t ext_seq, uint32_t rtp_ts) noexcept nogil:
    """Whether a packet at which one may start is of a newer keyframe than the one that is kept."""
    return not c.is_open or (ext_seq > c.start_seq and diff_u32(rtp_ts, c.start_ts) > 0)


cdef bint cache_take(KeyCache* c, CacheLedger* l, Slab* slab, Slot* slot, int64_t ext_seq, uint32_t rtp_ts, bint starts,
                     bint has_payload) noexcept nogil:
    cdef int64_t place
    cdef uint64_t bit
    if starts and _begins(c, ext_seq, rtp_ts):
        cache_clear(c, l, slab)
        c.is_open = 1
        c.start_seq = ext_seq
        c.newest_seq = ext_seq
        c.start_ts = rtp_ts
        c.start_ns = slot.arrival_ns
        c.read_ns = 0
    if not c.is_open or ext_seq < c.start_seq:
        return False
    if _is_old(c, slot.arrival_ns):
        cache_clear(c, l, slab)
        return False
    place = ext_seq - c.start_seq
    if place >= CACHE_PLACES or (has_payload and c.bytes + slot.length > CACHE_BYTES):
        cache_clear(c, l, slab)
        return True
    bit = <uint64_t>1 << <uint64_t>(place & 63)
    if c.known[place >> 6] & bit:
        return False
    if has_payload:
        if l.slots >= slab.large_count // SLAB_PART:
            l.refused += 1
            cache_clear(c, l, slab)
            return False
        slot_hold(slot)
        c.slots[place] = slot
        c.bytes += slot.length
        l.slots += 1
    c.known[place >> 6] |= bit
    c.known_count += 1
    c.newest_seq = max(c.newest_seq, ext_seq)
    return False


cdef bint cache_is_whole(const KeyCache* c) noexcept nogil:
    return c.is_open and <int64_t>c.known_count == c.newest_seq - c.start_seq + 1


cdef bint cache_serves(const KeyCache* c, int64_t most_ms, int64_t now_ns) noexcept nogil:
    return cache_is_whole(c) and now_ns - c.start_ns <= ms(most_ms)


cdef bint cache_is_known(const KeyCache* c, int64_t ext_seq) noexcept nogil:
    cdef int64_t place = ext_seq - c.start_seq
    return c.is_open and 0 <= place < CACHE_PLACES and c.known[place >> 6] >> <uint64_t>(place & 63) & 1


cdef Slot* cache_find(const KeyCache* c, int64_t ext_seq) noexcept nogil:
    if not c.is_open or ext_seq < c.start_seq or ext_seq > c.newest_seq:
        return NULL
    return c.slots[ext_seq - c.start_seq]


@cython.final
cdef class KeyCacheFace:
    """Test face: caches of several streams over one slab."""
    cdef KeyCache caches[4]
    cdef CacheLedger ledger
    cdef Slab* slab

    def __cinit__(self, uint32_t slots=4096):
        memset(self.caches, 0, sizeof(self.caches))
        memset(&self.ledger, 0, sizeof(CacheLedger))
        self.slab = slab_new(0, slots)
        if self.slab == NULL:
            raise MemoryError("slab")

    def __dealloc__(self):
        cdef int i
        if self.slab != NULL:
            for i in range(4):
                cache_clear(&self.caches[i], &self.ledger, self.slab)
            slab_free(self.slab)

    def take(self, int64_t ext_seq, uint32_t rtp_ts, int64_t arrival_ns, *, bint starts=False, bint has_payload=True,
             uint32_t size_bytes=1000, int stream=0):
        """Show one packet; return whether the stream outgrew its bounds."""
        cdef Slot* slot = slab_take(self.slab, 1000)
        cdef bint outgrown
        if slot == NULL:
            raise MemoryError("slab")
        slot.arrival_ns = arrival_ns
        slot.length = <uint16_t>size_bytes
        outgrown = cache_take(&self.caches[stream & 3], &self.ledger, self.slab, slot, ext_seq, rtp_ts, starts, has_payload)
        slot_drop(self.slab, slot)
        return outgrown

    def serves(self, int64_t now_ns, int64_t most_ms=CACHE_MS, int stream=0):
        return cache_serves(&self.caches[stream & 3], most_ms, now_ns)

    def held(self, int stream=0):
        """Return the numbers of the packets that would be sent."""
        cdef KeyCache* c = &self.caches[stream & 3]
        if not c.is_open:
            return []
        return [i for i in range(c.start_seq, c.newest_seq + 1) if cache_find(c, i) != NULL]

    def read(self, int64_t now_ns, int stream=0):
        """Tell that somebody is still being sent it."""
        self.caches[stream & 3].read_ns = now_ns

    def trim(self, int64_t now_ns, int stream=0):
        cache_trim(&self.caches[stream & 3], &self.ledger, self.slab, now_ns)

    def clear(self, int stream=0):
        cache_clear(&self.caches[stream & 3], &self.ledger, self.slab)

    @property
    def used(self):
        """Slots of the slab in use."""
        return slab_used(self.slab)

    @property
    def ledger_slots(self):
        return self.ledger.slots

    @property
    def refused(self):
        return self.ledger.refused
