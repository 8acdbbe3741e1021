"""Picture id and TL0PICIDX, which stand alike in the descriptors of VP8 and VP9.

Spec: RFC 7741 section 4.2, RFC 9628 section 4.2. Both take the offset of their field and return the one behind it, or E_SHORT.
"""
from libc.stdint cimport uint8_t
from relaycore.be cimport get_u16, need
from relaycore.errs cimport E_SHORT
from relaycore.views cimport FrameView


cdef inline Py_ssize_t take_picture_id(const uint8_t* payload, Py_ssize_t n, Py_ssize_t at, FrameView* out) noexcept nogil:
    """Note a picture id of 7 bits, or of 15 where its first bit is set."""
    if not need(n, at + 1):
        return E_SHORT
    out.picture_id_offset = <uint8_t>at
    out.picture_id_bytes = 1
    out.picture_id = payload[at]
    if payload[at] & 0x80:
        if not need(n, at + 2):
            return E_SHORT
        out.picture_id_bytes = 2
        out.picture_id = get_u16(payload + at) & 0x7fff
    return at + out.picture_id_bytes


cdef inline Py_ssize_t take_tl0(const uint8_t* payload, Py_ssize_t n, Py_ssize_t at, FrameView* out) noexcept nogil:
    """Note the index of the base layer's frame."""
    if not need(n, at + 1):
        return E_SHORT
    out.tl0_offset = <uint8_t>at
    out.tl0_bytes = 1
    out.tl0 = payload[at]
    return at + 1
