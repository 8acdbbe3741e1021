"""Transport-wide feedback for what we receive: remember arrivals by number, write them as RTPFB packets of format 15.

Spec: draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1. It estimates nothing and decides on no interval.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |V=2|P|  FMT=15 |    PT=205     |           length              |
    |                    SSRC of packet sender                      |
    |                     SSRC of media source                      |
    |      base sequence number     |      packet status count      |
    |          reference time (64 ms)               | fb pkt. count |
    |          packet chunks, 16 bits each          |  deltas ...   |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

A packet that comes after its number was reported as lost takes the base of the next feedback back to it; what lies between is
reported once more with the arrivals it had, because senders take "not received" for a loss but ignore a second "received".
"""
cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t, uint64_t
from libc.string cimport memset
from relaycore.be cimport need, put_u16, put_u24, put_u32
from relaycore.errs cimport E_NO_SPACE
from relaycore.errs import raise_for
from relaycore.rtcp cimport RTCP_RTPFB
from relaycore.seq cimport unwrap_u16

cdef enum:
    FMT_TRANSPORT_FEEDBACK = 15
    HEAD_BYTES = 20                # up to and with the feedback count
    TICKS_PER_REFERENCE = 256      # 64 ms
    LOST = 0
    SMALL = 1                      # delta 0..255 ticks, one byte
    LARGE = 2                      # delta -32768..32767 ticks, two bytes
    OUT_OF_RANGE = 3               # the delta needs a new reference time
    MAX_RUN = 8191                 # 13 bits
    ONE_BIT_SYMBOLS = 14
    TWO_BIT_SYMBOLS = 7


cdef inline int64_t* _arrival(TwccRecorder* r, int64_t number) noexcept nogil:
    return &r.arrival_ns[<uint64_t>number & (TWCC_WINDOW - 1)]


cdef inline void _forget(TwccRecorder* r, int64_t number) noexcept nogil:
    """Clear a place for a new number; its former tenant leaves unreported if feedback was never asked for in time."""
    cdef int64_t* place = _arrival(r, number)
    if place[0] and number - TWCC_WINDOW >= r.next_base:
        r.pending -= 1
    place[0] = 0


cdef void twcc_record(TwccRecorder* r, uint16_t number, int64_t now_ns) noexcept nogil:
    """Note the arrival of one transport-wide number. Duplicates, and numbers 2,048 or more behind, change nothing."""
    cdef int64_t extended, i
    if not r.started:
        r.started = 1
        r.highest = number
        r.next_base = number
        r.pending = 1
        _arrival(r, number)[0] = now_ns if now_ns else 1
        return
    extended = unwrap_u16(r.highest, number)
    if extended > r.highest:
        if extended - r.highest >= TWCC_WINDOW:
            memset(r.arrival_ns, 0, sizeof(r.arrival_ns))
            r.pending = 0
        else:
            for i in range(r.highest + 1, extended + 1):
                _forget(r, i)
        r.highest = extended
        if r.highest - r.next_base >= TWCC_WINDOW:
            r.next_base = r.highest - TWCC_WINDOW + 1
    elif r.highest - extended >= TWCC_WINDOW or _arrival(r, extended)[0]:
        return
    elif extended < r.next_base:
        r.next_base = extended
    # 0 marks a number that was not received.
    _arrival(r, extended)[0] = now_ns if now_ns else 1
    r.pending += 1


cdef inline int64_t _ticks(int64_t now_ns) noexcept nogil:
    # Both numbers are cut to ticks before they are subtracted, so that rounding never adds up.
    return now_ns // 250000


cdef int _symbol(TwccRecorder* r, int64_t number, int64_t* previous_ticks) noexcept nogil:
    """Return how `number` is to be reported after a packet that arrived at *previous_ticks, and move that on."""
    cdef int64_t arrival_ns = _arrival(r, number)[0]
    cdef int64_t delta
    if arrival_ns == 0:
        return LOST
    delta = _ticks(arrival_ns) - previous_ticks[0]
    if delta < -32768 or delta > 32767:
        return OUT_OF_RANGE
    previous_ticks[0] += delta
    return SMALL if 0 <= delta <= 255 else LARGE


cdef int _take_run(const uint8_t* symbols, int left) noexcept nogil:
    """Return how many of the symbols ahead equal the first."""
    cdef int run = 1
    while run < left and run < MAX_RUN and symbols[run] == symbols[0]:
        run += 1
    return run


cdef int _choose_chunk(const uint8_t* symbols, int left, int* taken) noexcept nogil:
    """Return the next chunk's bits and the number of symbols it says.

    A run where it says more than a vector would, else one bit per symbol while no large delta is ahead, else two.
    """
    cdef int run = _take_run(symbols, left)
    cdef int window = min(left, <int>ONE_BIT_SYMBOLS)
    cdef int bits
    cdef int i
    cdef bint has_large = False
    for i in range(window):
        if symbols[i] == LARGE:
            has_large = True
    if run >= (TWO_BIT_SYMBOLS if has_large else ONE_BIT_SYMBOLS) or run == left:
        taken[0] = run
        return (symbols[0] << 13) | run
    if not has_large:
        taken[0] = window
        bits = 0x8000
        for i in range(window):
            bits |= symbols[i] << (13 - i)
        return bits
    taken[0] = min(left, <int>TWO_BIT_SYMBOLS)
    bits = 0xC000
    for i in range(taken[0]):
        bits |= symbols[i] << (12 - 2 * i)
    return bits


cdef int _write_chunks(uint8_t* dst, const uint8_t* symbols, int count) noexcept nogil:
    cdef int at = 0
    cdef int i = 0
    cdef int taken = 0
    cdef int chunk
    while i < count:
        chunk = _choose_chunk(symbols + i, count - i, &taken)
        put_u16(dst + at, <uint16_t>chunk)
        at += 2
        i += taken
    return at


cdef int _fit(const uint8_t* symbols, int count, Py_ssize_t room) noexcept nogil:
    """Return how many leading symbols fit into `room` bytes with their chunks and deltas.

    Chunks are chosen with all symbols in view: a cut inside a chunk only makes its successor unnecessary.
    """
    cdef Py_ssize_t used = 0
    cdef int i = 0
    cdef int taken = 0
    cdef int j
    while i < count:
        _choose_chunk(symbols + i, count - i, &taken)
        used += 2
        if used > room:
            return i
        for j in range(i, i + taken):
            # A lost packet has no delta; SMALL and LARGE are as many bytes as their value.
            used += symbols[j]
            if used > room:
                return j
        i += taken
    return count


cdef int twcc_write_feedback(TwccRecorder* r, uint8_t* dst, Py_ssize_t cap, uint32_t sender_ssrc, uint32_t media_ssrc) noexcept nogil:
    """Write one feedback packet that starts at next_base, and move next_base behind what it says.

    It ends early where cap ends, or where two arrivals lie more than 8.19 s apart: call again until it returns 0.
    The padding is counted in the packet's last byte under the P bit, as libwebrtc has it.
    """
    cdef uint8_t[2048] symbols
    cdef int count = 0
    cdef int first = -1
    cdef int i, symbol, at, padding
    cdef int64_t previous_ticks, reference, delta
    cdef int64_t base = r.next_base
    if not r.started or base > r.highest:
        return 0
    # The first arrival gives the reference time; `highest` was received, so there is one.
    while first < 0 or _arrival(r, base + first)[0] == 0:
        first += 1
    reference = _ticks(_arrival(r, base + first)[0]) >> 8
    previous_ticks = reference * TICKS_PER_REFERENCE
    while base + count <= r.highest:
        symbol = _symbol(r, base + count, &previous_ticks)
        if symbol == OUT_OF_RANGE:
            break
        symbols[count] = <uint8_t>symbol
        count += 1
    # The packet ends on a whole word: only whole words of cap are room.
    count = _fit(symbols, count, (cap & ~<Py_ssize_t>3) - HEAD_BYTES)
    if count <= first:
        return E_NO_SPACE
    at = HEAD_BYTES + _write_chunks(dst + HEAD_BYTES, symbols, count)
    previous_ticks = reference * TICKS_PER_REFERENCE
    for i in range(count):
        if symbols[i] == LOST:
            continue
        delta = _ticks(_arrival(r, base + i)[0]) - previous_ticks
        previous_ticks += delta
        if symbols[i] == SMALL:
            dst[at] = <uint8_t>delta
            at += 1
        else:
            put_u16(dst + at, <uint16_t>(<uint64_t>delta & 0xffffu))
            at += 2
        r.pending -= 1
    padding = -at & 3
    if padding:
        memset(dst + at, 0, <size_t>padding)
        at += padding
        dst[at - 1] = <uint8_t>padding
    dst[0] = <uint8_t>(0x80 | (0x20 if padding else 0) | FMT_TRANSPORT_FEEDBACK)
    dst[1] = RTCP_RTPFB
    put_u16(dst + 2, <uint16_t>((at >> 2) - 1))
    put_u32(dst + 4, sender_ssrc)
    put_u32(dst + 8, media_ssrc)
    put_u16(dst + 12, <uint16_t>(<uint64_t>base & 0xffffu))
    put_u16(dst + 14, <uint16_t>count)
    put_u24(dst + 16, <uint32_t>(<uint64_t>reference & 0xffffffu))
    dst[19] = r.feedback_count
    r.feedback_count = <uint8_t>((r.feedback_count + 1) & 0xff)
    r.next_base = base + count
    if r.next_base > r.highest:
        r.pending = 0
    elif r.pending < 1:
        r.pending = 1
    return at


@cython.final
cdef class TwccFace:
    """Test face of one TwccRecorder."""
    cdef TwccRecorder recorder

    def __cinit__(self):
        memset(&self.recorder, 0, sizeof(TwccRecorder))

    def record(self, uint16_t number, int64_t now_ns):
        """A packet with this transport-wide number arrived."""
        twcc_record(&self.recorder, number, now_ns)

    def write_feedback(self, *, uint32_t sender_ssrc=1, uint32_t media_ssrc=2, Py_ssize_t cap=1200):
        """Return the next feedback packet, empty when nothing is pending; cap is at most 8,192 bytes. WireError when it is too small."""
        cdef uint8_t[8192] buf
        cdef int n
        if not 0 <= cap <= 8192:
            raise ValueError("cap is 0..8192")
        n = raise_for(twcc_write_feedback(&self.recorder, buf, cap, sender_ssrc, media_ssrc))
        return (<const char*>buf)[:n]

    @property
    def pending(self):
        return self.recorder.pending

    @property
    def next_base(self):
        return self.recorder.next_base

    @property
    def highest(self):
        return self.recorder.highest
