"""Seals and opens encoded frames with AES-128-GCM in the two frame formats of our clients, without the GIL.

LiveKit GCM, as its SDKs put it on the wire (measured: JS in Chromium and Firefox, Python):

    +--------------+----------------------+-----------+----------+------+-----------+
    | clear: N     | ciphertext           | tag: 16   | IV: 12   | 0x0C | key index |
    +--------------+----------------------+-----------+----------+------+-----------+
      N: audio 1; VP8 keyframe 10, else 3; VP9 0; H264 up to the first slice's NAL header and one byte more. The clear
      bytes are the AAD. IV = SSRC | RTP timestamp | timestamp - counter mod 0xFFFF. Behind the clear bytes H264 gets
      emulation prevention (ITU-T H.264 §7.4.1), and its clear start codes four bytes, which is what a receiver's
      depacketiser makes of them. A frame of no bytes (Opus DTX) passes as it is.

SFrame, RFC 9605 §4.3 (header) and §4.4.3 (AES_128_GCM_SHA256_128, suite 4):

     0 1 2 3 4 5 6 7
    +-+-+-+-+-+-+-+-+------------------+------------------+----------------------+---------+
    |X| KKK |Y| CCC | KID if X: K+1 B  | CTR if Y: C+1 B  | ciphertext           | tag: 16 |
    +-+-+-+-+-+-+-+-+------------------+------------------+----------------------+---------+
      nonce = salt XOR CTR, AAD = header | metadata. What packetisers must see stays outside: VP8 keeps its first byte in
      front (authenticated as the first byte of the metadata), AV1 gets an OBU_FRAME around all of it, with an empty sequence
      header before it at keyframes; Opus and VP9 need nothing.

Keys come derived (relay/e2ee). Does not ratchet, keep key rings, or refuse replays.
"""
cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t, UINT64_MAX
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove, memset
from relaycore.be cimport get_u32, need, put_u32
from relaycore.cipher cimport AEAD_IV_BYTES, AEAD_TAG_BYTES, CIPHER_AUTO, aead_free, aead_new, aead_open, aead_seal, wipe_bytes
from relaycore.errs cimport (E_AUTH, E_FORMAT, E_INVALID, E_KEY_EXHAUSTED, E_LENGTH, E_MEMORY, E_NO_SPACE, E_SHORT,
                             E_UNSUPPORTED)
from relaycore.errs import raise_for
from relaycore.views cimport CODEC_AV1, CODEC_H264, CODEC_OPUS, CODEC_OTHER_AUDIO, CODEC_OTHER_VIDEO, CODEC_VP8, CODEC_VP9

cdef enum:
    NAL_SLICE = 1
    NAL_IDR = 5
    COUNTER_MODULUS = 0xFFFF             # LiveKit's, one less than its 16 bits
    OBU_SEQUENCE_HEADER = 1
    OBU_FRAME = 6
    OBU_HAS_SIZE = 0x02
    OBU_HAS_EXTENSION = 0x04
    LEB128_MAX_BYTES = 4                 # 2^28 bytes are more than any frame
    FRAME_MAX_BYTES = 1 << 24            # keeps the lengths within what the ciphers take

_CODECS = {"opus": CODEC_OPUS, "audio": CODEC_OTHER_AUDIO, "vp8": CODEC_VP8, "vp9": CODEC_VP9, "h264": CODEC_H264,
           "av1": CODEC_AV1, "other": CODEC_OTHER_VIDEO}


# --- LiveKit ----------------------------------------------------------------------------------------------------


cdef Py_ssize_t _h264_clear_bytes(const uint8_t* p, Py_ssize_t n) noexcept nogil:
    """Up to the first slice's NAL header and one byte more.   Errors: E_FORMAT without a slice, E_SHORT when it ends there."""
    cdef Py_ssize_t i
    cdef int kind
    for i in range(n - 3):
        if p[i] == 0 and p[i + 1] == 0 and p[i + 2] == 1:
            kind = p[i + 3] & 0x1f
            if kind == NAL_SLICE or kind == NAL_IDR:
                return i + 5 if n >= i + 5 else E_SHORT
    return E_FORMAT


cdef Py_ssize_t _livekit_clear_bytes(int codec, const uint8_t* p, Py_ssize_t n) noexcept nogil:
    """Bytes of a frame of n > 0 bytes that stay readable; the same before and after sealing."""
    cdef Py_ssize_t clear
    if codec == CODEC_H264:
        return _h264_clear_bytes(p, n)
    if codec == CODEC_VP8:
        # RFC 6386 section 9.1: the lowest bit of the frame tag is 0 for keyframes.
        clear = 3 if p[0] & 1 else 10
    elif codec == CODEC_VP9:
        clear = 0
    else:
        clear = 1
    return clear if need(n, clear) else E_SHORT


cdef Py_ssize_t _copy_with_long_start_codes(const uint8_t* src, Py_ssize_t n, uint8_t* dst) noexcept nogil:
    """Copy n bytes, every start code written with four bytes; the caller has room for n / 3 more."""
    cdef Py_ssize_t i, at = 0
    for i in range(n):
        if i + 2 < n and src[i] == 0 and src[i + 1] == 0 and src[i + 2] == 1 and (i == 0 or src[i - 1] != 0):
            dst[at] = 0
            at += 1
        dst[at] = src[i]
        at += 1
    return at


cdef Py_ssize_t _escape(const uint8_t* src, Py_ssize_t n, uint8_t* dst) noexcept nogil:
    """Write n bytes with emulation prevention; src may lie in dst's room as long as it lies at its end."""
    cdef Py_ssize_t i, at = 0
    cdef Py_ssize_t zeros = 0
    cdef uint8_t byte
    for i in range(n):
        byte = src[i]
        if zeros >= 2 and byte <= 3:
            dst[at] = 3
            at += 1
            zeros = 0
        dst[at] = byte
        at += 1
        zeros = (zeros + 1) if byte == 0 else 0
    return at


cdef Py_ssize_t _unescape(const uint8_t* src, Py_ssize_t n, uint8_t* dst) noexcept nogil:
    """Write n bytes without their emulation prevention; never more than n."""
    cdef Py_ssize_t i, at = 0
    cdef Py_ssize_t zeros = 0
    for i in range(n):
        if zeros >= 2 and src[i] == 3:
            zeros = 0
            continue
        dst[at] = src[i]
        at += 1
        zeros = zeros + 1 if src[i] == 0 else 0
    return at


cdef Py_ssize_t _livekit_seal(FrameSeal* s, const uint8_t* src, Py_ssize_t n, uint32_t rtp_ts, uint8_t* dst,
                              Py_ssize_t capacity) noexcept nogil:
    cdef Py_ssize_t clear, rest, head, sealed
    cdef uint8_t* body
    cdef uint8_t* trailer
    if n == 0:
        return 0
    clear = _livekit_clear_bytes(s.codec, src, n)
    if clear < 0:
        return clear
    rest = n - clear
    sealed = rest + AEAD_TAG_BYTES + LIVEKIT_TRAILER_BYTES
    if s.codec == CODEC_H264:
        head = _copy_with_long_start_codes(src, clear, dst)
        # At the end of the room, from where the escaping pass reads it forwards.
        body = dst + capacity - sealed
    else:
        memcpy(dst, src, <size_t>clear)
        head = clear
        body = dst + clear
    trailer = body + rest + AEAD_TAG_BYTES
    put_u32(trailer, s.ssrc)
    put_u32(trailer + 4, rtp_ts)
    put_u32(trailer + 8, rtp_ts - <uint32_t>(s.counter % COUNTER_MODULUS))
    trailer[12] = AEAD_IV_BYTES
    trailer[13] = s.key_index
    s.counter += 1
    if aead_seal(s.aead, trailer, dst, head, src + clear, rest, body, body + rest) < 0:
        return E_MEMORY
    if s.codec == CODEC_H264:
        sealed = _escape(body, sealed, dst + head)
    return head + sealed


cdef Py_ssize_t _livekit_open(FrameSeal* s, const uint8_t* src, Py_ssize_t n, uint8_t* dst, uint64_t* counter) noexcept nogil:
    cdef Py_ssize_t clear, rest
    cdef const uint8_t* body
    cdef const uint8_t* trailer
    if n == 0:
        return 0
    clear = _livekit_clear_bytes(s.codec, src, n)
    if clear < 0:
        return clear
    body = src + clear
    rest = n - clear
    memcpy(dst, src, <size_t>clear)
    if s.codec == CODEC_H264:
        rest = _unescape(body, rest, dst + clear)
        body = dst + clear
    rest -= AEAD_TAG_BYTES + LIVEKIT_TRAILER_BYTES
    if rest < 0:
        return E_SHORT
    trailer = body + rest + AEAD_TAG_BYTES
    if trailer[12] != AEAD_IV_BYTES:
        return E_FORMAT
    if trailer[13] != s.key_index:
        return E_UNSUPPORTED
    if counter != NULL:
        counter[0] = get_u32(trailer + 8)
    if aead_open(s.aead, trailer, src, clear, body, rest, dst + clear, body + rest) < 0:
        return E_AUTH
    return clear + rest


# --- SFrame -----------------------------------------------------------------------------------------------------


cdef inline int _bytes_of(uint64_t value) noexcept nogil:
    cdef int n = 1
    while n < 8 and value >> (8 * n):
        n += 1
    return n


cdef inline Py_ssize_t _put_field(uint64_t value, int shift, uint8_t* dst, Py_ssize_t at) noexcept nogil:
    """Write one field of the header, its half of the config byte and what follows; return the next offset."""
    cdef int n, i
    if value < 8:
        dst[0] = <uint8_t>(dst[0] | (value << shift))
        return at
    n = _bytes_of(value)
    dst[0] = <uint8_t>(dst[0] | ((8 | (n - 1)) << shift))
    for i in range(n):
        dst[at + i] = <uint8_t>((value >> (8 * (n - 1 - i))) & 0xff)
    return at + n


cdef Py_ssize_t write_sframe_header(uint64_t kid, uint64_t ctr, uint8_t* dst) noexcept nogil:
    dst[0] = 0
    return _put_field(ctr, 0, dst, _put_field(kid, 4, dst, 1))


cdef inline Py_ssize_t _take_field(int half, const uint8_t* p, Py_ssize_t n, Py_ssize_t at, uint64_t* value) noexcept nogil:
    cdef int size = (half & 7) + 1
    cdef int i
    if half < 8:
        value[0] = <uint64_t>half
        return at
    if not need(n, at + size):
        return E_SHORT
    value[0] = 0
    for i in range(size):
        value[0] = (value[0] << 8) | p[at + i]
    # Section 4.3: the shortest form; one value in two forms would be two headers for one nonce.
    if value[0] < 8 or _bytes_of(value[0]) != size:
        return E_FORMAT
    return at + size


cdef Py_ssize_t parse_sframe_header(const uint8_t* p, Py_ssize_t n, uint64_t* kid, uint64_t* ctr) noexcept nogil:
    cdef Py_ssize_t at
    if not need(n, 1):
        return E_SHORT
    at = _take_field(p[0] >> 4, p, n, 1, kid)
    if at < 0:
        return at
    return _take_field(p[0] & 0x0f, p, n, at, ctr)


cdef inline void _nonce(const FrameSeal* s, uint64_t ctr, uint8_t* nonce) noexcept nogil:
    cdef int i
    memcpy(nonce, s.salt, FRAME_SALT_BYTES)
    for i in range(8):
        nonce[4 + i] = nonce[4 + i] ^ <uint8_t>((ctr >> (8 * (7 - i))) & 0xff)


cdef inline Py_ssize_t _put_leb128(Py_ssize_t value, uint8_t* dst) noexcept nogil:
    cdef Py_ssize_t at = 0
    while value >= 0x80:
        dst[at] = <uint8_t>((value & 0x7f) | 0x80)
        value >>= 7
        at += 1
    dst[at] = <uint8_t>value
    return at + 1


cdef Py_ssize_t _find_obu_frame(const uint8_t* p, Py_ssize_t n, Py_ssize_t* size) noexcept nogil:
    """Return where the payload of the first OBU_FRAME begins and its size; the last OBU may lack its size field."""
    cdef Py_ssize_t at = 0, bytes_ = 0
    cdef int kind, head, shift
    while at < n:
        head = p[at]
        kind = (head >> 3) & 0x0f
        at += 2 if head & OBU_HAS_EXTENSION else 1
        if head & OBU_HAS_SIZE:
            bytes_ = 0
            shift = 0
            while True:
                if at >= n:
                    return E_SHORT
                if shift == 7 * LEB128_MAX_BYTES:
                    return E_FORMAT
                bytes_ |= <Py_ssize_t>(p[at] & 0x7f) << shift
                shift += 7
                at += 1
                if not p[at - 1] & 0x80:
                    break
        else:
            bytes_ = n - at
        if bytes_ < 0 or bytes_ > n - at:
            return E_LENGTH
        if kind == OBU_FRAME:
            size[0] = bytes_
            return at
        at += bytes_
    return E_FORMAT


cdef Py_ssize_t _sframe_aad(const uint8_t* header, Py_ssize_t header_bytes, const uint8_t* clear, Py_ssize_t clear_bytes,
                            const uint8_t* metadata, Py_ssize_t metadata_bytes, uint8_t* aad) noexcept nogil:
    memcpy(aad, header, <size_t>header_bytes)
    if clear_bytes > 0:
        memcpy(aad + header_bytes, clear, <size_t>clear_bytes)
    if metadata_bytes > 0:
        memcpy(aad + header_bytes + clear_bytes, metadata, <size_t>metadata_bytes)
    return header_bytes + clear_bytes + metadata_bytes


cdef Py_ssize_t _sframe_seal(FrameSeal* s, const uint8_t* src, Py_ssize_t n, bint is_keyframe, const uint8_t* metadata,
                             Py_ssize_t metadata_bytes, uint8_t* dst) noexcept nogil:
    cdef uint8_t header[SFRAME_HEADER_MAX_BYTES]
    cdef uint8_t aad[SFRAME_HEADER_MAX_BYTES + 1 + SFRAME_METADATA_MAX_BYTES]
    cdef uint8_t nonce[AEAD_IV_BYTES]
    cdef Py_ssize_t header_bytes, aad_bytes, rest, at = 0
    cdef Py_ssize_t clear = 1 if s.codec == CODEC_VP8 else 0
    if not need(n, clear):
        return E_SHORT
    if s.is_exhausted:
        return E_KEY_EXHAUSTED
    rest = n - clear
    header_bytes = write_sframe_header(s.kid, s.counter, header)
    _nonce(s, s.counter, nonce)
    s.is_exhausted = s.counter == UINT64_MAX
    s.counter += 1
    aad_bytes = _sframe_aad(header, header_bytes, src, clear, metadata, metadata_bytes, aad)
    if clear:
        dst[0] = src[0]
        at = 1
    elif s.codec == CODEC_AV1:
        if is_keyframe:
            dst[0] = (OBU_SEQUENCE_HEADER << 3) | OBU_HAS_SIZE
            dst[1] = 1
            dst[2] = 0
            at = 3
        dst[at] = (OBU_FRAME << 3) | OBU_HAS_SIZE
        at += 1
        at += _put_leb128(header_bytes + rest + AEAD_TAG_BYTES, dst + at)
    memcpy(dst + at, header, <size_t>header_bytes)
    at += header_bytes
    if aead_seal(s.aead, nonce, aad, aad_bytes, src + clear, rest, dst + at, dst + at + rest) < 0:
        return E_MEMORY
    return at + rest + AEAD_TAG_BYTES


cdef Py_ssize_t _sframe_open(FrameSeal* s, const uint8_t* src, Py_ssize_t n, const uint8_t* metadata,
                             Py_ssize_t metadata_bytes, uint8_t* dst, uint64_t* counter) noexcept nogil:
    cdef uint8_t aad[SFRAME_HEADER_MAX_BYTES + 1 + SFRAME_METADATA_MAX_BYTES]
    cdef uint8_t nonce[AEAD_IV_BYTES]
    cdef uint64_t kid = 0, ctr = 0
    cdef Py_ssize_t header_bytes, aad_bytes, rest = 0, at
    cdef Py_ssize_t clear = 1 if s.codec == CODEC_VP8 else 0
    cdef const uint8_t* sealed = src + clear
    if not need(n, clear):
        return E_SHORT
    if s.codec == CODEC_AV1:
        at = _find_obu_frame(src, n, &rest)
        if at < 0:
            return at
        sealed = src + at
    else:
        rest = n - clear
    header_bytes = parse_sframe_header(sealed, rest, &kid, &ctr)
    if header_bytes < 0:
        return header_bytes
    rest -= header_bytes + AEAD_TAG_BYTES
    if rest < 0:
        return E_SHORT
    if kid != s.kid:
        return E_UNSUPPORTED
    if counter != NULL:
        counter[0] = ctr
    _nonce(s, ctr, nonce)
    aad_bytes = _sframe_aad(sealed, header_bytes, src, clear, metadata, metadata_bytes, aad)
    sealed += header_bytes
    if clear:
        dst[0] = src[0]
    if aead_open(s.aead, nonce, aad, aad_bytes, sealed, rest, dst + clear, sealed + rest) < 0:
        return E_AUTH
    return clear + rest


# --- both -------------------------------------------------------------------------------------------------------


cdef FrameSeal* _new(int backend, int format_, int codec, const uint8_t* key) noexcept nogil:
    cdef FrameSeal* s = <FrameSeal*>calloc(1, sizeof(FrameSeal))
    if s == NULL:
        return NULL
    s.aead = aead_new(backend, key, FRAME_KEY_BYTES)
    if s.aead == NULL:
        free(s)
        return NULL
    s.format = <uint8_t>format_
    s.codec = <uint8_t>codec
    return s


cdef FrameSeal* livekit_seal_new(int backend, int codec, const uint8_t* key, uint8_t key_index, uint32_t ssrc,
                                 uint32_t first_counter) noexcept nogil:
    cdef FrameSeal* s
    if key_index >= LIVEKIT_KEYS or not (codec == CODEC_OPUS or codec == CODEC_OTHER_AUDIO or codec == CODEC_VP8
                                         or codec == CODEC_VP9 or codec == CODEC_H264):
        return NULL
    s = _new(backend, FORMAT_LIVEKIT, codec, key)
    if s != NULL:
        s.key_index = key_index
        s.ssrc = ssrc
        s.counter = first_counter
    return s


cdef FrameSeal* sframe_seal_new(int backend, int codec, const uint8_t* key, const uint8_t* salt, uint64_t kid,
                                uint64_t first_counter) noexcept nogil:
    cdef FrameSeal* s
    if codec == CODEC_H264:
        return NULL
    s = _new(backend, FORMAT_SFRAME, codec, key)
    if s != NULL:
        memcpy(s.salt, salt, FRAME_SALT_BYTES)
        s.kid = kid
        s.counter = first_counter
    return s


cdef void frame_seal_free(FrameSeal* s) noexcept nogil:
    if s != NULL:
        aead_free(s.aead)
        wipe_bytes(s, sizeof(FrameSeal))
        free(s)


cdef Py_ssize_t frame_sealed_max(const FrameSeal* s, Py_ssize_t n) noexcept nogil:
    # 64: LiveKit's 30; SFrame's 17 and 16 with AV1's 3 + 1 + 4. H264: a third more for start codes, half for escapes.
    return (2 * n if s.codec == CODEC_H264 else n) + 64


cdef Py_ssize_t frame_seal(FrameSeal* s, const uint8_t* src, Py_ssize_t n, uint32_t rtp_ts, bint is_keyframe,
                           const uint8_t* metadata, Py_ssize_t metadata_bytes, uint8_t* dst, Py_ssize_t capacity) noexcept nogil:
    if n < 0 or n > FRAME_MAX_BYTES or metadata_bytes < 0 or metadata_bytes > SFRAME_METADATA_MAX_BYTES:
        return E_INVALID
    if capacity < frame_sealed_max(s, n):
        return E_NO_SPACE
    if s.format == FORMAT_LIVEKIT:
        return _livekit_seal(s, src, n, rtp_ts, dst, capacity)
    return _sframe_seal(s, src, n, is_keyframe, metadata, metadata_bytes, dst)


cdef Py_ssize_t frame_open(FrameSeal* s, const uint8_t* src, Py_ssize_t n, const uint8_t* metadata, Py_ssize_t metadata_bytes,
                           uint8_t* dst, Py_ssize_t capacity, uint64_t* counter) noexcept nogil:
    if n < 0 or n > FRAME_MAX_BYTES or metadata_bytes < 0 or metadata_bytes > SFRAME_METADATA_MAX_BYTES:
        return E_INVALID
    if capacity < n:
        return E_NO_SPACE
    if s.format == FORMAT_LIVEKIT:
        return _livekit_open(s, src, n, dst, counter)
    return _sframe_open(s, src, n, metadata, metadata_bytes, dst, counter)


def sframe_header(uint64_t kid, uint64_t ctr) -> bytes:
    """Return the SFrame header of a KID and a CTR."""
    cdef uint8_t header[SFRAME_HEADER_MAX_BYTES]
    cdef Py_ssize_t n = write_sframe_header(kid, ctr, header)
    return header[:n]


def take_sframe_header(bytes data not None) -> tuple:
    """Return (kid, ctr, header bytes).   Errors: WireError."""
    cdef uint64_t kid = 0, ctr = 0
    cdef Py_ssize_t n = parse_sframe_header(data, len(data), &kid, &ctr)
    raise_for(<int>n)
    return kid, ctr, n


@cython.final
cdef class FrameCipher:
    """One sender's stream in one frame format; made by `livekit` or `sframe`. Not for two threads at once."""
    cdef FrameSeal* _seal
    cdef uint64_t _last

    def __cinit__(self):
        self._seal = NULL

    def __init__(self):
        if self._seal == NULL:
            raise TypeError("make one by livekit() or sframe()")

    def __dealloc__(self):
        frame_seal_free(self._seal)

    @property
    def counter(self) -> int:
        """Counter of the next frame sealed."""
        return self._seal.counter

    @property
    def opened_counter(self) -> int:
        """Counter that stood in the last frame given to `open`: SFrame's CTR, the last word of LiveKit's IV."""
        return self._last

    def seal(self, const uint8_t[::1] frame not None, *, uint32_t rtp_ts=0, bint keyframe=False, bytes metadata=b"") -> bytes:
        """Return the frame sealed. `rtp_ts` is LiveKit's, `keyframe` and `metadata` SFrame's.   Errors: WireError."""
        cdef Py_ssize_t n = frame.shape[0]
        cdef Py_ssize_t capacity = frame_sealed_max(self._seal, n)
        cdef Py_ssize_t written
        cdef bytearray out = bytearray(capacity)
        cdef uint8_t* dst = out
        cdef const uint8_t* src = &frame[0] if n else <const uint8_t*>b""
        cdef const uint8_t* meta = metadata
        cdef Py_ssize_t meta_bytes = len(metadata)
        with nogil:
            written = frame_seal(self._seal, src, n, rtp_ts, keyframe, meta, meta_bytes, dst, capacity)
        raise_for(<int>written)
        return bytes(out[:written])

    def open(self, const uint8_t[::1] sealed not None, *, bytes metadata=b"") -> bytes:
        """Return the frame.   Errors: WireError; E_AUTH for wrong keys and changed bytes, E_UNSUPPORTED for another key's number."""
        cdef Py_ssize_t n = sealed.shape[0]
        cdef Py_ssize_t written
        cdef bytearray out = bytearray(n + 1)
        cdef uint8_t* dst = out
        cdef const uint8_t* src = &sealed[0] if n else <const uint8_t*>b""
        cdef const uint8_t* meta = metadata
        cdef Py_ssize_t meta_bytes = len(metadata)
        with nogil:
            written = frame_open(self._seal, src, n, meta, meta_bytes, dst, n, &self._last)
        raise_for(<int>written)
        return bytes(out[:written])


cdef FrameCipher _wrap(FrameSeal* s):
    cdef FrameCipher made
    if s == NULL:
        raise ValueError("no such codec in this frame format, key index or cipher backend")
    made = FrameCipher.__new__(FrameCipher)
    made._seal = s
    return made


def livekit(bytes key not None, str codec not None, uint32_t ssrc, *, int key_index=0, uint32_t counter=0,
            int backend=CIPHER_AUTO) -> FrameCipher:
    """Return LiveKit GCM for one SSRC under a 16-byte key. SDKs begin `counter` at random.   Errors: ValueError."""
    if len(key) != FRAME_KEY_BYTES or not 0 <= key_index < LIVEKIT_KEYS:
        raise ValueError("the key has 16 bytes, its index is 0 to 15")
    return _wrap(livekit_seal_new(backend, _CODECS[codec], key, <uint8_t>key_index, ssrc, counter))


def sframe(bytes key not None, bytes salt not None, uint64_t kid, *, str codec="other", uint64_t counter=0,
           int backend=CIPHER_AUTO) -> FrameCipher:
    """Return SFrame suite 4 under a derived key and salt; codec "other" is the bare RFC 9605 ciphertext.   Errors: ValueError."""
    if len(key) != FRAME_KEY_BYTES or len(salt) != FRAME_SALT_BYTES:
        raise ValueError("the key has 16 bytes, the salt 12")
    return _wrap(sframe_seal_new(backend, _CODECS[codec], key, salt, kid, counter))
