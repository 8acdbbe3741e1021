"""What stands between an RTP header and a generated frame: descriptors of VP8, VP9 and AV1, and the Dependency Descriptor.

Spec: RFC 7741 section 4.2 (VP8), RFC 9628 section 4.2 (VP9), RTP Payload Format For AV1 sections 4.4 and A.8.3. The layer
structures are libwebrtc's L1T1, L1T2 and L1T3 (modules/video_coding/svc/scalability_structure_full_svc.cc and
scalability_structures), as facts. Reading is its own code, not the relay's, so that both cannot err alike.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset
from relaycore.be cimport need, put_u16
from relaycore.errs cimport E_SHORT
from relaycore.errs import raise_for
from relaycore.lgmodel cimport SentFrame
from relaycore.views cimport CODEC_AV1, CODEC_VP8, CODEC_VP9

cdef enum:
    SWITCH = 2
    DISCARDABLE = 1
    ABSENT = 0

ctypedef struct Bits:
    uint8_t* at
    int count


cdef void _put(Bits* b, uint32_t value, int width) noexcept nogil:
    cdef int i
    for i in range(width - 1, -1, -1):
        if (value >> i) & 1:
            b.at[b.count >> 3] |= <uint8_t>(0x80 >> (b.count & 7))
        b.count += 1


cdef void read_pattern(int temporal_layers, uint32_t position, uint8_t* temporal_id, uint32_t* reference, uint8_t* template_id,
                       bint* is_sync) noexcept nogil:
    temporal_id[0] = 0
    reference[0] = 0
    template_id[0] = 1
    is_sync[0] = False
    if temporal_layers == 2 and position & 1:
        temporal_id[0] = 1
        template_id[0] = 2
        is_sync[0] = True
    elif temporal_layers == 3 and position & 3:
        if position & 3 == 2:
            temporal_id[0] = 1
            template_id[0] = 2
            is_sync[0] = True
        else:
            temporal_id[0] = 2
            reference[0] = 2 if position & 3 == 3 else 0
            template_id[0] = 4 if position & 3 == 3 else 3
            is_sync[0] = position & 3 == 1


cdef int write_descriptor(uint8_t* dst, int codec, const SentFrame* f, uint32_t place, int temporal_layers) noexcept nogil:
    cdef bint is_first = place == 0
    cdef bint is_last = place + 1 == f.packets
    # Nothing builds on the highest layer.
    cdef bint is_discardable = temporal_layers > 1 and f.stamp.temporal_id == temporal_layers - 1
    if codec == CODEC_VP8:
        dst[0] = <uint8_t>(0x80 | (0x20 if is_discardable else 0) | (0x10 if is_first else 0))
        dst[1] = 0xe0 if temporal_layers > 1 else 0x80
        put_u16(dst + 2, 0x8000 | (f.picture_id & 0x7fff))
        if temporal_layers <= 1:
            return 4
        dst[4] = f.tl0
        dst[5] = <uint8_t>((f.stamp.temporal_id << 6) | (0x20 if f.is_sync else 0))
        return 6
    if codec == CODEC_VP9:
        dst[0] = <uint8_t>(0x80 | (0 if f.stamp.is_keyframe else 0x40) | (0x20 if temporal_layers > 1 else 0)
                           | (0x08 if is_first else 0) | (0x04 if is_last else 0) | 0x01)
        put_u16(dst + 1, 0x8000 | (f.picture_id & 0x7fff))
        if temporal_layers <= 1:
            return 3
        dst[3] = <uint8_t>((f.stamp.temporal_id << 5) | (0x10 if f.is_sync else 0))
        dst[4] = f.tl0
        return 5
    if codec == CODEC_AV1:
        # One OBU without a size, cut over the packets: W = 1.
        dst[0] = <uint8_t>((0 if is_first else 0x80) | (0 if is_last else 0x40) | 0x10
                           | (0x08 if is_first and f.stamp.is_keyframe else 0))
        return 1
    return 0


cdef int _read_vp8(const uint8_t* p, Py_ssize_t n, bint* starts) noexcept nogil:
    cdef Py_ssize_t at = 1
    cdef uint8_t flags = 0
    starts[0] = p[0] & 0x17 == 0x10
    if p[0] & 0x80:
        if not need(n, 2):
            return E_SHORT
        flags = p[1]
        at = 2
    if flags & 0x80:
        if not need(n, at + 1):
            return E_SHORT
        at += 2 if p[at] & 0x80 else 1
    if flags & 0x40:
        at += 1
    if flags & 0x30:
        at += 1
    return <int>at if need(n, at) else E_SHORT


cdef int _read_vp9(const uint8_t* p, Py_ssize_t n, bint* starts) noexcept nogil:
    cdef Py_ssize_t at = 1
    starts[0] = p[0] & 0x08 != 0
    if p[0] & 0x80:
        if not need(n, 2):
            return E_SHORT
        at += 2 if p[1] & 0x80 else 1
    if p[0] & 0x20:
        # TL0PICIDX only without flexible mode, which a load sender never uses, nor a scalability structure.
        at += 1 if p[0] & 0x10 else 2
    return <int>at if need(n, at) else E_SHORT


cdef int read_descriptor(int codec, const uint8_t* payload, Py_ssize_t n, bint* starts) noexcept nogil:
    starts[0] = True
    if not need(n, 1):
        return E_SHORT
    if codec == CODEC_VP8:
        return _read_vp8(payload, n, starts)
    if codec == CODEC_VP9:
        return _read_vp9(payload, n, starts)
    if codec == CODEC_AV1:
        starts[0] = payload[0] & 0x80 == 0
        return 1
    return 0


cdef void _put_template(Bits* b, int temporal_layers, uint8_t temporal_id) noexcept nogil:
    """DTIs of a template: what a decode target of layers 0..target loses with the frame."""
    cdef int target
    for target in range(temporal_layers):
        if target < temporal_id:
            _put(b, ABSENT, 2)
        elif temporal_id == 0 or (target > temporal_id and temporal_id > 0):
            _put(b, SWITCH, 2)
        else:
            _put(b, DISCARDABLE, 2)


cdef void _put_structure(Bits* b, int temporal_layers, uint32_t width, uint32_t height) noexcept nogil:
    cdef uint8_t[5] layer
    cdef uint8_t[5] fdiff
    cdef uint8_t[5] chain
    cdef int count = <int>(5 if temporal_layers == 3 else temporal_layers + 1)
    cdef int i
    cdef uint8_t gap = <uint8_t>(1 << (temporal_layers - 1))
    layer[0] = layer[1] = 0
    layer[2] = 1
    layer[3] = layer[4] = 2
    fdiff[0] = chain[0] = 0
    fdiff[1] = chain[1] = gap
    fdiff[2] = chain[2] = <uint8_t>(gap >> 1)
    fdiff[3] = fdiff[4] = chain[3] = 1
    chain[4] = 3
    _put(b, 0, 6)
    _put(b, <uint32_t>(temporal_layers - 1), 5)
    for i in range(count):
        if i + 1 == count:
            _put(b, 3, 2)
        else:
            _put(b, 1 if layer[i + 1] != layer[i] else 0, 2)
    for i in range(count):
        _put_template(b, temporal_layers, layer[i])
    for i in range(count):
        if fdiff[i]:
            _put(b, 1, 1)
            _put(b, fdiff[i] - 1u, 4)
        _put(b, 0, 1)
    # One chain of at most one per target, coded without waste among temporal_layers + 1 values (AV1 section 4.10.7, ns).
    _put(b, 2 if temporal_layers == 2 else 1, 1 if temporal_layers == 1 else 2)
    for i in range(count):
        _put(b, chain[i], 4)
    _put(b, 1, 1)
    _put(b, width - 1, 16)
    _put(b, height - 1, 16)


cdef int write_depdesc(uint8_t* dst, const SentFrame* f, bint is_first, bint is_last, int temporal_layers, uint32_t width,
                       uint32_t height) noexcept nogil:
    cdef Bits b
    memset(dst, 0, MAX_DEPDESC_BYTES)
    b.at = dst
    b.count = 0
    _put(&b, 1 if is_first else 0, 1)
    _put(&b, 1 if is_last else 0, 1)
    _put(&b, f.template_id, 6)
    _put(&b, f.frame_number, 16)
    if is_first and f.stamp.is_keyframe:
        # Structure present, nothing else custom.
        _put(&b, 0x10, 5)
        _put_structure(&b, temporal_layers, width, height)
    return (b.count + 7) >> 3


# --- Python face ----------------------------------------------------------------------------------------------------

def depdesc(int temporal_layers, int template_id, int frame_number, *, bint is_first, bint is_last, bint is_keyframe,
            uint32_t width=640, uint32_t height=360):
    """Test face: the Dependency Descriptor of one packet."""
    cdef SentFrame f
    cdef uint8_t[40] made
    if not 1 <= temporal_layers <= 3:
        raise ValueError("1 to 3 temporal layers")
    memset(&f, 0, sizeof(SentFrame))
    f.template_id = <uint8_t>template_id
    f.frame_number = <uint16_t>frame_number
    f.stamp.is_keyframe = 1 if is_keyframe else 0
    return (<const char*>made)[:write_depdesc(made, &f, is_first, is_last, temporal_layers, width, height)]


def descriptor(int codec, int place, int packets, *, int picture_id=0, int tl0=0, int temporal_id=0, int temporal_layers=1,
               bint is_keyframe=False, bint is_sync=False):
    """Test face: (bytes of the descriptor, bytes that reading takes of it, whether reading sees a start)."""
    cdef SentFrame f
    cdef uint8_t[8] made
    cdef bint starts = False
    cdef int n
    memset(&f, 0, sizeof(SentFrame))
    f.packets = <uint32_t>packets
    f.picture_id = <uint16_t>picture_id
    f.tl0 = <uint8_t>tl0
    f.stamp.temporal_id = <uint8_t>temporal_id
    f.stamp.is_keyframe = 1 if is_keyframe else 0
    f.is_sync = 1 if is_sync else 0
    n = write_descriptor(made, codec, &f, <uint32_t>place, temporal_layers)
    return (<const char*>made)[:n], raise_for(read_descriptor(codec, made, n, &starts)), bool(starts)
