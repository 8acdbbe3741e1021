"""The engine's composition: commands in, timers and queues run, snapshot out; the contract stands in engine.pxd."""
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t, INT64_MAX
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from relaycore.bandwidth cimport bandwidth_bps, bandwidth_want
from relaycore.capture cimport CAPTURE_DTLS, CAPTURE_SENT, CaptureRing, capture_note, capture_set
from relaycore.counters cimport Counters
from relaycore.errs cimport (
    E_INVALID, E_LENGTH, E_MEMORY, E_NO_SPACE, E_OK, E_STATE, E_UNKNOWN_PEER, E_UNKNOWN_STREAM, E_UNKNOWN_TRANSPORT, E_UNSUPPORTED,
)
from relaycore.exchange cimport Exchange
from relaycore.fanout cimport fanout_next
from relaycore.forward cimport forward_ready
from relaycore.hdrext cimport number_extensions
from relaycore.icelite cimport ICE_NO_TUPLE, ice_drop
from relaycore.layers cimport LAYER_IDS, layers_selected
from relaycore.mailbox cimport (
    CMD_CACHE_DROP, CMD_DATAGRAM, CMD_EGRESS_ADD, CMD_EGRESS_REMOVE, CMD_EGRESS_SELECT, CMD_KEYFRAME, CMD_NOP, CMD_RECEIVER_ADD,
    CMD_RECEIVER_FORMAT, CMD_RECEIVER_KEYS,
    CMD_RECEIVER_EXPORT, CMD_RECEIVER_MIRROR, CMD_RECEIVER_REMOVE, CMD_RECEIVER_UNEXPORT, CMD_SNAPSHOT, CMD_STOP, CMD_TRANSPORT_ADD, CMD_TRANSPORT_CAPTURE, CMD_TRANSPORT_EXTENSIONS, CMD_TRANSPORT_ICE,
    CMD_TRANSPORT_PACING, CMD_TRANSPORT_REMOVE, CMD_TRANSPORT_SRTP, CMD_TRANSPORT_WANTED, Command, EV_ACK, Event, ExtensionsCommand, Mailbox,
    SelectCommand, SrtpCommand,
)
from relaycore.markprobe cimport FRAMES_CLEAR, FRAMES_SFRAME, probe_announce, probe_new
from relaycore.mirrors cimport export_add, export_remove, mirror_add, mirror_demand, mirrors_exchange, mirrors_run
from relaycore.outbox cimport OUTBOX_MAX, Outbox, outbox_put
from relaycore.receive cimport receive_datagram
from relaycore.replay cimport replay_forget, replay_serves
from relaycore.reports cimport count_error, emit_selected, run_timers
from relaycore.requests cimport expect_start, request_keyframe, request_start
from relaycore.overload cimport overload_feel
from relaycore.police cimport police_set
from relaycore.ready cimport LANE_BULK, LANE_FAST, mark_ready
from relaycore.routes cimport (
    Egress, Engine, NO_INDEX, PacketFacts, Receiver, RtpStream, Transport,
    add_egress, add_receiver, add_transport, emit, find_by_tuple, find_egress, find_receiver, find_transport, forget_tuple, remove_egress,
    remove_receiver, remove_transport, routes_free, routes_init, set_ice,
)
from relaycore.selection cimport LAYERS_ALL, selection_want
from relaycore.slab cimport Slab, Slot, slab_take, slab_used, slot_drop
from relaycore.srtp cimport SrtpContext, srtp_free, srtp_new
from relaycore.stun cimport SockAddr
from relaycore.timers cimport timers_due, timers_next

cdef enum:
    POLL_MARGIN = 64               # outbox places that one transport's timers may need
    FANOUT_PER_PACKET = 32         # subscribers for which a packet is queued in the time of one send


cdef Engine* engine_new(Slab* slab, Outbox* outbox, Mailbox* mailbox, int srtp_backend, uint64_t seed) noexcept nogil:
    cdef Engine* e = <Engine*>calloc(1, sizeof(Engine))
    if e == NULL:
        return NULL
    e.slab = slab
    e.outbox = outbox
    e.mailbox = mailbox
    e.srtp_backend = srtp_backend
    e.random_state = seed
    e.slice_packets = OUTBOX_MAX
    e.facts = <PacketFacts*>calloc(<size_t>slab.small_count + slab.large_count, sizeof(PacketFacts))
    if e.facts == NULL or routes_init(e) < 0:
        routes_free(e)
        free(e.facts)
        free(e)
        return NULL
    return e


cdef void engine_free(Engine* e) noexcept nogil:
    routes_free(e)
    free(e.facts)
    free(e)


cdef void engine_receive(Engine* e, Slot* slot, const SockAddr* remote, uint16_t socket_index, int64_t now_ns) noexcept nogil:
    e.now_ns = now_ns
    receive_datagram(e, slot, remote, socket_index, now_ns)


cdef Counters* engine_counters(Engine* e) noexcept nogil:
    return &e.counters


cdef uint32_t engine_transport_count(const Engine* e) noexcept nogil:
    return e.transport_count


cdef void engine_set_limits(Engine* e, uint32_t packets_per_s, uint64_t bits_per_s, int64_t overload_ns) noexcept nogil:
    police_set(&e.police, packets_per_s, bits_per_s)
    e.overload.limit_ns = overload_ns


cdef void engine_lag(Engine* e, int64_t lag_ns, int64_t now_ns) noexcept nogil:
    cdef uint8_t level = e.overload.level
    if overload_feel(&e.overload, lag_ns, now_ns) and e.overload.level > level:
        e.counters.overload_rises += 1


cdef int engine_overload(const Engine* e) noexcept nogil:
    return e.overload.level


cdef void engine_set_snapshot(Engine* e, Snapshot* s) noexcept nogil:
    e.snapshot = s


cdef void engine_join(Engine* e, Exchange* x, uint32_t number) noexcept nogil:
    e.exchange = x
    e.number = number


cdef bint engine_exchange(Engine* e, int64_t now_ns) noexcept nogil:
    e.now_ns = now_ns
    return False if e.exchange == NULL else mirrors_exchange(e, now_ns)


cdef void engine_lose_tuple(Engine* e, const SockAddr* remote, uint16_t socket_index, int64_t now_ns) noexcept nogil:
    cdef int index = ICE_NO_TUPLE
    cdef Transport* t = find_by_tuple(e, remote, socket_index, &index)
    e.now_ns = now_ns
    if t == NULL or index == ICE_NO_TUPLE:
        return
    forget_tuple(e, t, remote, socket_index)
    if t.dtls_tuple == index:
        t.dtls_tuple = ICE_NO_TUPLE
    if ice_drop(&t.ice, index, now_ns) == 1:
        emit_selected(e, t, now_ns)


cdef bint engine_has_tuple(Engine* e, const SockAddr* remote, uint16_t socket_index) noexcept nogil:
    cdef int index = ICE_NO_TUPLE
    return find_by_tuple(e, remote, socket_index, &index) != NULL and index != ICE_NO_TUPLE


cdef void engine_set_slice(Engine* e, int packets) noexcept nogil:
    e.slice_packets = packets


cdef void _forward(Engine* e, int64_t now_ns) noexcept nogil:
    """Do a slice of what waits: the fast lane first, but never all of it as long as something waits elsewhere."""
    cdef int start = e.outbox.count
    cdef int limit = min(start + e.slice_packets, <int>OUTBOX_MAX - <int>POLL_MARGIN)
    cdef int work = 0              # in packets' worth of time, beside those in the outbox
    cdef int fast_limit
    # Before the bulk lane, so that the packets of a frame leave together; but what comes in never holds up all that goes out:
    # where fan-out took a whole slice, the next one sends.
    cdef int spread_most = 0 if e.has_spread else limit - start
    cdef bint is_fast_over = False
    e.has_spread = 0
    while True:
        fast_limit = limit
        if e.ready[LANE_BULK].count or e.job_count:
            fast_limit = start + <int>((limit - start) // 4 * 3)
        if e.ready[LANE_FAST].count and not is_fast_over and e.outbox.count + work < fast_limit:
            e.lane = LANE_FAST
            e.out_limit = fast_limit - work
            e.is_cramped = 0
            forward_ready(e, now_ns)
            is_fast_over = e.is_cramped
        elif e.outbox.count + work >= limit:
            e.has_spread = 1 if work >= spread_most and spread_most > 0 else 0
            return
        elif e.job_count and (work < spread_most or not e.ready[LANE_BULK].count):
            work += 1 + <int>(fanout_next(e, now_ns) // FANOUT_PER_PACKET)
        elif e.ready[LANE_BULK].count:
            e.lane = LANE_BULK
            e.out_limit = limit - work
            e.is_cramped = 0
            forward_ready(e, now_ns)
            if e.is_cramped:
                return
        else:
            return


cdef int64_t engine_poll(Engine* e, int64_t now_ns) noexcept nogil:
    """Run due timers and send what waits, as far as the outbox has room; return when to call again."""
    cdef int32_t owner
    cdef int64_t next_ns
    e.now_ns = now_ns
    if e.mirrors_due_ns and e.mirrors_due_ns <= now_ns:
        mirrors_run(e, now_ns)
    while e.outbox.count < OUTBOX_MAX - POLL_MARGIN:
        owner = timers_due(&e.timers, now_ns)
        if owner < 0:
            break
        run_timers(e, e.transports[owner], now_ns)
    _forward(e, now_ns)
    if e.ready[LANE_FAST].count or e.ready[LANE_BULK].count or e.job_count:
        return now_ns
    next_ns = timers_next(&e.timers)
    return e.mirrors_due_ns if e.mirrors_due_ns and e.mirrors_due_ns < next_ns else next_ns


# --- commands -------------------------------------------------------------------------------------------------------

cdef int _set_srtp(Engine* e, Transport* t, const SrtpCommand* c) noexcept nogil:
    cdef SrtpContext* receive_context
    cdef SrtpContext* send_context
    # One pair of keys for the transport's life: new ones would restart the numbers of running streams under nobody's eyes.
    if t.receive_context != NULL:
        return E_STATE
    receive_context = srtp_new(c.profile, c.receive_key, c.receive_salt, e.srtp_backend)
    send_context = srtp_new(c.profile, c.send_key, c.send_salt, e.srtp_backend)
    if receive_context == NULL or send_context == NULL:
        srtp_free(receive_context)
        srtp_free(send_context)
        return E_UNSUPPORTED
    t.receive_context = receive_context
    t.send_context = send_context
    return E_OK


cdef int _send_datagram(Engine* e, Transport* t, const uint8_t* payload, uint32_t n) noexcept nogil:
    """Send a DTLS datagram on the selected pair, else to where the peer's last one came from."""
    cdef int i = t.ice.selected if t.ice.selected != ICE_NO_TUPLE else t.dtls_tuple
    cdef Slot* slot
    cdef int code
    if i == ICE_NO_TUPLE or not t.ice.tuples[i].used:
        return E_UNKNOWN_PEER
    if payload == NULL or n == 0:
        return E_LENGTH
    slot = slab_take(e.slab, n)
    if slot == NULL:
        e.counters.slots_exhausted += 1
        return E_NO_SPACE
    if n > slot.capacity:
        slot_drop(e.slab, slot)
        return E_LENGTH
    memcpy(slot.data, payload, n)
    slot.length = <uint16_t>n
    e.outbox.next_run += 1
    code = outbox_put(e.outbox, slot, &t.ice.tuples[i].remote, t.ice.tuples[i].socket_index, e.outbox.next_run, t.id)
    if code < 0:
        slot_drop(e.slab, slot)
        return code
    t.packets_sent += 1
    t.bytes_sent += n
    capture_note(&t.capture, CAPTURE_DTLS, CAPTURE_SENT, &t.ice, i, n, e.now_ns)
    return E_OK


cdef int _set_frame_kind(Receiver* r, uint32_t kind) noexcept nogil:
    """Once, before the first egress or export: E_STATE afterwards, unless it is the same again."""
    if r.home != NO_INDEX or not FRAMES_CLEAR <= kind <= FRAMES_SFRAME:
        return E_INVALID
    if r.probe != NULL:
        return E_OK if r.probe.kind == <int>kind else E_STATE
    # What was forwarded so far nobody has judged.
    if r.egress_count or r.exports:
        return E_STATE
    r.probe = probe_new(<int>kind)
    return E_OK if r.probe != NULL else E_MEMORY


cdef int _announce_keys(Receiver* r, uint64_t first_kid, uint64_t last_kid) noexcept nogil:
    if r.probe == NULL or r.probe.kind != FRAMES_SFRAME:
        return E_STATE
    return probe_announce(r.probe, first_kid, last_kid)


cdef int _select(Engine* e, Egress* g, const SelectCommand* c, int64_t now_ns) noexcept nogil:
    cdef Receiver* r = e.receivers[g.receiver]
    cdef bint was_paused
    cdef int32_t encoding = c.encoding
    if encoding < -1 or encoding >= r.encoding_count or c.spatial > LAYERS_ALL or c.temporal > LAYERS_ALL:
        return E_INVALID
    if encoding != g.wanted and (encoding == -1 or g.wanted == -1):
        # What was shown before a pause is no base for what comes after: start at a keyframe.
        g.current = NO_INDEX
    was_paused = g.wanted < 0
    g.wanted = encoding
    # On the way down motion is reduced until the keyframe comes (forward): decisions are made from here on.
    selection_want(&g.selection, c.spatial, 0 if 0 <= encoding < g.current else c.temporal, g.source != NULL and g.frames > 0,
                   g.projection.last_in_ts, g.projection.picture_offset)
    g.selection.wanted_temporal = c.temporal
    mirror_demand(e, r)
    if encoding >= 0 and (g.current != encoding or g.source == NULL):
        if g.packets == 0 and was_paused:
            expect_start(e, r, g, encoding, now_ns)
        elif not replay_serves(e, r, g, encoding, now_ns):
            request_start(e, r, g, encoding, now_ns)
    return E_OK


cdef void _fill_transport(const Transport* t, TransportStats* out) noexcept nogil:
    cdef const SockAddr* remote
    cdef uint32_t i
    memset(out, 0, sizeof(TransportStats))
    out.transport = t.id
    out.alive = 0 if t.ice.dead else 1
    out.packets_received = t.packets_received
    out.bytes_received = t.bytes_received
    out.packets_sent = t.packets_sent
    out.bytes_sent = t.bytes_sent
    out.rtt_ns = -1
    out.repair = t.repair
    out.estimate_bps = bandwidth_bps(t)
    if t.bandwidth != NULL:
        out.loss_permille = <uint32_t>(t.bandwidth.estimator.loss_share * 1000.0)
    if t.ice.selected != ICE_NO_TUPLE:
        remote = &t.ice.tuples[t.ice.selected].remote
        out.remote_family = remote.family
        out.remote_port = remote.port
        memcpy(out.remote_ip, remote.ip, sizeof(out.remote_ip))


cdef void _fill_stream(const Engine* e, const RtpStream* s, StreamStats* out) noexcept nogil:
    memset(out, 0, sizeof(StreamStats))
    out.receiver = e.receivers[s.receiver].id
    out.encoding = s.encoding
    out.ssrc = s.ssrc
    out.codec = s.codec
    out.packets = s.packets
    out.bytes = s.bytes
    out.frames = s.frames
    out.keyframes = s.keyframes
    if s.packets:
        out.lost = s.highest_seq - s.base_seq + 1 - <int64_t>s.packets
    out.jitter_ticks = s.jitter_16 >> 4
    out.audio_level = s.audio_level
    out.last_packet_ns = s.last_packet_ns


cdef void _fill_egress(const Engine* e, const Egress* g, EgressStats* out) noexcept nogil:
    memset(out, 0, sizeof(EgressStats))
    out.egress = g.id
    out.receiver = e.receivers[g.receiver].id
    out.encoding = g.current
    out.wanted = g.wanted
    out.spatial = g.selection.spatial
    out.temporal = g.selection.temporal
    out.packets = g.packets
    out.bytes = g.bytes
    out.frames = g.frames
    out.fraction_lost = g.fraction_lost
    out.total_lost = g.total_lost
    out.jitter_ticks = g.jitter_ticks
    out.rtt_ns = g.rtt_ns


cdef void _fill_layers(const Engine* e, const RtpStream* s, Snapshot* out) noexcept nogil:
    cdef LayerStats* row
    cdef int i
    for i in range(LAYER_IDS * LAYER_IDS):
        if s.layers.bytes[i] == 0:
            continue
        if out.layer_count < out.layer_capacity:
            row = &out.layers[out.layer_count]
            row.receiver = e.receivers[s.receiver].id
            row.encoding = s.encoding
            row.spatial = <uint32_t>(i // LAYER_IDS)
            row.temporal = <uint32_t>(i % LAYER_IDS)
            row.width = s.layers.width[i // LAYER_IDS]
            row.height = s.layers.height[i // LAYER_IDS]
            row.bytes = s.layers.bytes[i]
            row.frames = s.layers.frames[i]
            row.selected_bytes = layers_selected(s.layers, i // LAYER_IDS, i % LAYER_IDS)
        out.layer_count += 1


cdef int _snapshot(Engine* e, int64_t now_ns) noexcept nogil:
    cdef Snapshot* s = <Snapshot*>e.snapshot
    cdef Transport* t
    cdef uint32_t k
    cdef int32_t i, j
    if s == NULL:
        return E_STATE
    s.transport_count = 0
    s.stream_count = 0
    s.egress_count = 0
    s.layer_count = 0
    s.transports_alive = 0
    for i in range(e.transport_capacity):
        t = e.transports[i]
        if t == NULL:
            continue
        if s.transport_count < s.transport_capacity:
            _fill_transport(t, &s.transports[s.transport_count])
        s.transport_count += 1
        if t.ice.selected != ICE_NO_TUPLE and not t.ice.dead:
            s.transports_alive += 1
        for j in range(t.stream_count):
            if t.streams[j].receiver == NO_INDEX or t.streams[j].is_repair:
                continue
            if s.stream_count < s.stream_capacity:
                _fill_stream(e, t.streams[j], &s.streams[s.stream_count])
            s.stream_count += 1
            if t.streams[j].layers != NULL:
                _fill_layers(e, t.streams[j], s)
        for k in range(t.egress_count):
            if s.egress_count < s.egress_capacity:
                _fill_egress(e, e.egresses[t.egresses[k]], &s.egresses[s.egress_count])
            s.egress_count += 1
    s.slots_used = slab_used(e.slab)
    s.now_ns = now_ns
    s.counters = e.counters
    return E_OK


cdef int _execute(Engine* e, Command* c, int64_t now_ns) noexcept nogil:
    cdef Transport* t
    cdef Receiver* r
    cdef Egress* g
    cdef int code
    if c.op == CMD_NOP or c.op == CMD_STOP:
        return E_OK
    if c.op == CMD_SNAPSHOT:
        return _snapshot(e, now_ns)
    if c.op == CMD_TRANSPORT_ADD:
        return add_transport(e, c.transport, &c.body.ice, now_ns)
    if c.op == CMD_RECEIVER_MIRROR:
        return mirror_add(e, &c.body.mirror, now_ns)
    if c.op == CMD_RECEIVER_EXPORT or c.op == CMD_RECEIVER_UNEXPORT:
        r = find_receiver(e, c.body.export.receiver)
        if r == NULL:
            return E_UNKNOWN_STREAM
        return (export_add if c.op == CMD_RECEIVER_EXPORT else export_remove)(e, r, c.body.export.worker)
    if c.op == CMD_RECEIVER_FORMAT:
        r = find_receiver(e, c.body.format.receiver)
        return E_UNKNOWN_STREAM if r == NULL else _set_frame_kind(r, c.body.format.format)
    if c.op == CMD_RECEIVER_KEYS:
        r = find_receiver(e, c.body.keys.receiver)
        return E_UNKNOWN_STREAM if r == NULL else _announce_keys(r, c.body.keys.first_kid, c.body.keys.last_kid)
    if c.op == CMD_RECEIVER_REMOVE or c.op == CMD_KEYFRAME or c.op == CMD_CACHE_DROP:
        r = find_receiver(e, c.body.select.receiver)
        if r == NULL:
            return E_UNKNOWN_STREAM
        if c.op == CMD_RECEIVER_REMOVE:
            remove_receiver(e, r)
        elif c.op == CMD_CACHE_DROP:
            replay_forget(e, r, now_ns)
        elif 0 <= c.body.select.encoding < r.encoding_count:
            request_keyframe(e, r, c.body.select.encoding, now_ns)
        else:
            return E_INVALID
        return E_OK
    if c.op == CMD_EGRESS_SELECT or c.op == CMD_EGRESS_REMOVE:
        g = find_egress(e, c.body.select.egress)
        if g == NULL:
            return E_UNKNOWN_STREAM
        if c.op == CMD_EGRESS_SELECT:
            return _select(e, g, &c.body.select, now_ns)
        r = e.receivers[g.receiver]
        remove_egress(e, g)
        mirror_demand(e, r)
        return E_OK
    t = find_transport(e, c.transport)
    if t == NULL:
        return E_UNKNOWN_TRANSPORT
    if c.op == CMD_TRANSPORT_ICE:
        return set_ice(e, t, &c.body.ice, now_ns)
    if c.op == CMD_TRANSPORT_SRTP:
        return _set_srtp(e, t, &c.body.srtp)
    if c.op == CMD_TRANSPORT_EXTENSIONS:
        number_extensions(&t.extensions, c.body.extensions.id_of_kind)
        number_extensions(&t.sent_extensions, c.body.extensions.sent_id_of_kind)
        return E_OK
    if c.op == CMD_TRANSPORT_PACING:
        t.pacer.rate_bps = c.body.pacing.rate_bps
        mark_ready(e, t, LANE_FAST)
        return E_OK
    if c.op == CMD_TRANSPORT_WANTED:
        bandwidth_want(e, t, c.body.pacing.rate_bps, now_ns)
        return E_OK
    if c.op == CMD_TRANSPORT_CAPTURE:
        return capture_set(&t.capture, <CaptureRing*>c.body.capture.ring, &e.counters, t.id, c.body.capture.records,
                           now_ns + c.body.capture.duration_ns)
    if c.op == CMD_DATAGRAM:
        return _send_datagram(e, t, c.payload, c.payload_bytes)
    if c.op == CMD_RECEIVER_ADD:
        return add_receiver(e, t, &c.body.receiver)
    if c.op == CMD_TRANSPORT_REMOVE:
        remove_transport(e, t)
        return E_OK
    if c.op == CMD_EGRESS_ADD:
        code = add_egress(e, t, &c.body.egress)
        if code == E_OK and c.body.egress.encoding >= 0:
            g = find_egress(e, c.body.egress.egress)
            r = e.receivers[g.receiver]
            mirror_demand(e, r)
            expect_start(e, r, g, g.wanted, now_ns)
        return code
    return E_INVALID


cdef void engine_command(Engine* e, Command* c, int64_t now_ns) noexcept nogil:
    cdef Event event
    e.now_ns = now_ns
    memset(&event, 0, sizeof(event))
    event.kind = EV_ACK
    event.number = c.number
    event.code = _execute(e, c, now_ns)
    event.transport = c.transport
    event.now_ns = now_ns
    free(c.payload)
    c.payload = NULL
    memset(&c.body.srtp, 0, sizeof(c.body.srtp))       # keys do not linger in the ring's copy
    emit(e, &event)
