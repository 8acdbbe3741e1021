"""From a datagram to the subscribers' queues (DESIGN section 4, Receive, Unprotect, Bind).

Nothing here trusts a byte before its authentication: an unknown address gets in by a STUN check with our ufrag and a valid
MESSAGE-INTEGRITY alone, an SSRC by a packet whose tag is right and whose MID, RID or SSRC a receiver expects.
"""
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcmp, memcpy, memset
from relaycore.be cimport get_u16, get_u32
from relaycore.capture cimport CAPTURE_RECEIVED, capture_rtcp, capture_rtp
from relaycore.checks cimport receive_check, receive_dtls
from relaycore.demux cimport KIND_DTLS, KIND_RTCP, KIND_RTP, KIND_STUN, demux_datagram
from relaycore.errs cimport (
    E_AUTH, E_FORMAT, E_LIMIT, E_OK, E_REPLAY, E_STATE, E_TOO_OLD, E_UNKNOWN_PEER, E_UNKNOWN_STREAM,
)
from relaycore.fanout cimport route_packet
from relaycore.hdrext cimport (
    EXT_AUDIO_LEVEL, EXT_DD, EXT_MID, EXT_REPAIRED_RID, EXT_RID, EXT_TWCC, ExtElement, ExtView, parse_hdrext,
)
from relaycore.icelite cimport ICE_NO_TUPLE
from relaycore.keyframes cimport keyframe_count
from relaycore.halt cimport halt_receiver
from relaycore.layers cimport LayerTable, layers_count
from relaycore.loudness cimport loudness_add
from relaycore.mailbox cimport CodecEntry, EV_RECEIVER_STOPPED, EV_SPEAKING, EV_UNDECLARED_ENCRYPTION, Event
from relaycore.markprobe cimport probe_packet, probe_repair, probe_waits
from relaycore.mirrors cimport export_stop
from relaycore.nack cimport NackTracker, nack_received
from relaycore.overload cimport SHED_ALL, SHED_NOT, shed_judge
from relaycore.playout cimport gauge_loss
from relaycore.police cimport police_admits, police_admits_reserved
from relaycore.red cimport red_read
from relaycore.reports cimport (
    TWCC_INTERVAL_MS, count_error, expedite_report, receive_rtcp, tell_encoding, tell_layers, update_reception,
)
from relaycore.requests cimport is_wanted, request_keyframe
from relaycore.routes cimport (
    Egress, Encoding, Engine, NO_INDEX, PacketFacts, Receiver, RtpStream, Transport,
    add_stream, emit, find_by_tuple, find_stream, schedule,
)
from relaycore.rtp cimport RtpHeader, parse_rtp, take_rtp_padding
from relaycore.slab cimport SLOT_LARGE_BYTES, Slot, slot_drop
from relaycore.srtp cimport SrtpRxState, srtp_unprotect_rtcp, srtp_unprotect_rtp
from relaycore.srtpindex cimport check_index, guess_index, mark_index
from relaycore.stages cimport STAGE_DEMUX, STAGE_ROUTE, STAGE_UNPROTECT, stage_begin, stage_end
from relaycore.stun cimport SockAddr
from relaycore.timeline cimport timeline_note
from relaycore.twcc cimport TwccRecorder, twcc_record
from relaycore.units cimport ms
from relaycore.views cimport CODEC_RED, DdStructure, view_packet


cdef enum:
    FRAME_GAP_MS = 500             # longer is a pause, not a frame rate
    FRAME_SMOOTHING = 16
    OSN_BYTES = 2                  # original sequence number in front of a retransmission's payload (RFC 4588 section 4)


# --- binding an SSRC to a receiver (RFC 9143 section 9.2, RFC 8852) ---------------------------------------------------

cdef const CodecEntry* _codec_of(const Receiver* r, uint8_t payload_type, bint* is_repair) noexcept nogil:
    cdef int i
    for i in range(r.spec.codec_count):
        if r.spec.codecs[i].payload_type == payload_type:
            is_repair[0] = False
            return &r.spec.codecs[i]
        if r.spec.codecs[i].rtx_payload_type and r.spec.codecs[i].rtx_payload_type == payload_type:
            is_repair[0] = True
            return &r.spec.codecs[i]
    return NULL


cdef inline bint _equals(const ExtElement* element, const uint8_t* text, uint8_t text_bytes) noexcept nogil:
    return element.bytes == text_bytes and text_bytes > 0 and memcmp(element.data, text, text_bytes) == 0


cdef int _encoding_of(const Receiver* r, uint32_t ssrc, const ExtView* x, bint* is_repair) noexcept nogil:
    """Return the encoding that this SSRC carries: by RID, by repaired RID, by a=ssrc, or the only one there is."""
    cdef int i
    for i in range(r.spec.rid_count):
        if x.present >> EXT_RID & 1 and _equals(&x.by_kind[EXT_RID], r.spec.rids[i], r.spec.rid_bytes[i]):
            return i
        if x.present >> EXT_REPAIRED_RID & 1 and _equals(&x.by_kind[EXT_REPAIRED_RID], r.spec.rids[i], r.spec.rid_bytes[i]):
            is_repair[0] = True
            return i
    for i in range(r.spec.ssrc_count):
        if r.spec.ssrcs[i] == ssrc:
            return i if i < r.encoding_count else 0
        if r.spec.rtx_ssrcs[i] and r.spec.rtx_ssrcs[i] == ssrc:
            is_repair[0] = True
            return i if i < r.encoding_count else 0
    return 0 if r.spec.rid_count == 0 else E_UNKNOWN_STREAM


cdef Receiver* _expecting(Engine* e, Transport* t, const RtpHeader* h, const ExtView* x, int* encoding, bint* is_repair) noexcept nogil:
    """Find the receiver that an unbound SSRC belongs to, or NULL. Reads only what the packet claims; the tag comes after."""
    cdef Receiver* r
    cdef Receiver* found = NULL
    cdef bint repair = False
    cdef int candidates = 0
    cdef int32_t i
    cdef int j
    if x.present >> EXT_MID & 1:
        for i in range(t.receiver_count):
            r = e.receivers[t.receivers[i]]
            if _equals(&x.by_kind[EXT_MID], r.spec.mid, r.spec.mid_bytes):
                if _codec_of(r, h.payload_type, is_repair) == NULL:
                    return NULL
                encoding[0] = _encoding_of(r, h.ssrc, x, is_repair)
                return NULL if encoding[0] < 0 else r
        return NULL
    for i in range(t.receiver_count):
        r = e.receivers[t.receivers[i]]
        if _codec_of(r, h.payload_type, &repair) == NULL:
            continue
        for j in range(r.spec.ssrc_count):
            if r.spec.ssrcs[j] == h.ssrc or (r.spec.rtx_ssrcs[j] and r.spec.rtx_ssrcs[j] == h.ssrc):
                is_repair[0] = repair
                encoding[0] = _encoding_of(r, h.ssrc, x, is_repair)
                return r
        found = r
        candidates += 1
        is_repair[0] = repair
    # By payload type alone only where no other receiver could be meant.
    encoding[0] = 0
    return found if candidates == 1 and found.spec.rid_count == 0 and found.spec.ssrc_count == 0 else NULL


cdef RtpStream* _bound_to(const Transport* t, const Receiver* r, int32_t encoding, bint is_repair) noexcept nogil:
    """Return the stream that carries an encoding, or repairs it; NULL when there is none."""
    cdef RtpStream* s
    cdef int32_t i
    for i in range(t.stream_count):
        s = t.streams[i]
        if s.receiver == r.index and s.encoding == encoding and (s.is_repair != 0) == is_repair:
            return s
    return NULL


cdef void _bind(Engine* e, Transport* t, Receiver* r, int32_t encoding, bint is_repair, RtpStream* s,
                const CodecEntry* codec, int64_t now_ns) noexcept nogil:
    # Restarted under a new SSRC: the former one stays only to recognise replays.
    cdef RtpStream* former = _bound_to(t, r, encoding, is_repair)
    cdef Egress* g
    cdef uint32_t i
    if former != NULL:
        former.receiver = NO_INDEX
    s.receiver = r.index
    s.encoding = encoding
    s.is_repair = 1 if is_repair else 0
    s.clock_rate_hz = codec.clock_rate_hz if codec.clock_rate_hz else 90000u
    s.codec = codec.codec
    if not is_repair:
        for i in range(r.egress_count):
            g = e.egresses[r.egresses[i]]
            g.start_queued = <uint8_t>(g.start_queued & ~(1u << <uint32_t>encoding))
            if former != NULL and g.source == former:
                # `current` stays: while another encoding is waited for, this one goes on at its next keyframe.
                g.source = NULL
        r.encodings[encoding].stream = s
        r.encodings[encoding].told_bound = 0
        if s.layers != NULL:
            s.layers.told_spatial = 0
        tell_encoding(e, r, encoding, now_ns)
    # libwebrtc stops sending MID and RID once it has seen a report on the SSRC.
    expedite_report(e, t, now_ns)


# --- RTP ------------------------------------------------------------------------------------------------------------

cdef void _record_twcc(Engine* e, Transport* t, const PacketFacts* f, int64_t now_ns) noexcept nogil:
    if t.twcc == NULL:
        t.twcc = <TwccRecorder*>calloc(1, sizeof(TwccRecorder))
        if t.twcc == NULL:
            return
    twcc_record(t.twcc, get_u16(f.extensions.by_kind[EXT_TWCC].data), now_ns)
    t.twcc_media_ssrc = f.rtp.ssrc
    if t.twcc_due_ns == 0:
        t.twcc_due_ns = now_ns + ms(TWCC_INTERVAL_MS)
        schedule(e, t)


cdef int _view(RtpStream* s, PacketFacts* f, const uint8_t* payload) noexcept nogil:
    """Fill the header view of a video packet."""
    cdef const uint8_t* dd = NULL
    cdef Py_ssize_t dd_bytes = 0
    if f.extensions.present >> EXT_DD & 1:
        dd = f.extensions.by_kind[EXT_DD].data
        dd_bytes = f.extensions.by_kind[EXT_DD].bytes
        if s.structure == NULL:
            s.structure = <DdStructure*>calloc(1, sizeof(DdStructure))
            if s.structure == NULL:
                dd = NULL
                dd_bytes = 0
    return view_packet(f.codec, payload, f.rtp.payload_bytes, f.rtp.marker, dd, dd_bytes, s.structure, &f.view)


cdef void _mark_active(Engine* e, Receiver* r, int32_t encoding, int64_t now_ns) noexcept nogil:
    cdef Encoding* enc = &r.encodings[encoding]
    enc.last_packet_ns = now_ns
    if enc.active:
        return
    enc.active = 1
    tell_encoding(e, r, encoding, now_ns)
    if enc.request_pending or enc.keyframes.is_owed:
        request_keyframe(e, r, encoding, now_ns)


cdef int _unprotect_first(Transport* t, SrtpRxState* state, Slot* slot, PacketFacts* f) noexcept nogil:
    """Unprotect the first packet that we take of an SSRC, whose numbers may have wrapped once before.

    Spec: RFC 3711 section 3.3.1 starts at rollover count 0. Senders that begin anywhere in 16 bits (libwebrtc stays below
    2^15) reach 1 while their first packets are lost, or have no receiver yet; then no packet would ever be authentic.
    """
    cdef uint8_t copy[SLOT_LARGE_BYTES]
    cdef int n
    memset(state, 0, sizeof(SrtpRxState))
    # A failed attempt may leave anything behind in the packet.
    memcpy(copy, slot.data, slot.length)
    n = srtp_unprotect_rtp(t.receive_context, state, slot.data, slot.length, f.rtp.payload_offset, &f.ext_seq)
    if n != E_AUTH:
        return n
    memcpy(slot.data, copy, slot.length)
    state.started = 1
    state.highest = 0x10000 + <int64_t>f.rtp.seq
    return srtp_unprotect_rtp(t.receive_context, state, slot.data, slot.length, f.rtp.payload_offset, &f.ext_seq)


ctypedef struct Arrived:            # what is found out of a packet on its way in
    RtpStream* stream              # NULL = its SSRC is new
    Receiver* expecting            # who would take an SSRC that is new
    int encoding
    bint is_repair
    SrtpRxState first              # index state of a new SSRC


cdef int _authenticate(Engine* e, Transport* t, Slot* slot, PacketFacts* f, Arrived* a) noexcept nogil:
    """Parse a packet's header, find or choose its stream and unprotect it; < 0 = refused."""
    cdef int n
    cdef uint64_t began = stage_begin(&e.counters)
    cdef int code = parse_rtp(slot.data, slot.length, &f.rtp)
    if code >= 0:
        code = parse_hdrext(slot.data + f.rtp.ext_offset, f.rtp.ext_bytes, f.rtp.ext_profile, &t.extensions, &f.extensions)
    if code < 0:
        return code
    a.stream = find_stream(t, f.rtp.ssrc)
    if a.stream == NULL:
        a.expecting = _expecting(e, t, &f.rtp, &f.extensions, &a.encoding, &a.is_repair)
        if a.expecting == NULL:
            e.counters.unbound_dropped += 1
            return E_UNKNOWN_STREAM
        n = _unprotect_first(t, &a.first, slot, f)
    else:
        n = srtp_unprotect_rtp(t.receive_context, &a.stream.srtp, slot.data, slot.length, f.rtp.payload_offset, &f.ext_seq)
    stage_end(&e.counters, STAGE_UNPROTECT, began, 1)
    if n < 0:
        return n
    slot.length = <uint16_t>n
    return take_rtp_padding(slot.data, n, &f.rtp)


cdef Receiver* _bind_stream(Engine* e, Transport* t, const PacketFacts* f, Arrived* a, int64_t now_ns) noexcept nogil:
    """Return the receiver that an authentic packet is for, its stream in `a.stream`; NULL when it is for nobody."""
    cdef RtpStream* s = a.stream
    cdef Receiver* r = a.expecting
    cdef const CodecEntry* codec
    if s == NULL:
        s = add_stream(e, t, f.rtp.ssrc, now_ns)
        if s == NULL:
            count_error(e, E_LIMIT)
            return NULL
        s.srtp = a.first
        a.stream = s
    elif s.receiver == NO_INDEX:
        # A publication that comes back under its former SSRC (Firefox keeps them), or a late packet of an SSRC that was
        # replaced: it may take a place that nothing is bound to, never that of another SSRC.
        r = _expecting(e, t, &f.rtp, &f.extensions, &a.encoding, &a.is_repair)
    if r != NULL:
        codec = _codec_of(r, f.rtp.payload_type, &a.is_repair)
        if s.packets and _bound_to(t, r, a.encoding, a.is_repair) != NULL:
            e.counters.unbound_dropped += 1
            return NULL
        _bind(e, t, r, a.encoding, a.is_repair, s, codec, now_ns)
    update_reception(s, f.ext_seq, f.rtp.rtp_ts, now_ns)
    s.bytes += f.rtp.payload_bytes
    s.last_packet_ns = now_ns
    if s.receiver == NO_INDEX:
        e.counters.unbound_dropped += 1
        return NULL
    return e.receivers[s.receiver]


cdef RtpStream* _take_repaired(Engine* e, Receiver* r, const RtpStream* repair, Slot* slot, PacketFacts* f) noexcept nogil:
    """Turn a retransmission into the packet it repeats (RFC 4588 section 4); NULL when there is nothing new in it."""
    cdef RtpStream* s = r.encodings[repair.encoding].stream
    cdef bint is_repair = False
    cdef const CodecEntry* codec = _codec_of(r, f.rtp.payload_type, &is_repair)
    cdef int code
    e.counters.rtx_received += 1
    if f.rtp.payload_bytes == 0:
        e.counters.rtx_padding += 1
        return NULL
    if codec == NULL or not is_repair or f.rtp.payload_bytes < OSN_BYTES:
        count_error(e, E_FORMAT)
        return NULL
    if s == NULL or not s.srtp.started:
        e.counters.unbound_dropped += 1
        return NULL
    f.rtp.seq = get_u16(slot.data + f.rtp.payload_offset)
    f.rtp.payload_offset = <uint16_t>(f.rtp.payload_offset + OSN_BYTES)
    f.rtp.payload_bytes = <uint16_t>(f.rtp.payload_bytes - OSN_BYTES)
    f.rtp.payload_type = codec.payload_type
    f.rtp.ssrc = s.ssrc
    f.ext_seq = guess_index(s.srtp.started, s.srtp.highest, f.rtp.seq)
    # The original's window tells what was received; marked, so that an original that comes after its repair is a replay.
    code = E_TOO_OLD if f.ext_seq < 0 else check_index(s.srtp.started, s.srtp.highest, s.srtp.window, f.ext_seq)
    if code == E_REPLAY:
        e.counters.duplicates_dropped += 1
        return NULL
    if code < 0:
        count_error(e, code)
        return NULL
    mark_index(&s.srtp.started, &s.srtp.highest, s.srtp.window, f.ext_seq)
    s.recovered += 1
    s.last_packet_ns = slot.arrival_ns
    e.counters.rtx_recovered += 1
    return s


cdef void _feed_nack(Engine* e, Transport* t, RtpStream* s, int64_t ext_seq, bint is_repair, int64_t now_ns) noexcept nogil:
    """Note what arrived of a stream of video, and when to ask for what did not."""
    if s.nack == NULL:
        s.nack = <NackTracker*>calloc(1, sizeof(NackTracker))
        if s.nack == NULL:
            return
    if nack_received(s.nack, ext_seq, is_repair, now_ns):
        gauge_loss(&s.losses, now_ns)
    if s.nack.gave_up and s.nack.due_ns == 0:
        s.nack.due_ns = now_ns
    if s.nack.due_ns and (t.nack_due_ns == 0 or s.nack.due_ns < t.nack_due_ns):
        t.nack_due_ns = s.nack.due_ns
        schedule(e, t)


cdef int _read_media(Receiver* r, RtpStream* s, Slot* slot, PacketFacts* f) noexcept nogil:
    """Fill codec and view of a packet; < 0 = nobody can use it."""
    cdef bint is_repair = False
    cdef const CodecEntry* codec = _codec_of(r, f.rtp.payload_type, &is_repair)
    if codec == NULL or is_repair:
        return E_FORMAT
    s.codec = codec.codec
    f.codec = codec.codec
    f.red_bytes = 0
    if codec.codec == CODEC_RED:
        return red_read(r, slot, f)
    return _view(s, f, slot.data + f.rtp.payload_offset) if r.spec.is_video else E_OK


cdef uint8_t _tell(Engine* e, const Receiver* r, uint32_t kind, int code, int64_t now_ns) noexcept nogil:
    """Tell the control plane of a receiver; 0 = no room, tell it again."""
    cdef Event event
    memset(&event, 0, sizeof(event))
    event.kind = kind
    event.receiver = r.id
    event.code = code
    event.now_ns = now_ns
    return 1 if emit(e, &event) >= 0 else 0


cdef void _count_media(Engine* e, Transport* t, Receiver* r, RtpStream* s, const PacketFacts* f, const uint8_t* payload,
                       int64_t now_ns) noexcept nogil:
    """Keep the figures of a stream that depend on what its packets say."""
    cdef Encoding* enc = &r.encodings[s.encoding]
    cdef bint starts = f.view.keyframe and f.view.start_of_frame
    cdef int level
    if not r.spec.is_video:
        s.frames += 1
        if f.extensions.present >> EXT_AUDIO_LEVEL & 1 and f.extensions.by_kind[EXT_AUDIO_LEVEL].bytes >= 1:
            s.audio_level = f.extensions.by_kind[EXT_AUDIO_LEVEL].data[0] & 0x7f
            level = loudness_add(&s.loudness, s.audio_level, f.rtp.rtp_ts, now_ns)
            # Where the ring is full, the next window tells it.
            if level >= 0 and not r.is_stopped:
                _tell(e, r, EV_SPEAKING, level, now_ns)
        return
    if f.view.end_of_frame or (f.view.source == 0 and f.rtp.marker):
        s.frames += 1
        if s.last_frame_ns and now_ns - s.last_frame_ns < ms(FRAME_GAP_MS):
            s.frame_interval_ns += (now_ns - s.last_frame_ns - s.frame_interval_ns) // FRAME_SMOOTHING
        s.last_frame_ns = now_ns
    timeline_note(s, f)
    if s.layers == NULL:
        s.layers = <LayerTable*>calloc(1, sizeof(LayerTable))
    if s.layers != NULL:
        layers_count(s.layers, &f.view, s.structure, payload, f.rtp.payload_bytes)
        tell_layers(e, r, s, now_ns)
    keyframe_count(&enc.keyframes, &t.keyframe_budget, f.rtp.rtp_ts, starts, f.rtp.payload_bytes)
    if starts:
        s.keyframes += 1
        s.keyframe_seq = max(s.keyframe_seq, f.ext_seq)
        enc.last_keyframe_ns = now_ns
        enc.request_pending = 0


cdef void _turn(Engine* e, Receiver* r, int32_t encoding, int64_t now_ns) noexcept nogil:
    """A stream stands still under overload, or goes on: whoever is shown it starts over at a keyframe."""
    cdef Egress* g
    cdef uint32_t i
    for i in range(r.egress_count):
        g = e.egresses[r.egresses[i]]
        g.start_queued = <uint8_t>(g.start_queued & ~(1u << <uint32_t>encoding))
        if g.current == encoding:
            g.source = NULL
    if is_wanted(e, r, encoding):
        request_keyframe(e, r, encoding, now_ns)


cdef bint _is_shed(Engine* e, Receiver* r, PacketFacts* f, int64_t now_ns) noexcept nogil:
    """Leave out what an overloaded relay does not carry; true when the packet goes nowhere."""
    cdef bint turned = False
    cdef int verdict = shed_judge(&r.encodings[f.encoding].shedding, e.overload.level, &f.view, f.rtp.rtp_ts, f.ext_seq, &turned)
    if turned:
        _turn(e, r, f.encoding, now_ns)
    if verdict == SHED_NOT:
        return False
    if verdict == SHED_ALL:
        e.counters.shed_video += 1
        return True
    e.counters.shed_layers += 1
    f.rtp.payload_bytes = 0
    memset(&f.view, 0, sizeof(f.view))
    return False


cdef void _stop_receiver(Engine* e, Receiver* r, int64_t now_ns) noexcept nogil:
    """Forward nothing of it any more, here or elsewhere, what waits and what was kept for retransmissions included."""
    e.counters.receivers_stopped += 1
    halt_receiver(e, r)
    export_stop(e, r, now_ns)
    r.is_stop_told = _tell(e, r, EV_RECEIVER_STOPPED, r.probe.reason, now_ns)


cdef bint _is_as_declared(Engine* e, Receiver* r, const PacketFacts* f, const uint8_t* payload, bint is_repair, int64_t now_ns) noexcept nogil:
    """Show a packet to the receiver's probe; false = stop."""
    cdef bint goes_on
    if is_repair:
        # No news of how its sender encrypts.
        goes_on = probe_repair(r.probe, f.encoding)
    else:
        goes_on = probe_packet(r.probe, &e.counters, f.codec, r.spec.is_video, f.encoding, &f.rtp, f.ext_seq, &f.view, payload,
                               now_ns)
    if not goes_on:
        _stop_receiver(e, r, now_ns)
        return False
    if r.probe.is_undeclared and not r.is_undeclared_told:
        r.is_undeclared_told = _tell(e, r, EV_UNDECLARED_ENCRYPTION, 0, now_ns)
    return True


cdef bint _is_shut(Engine* e, Receiver* r, int64_t now_ns) noexcept nogil:
    """Whether nothing of a receiver is forwarded: it was stopped, or its sender has announced no key."""
    if r.is_stopped:
        e.counters.stopped_dropped += 1
        if not r.is_stop_told:
            r.is_stop_told = _tell(e, r, EV_RECEIVER_STOPPED, r.probe.reason, now_ns)
        return True
    if r.probe != NULL and probe_waits(r.probe):
        e.counters.unannounced_dropped += 1
        return True
    return False


cdef void _receive_rtp(Engine* e, Transport* t, int tuple_index, Slot* slot, int64_t now_ns) noexcept nogil:
    cdef PacketFacts* f = &e.facts[slot - e.slab.slots]
    cdef Arrived a
    cdef uint64_t began
    cdef RtpStream* s
    cdef Receiver* r
    cdef int code
    cdef uint16_t wire_bytes = slot.length
    e.counters.rtp_received += 1
    if t.receive_context == NULL:
        count_error(e, E_STATE)
        return
    a.expecting = NULL
    a.encoding = 0
    a.is_repair = False
    code = _authenticate(e, t, slot, f, &a)
    if code < 0:
        count_error(e, code)
        return
    t.ice.tuples[tuple_index].last_receive_ns = now_ns
    capture_rtp(&t.capture, CAPTURE_RECEIVED, &t.ice, tuple_index, slot.data, f.rtp.payload_offset, wire_bytes, now_ns)
    if f.extensions.present >> EXT_TWCC & 1 and f.extensions.by_kind[EXT_TWCC].bytes >= 2:
        _record_twcc(e, t, f, now_ns)
    r = _bind_stream(e, t, f, &a, now_ns)
    if r == NULL:
        return
    if _is_shut(e, r, now_ns):
        return
    s = a.stream
    if s.is_repair:
        s = _take_repaired(e, r, s, slot, f)
        if s == NULL:
            return
        t.repair.rtx_recovered += 1
    if r.spec.is_video:
        _feed_nack(e, t, s, f.ext_seq, s != a.stream, now_ns)
    f.encoding = s.encoding
    memset(&f.view, 0, sizeof(f.view))
    if f.rtp.payload_bytes == 0:
        e.counters.padding_dropped += 1
    else:
        code = _read_media(r, s, slot, f)
        if code < 0:
            # Nobody gets it, but its number is known: it is routed like padding, so that no subscriber sees a hole.
            count_error(e, code)
            f.rtp.payload_bytes = 0
            memset(&f.view, 0, sizeof(f.view))
    if f.rtp.payload_bytes:
        _count_media(e, t, r, s, f, slot.data + f.rtp.payload_offset, now_ns)
        _mark_active(e, r, s.encoding, now_ns)
        if r.probe != NULL and not _is_as_declared(e, r, f, slot.data + f.rtp.payload_offset, s != a.stream, now_ns):
            return
    if r.spec.is_video and _is_shed(e, r, f, now_ns):
        return
    began = stage_begin(&e.counters)
    route_packet(e, r, slot, f, now_ns)
    stage_end(&e.counters, STAGE_ROUTE, began, 0)


cdef void _receive_rtcp(Engine* e, Transport* t, int tuple_index, Slot* slot, int64_t now_ns) noexcept nogil:
    cdef int n
    e.counters.rtcp_received += 1
    if t.receive_context == NULL:
        count_error(e, E_STATE)
        return
    n = srtp_unprotect_rtcp(t.receive_context, slot.data, slot.length)
    if n < 0:
        count_error(e, n)
        return
    t.ice.tuples[tuple_index].last_receive_ns = now_ns
    capture_rtcp(&t.capture, CAPTURE_RECEIVED, &t.ice, tuple_index, slot.data, n, slot.length, now_ns)
    receive_rtcp(e, t, slot.data, n, now_ns)


cdef bint _is_audio(Engine* e, Transport* t, const Slot* slot) noexcept nogil:
    """Whether a packet claims to be of a bound audio stream."""
    cdef const RtpStream* s = find_stream(t, get_u32(slot.data + 8)) if slot.length >= 12 else NULL
    return s != NULL and s.receiver != NO_INDEX and not e.receivers[s.receiver].spec.is_video


cdef bint _is_policed(Engine* e, Transport* t, int kind, const Slot* slot, int64_t now_ns) noexcept nogil:
    """Whether a datagram is above what its sender may send, judged before it costs a decryption."""
    if (kind != KIND_RTP and kind != KIND_RTCP and kind != KIND_DTLS) or police_admits(&t.police, &t.limits, slot.length, now_ns):
        return False
    # DTLS carries data channels, which SCTP sends slower when some of it is lost.
    if (kind != KIND_RTP or _is_audio(e, t, slot)) and police_admits_reserved(&t.police, &t.limits, slot.length, now_ns):
        e.counters.police_reserved += 1
        return False
    e.counters.policed += 1
    return True


cdef void receive_datagram(Engine* e, Slot* slot, const SockAddr* remote, uint16_t socket_index, int64_t now_ns) noexcept nogil:
    cdef int kind = demux_datagram(slot.data, slot.length)
    cdef int tuple_index = ICE_NO_TUPLE
    cdef Transport* t
    cdef uint64_t began = stage_begin(&e.counters)
    e.counters.datagrams_received += 1
    e.counters.bytes_received += slot.length
    slot.arrival_ns = now_ns
    if kind == KIND_STUN:
        receive_check(e, slot.data, slot.length, remote, socket_index, now_ns)
    else:
        t = find_by_tuple(e, remote, socket_index, &tuple_index)
        stage_end(&e.counters, STAGE_DEMUX, began, 1)
        if t == NULL:
            count_error(e, E_UNKNOWN_PEER)
        else:
            t.packets_received += 1
            t.bytes_received += slot.length
            if _is_policed(e, t, kind, slot, now_ns):
                pass
            elif kind == KIND_RTP:
                _receive_rtp(e, t, tuple_index, slot, now_ns)
            elif kind == KIND_RTCP:
                _receive_rtcp(e, t, tuple_index, slot, now_ns)
            elif kind == KIND_DTLS:
                receive_dtls(e, t, tuple_index, slot, now_ns)
            else:
                count_error(e, E_FORMAT)
    slot_drop(e.slab, slot)
