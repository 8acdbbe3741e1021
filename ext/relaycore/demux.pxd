"""First-octet demultiplexing (RFC 7983, with RFC 5761 for RTP against RTCP)."""
from libc.stdint cimport uint8_t

cdef enum DatagramKind:
    KIND_OTHER = 0
    KIND_STUN = 1          # 0..3
    KIND_DTLS = 2          # 20..63
    KIND_RTP = 3           # 128..191, second octet not 192..223
    KIND_RTCP = 4          # 128..191, second octet 192..223


cdef inline int demux_datagram(const uint8_t* buf, Py_ssize_t n) noexcept nogil:
    if n < 2:
        return KIND_OTHER
    if buf[0] <= 3:
        return KIND_STUN
    if 20 <= buf[0] <= 63:
        return KIND_DTLS
    if 128 <= buf[0] <= 191:
        return KIND_RTCP if 192 <= buf[1] <= 223 else KIND_RTP
    return KIND_OTHER
