"""RTP fixed header (RFC 3550 section 5.1) as a view: offsets into the packet, nothing copied."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t

ctypedef struct RtpHeader:
    uint8_t payload_type
    uint8_t marker                 # 0 or 1
    uint8_t has_padding            # P bit; the count is known only after unprotect: take_rtp_padding
    uint8_t csrc_count
    uint16_t seq
    uint32_t rtp_ts
    uint32_t ssrc
    uint16_t ext_profile           # 0 when there is no extension
    uint16_t ext_offset            # bytes; first byte after the 4-byte extension head
    uint16_t ext_bytes
    uint16_t payload_offset
    uint16_t payload_bytes         # to the end of the buffer (before take_rtp_padding: with padding and tag)

# Errors: E_SHORT, E_VERSION, E_EXT_LEN.
cdef int parse_rtp(const uint8_t* buf, Py_ssize_t n, RtpHeader* out) noexcept nogil
# After unprotect, n = plaintext length: sets payload_bytes without padding; returns padding bytes or E_PADDING.
cdef int take_rtp_padding(const uint8_t* buf, Py_ssize_t n, RtpHeader* h) noexcept nogil
# Writes 12 bytes (V=2, no CSRC; x = extension bit, p = padding bit).
cdef void write_rtp_fixed(uint8_t* dst, bint x, bint p, bint marker, uint8_t payload_type, uint16_t seq, uint32_t rtp_ts, uint32_t ssrc) noexcept nogil
