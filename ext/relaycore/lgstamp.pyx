"""Frames whose content proves itself: stamp, reproducible fill, keyed digest over all of it.

The digest is SipHash-2-4 with 64 bits (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012): its own code, so that a
mistake in the ciphers under test cannot hide itself, fed piece by piece, so that no frame need lie in one buffer. Fill is a
function of stream and number: a sender that must repeat a packet writes it anew instead of keeping it.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                             magic                             |
    |                            stream                             |
    |                            number                             |
    |                            length                             |
    |                           reference                           |
    |K|          reserved           |  temporal id  |   reserved    |
    |                    send time, ns, 64 bits                     |
    |                                                               |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
"""
from libc.stdint cimport uint8_t, uint32_t, int64_t, uint64_t
from libc.string cimport memcpy, memset
from relaycore.be cimport get_u32, get_u64, put_u16, put_u32, put_u64
from relaycore.errs cimport E_FORMAT, E_OK
from relaycore.views cimport CODEC_AV1, CODEC_OPUS, CODEC_VP8, CODEC_VP9

cdef enum:
    MAGIC = 0x5645494c
    # TOC of 20 ms wideband-to-fullband CELT, mono, one frame (RFC 6716 section 3.1).
    OPUS_TOC = 0xf8
    # AV1: OBU_FRAME without a size field. VP9: frame marker, profile 0, and the bit of a non-key frame.
    AV1_FRAME_OBU = 0x30
    VP9_KEY = 0x82
    VP9_DELTA = 0x86


cdef inline uint64_t _rotate(uint64_t x, int bits) noexcept nogil:
    return (x << bits) | (x >> (64 - bits))


cdef inline void _round(Digest* d) noexcept nogil:
    d.v0 += d.v1
    d.v2 += d.v3
    d.v1 = _rotate(d.v1, 13) ^ d.v0
    d.v3 = _rotate(d.v3, 16) ^ d.v2
    d.v0 = _rotate(d.v0, 32)
    d.v2 += d.v1
    d.v0 += d.v3
    d.v1 = _rotate(d.v1, 17) ^ d.v2
    d.v3 = _rotate(d.v3, 21) ^ d.v0
    d.v2 = _rotate(d.v2, 32)


cdef inline void _word(Digest* d, uint64_t word) noexcept nogil:
    d.v3 ^= word
    _round(d)
    _round(d)
    d.v0 ^= word


cdef inline uint64_t _little(const uint8_t* p) noexcept nogil:
    cdef uint64_t word
    # x86-64 and arm64 as Linux runs them are little-endian, and so is SipHash.
    memcpy(&word, p, 8)
    return word


cdef void digest_begin(Digest* d, const uint8_t* key) noexcept nogil:
    cdef uint64_t k0 = _little(key)
    cdef uint64_t k1 = _little(key + 8)
    d.v0 = k0 ^ <uint64_t>0x736f6d6570736575u
    d.v1 = k1 ^ <uint64_t>0x646f72616e646f6du
    d.v2 = k0 ^ <uint64_t>0x6c7967656e657261u
    d.v3 = k1 ^ <uint64_t>0x7465646279746573u
    d.tail = 0
    d.total_bytes = 0


cdef void digest_feed(Digest* d, const uint8_t* data, Py_ssize_t n) noexcept nogil:
    cdef int filled
    cdef Py_ssize_t i = 0
    while i < n and d.total_bytes & 7:
        filled = <int>(d.total_bytes & 7)
        d.tail |= <uint64_t>data[i] << (8 * filled)
        d.total_bytes += 1
        i += 1
        if filled == 7:
            _word(d, d.tail)
            d.tail = 0
    while n - i >= 8:
        _word(d, _little(data + i))
        d.total_bytes += 8
        i += 8
    while i < n:
        d.tail |= <uint64_t>data[i] << (8 * <int>(d.total_bytes & 7))
        d.total_bytes += 1
        i += 1


cdef uint64_t digest_end(Digest* d) noexcept nogil:
    _word(d, d.tail | (d.total_bytes << 56))
    d.v2 ^= 0xff
    _round(d)
    _round(d)
    _round(d)
    _round(d)
    return d.v0 ^ d.v1 ^ d.v2 ^ d.v3


cdef void write_stamp(uint8_t* dst, const Stamp* stamp) noexcept nogil:
    put_u32(dst, MAGIC)
    put_u32(dst + 4, stamp.stream)
    put_u32(dst + 8, stamp.number)
    put_u32(dst + 12, stamp.bytes)
    put_u32(dst + 16, stamp.reference)
    put_u16(dst + 20, 0x8000 if stamp.is_keyframe else 0)
    dst[22] = stamp.temporal_id
    dst[23] = 0
    put_u64(dst + 24, <uint64_t>stamp.send_ns)


cdef int parse_stamp(const uint8_t* src, Stamp* out) noexcept nogil:
    """Read a stamp; nothing of it is trusted before the frame's digest."""
    if get_u32(src) != MAGIC:
        return E_FORMAT
    out.stream = get_u32(src + 4)
    out.number = get_u32(src + 8)
    out.bytes = get_u32(src + 12)
    out.reference = get_u32(src + 16)
    out.is_keyframe = src[20] >> 7
    out.temporal_id = src[22]
    out.send_ns = <int64_t>get_u64(src + 24)
    return E_OK


cdef int head_bytes(int codec, uint8_t first) noexcept nogil:
    if codec == CODEC_VP8:
        # RFC 6386 section 9.1: the frame tag, behind it start code and size in a keyframe.
        return 3 if first & 1 else 10
    return 1


cdef int write_head(uint8_t* dst, int codec, bint is_keyframe, uint32_t width, uint32_t height) noexcept nogil:
    if codec == CODEC_VP8:
        # Shown, version 0, the first partition's size left 0.
        dst[0] = 0x10 if is_keyframe else 0x11
        dst[1] = dst[2] = 0
        if not is_keyframe:
            return 3
        dst[3] = 0x9d
        dst[4] = 0x01
        dst[5] = 0x2a
        dst[6] = <uint8_t>(width & 0xff)
        dst[7] = <uint8_t>((width >> 8) & 0x3f)
        dst[8] = <uint8_t>(height & 0xff)
        dst[9] = <uint8_t>((height >> 8) & 0x3f)
        return 10
    if codec == CODEC_AV1:
        dst[0] = AV1_FRAME_OBU
    elif codec == CODEC_VP9:
        dst[0] = <uint8_t>(VP9_KEY if is_keyframe else VP9_DELTA)
    else:
        dst[0] = OPUS_TOC
    return 1


cdef void fill_frame(uint8_t* dst, int codec, const Stamp* stamp, uint32_t width, uint32_t height, const uint8_t* key,
                     Digest* digest) noexcept nogil:
    cdef uint64_t x = (<uint64_t>stamp.stream << 32 | stamp.number) * <uint64_t>0x9e3779b97f4a7c15u | 1
    cdef Py_ssize_t end = <Py_ssize_t>stamp.bytes - DIGEST_BYTES
    cdef Py_ssize_t head = write_head(dst, codec, stamp.is_keyframe, width, height)
    cdef Py_ssize_t at = head + STAMP_BYTES
    while at < end:
        # xorshift64: cheap, and no byte of it repeats where a shifted or doubled packet would go unnoticed.
        x ^= x << 13
        x ^= x >> 7
        x ^= x << 17
        memcpy(dst + at, &x, <size_t>min(<Py_ssize_t>8, end - at))
        at += 8
    digest_begin(digest, key)
    digest_feed(digest, dst, head)
    digest_feed(digest, dst + head + STAMP_BYTES, end - head - STAMP_BYTES)


cdef void seal_frame(uint8_t* dst, int codec, const Stamp* stamp, Digest* digest) noexcept nogil:
    cdef uint8_t* place = dst + head_bytes(codec, dst[0])
    cdef uint64_t result
    write_stamp(place, stamp)
    digest_feed(digest, place, STAMP_BYTES)
    result = digest_end(digest)
    memcpy(dst + stamp.bytes - DIGEST_BYTES, &result, DIGEST_BYTES)


# --- Python face ----------------------------------------------------------------------------------------------------

_CODECS = {"opus": CODEC_OPUS, "vp8": CODEC_VP8, "vp9": CODEC_VP9, "av1": CODEC_AV1}


def siphash(bytes key not None, bytes data not None, Py_ssize_t piece=1 << 30):
    """Test face: the digest of `data`, fed in pieces of `piece` bytes."""
    cdef Digest d
    cdef Py_ssize_t at = 0
    if len(key) != DIGEST_KEY_BYTES or piece < 1:
        raise ValueError("the key has 16 bytes, a piece at least one")
    digest_begin(&d, <const uint8_t*>key)
    while at < len(data):
        digest_feed(&d, <const uint8_t*>data + at, min(piece, len(data) - at))
        at += piece
    return digest_end(&d)


def frame(str codec not None, bytes key not None, *, uint32_t stream, uint32_t number, uint32_t size, uint32_t reference=0,
          bint is_keyframe=False, uint8_t temporal_id=0, int64_t send_ns=0):
    """Test face: one whole frame, as a sender makes it."""
    cdef Stamp stamp
    cdef Digest digest
    if len(key) != DIGEST_KEY_BYTES or not MAX_HEAD_BYTES + STAMP_BYTES + DIGEST_BYTES <= size <= 1 << 20:
        raise ValueError("the key has 16 bytes, a frame 50 bytes to 1 MiB")
    memset(&stamp, 0, sizeof(Stamp))
    stamp.stream = stream
    stamp.number = number
    stamp.bytes = size
    stamp.reference = reference
    stamp.is_keyframe = 1 if is_keyframe else 0
    stamp.temporal_id = temporal_id
    stamp.send_ns = send_ns
    made = bytearray(size)
    fill_frame(<uint8_t*>made, _CODECS[codec], &stamp, 640, 360, <const uint8_t*>key, &digest)
    seal_frame(<uint8_t*>made, _CODECS[codec], &stamp, &digest)
    return bytes(made)
