"""VP8: frame starts, keyframes, temporal layers, and where picture id and TL0PICIDX stand.

Spec: RFC 7741 section 4.2 (descriptor), section 4.3 (the P bit of the frame's first byte, clear in both frame formats).

     0 1 2 3 4 5 6 7
    +-+-+-+-+-+-+-+-+
    |X|R|N|S|R| PID |   X: next byte present. N: not a reference. S: start of partition PID
    +-+-+-+-+-+-+-+-+
    |I|L|T|K|  RSV  |
    +-+-+-+-+-+-+-+-+
    |M| PictureID   |   two bytes if M
    +-+-+-+-+-+-+-+-+
    |   TL0PICIDX   |
    +-+-+-+-+-+-+-+-+
    |TID|Y| KEYIDX  |   if T or K
    +-+-+-+-+-+-+-+-+
"""
from libc.stdint cimport uint8_t
from libc.string cimport memset
from relaycore.be cimport need
from relaycore.errs cimport E_OK, E_SHORT
from relaycore.errs import raise_for
from relaycore.picture cimport take_picture_id, take_tl0
from relaycore.views cimport FrameView


cdef int view_vp8(const uint8_t* payload, Py_ssize_t n, bint marker, FrameView* out) noexcept nogil:
    cdef Py_ssize_t at = 1
    cdef uint8_t flags = 0
    if not need(n, 1):
        return E_SHORT
    if payload[0] & 0x80:
        if not need(n, 2):
            return E_SHORT
        flags = payload[1]
        at = 2
    if flags & 0x80:
        at = take_picture_id(payload, n, at, out)
        if at < 0:
            return E_SHORT
    if flags & 0x40:
        at = take_tl0(payload, n, at, out)
        if at < 0:
            return E_SHORT
    if flags & 0x30:
        if not need(n, at + 1):
            return E_SHORT
        if flags & 0x20:
            out.temporal_id = payload[at] >> 6
            out.switch_up = (payload[at] >> 5) & 1
        at += 1
    # No frame is empty: a descriptor alone was cut off.
    if not need(n, at + 1):
        return E_SHORT
    out.source = 1
    out.descriptor_bytes = <uint8_t>at
    out.discardable = (payload[0] >> 5) & 1
    out.end_of_frame = <uint8_t>(marker != 0)
    if payload[0] & 0x10 and payload[0] & 0x07 == 0:
        out.start_of_frame = 1
        if payload[at] & 0x01 == 0:
            out.keyframe = 1
            out.switch_up = 1
    return E_OK


def parse(bytes payload not None, bint marker=False) -> dict:
    """Test face: return the view's fields; WireError on bad bytes."""
    cdef FrameView view
    memset(&view, 0, sizeof(view))
    raise_for(view_vp8(payload, len(payload), marker, &view))
    return view
