"""H264 NAL unit headers (RFC 6184) as a header view."""
from libc.stdint cimport uint8_t
from relaycore.views cimport FrameView

# Fills a zeroed view from NAL, STAP-A and FU header bytes alone; `source` stays 0 for types that say nothing here
# (interleaved mode, reserved). E_SHORT, E_LENGTH (a size in a STAP-A runs past the end), E_FORMAT (empty NAL unit).
cdef int view_h264(const uint8_t* payload, Py_ssize_t n, bint marker, FrameView* out) noexcept nogil
