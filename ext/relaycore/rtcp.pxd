"""RTCP: walk of a compound packet and builders (RFC 3550 section 6, RFC 4585, RFC 5104, RFC 5506 reduced size)."""
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, uint64_t

cdef enum RtcpType:
    RTCP_SR = 200
    RTCP_RR = 201
    RTCP_SDES = 202
    RTCP_BYE = 203
    RTCP_APP = 204
    RTCP_RTPFB = 205       # fmt 1 NACK, 15 transport-wide feedback
    RTCP_PSFB = 206        # fmt 1 PLI, 4 FIR, 15 AFB (REMB)
    RTCP_XR = 207

ctypedef struct RtcpPacket:
    uint8_t type
    uint8_t count                  # RC, SC or FMT
    const uint8_t* body            # behind the 4-byte head, padding taken off
    uint16_t body_bytes
    uint32_t ssrc                  # first word of the body (sender), 0 when there is none

ctypedef struct SenderInfo:
    uint64_t ntp                   # 32.32
    uint32_t rtp_ts
    uint32_t packets
    uint32_t octets

ctypedef struct ReportBlock:
    uint32_t ssrc
    uint8_t fraction_lost          # 1/256
    int32_t total_lost             # 24-bit signed
    uint32_t ext_highest_seq
    uint32_t jitter                # timestamp ticks
    uint32_t last_sr               # middle 32 bits of NTP
    uint32_t delay_since_sr        # 1/65536 s

# 1 = packet, 0 = end, < 0 = E_SHORT, E_VERSION, E_LENGTH, E_PADDING. Set *cursor = 0 first.
cdef int next_rtcp(const uint8_t* buf, Py_ssize_t n, Py_ssize_t* cursor, RtcpPacket* out) noexcept nogil
cdef int parse_sender_info(const RtcpPacket* p, SenderInfo* out) noexcept nogil
cdef int parse_report_block(const RtcpPacket* p, int i, ReportBlock* out) noexcept nogil      # of SR and RR; E_LENGTH past the end
cdef int parse_nack_item(const RtcpPacket* p, int i, uint32_t* media_ssrc, uint16_t* pid, uint16_t* blp) noexcept nogil
cdef int parse_pli(const RtcpPacket* p, uint32_t* media_ssrc) noexcept nogil
cdef int parse_fir_item(const RtcpPacket* p, int i, uint32_t* media_ssrc, uint8_t* command_seq) noexcept nogil
cdef int parse_remb(const RtcpPacket* p, uint64_t* bitrate_bps) noexcept nogil                # E_FORMAT when the AFB is not REMB
# First CNAME of an SDES packet for `ssrc`: borrowed pointer and length. E_FORMAT when absent.
cdef int parse_cname(const RtcpPacket* p, uint32_t ssrc, const uint8_t** text, uint8_t* text_bytes) noexcept nogil

# Builders append one packet at dst, return its bytes (multiple of 4) or E_NO_SPACE.
cdef int write_sr(uint8_t* dst, Py_ssize_t cap, uint32_t ssrc, const SenderInfo* info, const ReportBlock* blocks, int count) noexcept nogil
cdef int write_rr(uint8_t* dst, Py_ssize_t cap, uint32_t ssrc, const ReportBlock* blocks, int count) noexcept nogil
cdef int write_sdes_cname(uint8_t* dst, Py_ssize_t cap, uint32_t ssrc, const uint8_t* text, uint8_t text_bytes) noexcept nogil
cdef int write_bye(uint8_t* dst, Py_ssize_t cap, uint32_t ssrc) noexcept nogil
cdef int write_nack(uint8_t* dst, Py_ssize_t cap, uint32_t ssrc, uint32_t media_ssrc, const uint16_t* seqs, int count) noexcept nogil   # seqs ascending (mod 2^16), packed into PID/BLP
cdef int write_pli(uint8_t* dst, Py_ssize_t cap, uint32_t ssrc, uint32_t media_ssrc) noexcept nogil
cdef int write_fir(uint8_t* dst, Py_ssize_t cap, uint32_t ssrc, uint32_t media_ssrc, uint8_t command_seq) noexcept nogil
