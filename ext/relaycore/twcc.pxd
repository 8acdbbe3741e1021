"""Transport-wide congestion control feedback for what we receive (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1)."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t

cdef enum:
    TWCC_WINDOW = 2048             # numbers remembered at most, power of two

ctypedef struct TwccRecorder:      # zero-initialise
    int started
    int64_t next_base              # ext number of the first packet the next feedback reports
    int64_t highest
    uint8_t feedback_count
    int64_t pending                # packets recorded since the last feedback
    int64_t arrival_ns[2048]       # by number mod window; 0 = not received

cdef void twcc_record(TwccRecorder* r, uint16_t number, int64_t now_ns) noexcept nogil
# Builds one RTPFB fmt 15 packet for everything since the last one; 0 when nothing is pending; E_NO_SPACE when cap is too small
# (nothing lost: what fits is reported, the rest next time).
cdef int twcc_write_feedback(TwccRecorder* r, uint8_t* dst, Py_ssize_t cap, uint32_t sender_ssrc, uint32_t media_ssrc) noexcept nogil
