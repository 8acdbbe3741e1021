"""Retransmissions to subscribers (RFC 4588): NACK in, RTX out, from the source's history under the mapping of the first time."""
from libc.stdint cimport uint16_t, int64_t
from relaycore.routes cimport Egress, Engine, Transport

# A subscriber asks for a number again. Refused: too soon after the last time, too often; unknown: not in the log.
cdef void resend_request(Engine* e, Transport* t, Egress* g, uint16_t out_low, int64_t now_ns) noexcept nogil
# Tells the subscriber how long to hold video back, from what repair takes on both paths. Once a second and at each request.
cdef void update_playout(Engine* e, Egress* g, int64_t now_ns) noexcept nogil
# Sends the oldest waiting retransmission, or drops it when its packet is gone meanwhile.
cdef void resend_next(Engine* e, Transport* t, int64_t now_ns) noexcept nogil
# For probes: sends a number of the log once more, whether or not anybody asked; or nothing but padding. Bytes of the datagram,
# 0 where there is nothing to send.
cdef int resend_copy(Engine* e, Transport* t, Egress* g, uint16_t out_low, int64_t now_ns) noexcept nogil
cdef int resend_padding(Engine* e, Transport* t, Egress* g, int64_t now_ns) noexcept nogil
