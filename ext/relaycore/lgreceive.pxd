"""RTP of one endpoint: which receiver it belongs to, what is missing, and in what order it reaches the frames."""
from libc.stdint cimport uint8_t, uint32_t, int64_t
from relaycore.lgmodel cimport Endpoint, LoadThread, Stream

cdef void receive_rtp(LoadThread* t, Endpoint* e, uint8_t* packet, Py_ssize_t n, int64_t arrival_ns, int64_t now_ns) noexcept nogil
# NACKs, giving up and keyframe requests that are due. Returns when to come back; INT64_MAX = nothing waits.
cdef int64_t streams_poll(LoadThread* t, Endpoint* e, int64_t now_ns) noexcept nogil
cdef void stream_clear(LoadThread* t, Stream* s) noexcept nogil                    # drops held packets and everything it owns
# One more event for Python; takes the payload.
cdef void load_emit(LoadThread* t, int kind, uint32_t endpoint, uint32_t subject, const uint8_t* payload, Py_ssize_t n, int64_t now_ns) noexcept nogil
