"""RTCP (RFC 3550 section 6, RFC 4585, RFC 5104) of the engine: what we report, what we hear, and when.

Egress sender reports carry the publisher's NTP time, carried forward on our clock, so that a subscriber's lip-sync is the
publisher's own. Compounds are reduced-size where useful (RFC 5506), at most 1,200 bytes.
"""
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy, memset
from relaycore.bandwidth cimport bandwidth_feedback, bandwidth_remb, bandwidth_run
from relaycore.be cimport get_u16
from relaycore.capture cimport CAPTURE_BYTES, CAPTURE_SENT, capture_rtcp
from relaycore.errs cimport E_LAST, E_LIMIT, E_NO_SPACE, E_STATE
from relaycore.history cimport SOURCE_MS, source_trim
from relaycore.icelite cimport ICE_NO_TUPLE, ice_poll
from relaycore.keycache cimport cache_trim
from relaycore.layers cimport LayerTable
from relaycore.mailbox cimport (
    EV_ENCODING_ACTIVE, EV_ENCODING_SILENT, EV_ICE_DEAD, EV_ICE_SELECTED, EV_LAYERS, EV_STREAM_BOUND, Event,
)
from relaycore.mirrors cimport export_report
from relaycore.outbox cimport outbox_put
from relaycore.projection cimport projection_ts, ticks_of
from relaycore.ready cimport LANE_FAST, mark_ready
from relaycore.requests cimport request_start, run_keyframe_requests, run_nacks
from relaycore.resend cimport resend_request, update_playout
from relaycore.routes cimport (
    Egress, Encoding, Engine, NO_INDEX, Receiver, RtpStream, Transport,
    drop_queue, emit, find_by_ssrc, find_stream, schedule,
)
from relaycore.rtcp cimport (
    RTCP_BYE, RTCP_PSFB, RTCP_RR, RTCP_RTPFB, RTCP_SR, ReportBlock, RtcpPacket, SenderInfo,
    next_rtcp, parse_fir_item, parse_nack_item, parse_pli, parse_remb, parse_report_block, parse_sender_info, write_rr, write_sdes_cname, write_sr,
)
from relaycore.slab cimport Slot, slab_take, slot_drop
from relaycore.srtp cimport SRTCP_MAX_OVERHEAD, srtp_protect_rtcp
from relaycore.stun cimport SockAddr
from relaycore.timeline cimport timeline_settle
from relaycore.twcc cimport twcc_write_feedback
from relaycore.units cimport ms

cdef enum:
    MAX_BLOCKS = 31                # 5-bit count (RFC 3550 section 6.4.1)
    MAX_ITEMS = 64                 # FIR entries looked at in one packet
    MAX_NACK_ITEMS = 256           # of 17 numbers each: more than a subscriber may have waiting
    FEEDBACK_COUNTED_BYTES = 12    # of its body, to the end of the status count
    MAX_STATUSES = 4096            # of feedback in one datagram, which could name two hundred thousand: 0.8 ms of work
    EXPEDITE_MS = 10
    LAYERS_MS = 100                # between events about the layers of a stream
    # A pair that changes more often than four times a second, and four times at once, is told late: whoever has
    # credentials could flood the event ring by it.
    SELECTED_PACE_MS = 250
    SELECTED_BURST_MS = 1000


cdef void count_error(Engine* e, int code) noexcept nogil:
    if E_LAST < code < 0:
        e.counters.by_error[-code] += 1


cdef void _tell_transport(Engine* e, Transport* t, int64_t now_ns) noexcept nogil:
    """Tell what is still to be told: death, or the selected pair (the payload is the remote SockAddr)."""
    cdef Event event
    if t.untold_dead:
        memset(&event, 0, sizeof(event))
        event.kind = EV_ICE_DEAD
        event.transport = t.id
        event.now_ns = now_ns
        if emit(e, &event) >= 0:
            t.untold_dead = 0
    if t.selected_paid_ns < now_ns:
        t.selected_paid_ns = now_ns
    if not t.untold_selected or t.selected_paid_ns - now_ns > ms(SELECTED_BURST_MS):
        return
    memset(&event, 0, sizeof(event))
    event.kind = EV_ICE_SELECTED
    event.transport = t.id
    event.now_ns = now_ns
    event.payload = <uint8_t*>malloc(sizeof(SockAddr))
    if event.payload == NULL:
        e.counters.events_dropped += 1
        return
    memcpy(event.payload, &t.ice.tuples[t.ice.selected].remote, sizeof(SockAddr))
    event.payload_bytes = sizeof(SockAddr)
    if emit(e, &event) >= 0:
        t.untold_selected = 0
        t.selected_paid_ns += ms(SELECTED_PACE_MS)


cdef void emit_selected(Engine* e, Transport* t, int64_t now_ns) noexcept nogil:
    if t.ice.selected == ICE_NO_TUPLE:
        return
    t.ever_selected = 1
    t.untold_selected = 1
    t.untold_dead = 0
    _tell_transport(e, t, now_ns)


cdef void tell_encoding(Engine* e, Receiver* r, int32_t encoding, int64_t now_ns) noexcept nogil:
    cdef Event event
    cdef Encoding* enc = &r.encodings[encoding]
    memset(&event, 0, sizeof(event))
    event.receiver = r.id
    event.encoding = encoding
    event.now_ns = now_ns
    if enc.stream != NULL and not enc.told_bound:
        event.kind = EV_STREAM_BOUND
        event.transport = e.transports[r.transport].id
        event.ssrc = enc.stream.ssrc
        if emit(e, &event) >= 0:
            enc.told_bound = 1
    if enc.active == enc.told_active:
        return
    # Silence waits its second after activity, so that BYEs between packets make no flood of events.
    if not enc.active and now_ns - enc.told_ns < ms(SILENT_MS):
        return
    event.kind = EV_ENCODING_ACTIVE if enc.active else EV_ENCODING_SILENT
    event.transport = 0
    event.ssrc = 0
    if emit(e, &event) >= 0:
        enc.told_active = enc.active
        enc.told_ns = now_ns


cdef void tell_layers(Engine* e, const Receiver* r, RtpStream* s, int64_t now_ns) noexcept nogil:
    cdef LayerTable* x = s.layers
    cdef Event event
    if x.spatial_count == x.told_spatial and x.temporal_count == x.told_temporal:
        return
    if x.told_spatial and now_ns - x.told_ns < ms(LAYERS_MS):
        return
    memset(&event, 0, sizeof(event))
    event.kind = EV_LAYERS
    event.receiver = r.id
    event.encoding = s.encoding
    event.code = x.spatial_count + 256 * x.temporal_count
    event.now_ns = now_ns
    if emit(e, &event) >= 0:
        x.told_spatial = x.spatial_count
        x.told_temporal = x.temporal_count
        x.told_ns = now_ns


cdef bint is_sendable(const Transport* t) noexcept nogil:
    return t.send_context != NULL and t.ice.selected != ICE_NO_TUPLE and not t.ice.dead


cdef int send_slot(Engine* e, Transport* t, Slot* slot, uint32_t run) noexcept nogil:
    cdef int code = E_STATE
    if t.ice.selected != ICE_NO_TUPLE:
        code = outbox_put(e.outbox, slot, &t.ice.tuples[t.ice.selected].remote,
                          t.ice.tuples[t.ice.selected].socket_index, <uint16_t>(run & 0xffffu), t.id)
    if code < 0:
        slot_drop(e.slab, slot)
        count_error(e, code)
        return code
    t.packets_sent += 1
    t.bytes_sent += slot.length
    return code


cdef Slot* new_datagram(Engine* e) noexcept nogil:
    cdef Slot* slot = slab_take(e.slab, DATAGRAM_BYTES + SRTCP_MAX_OVERHEAD)
    if slot == NULL:
        e.counters.slots_exhausted += 1
        return NULL
    slot.length = 0
    return slot


cdef void send_rtcp(Engine* e, Transport* t, Slot* slot) noexcept nogil:
    """Protect and queue a plaintext compound; takes the slot."""
    cdef uint8_t clear[CAPTURE_BYTES]
    cdef int32_t clear_bytes = slot.length
    cdef int n
    if t.capture.left:
        # Protected in place, and only then is it known how long it gets.
        memcpy(clear, slot.data, <size_t>min(clear_bytes, CAPTURE_BYTES))
    n = srtp_protect_rtcp(t.send_context, slot.data, slot.length, slot.capacity)
    if n < 0:
        count_error(e, n)
        slot_drop(e.slab, slot)
        return
    slot.length = <uint16_t>n
    capture_rtcp(&t.capture, CAPTURE_SENT, &t.ice, t.ice.selected, clear, clear_bytes, n, e.now_ns)
    e.outbox.next_run += 1
    send_slot(e, t, slot, e.outbox.next_run)


# --- what we hear ---------------------------------------------------------------------------------------------------

cdef void _on_report_block(Engine* e, Transport* t, const ReportBlock* block, int64_t now_ns) noexcept nogil:
    cdef Egress* g = find_by_ssrc(e, t, block.ssrc)
    cdef int64_t rtt
    if g == NULL or g.spec.ssrc != block.ssrc:
        return
    g.mid_known = 1
    g.fraction_lost = block.fraction_lost
    g.total_lost = block.total_lost
    g.jitter_ticks = block.jitter
    if block.last_sr and block.last_sr == g.sr_middle:
        rtt = now_ns - g.sr_sent_ns - <int64_t>(<uint64_t>block.delay_since_sr * 1000000000u >> 16)
        if rtt >= 0:
            g.rtt_ns = rtt


cdef void spread_sender_info(Engine* e, Receiver* r, RtpStream* s, int64_t now_ns) noexcept nogil:
    cdef Egress* g
    cdef uint32_t i
    for i in range(r.egress_count):
        g = e.egresses[r.egresses[i]]
        timeline_settle(e, r, g)
        # The first report lets a subscriber's lip-sync start; the later ones keep their second.
        if g.source == s and g.sr_sent_ns == 0:
            expedite_report(e, e.transports[g.transport], now_ns)


cdef void _on_sender_report(Engine* e, Transport* t, const RtcpPacket* p, int64_t now_ns) noexcept nogil:
    cdef RtpStream* s = find_stream(t, p.ssrc)
    cdef Receiver* r
    if s == NULL or parse_sender_info(p, &s.sender_info) < 0:
        return
    s.sender_info_ns = now_ns
    s.has_sender_info = 1
    if s.receiver == NO_INDEX:
        return
    r = e.receivers[s.receiver]
    spread_sender_info(e, r, s, now_ns)
    if r.exports and not s.is_repair:
        export_report(e, r, s)


cdef void _on_keyframe_request(Engine* e, Transport* t, uint32_t media_ssrc, int64_t now_ns) noexcept nogil:
    cdef Egress* g = find_by_ssrc(e, t, media_ssrc)
    cdef int32_t encoding
    if g == NULL:
        return
    e.counters.keyframe_requests_received += 1
    t.repair.keyframes_wanted += 1
    encoding = g.current if g.current >= 0 else g.wanted
    if encoding >= 0:
        request_start(e, e.receivers[g.receiver], g, encoding, now_ns)


cdef void _on_nack(Engine* e, Transport* t, const RtcpPacket* p, int64_t now_ns) noexcept nogil:
    """Answer a generic NACK (RFC 4585 section 6.2.1) for what one of our streams sent."""
    cdef uint32_t media_ssrc = 0
    cdef uint16_t first = 0
    cdef uint16_t mask = 0
    cdef uint32_t bit
    cdef Egress* g
    cdef int i
    for i in range(MAX_NACK_ITEMS):
        if parse_nack_item(p, i, &media_ssrc, &first, &mask) < 0:
            break
        g = find_by_ssrc(e, t, media_ssrc)
        if g == NULL or g.spec.ssrc != media_ssrc:
            return
        resend_request(e, t, g, first, now_ns)
        for bit in range(16):
            if mask >> bit & 1:
                resend_request(e, t, g, <uint16_t>((first + bit + 1u) & 0xffffu), now_ns)


cdef void receive_rtcp(Engine* e, Transport* t, uint8_t* buf, Py_ssize_t n, int64_t now_ns) noexcept nogil:
    """Walk one authenticated plaintext compound. What comes before a malformed part counts."""
    cdef Py_ssize_t cursor = 0
    cdef RtcpPacket p
    cdef ReportBlock block
    cdef uint32_t media_ssrc = 0
    cdef uint8_t command_seq = 0
    cdef uint64_t remb_bps = 0
    cdef RtpStream* s
    cdef int i
    cdef int32_t statuses = 0
    cdef int32_t named
    cdef int code = next_rtcp(buf, n, &cursor, &p)
    while code == 1:
        if p.type == RTCP_SR:
            _on_sender_report(e, t, &p, now_ns)
        if p.type == RTCP_SR or p.type == RTCP_RR:
            for i in range(p.count):
                code = parse_report_block(&p, i, &block)
                if code < 0:
                    count_error(e, code)
                    break
                _on_report_block(e, t, &block, now_ns)
        elif p.type == RTCP_PSFB and p.count == 1:
            code = parse_pli(&p, &media_ssrc)
            if code < 0:
                count_error(e, code)
            else:
                _on_keyframe_request(e, t, media_ssrc, now_ns)
        elif p.type == RTCP_PSFB and p.count == 4:
            for i in range(MAX_ITEMS):
                if parse_fir_item(&p, i, &media_ssrc, &command_seq) < 0:
                    break
                _on_keyframe_request(e, t, media_ssrc, now_ns)
        elif p.type == RTCP_RTPFB and p.count == 1:
            e.counters.nacks_received += 1
            t.repair.nacks_received += 1
            _on_nack(e, t, &p, now_ns)
        elif p.type == RTCP_RTPFB and p.count == 15:
            e.counters.transport_feedback_received += 1
            named = get_u16(p.body + FEEDBACK_COUNTED_BYTES - 2) if p.body_bytes >= FEEDBACK_COUNTED_BYTES else 0
            if statuses and statuses + named > MAX_STATUSES:
                count_error(e, E_LIMIT)
            else:
                bandwidth_feedback(e, t, &p, now_ns)
            statuses += named
        elif p.type == RTCP_PSFB and p.count == 15:
            code = parse_remb(&p, &remb_bps)
            if code < 0:
                count_error(e, code)
            else:
                bandwidth_remb(e, t, remb_bps, now_ns)
        elif p.type == RTCP_BYE:
            s = find_stream(t, p.ssrc)
            if s != NULL and s.receiver != NO_INDEX and not s.is_repair:
                e.receivers[s.receiver].encodings[s.encoding].active = 0
                tell_encoding(e, e.receivers[s.receiver], s.encoding, now_ns)
        code = next_rtcp(buf, n, &cursor, &p)
    if code < 0:
        count_error(e, code)


# --- what we report -------------------------------------------------------------------------------------------------

cdef void update_reception(RtpStream* s, int64_t ext_seq, uint32_t rtp_ts, int64_t now_ns) noexcept nogil:
    """Count one packet of a received stream; jitter as in RFC 3550 appendix A.8."""
    cdef uint32_t transit, difference
    if s.packets == 0:
        s.base_seq = ext_seq
        s.highest_seq = ext_seq
        s.transit = ticks_of(now_ns, s.clock_rate_hz) - rtp_ts
    elif ext_seq > s.highest_seq:
        s.highest_seq = ext_seq
    s.packets += 1
    transit = ticks_of(now_ns, s.clock_rate_hz) - rtp_ts
    difference = transit - s.transit
    if difference & 0x80000000u:
        difference = 0u - difference
    s.transit = transit
    s.jitter_16 = s.jitter_16 + difference - ((s.jitter_16 + 8u) >> 4)


cdef void _fill_block(RtpStream* s, ReportBlock* block, int64_t now_ns) noexcept nogil:
    """Report block of a received stream since the last one (RFC 3550 appendix A.3)."""
    cdef int64_t expected = s.highest_seq - s.base_seq + 1
    cdef int64_t lost = expected - <int64_t>s.packets
    cdef int64_t expected_interval = expected - s.expected_prior
    cdef int64_t lost_interval = expected_interval - (<int64_t>s.packets - s.received_prior)
    memset(block, 0, sizeof(ReportBlock))
    block.ssrc = s.ssrc
    if expected_interval > 0 and lost_interval > 0:
        block.fraction_lost = <uint8_t>((<uint64_t>lost_interval << 8) // <uint64_t>expected_interval & 0xffu)
        if lost_interval >= expected_interval:
            block.fraction_lost = 255
    if lost > 0x7fffff:
        lost = 0x7fffff
    elif lost < -0x800000:
        lost = -0x800000
    block.total_lost = <int32_t>lost
    block.ext_highest_seq = <uint32_t>(<uint64_t>s.highest_seq & 0xffffffffu)
    block.jitter = s.jitter_16 >> 4
    if s.has_sender_info:
        block.last_sr = <uint32_t>((s.sender_info.ntp >> 16) & 0xffffffffu)
        block.delay_since_sr = <uint32_t>(((<uint64_t>(now_ns - s.sender_info_ns) << 16) // 1000000000u) & 0xffffffffu)
    s.expected_prior = expected
    s.received_prior = <int64_t>s.packets


cdef int _write_sender_report(Egress* g, uint8_t* dst, Py_ssize_t cap, int64_t now_ns) noexcept nogil:
    """SR and CNAME of one egress at the present time; 0 when its source has not reported yet."""
    cdef RtpStream* s = g.source
    cdef SenderInfo info
    cdef uint64_t elapsed_ns
    cdef int n, more
    if s == NULL or not s.has_sender_info or g.packets == 0:
        return 0
    elapsed_ns = <uint64_t>(now_ns - s.sender_info_ns)
    info.ntp = s.sender_info.ntp + ((elapsed_ns // 1000000000u) << 32) + (((elapsed_ns % 1000000000u) << 32) // 1000000000u)
    info.rtp_ts = projection_ts(&g.projection, s.sender_info.rtp_ts + ticks_of(<int64_t>elapsed_ns, s.clock_rate_hz))
    info.packets = <uint32_t>(g.packets & 0xffffffffu)
    info.octets = <uint32_t>(g.payload_bytes & 0xffffffffu)
    n = write_sr(dst, cap, g.spec.ssrc, &info, NULL, 0)
    if n < 0:
        return n
    more = write_sdes_cname(dst + n, cap - n, g.spec.ssrc, g.spec.cname, g.spec.cname_bytes)
    if more < 0:
        return more
    g.sr_middle = <uint32_t>((info.ntp >> 16) & 0xffffffffu)
    g.sr_sent_ns = now_ns
    return n + more


cdef Slot* _write_receiver_report(Engine* e, Transport* t, int32_t* from_stream, int64_t now_ns) noexcept nogil:
    """A compound that opens with the blocks of streams that sent since the last one; NULL when there are none.

    It takes the streams from *from_stream on that one RR has room for, and moves that behind them.
    """
    cdef ReportBlock blocks[31]
    cdef Slot* slot
    cdef int32_t i
    cdef int count = 0
    cdef int n
    for i in range(from_stream[0], t.stream_count):
        if count == MAX_BLOCKS:
            break
        from_stream[0] = i + 1
        if t.streams[i].receiver != NO_INDEX and <int64_t>t.streams[i].packets > t.streams[i].received_prior:
            _fill_block(t.streams[i], &blocks[count], now_ns)
            count += 1
    if count == 0:
        return NULL
    slot = new_datagram(e)
    if slot == NULL:
        return NULL
    n = write_rr(slot.data, DATAGRAM_BYTES, t.rtcp_ssrc, blocks, count)
    slot.length = <uint16_t>n
    return slot


cdef void _run_reports(Engine* e, Transport* t, int64_t now_ns) noexcept nogil:
    cdef Slot* slot
    cdef uint32_t i = 0
    cdef int32_t from_stream = 0
    cdef int n
    t.rtcp_due_ns = now_ns + ms(REPORT_INTERVAL_MS)
    if not is_sendable(t):
        return
    slot = _write_receiver_report(e, t, &from_stream, now_ns)
    while slot != NULL and from_stream < t.stream_count:
        send_rtcp(e, t, slot)
        slot = _write_receiver_report(e, t, &from_stream, now_ns)
    while i < t.egress_count:
        update_playout(e, e.egresses[t.egresses[i]], now_ns)
        if slot == NULL:
            slot = new_datagram(e)
            if slot == NULL:
                return
        n = _write_sender_report(e.egresses[t.egresses[i]], slot.data + slot.length, DATAGRAM_BYTES - slot.length, now_ns)
        if n == E_NO_SPACE and slot.length:
            send_rtcp(e, t, slot)
            slot = NULL
            continue
        if n > 0:
            slot.length = <uint16_t>(slot.length + n)
        i += 1
    if slot != NULL:
        if slot.length:
            send_rtcp(e, t, slot)
        else:
            slot_drop(e.slab, slot)


cdef void expedite_report(Engine* e, Transport* t, int64_t now_ns) noexcept nogil:
    if t.rtcp_due_ns > now_ns + ms(EXPEDITE_MS):
        t.rtcp_due_ns = now_ns + ms(EXPEDITE_MS)
        schedule(e, t)


cdef void _run_feedback(Engine* e, Transport* t, int64_t now_ns) noexcept nogil:
    cdef Slot* slot
    cdef int n
    t.twcc_due_ns = 0
    if not is_sendable(t):
        return
    while True:
        slot = new_datagram(e)
        if slot == NULL:
            return
        n = twcc_write_feedback(t.twcc, slot.data, DATAGRAM_BYTES, t.rtcp_ssrc, t.twcc_media_ssrc)
        if n <= 0:
            count_error(e, n)
            slot_drop(e.slab, slot)
            return
        slot.length = <uint16_t>n
        send_rtcp(e, t, slot)
        e.counters.feedback_sent += 1


cdef void _check_ice(Engine* e, Transport* t, int64_t now_ns) noexcept nogil:
    cdef bint was_dead = t.ice.dead
    cdef int change = ice_poll(&t.ice, now_ns)
    if change == 1:
        emit_selected(e, t, now_ns)
    elif change == 2 and not was_dead:
        drop_queue(e, t)
        t.untold_dead = 1
    elif not t.ice.dead:
        t.untold_dead = 0
    _tell_transport(e, t, now_ns)


cdef void _check_silence(Engine* e, Transport* t, int64_t now_ns) noexcept nogil:
    cdef Receiver* r
    cdef int32_t i, j
    for i in range(t.receiver_count):
        r = e.receivers[t.receivers[i]]
        for j in range(r.encoding_count):
            # Audio with discontinuous transmission is silent by design.
            if r.spec.is_video and now_ns - r.encodings[j].last_packet_ns > ms(SILENT_MS):
                r.encodings[j].active = 0
            tell_encoding(e, r, j, now_ns)


cdef void _trim_history(Engine* e, Transport* t, int64_t now_ns) noexcept nogil:
    """Let go of what streams kept that have fallen silent since."""
    cdef int32_t i
    for i in range(t.stream_count):
        if t.streams[i].history != NULL:
            source_trim(t.streams[i].history, e.slab, now_ns - ms(SOURCE_MS))
        if t.streams[i].cache != NULL:
            cache_trim(t.streams[i].cache, &e.caches, e.slab, now_ns)


cdef void run_timers(Engine* e, Transport* t, int64_t now_ns) noexcept nogil:
    """Do what is due on one transport and schedule it again."""
    if t.twcc_due_ns and t.twcc_due_ns <= now_ns:
        _run_feedback(e, t, now_ns)
    if t.nack_due_ns and t.nack_due_ns <= now_ns:
        run_nacks(e, t, now_ns)
    if t.keyframe_due_ns and t.keyframe_due_ns <= now_ns:
        run_keyframe_requests(e, t, now_ns)
    if t.pacer_due_ns and t.pacer_due_ns <= now_ns:
        t.pacer_due_ns = 0
        mark_ready(e, t, LANE_FAST)
    if t.bandwidth != NULL and t.bandwidth.due_ns and t.bandwidth.due_ns <= now_ns:
        bandwidth_run(e, t, now_ns)
    if t.rtcp_due_ns <= now_ns:
        _check_ice(e, t, now_ns)
        _trim_history(e, t, now_ns)
        _check_silence(e, t, now_ns)
        # Requests that waited for the publisher to be reachable.
        run_keyframe_requests(e, t, now_ns)
        _run_reports(e, t, now_ns)
    schedule(e, t)
