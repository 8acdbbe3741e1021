"""What frames of a codec begin with: read by markprobe, and by nothing that forwards."""
from libc.stdint cimport uint8_t
from relaycore.markprobe cimport MarkView

# Bytes of a frame; the caller has seen that there are three, and four.
cdef bint is_vp8_start_code(const uint8_t* p) noexcept nogil
cdef bint is_vp9_keyframe(const uint8_t* p) noexcept nogil
cdef bint is_obu_header(uint8_t b) noexcept nogil
# Where the payload of the OBU_FRAME begins in which SFrame stands. Errors: E_SHORT, E_FORMAT.
cdef Py_ssize_t find_av1_body(const uint8_t* p, Py_ssize_t n, bint* has_dummy) noexcept nogil
# Whether a frame with a head may be one of the codec.
cdef bint is_opus(const MarkView* m) noexcept nogil
cdef bint is_red(const MarkView* m) noexcept nogil
cdef bint is_vp8(const MarkView* m) noexcept nogil
cdef bint is_vp9(const MarkView* m) noexcept nogil
cdef bint is_av1(const MarkView* m) noexcept nogil
