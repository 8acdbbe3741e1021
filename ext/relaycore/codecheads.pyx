"""What frames of a codec begin with, as far as their first bytes tell: for the mark view alone (DESIGN section 5).

Each looks at the head of a MarkView and at how long the frame is. They tell a codec's own frames from ciphertext, not good ones
from broken ones: nothing here is a decoder.
"""
from libc.stdint cimport uint8_t, uint32_t
from relaycore.be cimport need
from relaycore.errs cimport E_FORMAT, E_SHORT
from relaycore.markprobe cimport MARK_HEAD_BYTES, MarkView

cdef enum:
    VP8_SIZE_BYTES = 3
    OBU_SEQUENCE_HEADER = 1
    OBU_DELIMITER = 2
    OBU_FRAME = 6


cdef inline bint _is_start_code(const uint8_t* p, int a, int b, int c) noexcept nogil:
    return p[0] == a and p[1] == b and p[2] == c


cdef bint is_vp8_start_code(const uint8_t* p) noexcept nogil:
    return _is_start_code(p, 0x9d, 0x01, 0x2a)


cdef bint is_vp9_keyframe(const uint8_t* p) noexcept nogil:
    """Frame marker, a profile below 3, a new keyframe, the sync code (VP9 bitstream section 6.2)."""
    return p[0] & 0xcc == 0x80 and p[0] & 0x30 != 0x30 and _is_start_code(p + 1, 0x49, 0x83, 0x42)


cdef bint is_obu_header(uint8_t b) noexcept nogil:
    cdef int kind = (b >> 3) & 0x0f
    return b & 0x81 == 0 and (1 <= kind <= 8 or kind == 15)


cdef Py_ssize_t _take_leb128(const uint8_t* p, Py_ssize_t n, Py_ssize_t at, Py_ssize_t* value) noexcept nogil:
    cdef int shift = 0
    value[0] = 0
    while shift < 28:
        if not need(n, at + 1):
            return E_SHORT
        value[0] |= <Py_ssize_t>(p[at] & 0x7f) << shift
        at += 1
        if not p[at - 1] & 0x80:
            return at
        shift += 7
    return E_FORMAT


cdef Py_ssize_t find_av1_body(const uint8_t* p, Py_ssize_t n, bint* has_dummy) noexcept nogil:
    """Return where the payload of the OBU_FRAME begins that wraps a frame, behind the aggregation header.

    Spec: RTP Payload Format For AV1 section 4.4. Before it stand at most a delimiter and the empty sequence header that a keyframe
    gets. Errors: E_SHORT, E_FORMAT: no wrapper.
    """
    cdef Py_ssize_t at = 1, begin, size = 0, inner = 0
    cdef int count, i, kind
    has_dummy[0] = False
    if not need(n, 2):
        return E_SHORT
    if p[0] & 0x80:
        return E_FORMAT
    count = (p[0] >> 4) & 3
    for i in range(3):
        size = -1
        if count == 0 or i < count - 1:
            at = _take_leb128(p, n, at, &size)
            if at < 0:
                return at
        elif i >= count:
            return E_FORMAT
        begin = at
        if not need(n, at + 1):
            return E_SHORT
        kind = (p[at] >> 3) & 0x0f
        if p[at] & 0x81:
            return E_FORMAT
        at += 2 if p[begin] & 0x04 else 1
        if p[begin] & 0x02:
            at = _take_leb128(p, n, at, &inner)
            if at < 0:
                return at
        elif size >= 0:
            inner = size - (at - begin)
        else:
            inner = -1
        if kind == OBU_FRAME:
            return at
        if kind == OBU_SEQUENCE_HEADER and inner == 1:
            has_dummy[0] = True
        elif kind != OBU_DELIMITER or inner != 0:
            return E_FORMAT
        at += inner
    return E_FORMAT


cdef bint is_opus(const MarkView* m) noexcept nogil:
    """RFC 6716 section 3.2: what the number of frames demands of the length."""
    cdef uint32_t n = m.frame_bytes
    cdef int code = m.head[0] & 3
    if code == 1:
        return n % 2 == 1
    if code == 2:
        if n < 2 or m.head_bytes < 2:
            return False
        if m.head[1] < 252:
            return 2u + m.head[1] <= n
        return m.head_bytes >= 3 and 3u + m.head[1] + 4u * m.head[2] <= n
    if code == 3:
        return m.head_bytes >= 2 and 1 <= m.head[1] & 0x3f <= 48
    return n <= 1276


cdef bint is_red(const MarkView* m) noexcept nogil:
    """RFC 2198 section 3: block headers, the lengths of all blocks but the last."""
    cdef Py_ssize_t at = 0
    cdef uint32_t blocks = 0
    while need(m.head_bytes, at + 1):
        if not m.head[at] & 0x80:
            return blocks + <uint32_t>at + 1 <= m.frame_bytes
        if not need(m.head_bytes, at + 4):
            return False
        blocks += (<uint32_t>(m.head[at + 2] & 3) << 8) | m.head[at + 3]
        at += 4
    # More blocks than the head has room for.
    return m.head_bytes == MARK_HEAD_BYTES and blocks <= m.frame_bytes


cdef bint is_vp8(const MarkView* m) noexcept nogil:
    """RFC 6386 section 9.1: the start code of a keyframe, and a first partition that the frame has room for."""
    cdef uint32_t partition
    cdef uint32_t fixed = VP8_SIZE_BYTES if m.head[0] & 1 else 10
    if m.head_bytes < fixed:
        # Nothing but a dropped frame is so short.
        return not m.has_gap
    if fixed == 10 and not _is_start_code(m.head + 3, 0x9d, 0x01, 0x2a):
        return False
    partition = (m.head[0] | <uint32_t>m.head[1] << 8 | <uint32_t>m.head[2] << 16) >> 5
    return bool(m.has_gap) or fixed + partition <= m.frame_bytes


cdef bint is_av1(const MarkView* m) noexcept nogil:
    cdef bint has_dummy
    cdef Py_ssize_t at, size = 0
    # The wrapper of SFrame's keyframes is no sequence.
    find_av1_body(m.head, m.head_bytes, &has_dummy)
    if has_dummy or not need(m.head_bytes, 2):
        return False
    at = 1
    if (m.head[0] >> 4) & 3 != 1:
        at = _take_leb128(m.head, m.head_bytes, 1, &size)
    return at > 0 and need(m.head_bytes, at + 1) and is_obu_header(m.head[at])


cdef bint is_vp9(const MarkView* m) noexcept nogil:
    """VP9 bitstream section 6.2: the frame marker, and a keyframe's sync code (of profile 3 it stands elsewhere)."""
    if m.head[0] >> 6 != 2:
        return False
    if m.head[0] & 0x0c or m.head[0] & 0x30 == 0x30 or m.head_bytes < 4:
        return True
    return is_vp9_keyframe(m.head)
