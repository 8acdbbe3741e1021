"""RTCP: walk of a compound packet, field readers, builders.

Spec: RFC 3550 section 6 (SR, RR, SDES, BYE), RFC 4585 section 6 (NACK, PLI), RFC 5104 section 4.3.1 (FIR), RFC 5506 (a compound
may hold any packet alone), draft-alvestrand-rmcat-remb-03 (REMB).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |V=2|P| RC/FMT  |       PT      |     length in words minus 1   |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

It keeps no state and knows no clock; transport-wide feedback is built in twcc.
"""
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from relaycore.be cimport get_u16, get_u24, get_u32, get_u64, need, put_u16, put_u24, put_u32, put_u64
from relaycore.errs cimport E_FORMAT, E_INVALID, E_LENGTH, E_NO_SPACE, E_OK, E_PADDING, E_SHORT, E_VERSION
from relaycore.errs import raise_for
from relaycore.seq cimport diff_u16

cdef enum:
    HEAD_BYTES = 4
    SENDER_INFO_BYTES = 24         # SSRC included
    BLOCK_BYTES = 24
    MAX_COUNT = 31                 # five bits
    MAX_COMPOUND_BYTES = 65535     # no UDP payload is longer
    SDES_END = 0
    SDES_CNAME = 1
    FMT_NACK = 1
    FMT_PLI = 1
    FMT_FIR = 4
    FMT_AFB = 15
    REMB_MIN_BYTES = 16            # SSRCs, name, count and bitrate


cdef int next_rtcp(const uint8_t* buf, Py_ssize_t n, Py_ssize_t* cursor, RtcpPacket* out) noexcept nogil:
    """Take the packet at *cursor and move the cursor behind it.

    Returns 1 with a packet, 0 at the end.     Owns: out borrows buf.
    Errors: E_SHORT, E_VERSION, E_LENGTH, E_PADDING; the cursor stays.
    """
    cdef const uint8_t* p
    cdef Py_ssize_t left = n - cursor[0]
    cdef Py_ssize_t packet_bytes, body_bytes
    cdef uint8_t padding
    if left <= 0:
        return 0
    if n > MAX_COMPOUND_BYTES:
        return E_LENGTH
    p = buf + cursor[0]
    if not need(left, HEAD_BYTES):
        return E_SHORT
    if p[0] >> 6 != 2:
        return E_VERSION
    packet_bytes = 4 * (<Py_ssize_t>get_u16(p + 2) + 1)
    if not need(left, packet_bytes):
        return E_LENGTH
    body_bytes = packet_bytes - HEAD_BYTES
    if p[0] & 0x20:
        # Not required to be a multiple of four: libwebrtc pads transport-wide feedback with 1 to 3 bytes.
        padding = p[packet_bytes - 1]
        if body_bytes == 0 or padding == 0 or padding > body_bytes:
            return E_PADDING
        body_bytes -= padding
    out.type = p[1]
    out.count = p[0] & 0x1f
    out.body = p + HEAD_BYTES
    out.body_bytes = <uint16_t>body_bytes
    out.ssrc = get_u32(out.body) if body_bytes >= 4 else 0
    cursor[0] += packet_bytes
    return 1


cdef int parse_sender_info(const RtcpPacket* p, SenderInfo* out) noexcept nogil:
    """Read the sender information of an SR (RFC 3550 section 6.4.1). Errors: E_FORMAT when it is no SR, E_LENGTH."""
    if p.type != RTCP_SR:
        return E_FORMAT
    if not need(p.body_bytes, SENDER_INFO_BYTES):
        return E_LENGTH
    out.ntp = get_u64(p.body + 4)
    out.rtp_ts = get_u32(p.body + 12)
    out.packets = get_u32(p.body + 16)
    out.octets = get_u32(p.body + 20)
    return E_OK


cdef int parse_report_block(const RtcpPacket* p, int i, ReportBlock* out) noexcept nogil:
    """Read report block i of an SR or RR (RFC 3550 section 6.4.1). Errors: E_FORMAT, E_LENGTH past the count or the end."""
    cdef Py_ssize_t offset
    cdef const uint8_t* b
    if p.type == RTCP_SR:
        offset = SENDER_INFO_BYTES
    elif p.type == RTCP_RR:
        offset = 4
    else:
        return E_FORMAT
    if i < 0 or i >= p.count:
        return E_LENGTH
    offset += BLOCK_BYTES * i
    if not need(p.body_bytes, offset + BLOCK_BYTES):
        return E_LENGTH
    b = p.body + offset
    out.ssrc = get_u32(b)
    out.fraction_lost = b[4]
    out.total_lost = <int32_t>get_u24(b + 5)
    if out.total_lost & 0x800000:
        out.total_lost -= 0x1000000
    out.ext_highest_seq = get_u32(b + 8)
    out.jitter = get_u32(b + 12)
    out.last_sr = get_u32(b + 16)
    out.delay_since_sr = get_u32(b + 20)
    return E_OK


cdef int parse_nack_item(const RtcpPacket* p, int i, uint32_t* media_ssrc, uint16_t* pid, uint16_t* blp) noexcept nogil:
    """Read item i of a generic NACK (RFC 4585 section 6.2.1). Errors: E_FORMAT, E_LENGTH past the end."""
    if p.type != RTCP_RTPFB or p.count != FMT_NACK:
        return E_FORMAT
    if i < 0 or not need(p.body_bytes, 8 + 4 * (<Py_ssize_t>i + 1)):
        return E_LENGTH
    media_ssrc[0] = get_u32(p.body + 4)
    pid[0] = get_u16(p.body + 8 + 4 * i)
    blp[0] = get_u16(p.body + 10 + 4 * i)
    return E_OK


cdef int parse_pli(const RtcpPacket* p, uint32_t* media_ssrc) noexcept nogil:
    """Read the media SSRC of a PLI (RFC 4585 section 6.3.1). Errors: E_FORMAT, E_LENGTH."""
    if p.type != RTCP_PSFB or p.count != FMT_PLI:
        return E_FORMAT
    if not need(p.body_bytes, 8):
        return E_LENGTH
    media_ssrc[0] = get_u32(p.body + 4)
    return E_OK


cdef int parse_fir_item(const RtcpPacket* p, int i, uint32_t* media_ssrc, uint8_t* command_seq) noexcept nogil:
    """Read entry i of a FIR (RFC 5104 section 4.3.1.1). Errors: E_FORMAT, E_LENGTH past the end."""
    if p.type != RTCP_PSFB or p.count != FMT_FIR:
        return E_FORMAT
    if i < 0 or not need(p.body_bytes, 8 + 8 * (<Py_ssize_t>i + 1)):
        return E_LENGTH
    media_ssrc[0] = get_u32(p.body + 8 + 8 * i)
    command_seq[0] = p.body[12 + 8 * i]
    return E_OK


cdef int parse_remb(const RtcpPacket* p, uint64_t* bitrate_bps) noexcept nogil:
    """Read the bitrate of a REMB: an 18-bit mantissa and a 6-bit exponent.

    Errors: E_FORMAT when it is another AFB or the number does not fit 64 bits; E_LENGTH when the SSRC list overruns.
    """
    cdef uint64_t mantissa
    cdef int exponent
    if p.type != RTCP_PSFB or p.count != FMT_AFB or not need(p.body_bytes, REMB_MIN_BYTES):
        return E_FORMAT
    if memcmp(p.body + 8, b"REMB", 4) != 0:
        return E_FORMAT
    if not need(p.body_bytes, REMB_MIN_BYTES + 4 * <Py_ssize_t>p.body[12]):
        return E_LENGTH
    exponent = p.body[13] >> 2
    mantissa = get_u24(p.body + 13) & 0x3ffffu
    if (mantissa << exponent) >> exponent != mantissa:
        return E_FORMAT
    bitrate_bps[0] = mantissa << exponent
    return E_OK


cdef int parse_cname(const RtcpPacket* p, uint32_t ssrc, const uint8_t** text, uint8_t* text_bytes) noexcept nogil:
    """Find the first CNAME of `ssrc` in an SDES packet (RFC 3550 section 6.5).

    Owns: text borrows the packet.     Errors: E_FORMAT when there is none, E_LENGTH when a chunk or item overruns.
    """
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t n = p.body_bytes
    cdef bint is_ours
    cdef int chunk
    if p.type != RTCP_SDES:
        return E_FORMAT
    for chunk in range(p.count):
        if not need(n - i, 4):
            return E_LENGTH
        is_ours = get_u32(p.body + i) == ssrc
        i += 4
        while True:
            if not need(n - i, 1):
                return E_LENGTH
            if p.body[i] == SDES_END:
                # One to four zero bytes end a chunk, up to the next word.
                i = (i + 4) & ~<Py_ssize_t>3
                break
            if not need(n - i, 2) or not need(n - i - 2, p.body[i + 1]):
                return E_LENGTH
            if is_ours and p.body[i] == SDES_CNAME:
                text[0] = p.body + i + 2
                text_bytes[0] = p.body[i + 1]
                return E_OK
            i += 2 + p.body[i + 1]
    return E_FORMAT


# --- builders -------------------------------------------------------------------------------------------------------

cdef inline void _write_head(uint8_t* dst, int count, uint8_t packet_type, Py_ssize_t packet_bytes) noexcept nogil:
    dst[0] = <uint8_t>(0x80 | (count & 0x1f))
    dst[1] = packet_type
    put_u16(dst + 2, <uint16_t>((packet_bytes >> 2) - 1))


cdef void _write_blocks(uint8_t* dst, const ReportBlock* blocks, int count) noexcept nogil:
    cdef int i
    cdef int32_t lost
    cdef uint8_t* b
    for i in range(count):
        b = dst + BLOCK_BYTES * i
        # The field clamps instead of wrapping (RFC 3550 appendix A.3).
        lost = blocks[i].total_lost
        if lost > 0x7fffff:
            lost = 0x7fffff
        elif lost < -0x800000:
            lost = -0x800000
        put_u32(b, blocks[i].ssrc)
        b[4] = blocks[i].fraction_lost
        put_u24(b + 5, <uint32_t>lost & 0xffffffu)
        put_u32(b + 8, blocks[i].ext_highest_seq)
        put_u32(b + 12, blocks[i].jitter)
        put_u32(b + 16, blocks[i].last_sr)
        put_u32(b + 20, blocks[i].delay_since_sr)


cdef int write_sr(uint8_t* dst, Py_ssize_t cap, uint32_t ssrc, const SenderInfo* info, const ReportBlock* blocks, int count) noexcept nogil:
    """Write an SR with count (0..31) blocks; blocks may be NULL when count is 0. Errors: E_NO_SPACE, E_INVALID."""
    cdef int packet_bytes = HEAD_BYTES + SENDER_INFO_BYTES + BLOCK_BYTES * count
    if count < 0 or count > MAX_COUNT:
        return E_INVALID
    if not need(cap, packet_bytes):
        return E_NO_SPACE
    _write_head(dst, count, RTCP_SR, packet_bytes)
    put_u32(dst + 4, ssrc)
    put_u64(dst + 8, info.ntp)
    put_u32(dst + 16, info.rtp_ts)
    put_u32(dst + 20, info.packets)
    put_u32(dst + 24, info.octets)
    _write_blocks(dst + HEAD_BYTES + SENDER_INFO_BYTES, blocks, count)
    return packet_bytes


cdef int write_rr(uint8_t* dst, Py_ssize_t cap, uint32_t ssrc, const ReportBlock* blocks, int count) noexcept nogil:
    """Write an RR with count (0..31) blocks. Errors: E_NO_SPACE, E_INVALID."""
    cdef int packet_bytes = HEAD_BYTES + 4 + BLOCK_BYTES * count
    if count < 0 or count > MAX_COUNT:
        return E_INVALID
    if not need(cap, packet_bytes):
        return E_NO_SPACE
    _write_head(dst, count, RTCP_RR, packet_bytes)
    put_u32(dst + 4, ssrc)
    _write_blocks(dst + 8, blocks, count)
    return packet_bytes


cdef int write_sdes_cname(uint8_t* dst, Py_ssize_t cap, uint32_t ssrc, const uint8_t* text, uint8_t text_bytes) noexcept nogil:
    """Write an SDES packet of one chunk with one CNAME, ended by one to four zero bytes. Errors: E_NO_SPACE."""
    cdef int used = HEAD_BYTES + 4 + 2 + text_bytes
    cdef int packet_bytes = (used + 4) & ~3
    if not need(cap, packet_bytes):
        return E_NO_SPACE
    _write_head(dst, 1, RTCP_SDES, packet_bytes)
    put_u32(dst + 4, ssrc)
    dst[8] = SDES_CNAME
    dst[9] = text_bytes
    memcpy(dst + 10, text, text_bytes)
    memset(dst + used, 0, <size_t>(packet_bytes - used))
    return packet_bytes


cdef int write_bye(uint8_t* dst, Py_ssize_t cap, uint32_t ssrc) noexcept nogil:
    """Write a BYE of one SSRC without a reason (RFC 3550 section 6.6). Errors: E_NO_SPACE."""
    if not need(cap, 8):
        return E_NO_SPACE
    _write_head(dst, 1, RTCP_BYE, 8)
    put_u32(dst + 4, ssrc)
    return 8


cdef int write_nack(uint8_t* dst, Py_ssize_t cap, uint32_t ssrc, uint32_t media_ssrc, const uint16_t* seqs, int count) noexcept nogil:
    """Write a generic NACK for `count` numbers, ascending modulo 2^16: each item takes a PID and the 16 numbers after it.

    Returns 0 for no numbers; repeated numbers count once. Errors: E_NO_SPACE, and then nothing of dst is to be sent.
    """
    cdef int packet_bytes = HEAD_BYTES + 8
    cdef int i = 0
    cdef uint16_t pid
    cdef uint32_t blp
    cdef int32_t distance
    if count <= 0:
        return 0
    while i < count:
        if not need(cap, packet_bytes + 4):
            return E_NO_SPACE
        pid = seqs[i]
        blp = 0
        i += 1
        while i < count:
            distance = diff_u16(seqs[i], pid)
            if distance < 0 or distance > 16:
                break
            if distance:
                blp |= <uint32_t>1 << (distance - 1)
            i += 1
        put_u16(dst + packet_bytes, pid)
        put_u16(dst + packet_bytes + 2, <uint16_t>(blp & 0xffffu))
        packet_bytes += 4
    _write_head(dst, FMT_NACK, RTCP_RTPFB, packet_bytes)
    put_u32(dst + 4, ssrc)
    put_u32(dst + 8, media_ssrc)
    return packet_bytes


cdef int write_pli(uint8_t* dst, Py_ssize_t cap, uint32_t ssrc, uint32_t media_ssrc) noexcept nogil:
    """Write a PLI. Errors: E_NO_SPACE."""
    if not need(cap, 12):
        return E_NO_SPACE
    _write_head(dst, FMT_PLI, RTCP_PSFB, 12)
    put_u32(dst + 4, ssrc)
    put_u32(dst + 8, media_ssrc)
    return 12


cdef int write_fir(uint8_t* dst, Py_ssize_t cap, uint32_t ssrc, uint32_t media_ssrc, uint8_t command_seq) noexcept nogil:
    """Write a FIR of one entry; the media SSRC of the head stays 0 (RFC 5104 section 4.3.1.2). Errors: E_NO_SPACE."""
    if not need(cap, 20):
        return E_NO_SPACE
    _write_head(dst, FMT_FIR, RTCP_PSFB, 20)
    put_u32(dst + 4, ssrc)
    put_u32(dst + 8, 0)
    put_u32(dst + 12, media_ssrc)
    put_u32(dst + 16, <uint32_t>command_seq << 24)
    return 20


# --- test face ------------------------------------------------------------------------------------------------------

cdef dict _describe(const RtcpPacket* p):
    cdef SenderInfo info
    cdef ReportBlock block
    cdef uint32_t media_ssrc = 0
    cdef uint16_t pid = 0
    cdef uint16_t blp = 0
    cdef uint8_t command_seq = 0
    cdef uint64_t bitrate_bps = 0
    cdef const uint8_t* text = NULL
    cdef uint8_t text_bytes = 0
    cdef int i = 0
    out = {"type": p.type, "count": p.count, "ssrc": p.ssrc, "body": <bytes>(<const char*>p.body)[:p.body_bytes]}
    if parse_sender_info(p, &info) == E_OK:
        out["sender_info"] = dict(info)
    if p.type == RTCP_SR or p.type == RTCP_RR:
        out["blocks"] = []
        while parse_report_block(p, i, &block) == E_OK:
            out["blocks"].append(dict(block))
            i += 1
    if p.type == RTCP_RTPFB and p.count == FMT_NACK:
        out["nacks"] = []
        while parse_nack_item(p, i, &media_ssrc, &pid, &blp) == E_OK:
            out["nacks"].append((media_ssrc, pid, blp))
            i += 1
    if parse_pli(p, &media_ssrc) == E_OK:
        out["pli"] = media_ssrc
    if p.type == RTCP_PSFB and p.count == FMT_FIR:
        out["firs"] = []
        while parse_fir_item(p, i, &media_ssrc, &command_seq) == E_OK:
            out["firs"].append((media_ssrc, command_seq))
            i += 1
    if parse_remb(p, &bitrate_bps) == E_OK:
        out["remb_bps"] = bitrate_bps
    if p.type == RTCP_SDES and parse_cname(p, p.ssrc, &text, &text_bytes) == E_OK:
        out["cname"] = <bytes>(<const char*>text)[:text_bytes]
    return out


def parse(bytes data not None):
    """Test face: walk a plaintext compound into a list of dicts with what the readers find; WireError on a broken walk."""
    cdef const uint8_t* buf = <const uint8_t*>data
    cdef Py_ssize_t cursor = 0
    cdef RtcpPacket p
    packets = []
    while raise_for(next_rtcp(buf, len(data), &cursor, &p)):
        packets.append(_describe(&p))
    return packets


def cname(bytes data not None, uint32_t ssrc):
    """Test face: return the CNAME of `ssrc` in one SDES packet; WireError when it is absent or the packet malformed."""
    cdef const uint8_t* buf = <const uint8_t*>data
    cdef Py_ssize_t cursor = 0
    cdef RtcpPacket p
    cdef const uint8_t* text = NULL
    cdef uint8_t text_bytes = 0
    if raise_for(next_rtcp(buf, len(data), &cursor, &p)) == 0:
        raise ValueError("no packet")
    raise_for(parse_cname(&p, ssrc, &text, &text_bytes))
    return <bytes>(<const char*>text)[:text_bytes]


def report(uint32_t ssrc, dict sender_info, list blocks not None, Py_ssize_t cap=1200):
    """Test face: build an SR, or an RR when sender_info is None, in at most cap (<= 1,200) bytes."""
    cdef uint8_t[1200] buf
    cdef ReportBlock[32] items
    cdef SenderInfo info
    cdef int i, n
    if not 0 <= cap <= 1200:
        raise ValueError("cap is 0..1200")
    for i in range(min(len(blocks), 32)):
        items[i] = blocks[i]
    if sender_info is None:
        n = write_rr(buf, cap, ssrc, items, <int>len(blocks))
    else:
        info = sender_info
        n = write_sr(buf, cap, ssrc, &info, items, <int>len(blocks))
    return (<const char*>buf)[:raise_for(n)]


def build(str kind not None, uint32_t ssrc, *, uint32_t media_ssrc=0, seqs=(), uint8_t command_seq=0, bytes text=b"", Py_ssize_t cap=1200):
    """Test face: build one "cname", "bye", "nack", "pli" or "fir" packet in at most cap (<= 1,200) bytes."""
    cdef uint8_t[1200] buf
    cdef uint16_t[1024] numbers
    cdef int i, n
    if not 0 <= cap <= 1200:
        raise ValueError("cap is 0..1200")
    if kind == "cname":
        n = write_sdes_cname(buf, cap, ssrc, <const uint8_t*>text, <uint8_t>min(len(text), 255))
    elif kind == "bye":
        n = write_bye(buf, cap, ssrc)
    elif kind == "nack":
        if len(seqs) > 1024:
            raise ValueError("at most 1,024 numbers")
        for i in range(len(seqs)):
            numbers[i] = seqs[i]
        n = write_nack(buf, cap, ssrc, media_ssrc, numbers, <int>len(seqs))
    elif kind == "pli":
        n = write_pli(buf, cap, ssrc, media_ssrc)
    elif kind == "fir":
        n = write_fir(buf, cap, ssrc, media_ssrc, command_seq)
    else:
        raise ValueError(kind)
    return (<const char*>buf)[:raise_for(n)]
