"""Dequeue-time projection (DESIGN section 4): layer choice, numbers, extensions, protect and send happen together, one
subscriber's packets of a frame at a time, so that what is dropped earlier leaves no trace in any numbering.
"""
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memset
from relaycore.emission cimport RTP_P_BIT, RUN_MAX, Run, Staged, run_add, run_send, write_header
from relaycore.errs cimport E_NO_SPACE
from relaycore.hdrext cimport EXT_DD
from relaycore.history cimport (
    HeaderRules, SENT_PLACES, SentLog, SentMapping, SourceHistory, sent_log, sent_map, source_find, source_keep,
)
from relaycore.mailbox cimport CodecEntry, EV_EGRESS_SWITCHED, Event
from relaycore.pacer cimport pacer_media_due, pacer_pay_replay, pacer_repair_due, pacer_replay_due
from relaycore.projection cimport (
    PROJECTION_WINDOW, projection_drop, projection_map, projection_offset, projection_rebase, projection_sent, projection_ts,
)
from relaycore.reports cimport count_error, expedite_report, is_sendable
from relaycore.requests cimport request_keyframe, request_start
from relaycore.red cimport red_rewrite
from relaycore.replay cimport replay_begin, replay_keep, replay_take
from relaycore.resend cimport resend_next
from relaycore.ready cimport mark_ready, take_ready
from relaycore.routes cimport (
    Egress, Engine, NO_INDEX, PacketFacts, QUEUE_PLACES, QueueItem, Receiver, RtpStream, Transport,
    emit, queue_packet, schedule,
)
from relaycore.selection cimport LAYERS_ALL, Picture, Selection, TOP_NONE, select_picture, selection_begin, selection_waits
from relaycore.slab cimport SLOT_SMALL_BYTES, Slot, slab_take, slot_drop, slot_hold
from relaycore.srtp cimport SRTP_MAX_OVERHEAD, SRTP_WINDOW, srtp_prefetch
from relaycore.stages cimport STAGE_ROUTE, stage_begin, stage_end
from relaycore.timeline cimport timeline_offset, timeline_switch
from relaycore.targets cimport select_frame
from relaycore.views cimport CODEC_AV1, CODEC_OPUS, find_layers, rewrite_picture

cdef extern from *:
    """
    static inline void forward_prefetch(const void *p) { __builtin_prefetch(p); }
    /* RTP padding counts itself in its last byte. */
    static uint8_t forward_padding[4] = {0, 0, 0, 4};
    """
    uint8_t forward_padding[4]
    void forward_prefetch(const void* p) noexcept nogil

cdef enum:
    READY_BATCH = 8                # transports whose state is fetched from memory at the same time
    PADDING_BYTES = 4


cdef inline bint _wants(const Egress* g, int32_t encoding) noexcept nogil:
    return g.wanted >= 0 and (encoding == g.current or encoding == g.wanted)


cdef inline bint _starts(const PacketFacts* f) noexcept nogil:
    """Whether a subscriber of video may start at this packet."""
    return f.rtp.payload_bytes > 0 and (f.view.source == 0 or (f.view.keyframe and f.view.start_of_frame))


cdef void _keep(Engine* e, RtpStream* s, Slot* slot, const PacketFacts* f) noexcept nogil:
    """Keep a packet for retransmissions."""
    if s.history == NULL:
        s.history = <SourceHistory*>calloc(1, sizeof(SourceHistory))
        if s.history == NULL:
            return
    source_keep(s.history, e.slab, slot, f.ext_seq)


cdef bint _queue(Engine* e, Transport* t, Egress* g, Slot* slot, int lane) noexcept nogil:
    cdef int code
    slot_hold(slot)
    code = queue_packet(e, t, g, slot, lane)
    if code >= 0:
        return True
    slot_drop(e.slab, slot)
    e.counters.queue_dropped += 1
    count_error(e, code)
    return False


cdef void _queue_behind(Engine* e, Transport* t, Egress* g, const SourceHistory* h, int64_t ext_seq,
                        int lane) noexcept nogil:
    """Queue what came before the late packet `ext_seq` at which a subscriber starts, and belongs behind it."""
    cdef Slot* slot
    cdef int64_t i
    for i in range(ext_seq + 1, h.newest + 1):
        slot = source_find(h, i)
        if slot != NULL and e.facts[slot - e.slab.slots].ext_seq == i:
            _queue(e, t, g, slot, lane)


cdef void spread_packet(Engine* e, Receiver* r, Slot* slot, const PacketFacts* f, int lane, int64_t now_ns) noexcept nogil:
    cdef Egress* g
    cdef Transport* t
    cdef uint32_t i
    cdef bint waits
    cdef bint is_wanted = False
    cdef bint starts = _starts(f)
    cdef RtpStream* s = r.encodings[f.encoding].stream
    if s == NULL or s.ssrc != f.rtp.ssrc or r.is_stopped:
        # It waited for so long that its publisher has started over, or was stopped.
        return
    if r.spec.is_video:
        replay_keep(e, r, s, slot, f, starts)
    # At a late packet nobody starts of whom the packets behind it were not kept.
    starts = starts and f.ext_seq >= s.unwanted_seq
    for i in range(r.egress_count):
        g = e.egresses[r.egresses[i]]
        t = e.transports[g.transport]
        # Who cannot be reached asks for nothing: its keyframe would be lost like all else.
        if not _wants(g, f.encoding) or not is_sendable(t):
            continue
        is_wanted = True
        waits = r.spec.is_video and (g.current != f.encoding or g.source != s)
        if g.replay.is_on and g.replay.serial == s.serial and f.ext_seq >= g.replay.next_seq:
            # It comes to this packet where it stands in the cache.
            s.cache.read_ns = now_ns
            continue
        if waits and not starts and not g.start_queued >> f.encoding & 1:
            # Waiting for its keyframe: every packet that is not one reminds the publisher (coalesced).
            if not replay_begin(e, r, t, g, s, lane, now_ns):
                request_start(e, r, g, f.encoding, now_ns)
            continue
        if _queue(e, t, g, slot, lane) and waits and starts:
            # The switch happens at dequeue; the rest of this keyframe may be queued before that.
            g.start_queued = <uint8_t>(g.start_queued | 1u << <uint32_t>f.encoding)
            if s.history != NULL and s.history.started and s.history.newest > f.ext_seq:
                _queue_behind(e, t, g, s.history, f.ext_seq, lane)
    # Also what nobody could start at: its keyframe's first packet may only be late.
    if is_wanted and r.spec.is_video and f.rtp.payload_bytes:
        _keep(e, s, slot, f)
    elif not is_wanted:
        s.unwanted_seq = max(s.unwanted_seq, f.ext_seq)


cdef void _switch(Engine* e, Egress* g, RtpStream* s, const Slot* slot, const PacketFacts* f, int64_t now_ns) noexcept nogil:
    cdef bint known = False
    cdef uint32_t offset = timeline_offset(e, e.receivers[g.receiver], g, s, &known)
    cdef uint32_t former = projection_offset(&g.projection)
    cdef Event event
    known = projection_rebase(&g.projection, f.ext_seq, f.rtp.rtp_ts, &f.view, known, offset, s.clock_rate_hz, slot.arrival_ns)
    timeline_switch(g, s, former, known)
    selection_begin(&g.selection, f.view.dd_targets > 1)
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


cdef const CodecEntry* _codec_of(const Egress* g, uint8_t codec) noexcept nogil:
    """Return what the subscriber calls a codec, NULL when it does not take it."""
    cdef int i
    for i in range(g.spec.codec_count):
        if g.spec.codecs[i].codec == codec:
            return &g.spec.codecs[i]
    return NULL


cdef void _remember(Egress* g, const RtpStream* s, const PacketFacts* f, const CodecEntry* codec, uint16_t picture_offset,
                    const HeaderRules* rules, int64_t out_seq, uint32_t out_ts, int64_t now_ns) noexcept nogil:
    """Note what a retransmission of this packet needs."""
    cdef SentMapping m
    if not g.is_video or not g.spec.rtx_ssrc or not codec.rtx_payload_type:
        return
    if g.sent == NULL:
        g.sent = <SentLog*>calloc(1, sizeof(SentLog))
        if g.sent == NULL:
            return
    m.serial = s.serial
    m.encoding = f.encoding
    m.ts_offset = out_ts - f.rtp.rtp_ts
    m.picture_offset = picture_offset
    m.tl0_offset = g.projection.tl0_offset
    m.payload_type = codec.payload_type
    m.rtx_payload_type = codec.rtx_payload_type
    m.rules = rules[0]
    sent_map(g.sent, &m)
    sent_log(g.sent, out_seq, f.ext_seq, f.view.temporal_id == 0 and not f.view.discardable, now_ns)
    g.newest_seq = max(g.newest_seq, out_seq)
    if f.view.keyframe and f.view.start_of_frame and f.view.spatial_id == 0:
        g.start_seq = max(g.start_seq, out_seq)


cdef void _fill_hole(Engine* e, Run* run, Transport* t, Egress* g, const RtpStream* s, Slot* slot, int64_t out_seq,
                     int64_t now_ns) noexcept nogil:
    """Send padding under a reserved number whose packet came late and is not sent: an open number would be asked for."""
    cdef PacketFacts padding = e.facts[slot - e.slab.slots]
    cdef Staged item
    cdef const CodecEntry* codec = _codec_of(g, s.codec)
    cdef uint32_t out_ts = projection_ts(&g.projection, padding.rtp.rtp_ts)
    if codec == NULL:
        return
    item.out = slab_take(e.slab, SLOT_SMALL_BYTES)
    if item.out == NULL:
        e.counters.slots_exhausted += 1
        return
    padding.rtp.marker = 0
    padding.extensions.present = 0
    item.source = slot
    # Not in the slot, whose payload others may still be sent.
    item.payload = forward_padding
    item.payload_bytes = PADDING_BYTES
    item.out_seq = out_seq
    item.header_bytes = write_header(t, g, &padding, item.out.data, item.out.capacity, g.spec.ssrc, codec.payload_type, out_seq,
                                     out_ts, NULL, now_ns)
    if item.header_bytes < 0:
        count_error(e, item.header_bytes)
        slot_drop(e.slab, item.out)
        return
    item.out.data[0] |= <uint8_t>RTP_P_BIT
    # Alone, so that nothing is added to its padding.
    run_send(e, run)
    run_add(e, run, t, g, out_ts, &item)
    run_send(e, run)


cdef void _leave_out(Engine* e, Run* run, Transport* t, Egress* g, const RtpStream* s, Slot* slot, int64_t now_ns) noexcept nogil:
    """Do not send a packet: later ones close up behind it."""
    cdef int64_t out_seq = projection_drop(&g.projection, e.facts[slot - e.slab.slots].ext_seq)
    if out_seq >= 0 and g.is_video:
        _fill_hole(e, run, t, g, s, slot, out_seq, now_ns)


cdef inline bint _is_beyond(const Transport* t, const PacketFacts* f) noexcept nogil:
    """Whether this is a spatial layer that the subscriber could not tell from the one below.

    Only the Dependency Descriptor says which AV1 packets belong to which layer; without it a receiver would take all
    layers of a picture for one frame. VP9 says it in every packet.
    """
    return (f.codec == CODEC_AV1 and f.view.source == 2 and f.view.spatial_id > 0
            and t.sent_extensions.id_of_kind[EXT_DD] == 0)


cdef const Picture* _decide(const Transport* t, Egress* g, const RtpStream* s, const PacketFacts* f) noexcept nogil:
    cdef Selection* x = &g.selection
    cdef Picture* picture = NULL
    if f.view.keyframe and f.view.dd_targets > 1 and not x.has_targets:
        selection_begin(x, True)
    if x.has_targets and f.view.source == 2:
        # Without the descriptor a receiver would take all layers of a picture for one frame.
        if select_frame(x, &g.projection, find_layers(s.structure, f.view.dd_serial), &f.view, f.codec, f.rtp.rtp_ts,
                        0 if f.codec == CODEC_AV1 and not t.sent_extensions.id_of_kind[EXT_DD] else LAYERS_ALL, &picture):
            return picture
        return NULL
    if not x.looks:
        selection_begin(x, False)
        x.looks = 1
    picture = select_picture(x, &g.projection, f.codec, &f.view, f.rtp.rtp_ts)
    return NULL if picture == NULL or picture.top == TOP_NONE or f.view.spatial_id > picture.top else picture


cdef const Picture* _select(const Transport* t, Egress* g, const RtpStream* s, const PacketFacts* f) noexcept nogil:
    """Return what was decided of a packet's picture, NULL when the packet is left out.

    While a lower encoding is waited for, only the lowest frame rate of the present one goes on: whoever falls mostly has no
    room for it, and what it fills the path with delays the keyframe.
    """
    cdef uint8_t temporal = g.selection.wanted_temporal
    cdef const Picture* picture
    if g.wanted < g.current:
        g.selection.wanted_temporal = 0
    picture = _decide(t, g, s, f)
    g.selection.wanted_temporal = temporal
    return picture


cdef void _project(Engine* e, Run* run, Transport* t, Egress* g, Slot* slot, int64_t now_ns) noexcept nogil:
    """Add one packet to what goes to one subscriber, or decide not to."""
    cdef const PacketFacts* f = &e.facts[slot - e.slab.slots]
    cdef Receiver* r = e.receivers[g.receiver]
    cdef RtpStream* s = r.encodings[f.encoding].stream
    cdef const CodecEntry* codec
    cdef const Picture* picture
    cdef Staged item
    cdef int64_t out_seq
    cdef uint32_t out_ts
    cdef uint16_t picture_offset
    cdef HeaderRules rules
    cdef int32_t skipped = 0
    cdef const CodecEntry* opus
    if s == NULL or s.ssrc != f.rtp.ssrc or r.is_stopped:
        return
    if _starts(f):
        g.start_queued = <uint8_t>(g.start_queued & ~(1u << <uint32_t>f.encoding))
    if not _wants(g, f.encoding) or not is_sendable(t):
        return
    if f.rtp.payload_bytes == 0 or _is_beyond(t, f):
        # Padding stood in the queue so that it comes after what it followed.
        if g.source == s and g.current == f.encoding:
            _leave_out(e, run, t, g, s, slot, now_ns)
        return
    if g.current != f.encoding or g.source != s:
        if r.spec.is_video and not _starts(f):
            return
        _switch(e, g, s, slot, f, now_ns)
    picture_offset = g.projection.picture_offset
    codec = _codec_of(g, f.codec)
    if codec == NULL and f.red_bytes:
        codec = _codec_of(g, CODEC_OPUS)
        skipped = f.red_bytes
        e.counters.red_stripped += codec != NULL
    if codec == NULL:
        projection_drop(&g.projection, f.ext_seq)
        return
    rules.top = LAYERS_ALL
    rules.names_active = 0
    rules.frame_offset = g.projection.frame_offset
    if g.selection.looks or f.view.dd_targets > 1:
        picture = _select(t, g, s, f)
        if picture == NULL:
            _leave_out(e, run, t, g, s, slot, now_ns)
            if selection_waits(&g.selection, &f.view):
                request_keyframe(e, r, f.encoding, now_ns)
            return
        picture_offset = picture.picture_offset
        rules.top = picture.top
        rules.names_active = g.selection.names_active
        rules.active = g.selection.active
    if f.codec == CODEC_AV1 and not t.sent_extensions.id_of_kind[EXT_DD]:
        rules.top = 0
    item.out = slab_take(e.slab, slot.length + SRTP_MAX_OVERHEAD + 64)
    if item.out == NULL:
        e.counters.slots_exhausted += 1
        return
    out_seq = projection_map(&g.projection, f.ext_seq)
    if out_seq < 0:
        count_error(e, <int>out_seq)
        slot_drop(e.slab, item.out)
        return
    out_ts = projection_ts(&g.projection, f.rtp.rtp_ts)
    item.source = slot
    item.payload = slot.data + f.rtp.payload_offset + skipped
    item.payload_bytes = f.rtp.payload_bytes - skipped
    item.out_seq = out_seq
    if f.red_bytes and not skipped:
        opus = _codec_of(g, CODEC_OPUS)
        if opus != NULL:
            red_rewrite(item.payload, opus.payload_type)
    if f.view.picture_id_bytes or f.view.tl0_bytes:
        # The clear packet is ours alone and every subscriber writes its own numbers, so it is patched in place.
        rewrite_picture(item.payload, &f.view, <uint16_t>((<uint32_t>f.view.picture_id + picture_offset) & 0x7fffu),
                        <uint8_t>((<uint32_t>f.view.tl0 + g.projection.tl0_offset) & 0xffu))
    item.header_bytes = write_header(t, g, f, item.out.data, item.out.capacity, g.spec.ssrc, codec.payload_type, out_seq, out_ts,
                                     &rules, now_ns)
    if item.header_bytes < 0 or item.header_bytes + item.payload_bytes + SRTP_MAX_OVERHEAD > item.out.capacity:
        count_error(e, item.header_bytes if item.header_bytes < 0 else E_NO_SPACE)
        slot_drop(e.slab, item.out)
        return
    if g.frames == 0 or out_ts != g.projection.last_ts:
        g.frames += 1
    projection_sent(&g.projection, f.rtp.rtp_ts, out_ts, &f.view, picture_offset, slot.arrival_ns)
    _remember(g, s, f, codec, picture_offset, &rules, out_seq, out_ts, now_ns)
    run_add(e, run, t, g, out_ts, &item)


cdef bint _has_room(const Engine* e, const Run* run) noexcept nogil:
    return e.outbox.count + run.count < e.out_limit


cdef bint _begins(Engine* e, Transport* t) noexcept nogil:
    """Whether this slice has room for a transport's next run: one that the slice's end cuts costs a second send."""
    cdef int run = min(<int>t.queue_count, <int>RUN_MAX)
    # Slices of a few packets are cut where they end.
    if e.outbox.count + max(1, min(run, e.slice_packets // 4)) <= e.out_limit:
        return True
    e.is_cramped = 1
    mark_ready(e, t, e.lane)
    return False


cdef int64_t _replay(Engine* e, Run* run, Transport* t, int64_t now_ns) noexcept nogil:
    """Send from the caches what the pace allows; return when there is more of it, 0 = room is all that was missing."""
    cdef Egress* g = NULL
    cdef Slot* slot
    cdef int64_t due = 0
    while t.replay_count and _has_room(e, run):
        due = pacer_replay_due(&t.pacer, now_ns)
        slot = NULL if due else replay_take(e, t, &g, now_ns)
        if slot == NULL:
            break
        pacer_pay_replay(&t.pacer, slot.length, now_ns)
        _project(e, run, t, g, slot, now_ns)
    run_send(e, run)
    return due


cdef void _forward_queue(Engine* e, Transport* t, int64_t now_ns) noexcept nogil:
    cdef QueueItem item
    cdef Egress* g
    cdef Run run
    cdef int64_t due = 0
    run.count = 0
    run.now_ns = now_ns
    if not _begins(e, t):
        return
    t.pacer_due_ns = 0
    while t.queue_count and _has_room(e, &run):
        due = pacer_media_due(&t.pacer, now_ns)
        if due:
            break
        item = t.queue[t.queue_head]
        t.queue_head = (t.queue_head + 1) & (QUEUE_PLACES - 1)
        t.queue_count -= 1
        g = e.egresses[item.egress]
        if g != NULL and g.id == item.egress_id:
            _project(e, &run, t, g, item.slot, now_ns)
        slot_drop(e.slab, item.slot)
    run_send(e, &run)
    while t.resend_count and not due and _has_room(e, &run):
        due = pacer_repair_due(&t.pacer, now_ns)
        if not due:
            resend_next(e, t, now_ns)
    if t.replay_count and not due:
        due = _replay(e, &run, t, now_ns)
    if due:
        t.pacer_due_ns = due
        schedule(e, t)
    elif t.queue_count or t.resend_count or t.replay_count:
        mark_ready(e, t, e.lane)


cdef void _fetch(Engine* e, const int32_t* batch, int n) noexcept nogil:
    """Bring what forwarding to these transports will read into the cache, all at once instead of one miss after the other.

    Between two frames everything here has left the cache (400 subscribers hold 2 MB of state), and each subscriber would
    wait about forty times for memory.
    """
    cdef Transport* t
    cdef Egress* g
    cdef const QueueItem* item
    cdef const PacketFacts* f
    cdef int i
    for i in range(n):
        t = e.transports[batch[i]]
        forward_prefetch(&t.queue)
        forward_prefetch(&t.send_context)
        forward_prefetch(&t.ice.selected)
        forward_prefetch(&t.ice.tuples[0])
        forward_prefetch(t.sent_extensions.id_of_kind)
        forward_prefetch(&t.packets_sent)
    for i in range(n):
        t = e.transports[batch[i]]
        if t.queue_count == 0 or t.send_context == NULL:
            continue
        forward_prefetch(&t.queue[t.queue_head])
        forward_prefetch(&t.queue[(t.queue_head + 4) & (QUEUE_PLACES - 1)])
        srtp_prefetch(t.send_context, 0)
        if t.ice.selected > 0:
            forward_prefetch(&t.ice.tuples[t.ice.selected])
    for i in range(n):
        t = e.transports[batch[i]]
        if t.queue_count == 0:
            continue
        item = &t.queue[t.queue_head]
        g = e.egresses[item.egress]
        if g == NULL:
            continue
        f = &e.facts[item.slot - e.slab.slots]
        forward_prefetch(g)
        forward_prefetch(&g.spec.codecs)
        forward_prefetch(&g.wanted)
        forward_prefetch(&g.projection)
        forward_prefetch(&g.projection.out_low[f.ext_seq & (PROJECTION_WINDOW - 1)])
        forward_prefetch(&g.projection.state[f.ext_seq & (PROJECTION_WINDOW - 1)])
        forward_prefetch(&g.srtp)
        forward_prefetch(&g.packets)
        if t.send_context != NULL:
            srtp_prefetch(t.send_context, 1)
    for i in range(n):
        t = e.transports[batch[i]]
        if t.queue_count == 0:
            continue
        g = e.egresses[t.queue[t.queue_head].egress]
        if g == NULL:
            continue
        if t.send_context != NULL:
            srtp_prefetch(t.send_context, 2)
        forward_prefetch(&g.srtp.window[(g.projection.next_out & (SRTP_WINDOW - 1)) >> 6])
        if g.sent != NULL:
            forward_prefetch(&g.sent.packets[g.projection.next_out & (SENT_PLACES - 1)])
            forward_prefetch(&g.sent.packets[(g.projection.next_out + 5) & (SENT_PLACES - 1)])
            forward_prefetch(&g.sent.mapping_count)
            forward_prefetch(&g.sent.mappings[0])


cdef void forward_ready(Engine* e, int64_t now_ns) noexcept nogil:
    cdef int32_t batch[8]
    cdef int n = take_ready(e, e.lane, batch, READY_BATCH)
    cdef int i
    cdef int64_t since_ns
    cdef Transport* t
    cdef uint64_t began = stage_begin(&e.counters)
    cdef uint64_t before = e.counters.rtp_forwarded
    _fetch(e, batch, n)
    for i in range(n):
        t = e.transports[batch[i]]
        t.is_ready = 0
        since_ns = t.ready_since_ns
        _forward_queue(e, t, now_ns)
        # What found no room goes on waiting.
        if t.is_ready:
            t.ready_since_ns = since_ns
    stage_end(&e.counters, STAGE_ROUTE, began, e.counters.rtp_forwarded - before)
