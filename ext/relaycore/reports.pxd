"""RTCP of one transport in both directions: reports, keyframe requests, transport-wide feedback."""
from libc.stdint cimport uint8_t, int32_t, uint32_t, int64_t, uint64_t
from relaycore.routes cimport Egress, Engine, Receiver, RtpStream, Transport
from relaycore.slab cimport Slot

cdef enum:
    DATAGRAM_BYTES = 1200          # plaintext limit of one compound: fits every path that media fits
    REPORT_INTERVAL_MS = 1000
    TWCC_INTERVAL_MS = 50          # libwebrtc sends feedback every 50 to 250 ms; the lower end ramps fastest
    SILENT_MS = 1000

cdef void count_error(Engine* e, int code) noexcept nogil
# State that the control plane is told of, at a bounded pace; what a full ring loses is told again within a second.
cdef void emit_selected(Engine* e, Transport* t, int64_t now_ns) noexcept nogil               # the selected pair changed
cdef void tell_encoding(Engine* e, Receiver* r, int32_t encoding, int64_t now_ns) noexcept nogil   # SSRC or activity changed
cdef void tell_layers(Engine* e, const Receiver* r, RtpStream* s, int64_t now_ns) noexcept nogil
# The transport can be sent to: keys are there, a pair is selected and alive.
cdef bint is_sendable(const Transport* t) noexcept nogil
cdef int send_slot(Engine* e, Transport* t, Slot* slot, uint32_t run) noexcept nogil            # takes the reference in any case
cdef Slot* new_datagram(Engine* e) noexcept nogil            # for a compound; NULL = none left
cdef void send_rtcp(Engine* e, Transport* t, Slot* slot) noexcept nogil   # protects a plaintext compound, takes the slot
cdef void spread_sender_info(Engine* e, Receiver* r, RtpStream* s, int64_t now_ns) noexcept nogil  # to who waits for it
cdef void receive_rtcp(Engine* e, Transport* t, uint8_t* buf, Py_ssize_t n, int64_t now_ns) noexcept nogil
cdef void expedite_report(Engine* e, Transport* t, int64_t now_ns) noexcept nogil             # a report within 10 ms
cdef void run_timers(Engine* e, Transport* t, int64_t now_ns) noexcept nogil
cdef void update_reception(RtpStream* s, int64_t ext_seq, uint32_t rtp_ts, int64_t now_ns) noexcept nogil
