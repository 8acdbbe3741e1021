"""Dequeue-time projection (DESIGN section 4): layer choice, numbers, extensions, protect and send happen together, one
subscriber's packets of a frame at a time, so that what is dropped earlier leaves no trace in any numbering.
"""
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t
from libc.string cimport memset
from relaycore.errs cimport E_NO_SPACE
from relaycore.hdrext cimport (
    EXT_ABS_SEND_TIME, EXT_MID, EXT_REPAIRED_RID, EXT_RID, EXT_TOFFSET, EXT_TWCC, ExtView, write_hdrext,
)
from relaycore.mailbox cimport CodecEntry, EV_EGRESS_SWITCHED, Event
from relaycore.outbox cimport OUTBOX_MAX
from relaycore.projection cimport (
    projection_drop, projection_map, projection_rebase, projection_sent, projection_ts,
)
from relaycore.reports cimport count_error, expedite_report, is_sendable, request_keyframe, send_slot
from relaycore.routes cimport (
    Egress, Engine, NO_INDEX, PacketFacts, QUEUE_PLACES, QueueItem, Receiver, RtpStream, Transport,
    emit, mark_ready, queue_packet,
)
from relaycore.rtp cimport write_rtp_fixed
from relaycore.slab cimport Slot, slab_take, slot_drop, slot_hold
from relaycore.srtp cimport SRTP_MAX_OVERHEAD, srtp_protect_rtp
from relaycore.views cimport rewrite_picture

cdef enum:
    FIXED_HEADER_BYTES = 12
    OUTBOX_MARGIN = 32             # places left for reports and STUN answers of the same turn


cdef inline bint _wants(const Egress* g, int32_t encoding) noexcept nogil:
    return g.wanted >= 0 and (encoding == g.current or encoding == g.wanted)


cdef inline bint _starts(const PacketFacts* f) noexcept nogil:
    """Whether a subscriber of video may start at this packet."""
    return f.rtp.payload_bytes > 0 and (f.view.source == 0 or (f.view.keyframe and f.view.start_of_frame))


cdef void route_packet(Engine* e, Receiver* r, Slot* slot, const PacketFacts* f, int64_t now_ns) noexcept nogil:
    cdef Egress* g
    cdef Transport* t
    cdef uint32_t i
    cdef int code
    cdef bint waits
    cdef bint starts = _starts(f)
    cdef const RtpStream* s = r.encodings[f.encoding].stream
    for i in range(r.egress_count):
        g = e.egresses[r.egresses[i]]
        t = e.transports[g.transport]
        # Who cannot be reached asks for nothing: its keyframe would be lost like all else.
        if not _wants(g, f.encoding) or not is_sendable(t):
            continue
        waits = r.spec.is_video and (g.current != f.encoding or g.source != s)
        if waits and not starts and not g.start_queued >> f.encoding & 1:
            # Waiting for its keyframe: every packet that is not one reminds the publisher (coalesced).
            request_keyframe(e, r, f.encoding, now_ns)
            continue
        slot_hold(slot)
        code = queue_packet(e, t, g, slot)
        if code < 0:
            slot_drop(e.slab, slot)
            e.counters.queue_dropped += 1
            count_error(e, code)
        elif waits and starts:
            # The switch happens at dequeue; the rest of this keyframe may be queued before that.
            g.start_queued = <uint8_t>(g.start_queued | 1u << <uint32_t>f.encoding)


cdef uint32_t _source_offset(const Egress* g, const RtpStream* s, bint* known) noexcept nogil:
    """Timestamp offset that keeps a new source on the old one's scale, by both sender reports."""
    cdef const RtpStream* old = g.source
    cdef int64_t apart
    cdef int64_t ticks
    known[0] = False
    if old == NULL:
        return 0
    if old == s:
        known[0] = True
        return g.projection.ts_offset
    if not old.has_sender_info or not s.has_sender_info:
        return 0
    # NTP difference in 1/2^32 s, scaled to 1/2^16 s so that the product fits.
    apart = <int64_t>(s.sender_info.ntp - old.sender_info.ntp) >> 16
    ticks = apart * <int64_t>s.clock_rate_hz >> 16
    known[0] = True
    return old.sender_info.rtp_ts + <uint32_t>(<uint64_t>ticks & 0xffffffffu) + g.projection.ts_offset - s.sender_info.rtp_ts


cdef void _switch(Engine* e, Egress* g, RtpStream* s, const PacketFacts* f, int64_t now_ns) noexcept nogil:
    cdef bint known = False
    cdef uint32_t offset = _source_offset(g, s, &known)
    cdef Event event
    projection_rebase(&g.projection, f.ext_seq, f.rtp.rtp_ts, &f.view, known, offset, s.clock_rate_hz, now_ns)
    g.source = s
    g.current = f.encoding
    memset(&event, 0, sizeof(event))
    event.kind = EV_EGRESS_SWITCHED
    event.egress = g.id
    event.encoding = f.encoding
    event.now_ns = now_ns
    emit(e, &event)
    if s.has_sender_info and g.packets == 0:
        expedite_report(e, e.transports[g.transport], now_ns)


cdef inline int _payload_type(const Egress* g, uint8_t codec) noexcept nogil:
    cdef int i
    for i in range(g.spec.codec_count):
        if g.spec.codecs[i].codec == codec:
            return g.spec.codecs[i].payload_type
    return -1


cdef int _write_header(Egress* g, Transport* t, const PacketFacts* f, uint8_t* dst, Py_ssize_t cap, uint8_t payload_type,
                       int64_t out_seq, uint32_t out_ts) noexcept nogil:
    """Write the outgoing RTP header with the subscriber's extension ids; return its bytes."""
    cdef ExtView x = f.extensions
    cdef int n
    # Hop-by-hop: meant for us, or written anew for this subscriber.
    x.present &= ~((1u << EXT_MID) | (1u << EXT_RID) | (1u << EXT_REPAIRED_RID) | (1u << EXT_TWCC) | (1u << EXT_ABS_SEND_TIME)
                   | (1u << EXT_TOFFSET))
    if not g.mid_known and g.spec.mid_bytes:
        x.present |= 1u << EXT_MID
        x.by_kind[EXT_MID].data = g.spec.mid
        x.by_kind[EXT_MID].bytes = g.spec.mid_bytes
    n = write_hdrext(dst + FIXED_HEADER_BYTES, cap - FIXED_HEADER_BYTES, &t.extensions, &x)
    if n < 0:
        return n
    write_rtp_fixed(dst, n > 0, False, f.rtp.marker, payload_type, <uint16_t>(out_seq & 0xffff), out_ts, g.spec.ssrc)
    return FIXED_HEADER_BYTES + n


cdef void _project(Engine* e, Transport* t, Egress* g, Slot* slot, int64_t now_ns) noexcept nogil:
    """Forward one packet to one subscriber, or decide not to."""
    cdef const PacketFacts* f = &e.facts[slot - e.slab.slots]
    cdef Receiver* r = e.receivers[g.receiver]
    cdef RtpStream* s = r.encodings[f.encoding].stream
    cdef uint8_t* payload = slot.data + f.rtp.payload_offset
    cdef Slot* out
    cdef int64_t out_seq
    cdef uint32_t out_ts
    cdef int payload_type, header_bytes, n
    if s == NULL or s.ssrc != f.rtp.ssrc:
        return
    if _starts(f):
        g.start_queued = <uint8_t>(g.start_queued & ~(1u << <uint32_t>f.encoding))
    if not _wants(g, f.encoding) or not is_sendable(t):
        return
    if f.rtp.payload_bytes == 0:
        # Padding only: later packets close up behind it. It stood in the queue so that it comes after what it followed.
        if g.source == s and g.current == f.encoding:
            projection_drop(&g.projection, f.ext_seq)
        return
    if g.current != f.encoding or g.source != s:
        if r.spec.is_video and not _starts(f):
            return
        _switch(e, g, s, f, now_ns)
    payload_type = _payload_type(g, f.codec)
    if payload_type < 0:
        projection_drop(&g.projection, f.ext_seq)
        return
    out = slab_take(e.slab, slot.length + SRTP_MAX_OVERHEAD + 64)
    if out == NULL:
        e.counters.slots_exhausted += 1
        return
    out_seq = projection_map(&g.projection, f.ext_seq)
    if out_seq < 0:
        count_error(e, <int>out_seq)
        slot_drop(e.slab, out)
        return
    out_ts = projection_ts(&g.projection, f.rtp.rtp_ts)
    if f.view.picture_id_bytes or f.view.tl0_bytes:
        # The clear packet is ours alone and every subscriber writes its own numbers, so it is patched in place.
        rewrite_picture(payload, &f.view, <uint16_t>((<uint32_t>f.view.picture_id + g.projection.picture_offset) & 0x7fffu),
                        <uint8_t>((<uint32_t>f.view.tl0 + g.projection.tl0_offset) & 0xffu))
    header_bytes = _write_header(g, t, f, out.data, out.capacity, <uint8_t>payload_type, out_seq, out_ts)
    if header_bytes >= 0 and header_bytes + f.rtp.payload_bytes + SRTP_MAX_OVERHEAD <= out.capacity:
        n = srtp_protect_rtp(t.send_context, &g.srtp, out_seq, out.data, header_bytes, payload, f.rtp.payload_bytes)
    else:
        n = header_bytes if header_bytes < 0 else E_NO_SPACE
    if n < 0:
        count_error(e, n)
        slot_drop(e.slab, out)
        return
    out.length = <uint16_t>n
    if g.packets == 0 or out_ts != g.projection.last_ts:
        e.outbox.next_run += 1
        g.frames += 1
    projection_sent(&g.projection, out_ts, &f.view, now_ns)
    g.packets += 1
    g.bytes += <uint64_t>n
    g.payload_bytes += f.rtp.payload_bytes
    e.counters.rtp_forwarded += 1
    send_slot(e, t, out, e.outbox.next_run)


cdef void forward_queue(Engine* e, Transport* t, int64_t now_ns) noexcept nogil:
    cdef QueueItem item
    cdef Egress* g
    cdef int32_t last = NO_INDEX
    while t.queue_count and e.outbox.count < OUTBOX_MAX - OUTBOX_MARGIN:
        item = t.queue[t.queue_head]
        t.queue_head = (t.queue_head + 1) & (QUEUE_PLACES - 1)
        t.queue_count -= 1
        g = e.egresses[item.egress]
        if g != NULL and g.id == item.egress_id:
            if item.egress != last:
                e.outbox.next_run += 1
                last = item.egress
            _project(e, t, g, item.slot, now_ns)
        slot_drop(e.slab, item.slot)
    if t.queue_count:
        mark_ready(e, t)
