"""When to ask a publisher again; the contract stands in nack.pxd.

The first request goes out at the end of the batch in which the gap was seen, on paths that reorder a few milliseconds later;
further ones after the time that a repair takes (measured from asking to getting, where one request was made: Karn's rule), at
most NACK_TRIES in all. A publisher without a repair stream repeats packets under their own numbers: what comes later than any
reordering is taken for that.
"""
cimport cython
from libc.stdint cimport uint16_t, int32_t, int64_t
from libc.string cimport memmove, memset
from relaycore.units cimport ms

cdef enum:
    RTT_UNKNOWN_MS = 100
    RETRY_FLOOR_MS = 20
    RETRY_SLACK_MS = 10            # a repair waits for the publisher's next pacing turn
    REORDER_LIMIT_MS = 10          # waiting longer for stragglers would cost real losses more than it saves
    REORDER_MEMORY = 32            # losses by which the allowance is forgotten


cdef inline int64_t _retry_ns(const NackTracker* n) noexcept nogil:
    cdef int64_t pause = n.rtt_ns if n.rtt_ns else ms(RTT_UNKNOWN_MS)
    return max(pause, ms(RETRY_FLOOR_MS)) + ms(RETRY_SLACK_MS)


cdef void _break_off(NackTracker* n) noexcept nogil:
    n.count = 0
    n.due_ns = 0
    n.gave_up = 1


cdef bint _note_filled(NackTracker* n, const MissingPacket* m, bint is_repair, int64_t now_ns) noexcept nogil:
    """Learn from how a missing packet came; true when it had been lost."""
    cdef int64_t late_ns = now_ns - m.since_ns
    cdef int64_t sample
    if not is_repair and late_ns <= ms(REORDER_LIMIT_MS):
        n.reorder_ns = max(n.reorder_ns, late_ns)
        return False
    n.reorder_ns -= (n.reorder_ns + REORDER_MEMORY - 1) // REORDER_MEMORY
    if m.tries == 1:
        sample = now_ns - m.asked_ns
        n.rtt_ns = sample if n.rtt_ns == 0 else n.rtt_ns + (sample - n.rtt_ns) // 8
    return m.tries > 0


cdef bint _fill(NackTracker* n, int64_t ext_seq, bint is_repair, int64_t now_ns) noexcept nogil:
    """Strike a packet off the list; true when it had been lost."""
    cdef int low = 0
    cdef int high = n.count
    cdef int middle
    cdef MissingPacket* m
    cdef bint was_lost
    while low < high:
        middle = (low + high) >> 1
        if n.missing[middle].ext_seq < ext_seq:
            low = middle + 1
        else:
            high = middle
    if low == n.count or n.missing[low].ext_seq != ext_seq:
        return False
    m = &n.missing[low]
    was_lost = _note_filled(n, m, is_repair, now_ns)
    n.count -= 1
    memmove(m, m + 1, <size_t>(n.count - low) * sizeof(MissingPacket))
    if n.count == 0:
        n.due_ns = 0
    return was_lost


cdef bint nack_received(NackTracker* n, int64_t ext_seq, bint is_repair, int64_t now_ns) noexcept nogil:
    cdef int64_t i
    if not n.started:
        n.started = 1
        n.highest = ext_seq
        return False
    if ext_seq <= n.highest:
        return _fill(n, ext_seq, is_repair, now_ns)
    if ext_seq - n.highest - 1 + n.count > NACK_PLACES:
        _break_off(n)
        n.lost_seq = ext_seq - 1
    else:
        for i in range(n.highest + 1, ext_seq):
            n.missing[n.count].ext_seq = i
            n.missing[n.count].since_ns = now_ns
            n.missing[n.count].asked_ns = 0
            n.missing[n.count].tries = 0
            n.count += 1
            if n.due_ns == 0 or n.due_ns > now_ns + n.reorder_ns:
                n.due_ns = now_ns + n.reorder_ns
    n.highest = ext_seq
    return False


cdef int nack_collect(NackTracker* n, int64_t now_ns, uint16_t* out, int cap) noexcept nogil:
    cdef int64_t retry_ns = _retry_ns(n)
    cdef int64_t due
    cdef MissingPacket* m
    cdef int i
    cdef int kept = 0
    cdef int asked = 0
    n.due_ns = 0
    for i in range(n.count):
        m = &n.missing[i]
        due = m.since_ns + n.reorder_ns if m.tries == 0 else m.asked_ns + retry_ns
        if due <= now_ns:
            if m.tries >= NACK_TRIES or now_ns - m.since_ns > ms(NACK_AGE_MS):
                n.gave_up = 1
                n.lost_seq = m.ext_seq
                continue
            if asked < cap:
                out[asked] = <uint16_t>(m.ext_seq & 0xffff)
                asked += 1
                m.tries += 1
                m.asked_ns = now_ns
                due = now_ns + retry_ns
        if n.due_ns == 0 or due < n.due_ns:
            n.due_ns = due
        if kept != i:
            n.missing[kept] = m[0]
        kept += 1
    n.count = kept
    return asked


@cython.final
cdef class NackFace:
    """Test face: one tracker driven from Python."""
    cdef NackTracker n

    def __cinit__(self):
        memset(&self.n, 0, sizeof(NackTracker))

    def received(self, int64_t ext_seq, int64_t now_ns, bint is_repair=False):
        """Note a packet; true when it had been lost."""
        return bool(nack_received(&self.n, ext_seq, is_repair, now_ns))

    def collect(self, int64_t now_ns, int cap=64):
        """Return the 16-bit numbers to ask for now."""
        cdef uint16_t out[256]
        cdef int i, count
        if not 0 <= cap <= 256:
            raise ValueError("cap is 0..256")
        count = nack_collect(&self.n, now_ns, out, cap)
        return [out[i] for i in range(count)]

    @property
    def missing(self):
        cdef int i
        return [self.n.missing[i].ext_seq for i in range(self.n.count)]

    @property
    def due_ns(self):
        return self.n.due_ns

    @property
    def rtt_ns(self):
        return self.n.rtt_ns

    @property
    def reorder_ns(self):
        return self.n.reorder_ns

    @property
    def lost_seq(self):
        return self.n.lost_seq

    def take_gave_up(self):
        """Return whether something was given up since the last call."""
        gave_up = bool(self.n.gave_up)
        self.n.gave_up = 0
        return gave_up
