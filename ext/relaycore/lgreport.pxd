"""RTCP of one endpoint, both ways: what a browser reports and what it does when it is reported to."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t
from relaycore.lgmodel cimport Endpoint, LoadThread

cdef void receive_rtcp(LoadThread* t, Endpoint* e, uint8_t* packet, Py_ssize_t n, int64_t arrival_ns, int64_t now_ns) noexcept nogil
# Sends reports and feedback that are due. Returns when to come back; INT64_MAX = never.
cdef int64_t reports_poll(LoadThread* t, Endpoint* e, int64_t now_ns) noexcept nogil
cdef bint report_nack(LoadThread* t, Endpoint* e, uint32_t media_ssrc, const uint16_t* seqs, int count) noexcept nogil    # true = sent
cdef bint report_pli(LoadThread* t, Endpoint* e, uint32_t media_ssrc) noexcept nogil
# A transport-wide number arrived.
cdef void feedback_note(LoadThread* t, Endpoint* e, uint16_t number, uint32_t media_ssrc, int64_t arrival_ns, int64_t now_ns) noexcept nogil
