"""Memory of what was received and what was sent; the contract stands in history.pxd."""
cimport cython
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t
from libc.string cimport memset
from relaycore.slab cimport Slab, Slot, slab_free, slab_new, slab_take, slab_used, slot_drop, slot_hold
from relaycore.units cimport ms

cdef enum:
    SOURCE_MASK = SOURCE_PLACES - 1
    SENT_MASK = SENT_PLACES - 1
    MAPPING_MASK = SENT_MAPPINGS - 1
    TRIM_PER_PACKET = 4            # old packets let go for each new one: falls behind no burst, costs none


cdef inline void _let_go(SourceHistory* h, Slab* slab, int64_t ext_seq) noexcept nogil:
    cdef Slot** place = &h.slots[ext_seq & SOURCE_MASK]
    if place[0] != NULL:
        slot_drop(slab, place[0])
        place[0] = NULL


cdef void source_clear(SourceHistory* h, Slab* slab) noexcept nogil:
    cdef int i
    for i in range(SOURCE_PLACES):
        _let_go(h, slab, i)
    h.started = 0


cdef void source_trim(SourceHistory* h, Slab* slab, int64_t before_ns) noexcept nogil:
    cdef Slot* slot
    if not h.started:
        return
    while h.oldest <= h.newest:
        slot = h.slots[h.oldest & SOURCE_MASK]
        if slot != NULL and slot.arrival_ns >= before_ns:
            return
        _let_go(h, slab, h.oldest)
        h.oldest += 1
    h.started = 0


cdef void source_keep(SourceHistory* h, Slab* slab, Slot* slot, int64_t ext_seq) noexcept nogil:
    cdef Slot* old
    cdef int i
    # When the slab runs short, live packets come first: keep only what the nearest NACKs can ask for.
    cdef int64_t keep_ns = ms(SOURCE_MS) if slab.used_large < slab.large_count - (slab.large_count >> 2) else ms(SOURCE_MS // 8)
    if not h.started or ext_seq - h.newest >= SOURCE_PLACES:
        if h.started:
            source_clear(h, slab)
        h.started = 1
        h.oldest = ext_seq
        h.newest = ext_seq
    elif ext_seq > h.newest:
        h.newest = ext_seq
        while h.oldest <= ext_seq - SOURCE_PLACES:
            _let_go(h, slab, h.oldest)
            h.oldest += 1
    elif ext_seq <= h.newest - SOURCE_PLACES:
        return
    elif ext_seq < h.oldest:
        h.oldest = ext_seq
    _let_go(h, slab, ext_seq)
    slot_hold(slot)
    h.slots[ext_seq & SOURCE_MASK] = slot
    for i in range(TRIM_PER_PACKET):
        if h.oldest >= ext_seq:
            return
        old = h.slots[h.oldest & SOURCE_MASK]
        if old != NULL:
            if old.arrival_ns + keep_ns > slot.arrival_ns:
                return
            _let_go(h, slab, h.oldest)
        h.oldest += 1


cdef Slot* source_find(const SourceHistory* h, int64_t ext_seq) noexcept nogil:
    if not h.started or ext_seq < h.oldest or ext_seq > h.newest:
        return NULL
    return h.slots[ext_seq & SOURCE_MASK]


cdef void sent_map(SentLog* l, const SentMapping* m) noexcept nogil:
    cdef uint32_t place = (l.mapping_count - 1u) & MAPPING_MASK
    if l.mapping_count and (l.mappings[place].serial == m.serial and l.mappings[place].encoding == m.encoding
                            and l.mappings[place].ts_offset == m.ts_offset
                            and l.mappings[place].picture_offset == m.picture_offset
                            and l.mappings[place].tl0_offset == m.tl0_offset
                            and l.mappings[place].rules.top == m.rules.top
                            and l.mappings[place].rules.names_active == m.rules.names_active
                            and l.mappings[place].rules.frame_offset == m.rules.frame_offset
                            and l.mappings[place].rules.active == m.rules.active
                            and l.mappings[place].payload_type == m.payload_type
                            and l.mappings[place].rtx_payload_type == m.rtx_payload_type):
        return
    place = l.mapping_count & MAPPING_MASK
    l.mappings[place] = m[0]
    l.mapping_count += 1


cdef void sent_log(SentLog* l, int64_t out_seq, int64_t source_seq, bint is_base, int64_t now_ns) noexcept nogil:
    cdef SentPacket* p = &l.packets[out_seq & SENT_MASK]
    p.source_low = <uint32_t>(source_seq & 0xffffffffu)
    p.sent_ms = <uint16_t>(now_ns // 1000000 & 0xffff)
    p.out_low = <uint16_t>(out_seq & 0xffff)
    p.mapping = <uint16_t>(l.mapping_count & 0xffffu)
    p.resends = 0
    p.marks = SENT_IS_BASE if is_base else 0


cdef SentPacket* sent_find(SentLog* l, uint16_t out_low, SentMapping** mapping) noexcept nogil:
    cdef SentPacket* p = &l.packets[out_low & SENT_MASK]
    cdef uint32_t age = (l.mapping_count - p.mapping) & 0xffffu
    if l.mapping_count == 0 or p.out_low != out_low or age >= SENT_MAPPINGS or age >= l.mapping_count:
        return NULL
    mapping[0] = &l.mappings[(l.mapping_count - 1u - age) & MAPPING_MASK]
    return p


@cython.final
cdef class SourceHistoryFace:
    """Test face: a source history over a slab of its own; packets are their arrival times."""
    cdef SourceHistory h
    cdef Slab* slab

    def __cinit__(self, uint32_t slots=4096):
        memset(&self.h, 0, sizeof(SourceHistory))
        self.slab = slab_new(0, slots)
        if self.slab == NULL:
            raise MemoryError("slab")

    def __dealloc__(self):
        if self.slab != NULL:
            source_clear(&self.h, self.slab)
            slab_free(self.slab)

    def keep(self, int64_t ext_seq, int64_t arrival_ns):
        cdef Slot* slot = slab_take(self.slab, 1000)
        if slot == NULL:
            raise MemoryError("slab")
        slot.arrival_ns = arrival_ns
        source_keep(&self.h, self.slab, slot, ext_seq)
        slot_drop(self.slab, slot)

    def trim(self, int64_t before_ns):
        source_trim(&self.h, self.slab, before_ns)

    def find(self, int64_t ext_seq):
        """Return the arrival time of the packet kept under this number, None when there is none."""
        cdef Slot* slot = source_find(&self.h, ext_seq)
        return None if slot == NULL else slot.arrival_ns

    def used(self):
        return slab_used(self.slab)


@cython.final
cdef class SentLogFace:
    """Test face: one `SentLog`; a mapping is told by its serial and timestamp offset."""
    cdef SentLog l

    def __cinit__(self):
        memset(&self.l, 0, sizeof(SentLog))

    def map(self, uint32_t serial, uint32_t ts_offset=0):
        cdef SentMapping m
        memset(&m, 0, sizeof(SentMapping))
        m.serial = serial
        m.ts_offset = ts_offset
        sent_map(&self.l, &m)

    def log(self, int64_t out_seq, int64_t source_seq, int64_t now_ns=0):
        sent_log(&self.l, out_seq, source_seq, True, now_ns)

    def find(self, uint16_t out_low):
        """Return (low 32 bits of the source number, serial, ts_offset), or None."""
        cdef SentMapping* m = NULL
        cdef SentPacket* p = sent_find(&self.l, out_low, &m)
        return None if p == NULL else (p.source_low, m.serial, m.ts_offset)
