"""One endpoint of the load generator: a socket, an ICE agent, SRTP contexts, senders and received streams.

Datagrams are told apart by their first octets (RFC 7983); DTLS goes to Python as an event. Each endpoint has one deadline in
its thread's heap: the earliest of all it waits for.
"""
from libc.stdint cimport uint8_t, int32_t, uint32_t, int64_t, INT64_MAX
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset
from relaycore.demux cimport KIND_DTLS, KIND_RTCP, KIND_RTP, KIND_STUN, demux_datagram
from relaycore.errs cimport E_MEMORY, E_OK
from relaycore.lgice cimport (
    AGENT_CHECK_NOW, AGENT_CONNECTED, AGENT_REPLY, agent_expired, agent_free, agent_receive, agent_write_check,
)
from relaycore.lgmodel cimport (
    LG_BATCH, LOAD_DATAGRAM, LOAD_ICE_CONNECTED, LOAD_ICE_DEAD, Endpoint, LoadThread, Sender, Stream,
)
from relaycore.lgreceive cimport load_emit, receive_rtp, stream_clear, streams_poll
from relaycore.lgreport cimport receive_rtcp, reports_poll
from relaycore.lgsend cimport senders_poll
from relaycore.lgsocket cimport Arrival, socket_arrivals, socket_close, socket_open, socket_receive, socket_send
from relaycore.lgtrace cimport trace_random
from relaycore.srtp cimport srtp_free
from relaycore.stun cimport SockAddr
from relaycore.timers cimport timers_cancel, timers_grow, timers_set


cdef int _grow(LoadThread* t) noexcept nogil:
    cdef int32_t capacity = <int32_t>(2 * t.endpoint_capacity if t.endpoint_capacity else 64)
    cdef Endpoint** bigger = <Endpoint**>realloc(t.endpoints, <size_t>capacity * sizeof(Endpoint*))
    if bigger == NULL:
        return E_MEMORY
    t.endpoints = bigger
    memset(bigger + t.endpoint_capacity, 0, <size_t>(capacity - t.endpoint_capacity) * sizeof(Endpoint*))
    if timers_grow(&t.timers, <uint32_t>capacity) < 0:
        return E_MEMORY
    t.endpoint_capacity = capacity
    return E_OK


cdef Endpoint* endpoint_new(LoadThread* t, uint32_t id, const SockAddr* local) noexcept nogil:
    cdef Endpoint* e
    cdef int32_t index = 0
    while index < t.endpoint_count and t.endpoints[index] != NULL:
        index += 1
    if index == t.endpoint_capacity and _grow(t) < 0:
        return NULL
    e = <Endpoint*>calloc(1, sizeof(Endpoint))
    if e == NULL:
        return NULL
    e.id = id
    e.index = index
    e.fd = -1
    if socket_open(t, e, local) < 0:
        socket_close(e)
        free(e)
        return NULL
    e.rtcp_ssrc = <uint32_t>(trace_random(&t.random) >> 33) | 1
    e.ice.tie_breaker = trace_random(&t.random)
    t.endpoints[index] = e
    if index == t.endpoint_count:
        t.endpoint_count += 1
    return e


cdef void _free_stream(LoadThread* t, Stream* s) noexcept nogil:
    stream_clear(t, s)
    free(s)


cdef void _free_sender(LoadThread* t, Sender* s) noexcept nogil:
    cdef int i
    for i in range(s.encoding_count):
        free(s.encodings[i].history)
    # An encoding that gets the same memory later has other frames.
    t.scratch_encoding = NULL
    free(s)


cdef void endpoint_free(LoadThread* t, Endpoint* e) noexcept nogil:
    cdef int i
    timers_cancel(&t.timers, e.index)
    t.endpoints[e.index] = NULL
    socket_close(e)
    for i in range(e.sender_count):
        _free_sender(t, e.senders[i])
    for i in range(e.stream_count):
        _free_stream(t, e.streams[i])
    free(e.senders)
    free(e.streams)
    free(e.twcc)
    agent_free(&e.ice)
    srtp_free(e.send_context)
    srtp_free(e.receive_context)
    free(e)


cdef int endpoint_add_sender(LoadThread* t, Endpoint* e, Sender* s) noexcept nogil:
    cdef Sender** bigger = <Sender**>realloc(e.senders, <size_t>(e.sender_count + 1) * sizeof(Sender*))
    if bigger == NULL:
        return E_MEMORY
    e.senders = bigger
    bigger[e.sender_count] = s
    e.sender_count += 1
    return E_OK


cdef int endpoint_add_stream(LoadThread* t, Endpoint* e, Stream* s) noexcept nogil:
    cdef Stream** bigger = <Stream**>realloc(e.streams, <size_t>(e.stream_count + 1) * sizeof(Stream*))
    if bigger == NULL:
        return E_MEMORY
    e.streams = bigger
    bigger[e.stream_count] = s
    e.stream_count += 1
    return E_OK


cdef void endpoint_remove_sender(LoadThread* t, Endpoint* e, uint32_t id) noexcept nogil:
    cdef int i
    for i in range(e.sender_count):
        if e.senders[i].id == id:
            _free_sender(t, e.senders[i])
            e.sender_count -= 1
            e.senders[i] = e.senders[e.sender_count]
            return


cdef void endpoint_remove_stream(LoadThread* t, Endpoint* e, uint32_t id) noexcept nogil:
    cdef int i
    for i in range(e.stream_count):
        if e.streams[i].id == id:
            _free_stream(t, e.streams[i])
            e.stream_count -= 1
            e.streams[i] = e.streams[e.stream_count]
            return


# --- in --------------------------------------------------------------------------------------------------------------

cdef void _on_stun(LoadThread* t, Endpoint* e, const uint8_t* data, Py_ssize_t n, int64_t now_ns) noexcept nogil:
    cdef uint8_t[700] reply
    cdef int reply_bytes = 0
    cdef int outcome = agent_receive(&e.ice, data, n, &e.remote, reply, &reply_bytes, now_ns)
    if outcome & AGENT_REPLY:
        socket_send(e, reply, reply_bytes)
    if outcome & AGENT_CONNECTED:
        load_emit(t, LOAD_ICE_CONNECTED, e.id, 0, NULL, 0, now_ns)
    if outcome & AGENT_CHECK_NOW and e.ice.remote_key != NULL:
        e.ice.check_due_ns = min(e.ice.check_due_ns, now_ns)


cdef void _on_datagram(LoadThread* t, Endpoint* e, const Arrival* a, int64_t now_ns) noexcept nogil:
    cdef int kind = demux_datagram(a.data, a.bytes)
    if kind == KIND_RTP:
        receive_rtp(t, e, a.data, a.bytes, a.arrival_ns, now_ns)
    elif kind == KIND_RTCP:
        receive_rtcp(t, e, a.data, a.bytes, a.arrival_ns, now_ns)
    elif kind == KIND_STUN:
        _on_stun(t, e, a.data, a.bytes, now_ns)
    elif kind == KIND_DTLS:
        e.counts.dtls_received += 1
        load_emit(t, LOAD_DATAGRAM, e.id, 0, a.data, a.bytes, now_ns)
    else:
        e.counts.malformed += 1


cdef bint endpoint_drain(LoadThread* t, Endpoint* e, int batches, int64_t now_ns) noexcept nogil:
    cdef int i, got
    cdef int batch = 0
    cdef bint came = False
    got = LG_BATCH
    while batch < batches and got == LG_BATCH:
        got = socket_receive(t, e, now_ns)
        for i in range(got):
            _on_datagram(t, e, &socket_arrivals(t)[i], now_ns)
        came = came or got > 0
        batch += 1
    if came:
        endpoint_poll(t, e, now_ns)
    return got == LG_BATCH


# --- what is due -----------------------------------------------------------------------------------------------------

cdef int64_t _poll_ice(LoadThread* t, Endpoint* e, int64_t now_ns) noexcept nogil:
    cdef uint8_t[700] message
    cdef int n
    if e.ice.remote_key == NULL or not e.has_remote:
        return INT64_MAX
    if agent_expired(&e.ice, now_ns):
        load_emit(t, LOAD_ICE_DEAD, e.id, 0, NULL, 0, now_ns)
        e.ice.check_due_ns = now_ns
    if e.ice.check_due_ns <= now_ns:
        n = agent_write_check(&e.ice, message, sizeof(message), trace_random(&t.random), now_ns)
        if n > 0:
            socket_send(e, message, n)
    return e.ice.check_due_ns


cdef void endpoint_poll(LoadThread* t, Endpoint* e, int64_t now_ns) noexcept nogil:
    cdef int64_t next_ns = _poll_ice(t, e, now_ns)
    next_ns = min(next_ns, senders_poll(t, e, now_ns))
    next_ns = min(next_ns, streams_poll(t, e, now_ns))
    next_ns = min(next_ns, reports_poll(t, e, now_ns))
    if next_ns == INT64_MAX:
        timers_cancel(&t.timers, e.index)
    else:
        timers_set(&t.timers, e.index, next_ns)
