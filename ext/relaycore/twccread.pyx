"""Walk over transport-wide feedback; the contract stands in twccread.pxd, the format in twcc.pyx."""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memset
from relaycore.be cimport get_u16, get_u24
from relaycore.errs cimport E_FORMAT, E_OK, E_SHORT
from relaycore.errs import raise_for
from relaycore.rtcp cimport RTCP_RTPFB, RtcpPacket, next_rtcp

cdef enum:
    HEAD_BYTES = 16                # of the body: two SSRCs, base, count, reference, feedback count
    TICKS_PER_REFERENCE = 256
    RECEIVED = 1
    MISSING = 2
    SMALL = 1
    LARGE = 2
    # More than a receiver collects in a second; a packet of thirty bytes could name 65,535.
    MAX_STATUSES = 4096
    ONE_BIT_SYMBOLS = 14
    TWO_BIT_SYMBOLS = 7


cdef inline int32_t _symbols_of(uint16_t chunk) noexcept nogil:
    if not chunk & 0x8000:
        return chunk & 0x1fff
    return TWO_BIT_SYMBOLS if chunk & 0x4000 else ONE_BIT_SYMBOLS


cdef inline int _symbol(uint16_t chunk, int32_t left) noexcept nogil:
    """Return the symbol that stands `left` from a chunk's end; 3 is reserved."""
    if not chunk & 0x8000:
        return chunk >> 13 & 3
    if chunk & 0x4000:
        return chunk >> (2 * (left - 1)) & 3
    return chunk >> (left - 1) & 1


cdef int feedback_begin(FeedbackWalk* w, const RtcpPacket* p) noexcept nogil:
    cdef const uint8_t* end = p.body + p.body_bytes
    cdef const uint8_t* at = p.body + HEAD_BYTES
    cdef int32_t left, in_chunk, delta_bytes
    cdef uint16_t chunk
    cdef int symbol
    if p.body_bytes < HEAD_BYTES + 2:
        return E_SHORT
    memset(w, 0, sizeof(FeedbackWalk))
    w.number = get_u16(p.body + 8)
    w.left = get_u16(p.body + 10)
    w.ticks = <int64_t>(<int32_t>(get_u24(p.body + 12) << 8) >> 8) * TICKS_PER_REFERENCE
    w.at = at
    w.end = end
    if w.left == 0 or w.left > MAX_STATUSES:
        return E_FORMAT
    left = w.left
    delta_bytes = 0
    while left > 0:
        if end - at < 2:
            return E_SHORT
        chunk = get_u16(at)
        at += 2
        in_chunk = _symbols_of(chunk)
        if in_chunk == 0:
            return E_FORMAT
        # A chunk may be longer than what is left to say; the rest of it means nothing.
        while in_chunk > 0 and left > 0:
            symbol = _symbol(chunk, in_chunk)
            if symbol == 3:
                return E_FORMAT
            delta_bytes += symbol
            in_chunk -= 1
            left -= 1
    if end - at < delta_bytes:
        return E_SHORT
    w.deltas = at
    return E_OK


cdef int feedback_next(FeedbackWalk* w, uint16_t* number, int64_t* ticks) noexcept nogil:
    cdef int symbol
    if w.left == 0:
        return 0
    if w.chunk_left == 0:
        w.chunk = get_u16(w.at)
        w.at += 2
        w.chunk_left = _symbols_of(w.chunk)
    symbol = _symbol(w.chunk, w.chunk_left)
    w.chunk_left -= 1
    w.left -= 1
    number[0] = w.number
    w.number = <uint16_t>(w.number + 1u)
    if symbol == SMALL:
        w.ticks += w.deltas[0]
        w.deltas += 1
    elif symbol == LARGE:
        w.ticks += <int16_t>get_u16(w.deltas)
        w.deltas += 2
    else:
        return MISSING
    ticks[0] = w.ticks
    return RECEIVED


def read_feedback(bytes packet):
    """Return [(number, arrival in ns or None)] of one RTCP feedback packet with its head.   Errors: WireError."""
    cdef const uint8_t* data = packet
    cdef Py_ssize_t cursor = 0
    cdef RtcpPacket p
    cdef FeedbackWalk w
    cdef uint16_t number = 0
    cdef int64_t ticks = 0
    cdef int code = raise_for(next_rtcp(data, len(packet), &cursor, &p))
    if code == 0 or p.type != RTCP_RTPFB or p.count != 15:
        raise ValueError("no transport-wide feedback")
    raise_for(feedback_begin(&w, &p))
    found = []
    code = feedback_next(&w, &number, &ticks)
    while code:
        found.append((number, ticks * 250_000 if code == RECEIVED else None))
        code = feedback_next(&w, &number, &ticks)
    return found
