"""Retransmissions; the contract stands in resend.pxd.

Nothing but RTX is ever sent again: under the primary SSRC a second packet with the same SRTP index would have to be the
identical ciphertext (a GCM key is given away otherwise), and that is not kept. So a subscriber without RTX gets none.

Browsers show nothing for three seconds before they ask for a keyframe in the place of what nobody sends them again. Whoever asks
in vain for what its picture leans on has one asked for at once.
"""
from libc.stdint cimport int16_t, uint8_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t
from libc.string cimport memset
from relaycore.bandwidth cimport IP_UDP_BYTES, bandwidth_departed
from relaycore.be cimport get_u16, put_u16
from relaycore.capture cimport CAPTURE_SENT, capture_rtp
from relaycore.emission cimport RTP_P_BIT, write_header
from relaycore.errs cimport E_NO_SPACE
from relaycore.estimator cimport estimator_standing_ns
from relaycore.hdrext cimport EXT_TWCC
from relaycore.history cimport (
    RESENDS_MAX, SENT_IS_BASE, SENT_MAPPINGS, SENT_WAITS, SOURCE_MS, SentMapping, SentPacket, sent_find, source_find,
)
from relaycore.keycache cimport cache_find
from relaycore.pacer cimport pacer_pay_repair
from relaycore.playout cimport gauge_is_lossy, gauge_loss, playout_update
from relaycore.reports cimport count_error, is_sendable, send_slot
from relaycore.requests cimport request_keyframe
from relaycore.routes cimport (
    Egress, Engine, NO_INDEX, PacketFacts, Receiver, RESEND_PLACES, ResendItem, RtpStream, Transport, queue_resend,
)
from relaycore.slab cimport Slot, slab_take, slot_drop
from relaycore.srtp cimport SRTP_MAX_OVERHEAD, srtp_protect_rtp
from relaycore.units cimport ms
from relaycore.views cimport rewrite_picture

cdef enum:
    OSN_BYTES = 2                  # original sequence number in front of the payload
    RTT_UNKNOWN_MS = 50
    SLACK_MS = 20                  # pacing and turns at both ends
    PADDING_BYTES = 224            # of one packet: what one byte can count, in a small slot
    STANDING_MOST_MS = 500         # of a queue that is believed: deeper ones lose what is in them
    RTT_FLOOR_MS = 10              # receivers ask again after their own estimate; two requests in less are one loss


cdef Slot* _find(Engine* e, const Egress* g, const SentPacket* p, const SentMapping* m) noexcept nogil:
    """Return the clear packet that was sent under a number; borrowed; NULL when it is gone."""
    cdef Receiver* r = e.receivers[g.receiver]
    cdef RtpStream* s = r.encodings[m.encoding].stream
    cdef const PacketFacts* f
    cdef Slot* slot
    cdef int64_t ext_seq
    if s == NULL or s.serial != m.serial or s.history == NULL:
        return NULL
    # The log has 32 bits of the source number; the history's newest has them all.
    ext_seq = s.history.newest + <int32_t>(p.source_low - <uint32_t>(s.history.newest & 0xffffffffu))
    slot = source_find(s.history, ext_seq)
    if slot == NULL and s.cache != NULL:
        # Sent from the cache, when it was too old for the history.
        slot = cache_find(s.cache, ext_seq)
    if slot == NULL:
        return NULL
    f = &e.facts[slot - e.slab.slots]
    return slot if f.ext_seq == ext_seq and f.rtp.ssrc == s.ssrc else NULL


cdef bint _is_superseded(const Egress* g, uint16_t out_low) noexcept nogil:
    """Whether a keyframe began since: decoders go on at it, and over a path that just became narrow what was lost before it would
    take the room of what it needs."""
    return g.newest_seq + <int16_t>(out_low - <uint16_t>(g.newest_seq & 0xffff)) < g.start_seq


cdef bint _is_under_way(const Transport* t, const Egress* g, const SentPacket* p, int64_t now_ns) noexcept nogil:
    """Whether what was sent last under a number may not have arrived yet: what reports say of the round trip is up to seconds old,
    so the queue that stands on the path now comes on top."""
    cdef int64_t pause_ms = RTT_UNKNOWN_MS if g.rtt_ns < 0 else max(<int64_t>RTT_FLOOR_MS, g.rtt_ns // 1000000)
    if t.bandwidth != NULL:
        pause_ms += min(max(<int64_t>0, estimator_standing_ns(&t.bandwidth.estimator) // 1000000), <int64_t>STANDING_MOST_MS)
    return _age_ms(p, now_ns) < pause_ms


cdef inline int64_t _age_ms(const SentPacket* p, int64_t now_ns) noexcept nogil:
    return <int64_t>((<uint32_t>(now_ns // 1000000) - p.sent_ms) & 0xffffu)


cdef void _give_up(Engine* e, const Transport* t, Egress* g, const SentPacket* p, uint16_t out_low, int64_t now_ns) noexcept nogil:
    """See to a subscriber that asks for what it will not get."""
    if (p.marks & SENT_IS_BASE and 0 <= g.current == g.wanted and not _is_superseded(g, out_low)
            and not _is_under_way(t, g, p, now_ns)):
        request_keyframe(e, e.receivers[g.receiver], g.current, now_ns)


cdef void resend_request(Engine* e, Transport* t, Egress* g, uint16_t out_low, int64_t now_ns) noexcept nogil:
    cdef SentMapping* m = NULL
    cdef SentPacket* p
    p = NULL if g.sent == NULL else sent_find(g.sent, out_low, &m)
    if p == NULL or _find(e, g, p, m) == NULL:
        e.counters.rtx_unknown += 1
        if p != NULL:
            _give_up(e, t, g, p, out_low, now_ns)
        return
    if _is_superseded(g, out_low):
        e.counters.rtx_refused += 1
        return
    # Twice in the queue it would hold up what was lost behind it. A queue that was dropped left its marks.
    if p.marks & SENT_WAITS and _age_ms(p, now_ns) < SOURCE_MS:
        e.counters.rtx_refused += 1
        return
    if p.resends >= RESENDS_MAX or (p.resends and _is_under_way(t, g, p, now_ns)):
        e.counters.rtx_refused += 1
        if p.resends >= RESENDS_MAX:
            _give_up(e, t, g, p, out_low, now_ns)
        return
    gauge_loss(&g.losses, now_ns)
    update_playout(e, g, now_ns)
    if queue_resend(e, t, g, out_low) < 0:
        e.counters.rtx_queue_dropped += 1
        return
    p.resends += 1
    p.marks |= SENT_WAITS
    p.sent_ms = <uint16_t>(now_ns // 1000000 & 0xffff)


cdef void update_playout(Engine* e, Egress* g, int64_t now_ns) noexcept nogil:
    cdef RtpStream* s = g.source
    cdef int64_t upstream_ns = 0
    cdef int64_t downstream_ns = 0
    if s == NULL or not g.is_video:
        return
    # A gap is seen at the next packet, of the next frame at the latest; asking and getting take a round trip.
    if s.nack != NULL and gauge_is_lossy(&s.losses, now_ns):
        upstream_ns = s.frame_interval_ns + (s.nack.rtt_ns if s.nack.rtt_ns else ms(RTT_UNKNOWN_MS)) + ms(SLACK_MS)
    if gauge_is_lossy(&g.losses, now_ns):
        downstream_ns = s.frame_interval_ns + (g.rtt_ns if g.rtt_ns >= 0 else ms(RTT_UNKNOWN_MS)) + ms(SLACK_MS)
    playout_update(&g.playout, upstream_ns, downstream_ns, now_ns)


cdef int _write(Engine* e, Transport* t, Egress* g, uint16_t out_low, Slot* source, const SentMapping* m, Slot* out,
                int64_t now_ns) noexcept nogil:
    """Write and protect one RTX packet; return its bytes."""
    cdef const PacketFacts* f = &e.facts[source - e.slab.slots]
    cdef uint8_t* payload = source.data + f.rtp.payload_offset
    cdef uint16_t kept
    cdef int header_bytes, n
    header_bytes = write_header(t, g, f, out.data, out.capacity, g.spec.rtx_ssrc, m.rtx_payload_type, g.rtx_next,
                                f.rtp.rtp_ts + m.ts_offset, &m.rules, now_ns)
    if header_bytes < 0:
        return header_bytes
    if header_bytes + OSN_BYTES + f.rtp.payload_bytes + SRTP_MAX_OVERHEAD > out.capacity:
        return E_NO_SPACE
    if f.view.picture_id_bytes or f.view.tl0_bytes:
        rewrite_picture(payload, &f.view, <uint16_t>((<uint32_t>f.view.picture_id + m.picture_offset) & 0x7fffu),
                        <uint8_t>((<uint32_t>f.view.tl0 + m.tl0_offset) & 0xffu))
    # The number goes in front of the payload in place, over the end of a header (12 bytes at least) that the others still need.
    kept = get_u16(payload - OSN_BYTES)
    put_u16(payload - OSN_BYTES, out_low)
    n = srtp_protect_rtp(t.send_context, &g.rtx_srtp, g.rtx_next, out.data, header_bytes, payload - OSN_BYTES,
                         f.rtp.payload_bytes + OSN_BYTES)
    put_u16(payload - OSN_BYTES, kept)
    if n > 0:
        capture_rtp(&t.capture, CAPTURE_SENT, &t.ice, t.ice.selected, out.data, header_bytes, n, now_ns)
    return n


cdef int _leave(Engine* e, Transport* t, Egress* g, Slot* out, int n, int64_t now_ns) noexcept nogil:
    """Send a written RTX packet of n bytes, or drop what could not be written; return n."""
    if n < 0:
        count_error(e, n)
        slot_drop(e.slab, out)
        return n
    g.rtx_next += 1
    out.length = <uint16_t>n
    if t.sent_extensions.id_of_kind[EXT_TWCC]:
        bandwidth_departed(e, t, <uint16_t>((t.twcc_next - 1u) & 0xffffu), n, now_ns)
    pacer_pay_repair(&t.pacer, n + IP_UDP_BYTES, now_ns)
    e.outbox.next_run += 1
    send_slot(e, t, out, e.outbox.next_run)
    return n


cdef int resend_copy(Engine* e, Transport* t, Egress* g, uint16_t out_low, int64_t now_ns) noexcept nogil:
    cdef SentMapping* m = NULL
    cdef SentPacket* p = NULL if g.sent == NULL else sent_find(g.sent, out_low, &m)
    cdef Slot* source = NULL if p == NULL else _find(e, g, p, m)
    cdef Slot* out
    if source == NULL:
        return 0
    out = slab_take(e.slab, source.length + OSN_BYTES + SRTP_MAX_OVERHEAD + 64)
    if out == NULL:
        e.counters.slots_exhausted += 1
        return E_NO_SPACE
    return _leave(e, t, g, out, _write(e, t, g, out_low, source, m, out, now_ns), now_ns)


cdef void resend_next(Engine* e, Transport* t, int64_t now_ns) noexcept nogil:
    cdef ResendItem item = t.resends[t.resend_head]
    cdef Egress* g = e.egresses[item.egress]
    cdef SentMapping* m = NULL
    cdef SentPacket* p
    cdef int n
    t.resend_head = (t.resend_head + 1) & (RESEND_PLACES - 1)
    t.resend_count -= 1
    if g == NULL or g.id != item.egress_id or g.sent == NULL:
        return
    p = sent_find(g.sent, item.out_low, &m)
    if p != NULL:
        p.marks &= <uint8_t>~SENT_WAITS
    # A paused subscriber wants nothing of what it lost before.
    if g.wanted == NO_INDEX or not is_sendable(t):
        return
    if _is_superseded(g, item.out_low):
        e.counters.rtx_refused += 1
        return
    n = resend_copy(e, t, g, item.out_low, now_ns)
    if n == 0:
        # It waited for too long.
        e.counters.rtx_unknown += 1
        if p != NULL:
            _give_up(e, t, g, p, item.out_low, now_ns)
    elif n > 0:
        p.sent_ms = <uint16_t>(now_ns // 1000000 & 0xffff)
        g.resent_packets += 1
        e.counters.rtx_sent += 1
        t.repair.rtx_sent += 1


cdef int resend_padding(Engine* e, Transport* t, Egress* g, int64_t now_ns) noexcept nogil:
    cdef SentMapping* m
    cdef PacketFacts f
    cdef uint8_t padding[224]
    cdef Slot* out
    cdef int n
    if g.sent == NULL or g.sent.mapping_count == 0:
        return 0
    m = &g.sent.mappings[(g.sent.mapping_count - 1u) & (SENT_MAPPINGS - 1u)]
    out = slab_take(e.slab, PADDING_BYTES + SRTP_MAX_OVERHEAD + 128)
    if out == NULL:
        e.counters.slots_exhausted += 1
        return E_NO_SPACE
    memset(&f, 0, sizeof(f))
    memset(padding, 0, sizeof(padding))
    padding[PADDING_BYTES - 1] = PADDING_BYTES
    n = write_header(t, g, &f, out.data, out.capacity, g.spec.rtx_ssrc, m.rtx_payload_type, g.rtx_next, g.projection.last_ts,
                     NULL, now_ns)
    if n > 0:
        out.data[0] |= <uint8_t>RTP_P_BIT
        n = srtp_protect_rtp(t.send_context, &g.rtx_srtp, g.rtx_next, out.data, n, padding, PADDING_BYTES)
    return _leave(e, t, g, out, n, now_ns)
