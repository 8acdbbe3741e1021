"""What a transport is set up by: ICE connectivity checks and DTLS datagrams; the contract stands in checks.pxd."""
from libc.stdint cimport uint8_t, uint16_t, int64_t
from libc.stdlib cimport malloc
from libc.string cimport memcmp, memcpy, memset
from relaycore.capture cimport CAPTURE_DTLS, CAPTURE_RECEIVED, CAPTURE_SENT, CAPTURE_STUN, capture_note
from relaycore.errs cimport E_AUTH, E_UNKNOWN_TRANSPORT
from relaycore.icelite cimport ICE_NO_TUPLE, ice_on_check
from relaycore.mailbox cimport EV_DTLS, EV_ICE_CHECK, Event, mailbox_event_count
from relaycore.outbox cimport outbox_put
from relaycore.reports cimport count_error, emit_selected
from relaycore.routes cimport Engine, Transport, emit, find_by_ufrag, forget_tuple, remember_tuple, retire_credentials
from relaycore.slab cimport SLOT_SMALL_BYTES, Slot, slab_take, slot_drop
from relaycore.stun cimport (
    SockAddr, StunRequest, check_stun_integrity, parse_stun_request, write_stun_error, write_stun_success,
)
from relaycore.units cimport ms

cdef enum:
    # DTLS is not authenticated here, and retransmits by itself: one transport gets 2,000 datagrams a second, 512 at once
    # (19 Mbit/s of data channels), all together half of the event ring, so that they cost nobody their state events.
    DTLS_PACE_NS = 500000
    DTLS_BURST_MS = 256
    DTLS_EVENTS = 3072


# --- STUN -----------------------------------------------------------------------------------------------------------

cdef void _answer(Engine* e, Transport* t, const StunRequest* r, int code, const SockAddr* remote, uint16_t socket_index,
                  const uint8_t* password, uint8_t password_bytes, int pair) noexcept nogil:
    """Answer an authenticated check from the socket it came in on: success (code 0) or an error."""
    cdef Slot* slot = slab_take(e.slab, SLOT_SMALL_BYTES)
    cdef int n
    if slot == NULL:
        e.counters.slots_exhausted += 1
        return
    if code == 0:
        n = write_stun_success(slot.data, slot.capacity, r.transaction_id, remote, password, password_bytes)
    else:
        n = write_stun_error(slot.data, slot.capacity, r, code, password, password_bytes)
    if n > 0:
        slot.length = <uint16_t>n
        e.outbox.next_run += 1
        n = outbox_put(e.outbox, slot, remote, socket_index, e.outbox.next_run, t.id)
    if n < 0:
        count_error(e, n)
        slot_drop(e.slab, slot)
    else:
        capture_note(&t.capture, CAPTURE_STUN, CAPTURE_SENT, &t.ice, pair, slot.length, e.now_ns)


cdef void receive_check(Engine* e, const uint8_t* buf, Py_ssize_t n, const SockAddr* remote, uint16_t socket_index,
                        int64_t now_ns) noexcept nogil:
    cdef StunRequest r
    cdef Transport* t
    cdef const uint8_t* password
    cdef uint8_t password_bytes
    cdef SockAddr evicted[8]
    cdef uint16_t evicted_socket[8]
    cdef int i, index
    cdef int selected_changed = 0
    cdef bint first, is_current
    cdef Event event
    cdef int code = parse_stun_request(buf, n, &r)
    e.counters.stun_received += 1
    if code == 0 and (r.username == NULL or r.integrity_offset == 0):
        code = E_AUTH
    t = NULL
    if code == 0:
        t = find_by_ufrag(e, r.username, r.local_ufrag_bytes)
        if t == NULL:
            code = E_UNKNOWN_TRANSPORT
    if code < 0:
        # Silence, not an error answer: nobody is to learn which ufrags exist, nor to use us as a reflector.
        e.counters.stun_refused += 1
        count_error(e, code)
        return
    is_current = r.local_ufrag_bytes == t.ice.ufrag_bytes and memcmp(r.username, t.ice.ufrag, t.ice.ufrag_bytes) == 0
    password = &t.ice.password[0] if is_current else &t.ice.previous_password[0]
    password_bytes = t.ice.password_bytes if is_current else t.ice.previous_password_bytes
    code = check_stun_integrity(buf, n, &r, password, password_bytes)
    if code < 0:
        e.counters.stun_refused += 1
        count_error(e, code)
        return
    if is_current:
        retire_credentials(e, t)
    if r.unknown_count:
        _answer(e, t, &r, 420, remote, socket_index, password, password_bytes, ICE_NO_TUPLE)
        return
    if r.ice_controlling == 0:
        # We are lite, so always controlled (RFC 8445 section 6.1.1): the peer has to take the other role.
        _answer(e, t, &r, 487, remote, socket_index, password, password_bytes, ICE_NO_TUPLE)
        return
    for i in range(8):
        evicted[i] = t.ice.tuples[i].remote
        evicted_socket[i] = t.ice.tuples[i].socket_index
    first = t.ice.selected == ICE_NO_TUPLE and not t.ever_selected
    index = ice_on_check(&t.ice, remote, socket_index, r.priority, r.use_candidate, now_ns, &selected_changed)
    if index < 0:
        count_error(e, index)
        e.counters.stun_refused += 1
        return
    if memcmp(&evicted[index], remote, sizeof(SockAddr)) != 0 or evicted_socket[index] != socket_index:
        if evicted[index].family:
            forget_tuple(e, t, &evicted[index], evicted_socket[index])
    # At every check, not only the first: an address that another transport claimed meanwhile comes back to who uses it.
    remember_tuple(e, t, remote, socket_index)
    capture_note(&t.capture, CAPTURE_STUN, CAPTURE_RECEIVED, &t.ice, index, n, now_ns)
    if first and t.dtls_tuple == ICE_NO_TUPLE and not t.told_check:
        memset(&event, 0, sizeof(event))
        event.kind = EV_ICE_CHECK
        event.transport = t.id
        event.now_ns = now_ns
        t.told_check = 1 if emit(e, &event) >= 0 else 0
    _answer(e, t, &r, 0, remote, socket_index, password, password_bytes, index)
    e.counters.stun_answered += 1
    if selected_changed:
        emit_selected(e, t, now_ns)


# --- DTLS -----------------------------------------------------------------------------------------------------------

cdef void receive_dtls(Engine* e, Transport* t, int tuple_index, const Slot* slot, int64_t now_ns) noexcept nogil:
    cdef Event event
    e.counters.dtls_received += 1
    t.dtls_tuple = tuple_index
    capture_note(&t.capture, CAPTURE_DTLS, CAPTURE_RECEIVED, &t.ice, tuple_index, slot.length, now_ns)
    if t.dtls_paid_ns < now_ns:
        t.dtls_paid_ns = now_ns
    if t.dtls_paid_ns - now_ns > ms(DTLS_BURST_MS) or mailbox_event_count(e.mailbox) >= DTLS_EVENTS:
        e.counters.events_dropped += 1
        return
    t.dtls_paid_ns += DTLS_PACE_NS
    memset(&event, 0, sizeof(event))
    event.kind = EV_DTLS
    event.transport = t.id
    event.now_ns = now_ns
    event.payload = <uint8_t*>malloc(slot.length)
    if event.payload == NULL:
        e.counters.events_dropped += 1
        return
    memcpy(event.payload, slot.data, slot.length)
    event.payload_bytes = slot.length
    emit(e, &event)
