"""Senders of one endpoint: frames at their time, packets out of frames, and again out of the history when a NACK asks."""
from libc.stdint cimport uint16_t, uint32_t, int64_t
from relaycore.lgmodel cimport Endpoint, LoadThread, SendEncoding, Sender

# Sends what is due and returns when to come back; INT64_MAX = never.
cdef int64_t senders_poll(LoadThread* t, Endpoint* e, int64_t now_ns) noexcept nogil
# Answers one sequence number of a NACK, if there is an RTX stream and the frame is remembered. 1 = sent.
cdef int sender_repeat(LoadThread* t, Endpoint* e, Sender* s, SendEncoding* x, uint16_t seq, int64_t now_ns) noexcept nogil
cdef SendEncoding* find_encoding(Endpoint* e, uint32_t ssrc, Sender** sender) noexcept nogil   # primary SSRC; NULL = none
cdef uint32_t rtp_ts_at(const Sender* s, const SendEncoding* x, int64_t now_ns) noexcept nogil
