"""AV1 aggregation header as a header view."""
from libc.stdint cimport uint8_t
from relaycore.views cimport FrameView

# Fills a zeroed view from the aggregation header byte alone. E_SHORT, E_FORMAT.
cdef int view_av1(const uint8_t* payload, Py_ssize_t n, bint marker, FrameView* out) noexcept nogil
