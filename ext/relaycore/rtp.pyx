"""RTP fixed header (RFC 3550 section 5.1): parse into offsets, padding, write.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |V=2|P|X|  CC   |M|     PT      |       sequence number         |
    |                           timestamp                           |
    |                             SSRC                              |
    |                    CSRC identifiers, 4 bytes each             |
    |      extension profile        |       length in words         |
    |                      extension elements                       |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

It does not decrypt and does not read extension elements (hdrext) or payload (views).
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from relaycore.be cimport get_u16, get_u32, need, put_u16, put_u32
from relaycore.errs cimport E_EXT_LEN, E_LENGTH, E_OK, E_PADDING, E_SHORT, E_VERSION
from relaycore.errs import raise_for

cdef enum:
    FIXED_BYTES = 12
    MAX_PACKET_BYTES = 65535       # offsets are 16 bits wide; no UDP payload is longer


cdef int parse_rtp(const uint8_t* buf, Py_ssize_t n, RtpHeader* out) noexcept nogil:
    """Fill `out` with the header's fields and offsets.

    Owns: borrows buf.     Errors: E_SHORT (fixed part or CSRC list), E_VERSION, E_EXT_LEN, E_LENGTH (above 65,535 bytes).
    """
    cdef Py_ssize_t offset
    cdef Py_ssize_t ext_bytes
    if not need(n, FIXED_BYTES):
        return E_SHORT
    if buf[0] >> 6 != 2:
        return E_VERSION
    if n > MAX_PACKET_BYTES:
        return E_LENGTH
    out.has_padding = (buf[0] >> 5) & 1
    out.csrc_count = buf[0] & 0x0f
    out.marker = buf[1] >> 7
    out.payload_type = buf[1] & 0x7f
    out.seq = get_u16(buf + 2)
    out.rtp_ts = get_u32(buf + 4)
    out.ssrc = get_u32(buf + 8)
    offset = FIXED_BYTES + 4 * out.csrc_count
    if not need(n, offset):
        return E_SHORT
    out.ext_profile = 0
    out.ext_offset = <uint16_t>offset
    out.ext_bytes = 0
    if buf[0] & 0x10:
        if not need(n, offset + 4):
            return E_EXT_LEN
        ext_bytes = 4 * <Py_ssize_t>get_u16(buf + offset + 2)
        if not need(n, offset + 4 + ext_bytes):
            return E_EXT_LEN
        out.ext_profile = get_u16(buf + offset)
        out.ext_offset = <uint16_t>(offset + 4)
        out.ext_bytes = <uint16_t>ext_bytes
        offset += 4 + ext_bytes
    out.payload_offset = <uint16_t>offset
    out.payload_bytes = <uint16_t>(n - offset)
    return E_OK


cdef int take_rtp_padding(const uint8_t* buf, Py_ssize_t n, RtpHeader* h) noexcept nogil:
    """Set payload_bytes of a decrypted packet of n bytes; return the padding bytes (RFC 3550 section 5.1: the count includes itself).

    Errors: E_SHORT (n ends before the payload), E_LENGTH (above 65,535 bytes), E_PADDING (count 0 or longer than the payload).
    """
    cdef Py_ssize_t payload_bytes = n - h.payload_offset
    cdef int padding = 0
    if payload_bytes < 0:
        return E_SHORT
    if n > MAX_PACKET_BYTES:
        return E_LENGTH
    if h.has_padding:
        if payload_bytes == 0:
            return E_PADDING
        padding = buf[n - 1]
        if padding == 0 or padding > payload_bytes:
            return E_PADDING
    h.payload_bytes = <uint16_t>(payload_bytes - padding)
    return padding


cdef void write_rtp_fixed(uint8_t* dst, bint x, bint p, bint marker, uint8_t payload_type, uint16_t seq, uint32_t rtp_ts, uint32_t ssrc) noexcept nogil:
    """Write the 12 fixed bytes, without CSRC."""
    dst[0] = <uint8_t>(0x80 | (0x20 if p else 0) | (0x10 if x else 0))
    dst[1] = <uint8_t>((0x80 if marker else 0) | (payload_type & 0x7f))
    put_u16(dst + 2, seq)
    put_u32(dst + 4, rtp_ts)
    put_u32(dst + 8, ssrc)


def parse(bytes data not None):
    """Test face: parse a plaintext packet, padding taken off, into a dict of the fields; WireError on bad bytes."""
    cdef RtpHeader h
    cdef const uint8_t* buf = <const uint8_t*>data
    cdef Py_ssize_t n = len(data)
    cdef int padding
    raise_for(parse_rtp(buf, n, &h))
    padding = raise_for(take_rtp_padding(buf, n, &h))
    return {
        "payload_type": h.payload_type,
        "marker": h.marker,
        "csrc_count": h.csrc_count,
        "seq": h.seq,
        "rtp_ts": h.rtp_ts,
        "ssrc": h.ssrc,
        "ext_profile": h.ext_profile,
        "extension": data[h.ext_offset:h.ext_offset + h.ext_bytes],
        "payload": data[h.payload_offset:h.payload_offset + h.payload_bytes],
        "padding_bytes": padding,
    }


def write(payload_type, seq, rtp_ts, ssrc, *, bint x=False, bint p=False, bint marker=False):
    """Test face: return the 12 fixed bytes."""
    cdef uint8_t[12] buf
    write_rtp_fixed(buf, x, p, marker, payload_type, seq, rtp_ts, ssrc)
    return (<const char*>buf)[:FIXED_BYTES]
