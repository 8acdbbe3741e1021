"""VP9: starts and ends of layer frames, keyframes, layers, and where picture id and TL0PICIDX stand.

Spec: RFC 9628 section 4.2. A "frame" here is one spatial layer's; the RTP marker ends the whole picture.

     0 1 2 3 4 5 6 7
    +-+-+-+-+-+-+-+-+
    |I|P|L|F|B|E|V|Z|   P: inter-picture predicted. F: flexible mode. B, E: begin and end of a layer frame
    +-+-+-+-+-+-+-+-+
    |M| PICTURE ID  |   if I; two bytes if M
    +-+-+-+-+-+-+-+-+
    | TID |U| SID |D|   if L; then TL0PICIDX unless F
    +-+-+-+-+-+-+-+-+
    |   P_DIFF    |N|   if F and P; up to three
    +-+-+-+-+-+-+-+-+
    | scalability structure (section 4.2.1) if V
"""
from libc.stdint cimport uint8_t
from libc.string cimport memset
from relaycore.be cimport need
from relaycore.errs cimport E_FORMAT, E_OK, E_SHORT
from relaycore.errs import raise_for
from relaycore.picture cimport take_picture_id, take_tl0
from relaycore.views cimport FrameView

cdef enum:
    MAX_REFERENCES = 3


cdef Py_ssize_t _skip_structure(const uint8_t* payload, Py_ssize_t n, Py_ssize_t at) noexcept nogil:
    """Return the offset behind the scalability structure at `at`, or E_SHORT. Spec: RFC 9628 section 4.2.1."""
    cdef Py_ssize_t layers, pictures, i
    cdef uint8_t head
    if not need(n, at + 1):
        return E_SHORT
    head = payload[at]
    layers = (head >> 5) + 1
    at += 1
    if head & 0x10:
        at += 4 * layers
    if head & 0x08:
        if not need(n, at + 1):
            return E_SHORT
        pictures = payload[at]
        at += 1
        for i in range(pictures):
            if not need(n, at + 1):
                return E_SHORT
            at += 1 + ((payload[at] >> 2) & 0x03)
    return at if need(n, at) else E_SHORT


cdef int view_vp9(const uint8_t* payload, Py_ssize_t n, bint marker, FrameView* out) noexcept nogil:
    cdef Py_ssize_t at = 1
    cdef uint8_t flags
    cdef int i
    if not need(n, 1):
        return E_SHORT
    flags = payload[0]
    if flags & 0x80:
        at = take_picture_id(payload, n, at, out)
        if at < 0:
            return E_SHORT
    if flags & 0x20:
        if not need(n, at + 1):
            return E_SHORT
        out.temporal_id = payload[at] >> 5
        out.switch_up = (payload[at] >> 4) & 1
        out.spatial_id = (payload[at] >> 1) & 0x07
        at += 1
        if not flags & 0x10:
            at = take_tl0(payload, n, at, out)
            if at < 0:
                return E_SHORT
    if flags & 0x10 and flags & 0x40:
        for i in range(MAX_REFERENCES + 1):
            if i == MAX_REFERENCES:
                return E_FORMAT
            if not need(n, at + 1):
                return E_SHORT
            at += 1
            if payload[at - 1] & 0x01 == 0:
                break
    if flags & 0x02:
        # At most 11 bytes stand before it.
        out.structure_offset = <uint8_t>at
        at = _skip_structure(payload, n, at)
        if at < 0:
            return <int>at
    if not need(n, at + 1):
        return E_SHORT
    out.source = 1
    # Longer ones (a scalability structure of many pictures) exist in theory alone: what is behind them is not judged.
    out.descriptor_bytes = <uint8_t>min(at, 255)
    out.start_of_frame = (flags >> 3) & 1
    # The marker ends the picture and with it its last layer frame, even where the sender left E out.
    out.end_of_frame = ((flags >> 2) & 1) | <uint8_t>(marker != 0)
    # Upper layers of a key picture have P = 0 too, but lean on the layer below.
    if not flags & 0x40 and out.spatial_id == 0:
        out.keyframe = 1
        out.switch_up = 1
    return E_OK


def parse(bytes payload not None, bint marker=False) -> dict:
    """Test face: return the view's fields; WireError on bad bytes."""
    cdef FrameView view
    memset(&view, 0, sizeof(view))
    raise_for(view_vp9(payload, len(payload), marker, &view))
    return view
