"""Requests to publishers; the contract stands in requests.pxd.

Whatever of a forwarded encoding stays lost ends in a keyframe request, and that is repeated until a keyframe comes: so every
frame is delivered or a request is on its way. Under OVERLOAD_VIDEO nothing is asked for, since nothing would be forwarded.
"""
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t
from relaycore.keyframes cimport keyframe_joined, keyframe_pause_ns, keyframe_requested
from relaycore.mirrors cimport export_wanted, mirror_request
from relaycore.nack cimport NACK_PLACES, NackTracker, nack_collect
from relaycore.overload cimport OVERLOAD_VIDEO
from relaycore.replay cimport replay_serves
from relaycore.reports cimport DATAGRAM_BYTES, is_sendable, new_datagram, send_rtcp
from relaycore.routes cimport (
    Egress, Encoding, Engine, NO_INDEX, PENDING_ANY, PENDING_JOINS, Receiver, RtpStream, Transport, schedule,
)
from relaycore.rtcp cimport write_nack, write_pli
from relaycore.slab cimport Slot, slot_drop
from relaycore.units cimport ms

cdef enum:
    OVERLOAD_PAUSE_MS = 250        # until what was put off is looked at again


cdef bint is_wanted(const Engine* e, const Receiver* r, int32_t encoding) noexcept nogil:
    cdef const Egress* g
    cdef uint32_t i
    for i in range(r.egress_count):
        g = e.egresses[r.egresses[i]]
        if g.wanted >= 0 and (g.wanted == encoding or g.current == encoding) and is_sendable(e.transports[g.transport]):
            return True
    return export_wanted(e, r, encoding)


# --- keyframes ------------------------------------------------------------------------------------------------------

cdef void _send_pli(Engine* e, Transport* t, uint32_t media_ssrc) noexcept nogil:
    cdef Slot* slot = new_datagram(e)
    cdef int n
    if slot == NULL:
        return
    n = write_pli(slot.data, DATAGRAM_BYTES, t.rtcp_ssrc, media_ssrc)
    slot.length = <uint16_t>n
    send_rtcp(e, t, slot)
    e.counters.keyframe_requests_sent += 1
    t.repair.keyframes_asked += 1


cdef inline uint8_t _pending(bint joins) noexcept nogil:
    return <uint8_t>(PENDING_JOINS if joins else PENDING_ANY)


cdef void _look_again(Engine* e, Transport* t, int64_t due_ns) noexcept nogil:
    if t.keyframe_due_ns == 0 or due_ns < t.keyframe_due_ns:
        t.keyframe_due_ns = due_ns
        schedule(e, t)


cdef int64_t _pause_ns(const Transport* t, const Encoding* enc, bint joins, int64_t now_ns) noexcept nogil:
    cdef int64_t rtt_ns = enc.stream.nack.rtt_ns if enc.stream.nack != NULL else 0
    return keyframe_pause_ns(&enc.keyframes, &t.keyframe_budget, rtt_ns, joins, now_ns)


cdef void _request(Engine* e, Receiver* r, int32_t encoding, bint joins, int64_t now_ns) noexcept nogil:
    cdef Encoding* enc = &r.encodings[encoding]
    cdef Transport* t
    cdef int64_t due
    if not r.spec.is_video:
        return
    if r.home != NO_INDEX:
        mirror_request(e, r, encoding, joins, now_ns)
        return
    t = e.transports[r.transport]
    if enc.stream == NULL or not is_sendable(t):
        enc.request_pending |= _pending(joins)
        return
    due = enc.last_request_ns + _pause_ns(t, enc, joins, now_ns) if enc.last_request_ns else now_ns
    if e.overload.level == OVERLOAD_VIDEO:
        due = max(due, now_ns + ms(OVERLOAD_PAUSE_MS))
    if now_ns < due:
        e.counters.keyframe_requests_coalesced += 1
        enc.request_pending |= _pending(joins)
        _look_again(e, t, due)
        return
    enc.request_pending = 0
    enc.last_request_ns = now_ns
    keyframe_requested(&enc.keyframes, &t.keyframe_budget)
    _send_pli(e, t, enc.stream.ssrc)
    _look_again(e, t, now_ns + _pause_ns(t, enc, False, now_ns))


cdef void request_keyframe(Engine* e, Receiver* r, int32_t encoding, int64_t now_ns) noexcept nogil:
    _request(e, r, encoding, False, now_ns)


cdef void request_start(Engine* e, Receiver* r, const Egress* g, int32_t encoding, int64_t now_ns) noexcept nogil:
    _request(e, r, encoding, g.packets == 0, now_ns)


cdef void expect_start(Engine* e, Receiver* r, const Egress* g, int32_t encoding, int64_t now_ns) noexcept nogil:
    keyframe_joined(&r.encodings[encoding].keyframes, now_ns)
    if not replay_serves(e, r, g, encoding, now_ns):
        _request(e, r, encoding, True, now_ns)


cdef void run_keyframe_requests(Engine* e, Transport* t, int64_t now_ns) noexcept nogil:
    cdef int32_t i, j
    cdef Receiver* r
    cdef Encoding* enc
    cdef int64_t due
    t.keyframe_due_ns = 0
    for i in range(t.receiver_count):
        r = e.receivers[t.receivers[i]]
        for j in range(r.encoding_count):
            enc = &r.encodings[j]
            if enc.stream == NULL:
                continue
            if enc.request_pending:
                _request(e, r, j, enc.request_pending == PENDING_JOINS, now_ns)
            elif enc.keyframes.is_owed and enc.active and is_wanted(e, r, j):
                # Request or keyframe was lost on the way.
                due = enc.last_request_ns + _pause_ns(t, enc, False, now_ns)
                if due <= now_ns:
                    request_keyframe(e, r, j, now_ns)
                else:
                    _look_again(e, t, due)


# --- lost packets ---------------------------------------------------------------------------------------------------

cdef void _settle(Engine* e, RtpStream* s, int64_t now_ns) noexcept nogil:
    """See to what a stream has lost for good."""
    s.nack.gave_up = 0
    e.counters.nacks_given_up += 1
    # A keyframe that began since is what anybody who misses the packet decodes on from.
    if s.nack.lost_seq > s.keyframe_seq and is_wanted(e, e.receivers[s.receiver], s.encoding):
        request_keyframe(e, e.receivers[s.receiver], s.encoding, now_ns)


cdef void run_nacks(Engine* e, Transport* t, int64_t now_ns) noexcept nogil:
    """Ask the publisher for what its streams miss, in as few compounds as hold it."""
    cdef uint16_t seqs[256]
    cdef Slot* slot = NULL
    cdef NackTracker* tracker
    cdef RtpStream* s
    cdef int32_t i
    cdef int count, n
    t.nack_due_ns = 0
    if not is_sendable(t):
        return
    if e.overload.level == OVERLOAD_VIDEO:
        t.nack_due_ns = now_ns + ms(OVERLOAD_PAUSE_MS)
        return
    for i in range(t.stream_count):
        s = t.streams[i]
        tracker = s.nack
        if tracker == NULL or s.receiver == NO_INDEX:
            continue
        if tracker.due_ns and tracker.due_ns <= now_ns:
            if slot == NULL:
                slot = new_datagram(e)
                if slot == NULL:
                    return
            # What one compound has room for; the rest is due at once.
            count = nack_collect(tracker, now_ns, seqs, <int>min(NACK_PLACES, (DATAGRAM_BYTES - slot.length - 12) // 4))
            n = write_nack(slot.data + slot.length, DATAGRAM_BYTES - slot.length, t.rtcp_ssrc, s.ssrc, seqs, count) if count else 0
            if n > 0:
                slot.length = <uint16_t>(slot.length + n)
                e.counters.nacks_sent += <uint64_t>count
                t.repair.nacks_sent += <uint64_t>count
            if slot.length > DATAGRAM_BYTES // 2:
                send_rtcp(e, t, slot)
                slot = NULL
        if tracker.due_ns and (t.nack_due_ns == 0 or tracker.due_ns < t.nack_due_ns):
            t.nack_due_ns = tracker.due_ns
        if tracker.gave_up:
            _settle(e, s, now_ns)
    if slot != NULL:
        if slot.length:
            send_rtcp(e, t, slot)
        else:
            slot_drop(e.slab, slot)
