"""VP8 payload descriptor (RFC 7741) as a header view."""
from libc.stdint cimport uint8_t
from relaycore.views cimport FrameView

# Fills a zeroed view. Reads the descriptor and, at the start of a frame, the one byte behind it. E_SHORT.
cdef int view_vp8(const uint8_t* payload, Py_ssize_t n, bint marker, FrameView* out) noexcept nogil
