"""VP9 payload descriptor (RFC 9628) as a header view."""
from libc.stdint cimport uint8_t
from relaycore.views cimport FrameView

# Fills a zeroed view from the descriptor alone. E_SHORT; E_FORMAT for a fourth reference.
cdef int view_vp9(const uint8_t* payload, Py_ssize_t n, bint marker, FrameView* out) noexcept nogil
