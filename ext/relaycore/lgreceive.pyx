"""Packets of received streams: bound, decrypted, put in order, asked for again, handed to the frames.

Spec: RFC 3550 appendix A.1 and A.3 (numbers), A.8 (jitter); RFC 4585 section 6.2.1 (NACK); RFC 4588 (RTX); RFC 9143 (MID).
A hole is asked for at once and then every round-trip time, ten times at most, as libwebrtc does
(modules/video_coding/nack_requester.cc); what did not come within GIVE_UP is left behind. Under `verify_every` above 1
only the packets of every n-th frame are decrypted; numbers, losses and repair are read from the headers all the same.
Audio is not held back for order: a packet is a frame.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t, uint64_t, INT64_MAX
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset
from relaycore.be cimport get_u16
from relaycore.errs cimport E_REPLAY, E_TOO_OLD
from relaycore.hdrext cimport EXT_MID, EXT_TWCC, ExtView, parse_hdrext
from relaycore.lgassemble cimport ASSEMBLE_BROKEN, ASSEMBLE_FRAME, assemble_hole, assemble_packet
from relaycore.lgmodel cimport (
    LG_HELD, LG_MISSING, LOAD_FIRST_FRAME, LOAD_STREAM_BOUND, Endpoint, LoadEvent, LoadThread, Missing, Repair, Stream,
    stream_lost,
)
from relaycore.lgreport cimport feedback_note, report_nack, report_pli
from relaycore.mailbox cimport CodecEntry
from relaycore.rtp cimport RtpHeader, parse_rtp, take_rtp_padding
from relaycore.slab cimport Slot, slab_take, slot_drop
from relaycore.srtp cimport SrtpRxState, srtp_unprotect_rtp
from relaycore.srtpindex cimport check_index, guess_index, mark_index
from relaycore.units cimport ms

cdef enum:
    MAX_EVENTS = 200000            # untaken; then the newest are dropped and counted
    MAX_TRIES = 10
    GIVE_UP_MS = 1000
    REORDER_MS = 60                # where nobody repairs: how long a hole may be a reordering
    SHORTEST_RETRY_MS = 20
    UNKNOWN_RTT_MS = 100
    PLI_RETRY_MS = 500
    NACKS_PER_POLL = 64


cdef void load_emit(LoadThread* t, int kind, uint32_t endpoint, uint32_t subject, const uint8_t* payload, Py_ssize_t n, int64_t now_ns) noexcept nogil:
    cdef LoadEvent* v
    if t.event_count >= MAX_EVENTS:
        t.counts.events_dropped += 1
        return
    v = <LoadEvent*>calloc(1, sizeof(LoadEvent))
    if v != NULL and n:
        v.payload = <uint8_t*>malloc(<size_t>n)
    if v == NULL or (n and v.payload == NULL):
        free(v)
        t.counts.no_memory += 1
        return
    if n:
        memcpy(v.payload, payload, <size_t>n)
    v.payload_bytes = <uint32_t>n
    v.kind = kind
    v.endpoint = endpoint
    v.subject = subject
    v.now_ns = now_ns
    if t.last_event == NULL:
        t.first_event = v
    else:
        t.last_event.next = v
    t.last_event = v
    t.event_count += 1


cdef void stream_clear(LoadThread* t, Stream* s) noexcept nogil:
    cdef int i
    if s.repair != NULL:
        for i in range(LG_HELD):
            if s.repair.held[i] != NULL:
                slot_drop(t.slab, s.repair.held[i])
        free(s.repair)
    s.repair = NULL
    free(s.delays)
    s.delays = NULL


# --- binding ---------------------------------------------------------------------------------------------------------

cdef const CodecEntry* _find_codec(const Stream* s, uint8_t payload_type, bint* is_rtx) noexcept nogil:
    cdef int i
    for i in range(s.codec_count):
        is_rtx[0] = s.codecs[i].rtx_payload_type == payload_type and payload_type != 0
        if s.codecs[i].payload_type == payload_type or is_rtx[0]:
            return &s.codecs[i]
    return NULL


cdef bint _has_mid(const Stream* s, const ExtView* x) noexcept nogil:
    return (s.mid_bytes and (x.present >> EXT_MID) & 1 and x.by_kind[EXT_MID].bytes == s.mid_bytes
            and memcmp(x.by_kind[EXT_MID].data, s.mid, s.mid_bytes) == 0)


cdef void _start_over(LoadThread* t, Stream* s, uint32_t ssrc) noexcept nogil:
    """Bind a stream to a new SSRC: numbers and keys' indices begin anew, counts go on."""
    cdef int64_t lost = stream_lost(s) - s.lost_mark if s.seen.started else 0
    cdef int i
    s.previous_ssrc = s.ssrc
    s.ssrc = ssrc
    memset(&s.srtp, 0, sizeof(SrtpRxState))
    memset(&s.seen, 0, sizeof(SrtpRxState))
    s.base_seq = s.expected_prior = s.received_prior = 0
    s.received = s.recovered = 0
    s.lost_mark = -lost
    s.has_next = s.is_open = s.is_sampled = 0
    s.nack_due_ns = 0
    s.transit = s.jitter_16 = 0
    if s.repair != NULL:
        s.repair.missing_count = 0
        for i in range(LG_HELD):
            if s.repair.held[i] != NULL:
                slot_drop(t.slab, s.repair.held[i])
                s.repair.held[i] = NULL


cdef Stream* _bind(LoadThread* t, Endpoint* e, const RtpHeader* h, const ExtView* x, bint* is_rtx) noexcept nogil:
    """Find the stream of a packet whose SSRC is new: by MID, else the first one by payload type that still waits."""
    cdef Stream* s
    cdef Stream* found = NULL
    cdef bint rtx = False
    cdef int i
    for i in range(e.stream_count):
        s = e.streams[i]
        if h.ssrc == s.previous_ssrc or _find_codec(s, h.payload_type, &rtx) == NULL:
            continue
        if _has_mid(s, x):
            found = s
            is_rtx[0] = rtx
            break
        if s.ssrc_is_given or s.mid_bytes and (x.present >> EXT_MID) & 1:
            continue
        if found == NULL and (s.rtx_ssrc == 0 if rtx else s.ssrc == 0):
            found = s
            is_rtx[0] = rtx
    if found == NULL:
        return NULL
    if is_rtx[0]:
        found.rtx_ssrc = h.ssrc
        memset(&found.rtx_srtp, 0, sizeof(SrtpRxState))
    else:
        _start_over(t, found, h.ssrc)
    return found


cdef Stream* _find(LoadThread* t, Endpoint* e, const RtpHeader* h, const ExtView* x, bint* is_rtx) noexcept nogil:
    cdef int i
    for i in range(e.stream_count):
        if e.streams[i].ssrc == h.ssrc:
            is_rtx[0] = False
            return e.streams[i]
        if e.streams[i].rtx_ssrc == h.ssrc:
            is_rtx[0] = True
            return e.streams[i]
    return _bind(t, e, h, x, is_rtx)


# --- frames in order -------------------------------------------------------------------------------------------------

cdef void _judge(LoadThread* t, Endpoint* e, Stream* s, int outcome, int64_t now_ns) noexcept nogil:
    if outcome & ASSEMBLE_FRAME:
        s.pli_due_ns = 0
        if s.first_frame_ns == 0:
            s.first_frame_ns = now_ns
            load_emit(t, LOAD_FIRST_FRAME, e.id, s.id, NULL, 0, now_ns)
    elif outcome & ASSEMBLE_BROKEN and s.wants_pli and s.is_video and s.pli_due_ns == 0:
        s.pli_due_ns = max(now_ns, s.pli_sent_ns + ms(PLI_RETRY_MS))


cdef bint _is_missing(const Stream* s, int64_t ext_seq) noexcept nogil:
    cdef int i
    if s.repair == NULL:
        return False
    for i in range(s.repair.missing_count):
        if s.repair.missing[i].ext_seq >= ext_seq:
            return s.repair.missing[i].ext_seq == ext_seq
    return False


cdef void _consume(LoadThread* t, Endpoint* e, Stream* s, int codec, const uint8_t* packet, Py_ssize_t n, int64_t ext_seq, int64_t arrival_ns,
                   int64_t now_ns) noexcept nogil:
    """One plain packet in the order of its numbers."""
    cdef RtpHeader h
    if parse_rtp(packet, n, &h) < 0 or take_rtp_padding(packet, n, &h) < 0:
        s.counts.refused += 1
        return
    if h.payload_bytes == 0:
        s.counts.padding += 1
        return
    if s.expects_frames:
        _judge(t, e, s, assemble_packet(t, s, codec, &h, ext_seq, packet + h.payload_offset, h.payload_bytes, arrival_ns), now_ns)


cdef void _advance(LoadThread* t, Endpoint* e, Stream* s, int64_t now_ns) noexcept nogil:
    """Consume what is held and next, step over what was given up, stop at what may still come."""
    cdef Slot* slot
    cdef uint32_t place
    while s.has_next and s.next_seq <= s.seen.highest:
        place = <uint32_t>(<uint64_t>s.next_seq & (LG_HELD - 1))
        slot = s.repair.held[place] if s.repair != NULL else NULL
        if slot != NULL:
            s.repair.held[place] = NULL
            # The codec rides in front of the packet, see _hold.
            _consume(t, e, s, slot.data[0], slot.data + 1, slot.length - 1, s.next_seq, slot.arrival_ns, now_ns)
            slot_drop(t.slab, slot)
        elif _is_missing(s, s.next_seq):
            return
        else:
            _judge(t, e, s, assemble_hole(s), now_ns)
        s.next_seq += 1


cdef Repair* _repair(LoadThread* t, Stream* s) noexcept nogil:
    if s.repair == NULL:
        s.repair = <Repair*>calloc(1, sizeof(Repair))
        if s.repair == NULL:
            t.counts.no_memory += 1
    return s.repair


cdef void _hold(LoadThread* t, Stream* s, int codec, const uint8_t* packet, Py_ssize_t n, int64_t ext_seq, int64_t arrival_ns) noexcept nogil:
    cdef Slot* slot
    cdef uint32_t place = <uint32_t>(<uint64_t>ext_seq & (LG_HELD - 1))
    if _repair(t, s) == NULL or s.repair.held[place] != NULL:
        return
    slot = slab_take(t.slab, n + 1)
    if slot == NULL:
        t.counts.hold_exhausted += 1
        return
    slot.data[0] = <uint8_t>codec
    memcpy(slot.data + 1, packet, <size_t>n)
    slot.length = <uint16_t>(n + 1)
    slot.arrival_ns = arrival_ns
    s.repair.held[place] = slot


cdef void _deliver(LoadThread* t, Endpoint* e, Stream* s, int codec, const uint8_t* packet, Py_ssize_t n, int64_t ext_seq, int64_t arrival_ns,
                   int64_t now_ns) noexcept nogil:
    """A plain packet that nobody had before."""
    if not s.is_video:
        _consume(t, e, s, codec, packet, n, ext_seq, arrival_ns, now_ns)
        return
    if not s.has_next:
        s.has_next = 1
        s.next_seq = ext_seq
    if ext_seq < s.next_seq:
        s.counts.late += 1
        return
    if ext_seq - s.next_seq >= LG_HELD:
        # So far ahead that nothing in between is waited for any more.
        if s.repair != NULL:
            s.counts.given_up += <uint64_t>s.repair.missing_count
            s.repair.missing_count = 0
        _advance_to(t, e, s, ext_seq, now_ns)
    if ext_seq == s.next_seq:
        _consume(t, e, s, codec, packet, n, ext_seq, arrival_ns, now_ns)
        s.next_seq += 1
    else:
        _hold(t, s, codec, packet, n, ext_seq, arrival_ns)
    _advance(t, e, s, now_ns)


cdef void _advance_to(LoadThread* t, Endpoint* e, Stream* s, int64_t ext_seq, int64_t now_ns) noexcept nogil:
    """Leave everything before `ext_seq` behind: what is held in it is consumed, the rest is a hole."""
    cdef Slot* slot
    cdef uint32_t place
    cdef int i
    for i in range(LG_HELD):
        if s.next_seq >= ext_seq:
            return
        place = <uint32_t>(<uint64_t>s.next_seq & (LG_HELD - 1))
        slot = s.repair.held[place] if s.repair != NULL else NULL
        if slot != NULL:
            s.repair.held[place] = NULL
            _consume(t, e, s, slot.data[0], slot.data + 1, slot.length - 1, s.next_seq, slot.arrival_ns, now_ns)
            slot_drop(t.slab, slot)
        else:
            _judge(t, e, s, assemble_hole(s), now_ns)
        s.next_seq += 1
    s.next_seq = ext_seq


# --- numbers ---------------------------------------------------------------------------------------------------------

cdef void _forget_missing(Stream* s, int64_t ext_seq) noexcept nogil:
    cdef Repair* r = s.repair
    cdef int i, k
    if r == NULL:
        return
    for i in range(r.missing_count):
        if r.missing[i].ext_seq == ext_seq:
            for k in range(i + 1, r.missing_count):
                r.missing[k - 1] = r.missing[k]
            r.missing_count -= 1
            return


cdef void _note_hole(LoadThread* t, Stream* s, int64_t first, int64_t end, int64_t now_ns) noexcept nogil:
    """Numbers first..end-1 were jumped over."""
    cdef int64_t ext_seq
    cdef Missing* m
    s.has_hole = 1
    if not s.is_video or _repair(t, s) == NULL:
        return
    for ext_seq in range(first, end):
        if s.repair.missing_count == LG_MISSING:
            s.counts.given_up += <uint64_t>(end - ext_seq)
            break
        m = &s.repair.missing[s.repair.missing_count]
        m.ext_seq = ext_seq
        m.noticed_ns = now_ns
        m.asked_ns = 0
        m.tries = 0
        s.repair.missing_count += 1
    # Within the batch that is being read it may still come: the poll is behind it.
    s.nack_due_ns = now_ns


cdef int _note_number(LoadThread* t, Stream* s, int64_t index, const RtpHeader* h, int64_t arrival_ns, int64_t now_ns) noexcept nogil:
    """Count a number of the primary stream. 1 = first copy, 0 = it was here before."""
    cdef uint32_t transit
    cdef int64_t difference
    if not s.seen.started:
        s.base_seq = index
    elif check_index(s.seen.started, s.seen.highest, s.seen.window, index) < 0:
        s.counts.duplicates += 1
        return 0
    elif index < s.seen.highest:
        s.counts.reordered += 1
        s.base_seq = min(s.base_seq, index)
        _forget_missing(s, index)
    elif index > s.seen.highest + 1:
        _note_hole(t, s, s.seen.highest + 1, index, now_ns)
    mark_index(&s.seen.started, &s.seen.highest, s.seen.window, index)
    s.received += 1
    s.counts.packets += 1
    s.last_arrival_ns = arrival_ns
    # Appendix A.8, in ticks of the stream's clock, cut to 32 bits.
    transit = <uint32_t>(<uint64_t>(arrival_ns // 1000 * <int64_t>s.clock_rate_hz // 1000000) & 0xffffffffu) - h.rtp_ts
    if s.received > 1:
        difference = <int64_t>transit - <int64_t>s.transit
        if difference < 0:
            difference = -difference
        if difference < 0x7fffffff:
            s.jitter_16 += <uint32_t>difference - ((s.jitter_16 + 8) >> 4)
    s.transit = transit
    return 1


# --- packets ---------------------------------------------------------------------------------------------------------

cdef bint _wants_decryption(LoadThread* t, Stream* s, const RtpHeader* h, int64_t index) noexcept nogil:
    """Under sampling: does this packet belong to a frame that is verified? Frames are told by numbers and markers."""
    cdef bint is_end = h.marker or not s.is_video
    if s.is_sampled and index != s.sample_next:
        # It has a hole, or something overtook.
        s.is_sampled = s.is_open = 0
    if not s.is_sampled:
        if s.sample_next == index and t.verify_every and s.sample_count % t.verify_every == 0:
            s.is_sampled = 1
            s.is_open = 0
        elif is_end and index >= s.sample_next:
            s.sample_next = index + 1
            s.sample_count += 1
        return s.is_sampled
    return True


cdef void _after_sampled(Stream* s, const RtpHeader* h, int64_t index) noexcept nogil:
    s.sample_next = index + 1
    if h.marker or not s.is_video:
        s.is_sampled = 0
        s.sample_count += 1


cdef void _on_sampled(LoadThread* t, Endpoint* e, Stream* s, const CodecEntry* c, const RtpHeader* h, uint8_t* packet, Py_ssize_t n, int64_t arrival_ns,
                      int64_t now_ns) noexcept nogil:
    """A packet of a thread that verifies one frame of several, or none."""
    cdef int64_t index = guess_index(s.seen.started, s.seen.highest, h.seq)
    cdef int whole
    if index < 0 or not _note_number(t, s, index, h, arrival_ns, now_ns):
        return
    s.counts.frame_ends += 1 if h.marker or not s.is_video else 0
    if s.first_frame_ns == 0 and (h.marker or not s.is_video):
        s.first_frame_ns = now_ns
        load_emit(t, LOAD_FIRST_FRAME, e.id, s.id, NULL, 0, now_ns)
    if not _wants_decryption(t, s, h, index):
        return
    _after_sampled(s, h, index)
    whole = srtp_unprotect_rtp(e.receive_context, &s.srtp, packet, n, h.payload_offset, &index)
    if whole < 0:
        s.counts.refused += 1
        s.is_sampled = s.is_open = 0
        return
    s.counts.verified += 1
    _consume(t, e, s, c.codec, packet, whole, index, arrival_ns, now_ns)


cdef void _on_primary(LoadThread* t, Endpoint* e, Stream* s, const CodecEntry* c, const RtpHeader* h, uint8_t* packet, Py_ssize_t n, int64_t arrival_ns,
                      int64_t now_ns) noexcept nogil:
    cdef int64_t index = 0
    cdef int whole = srtp_unprotect_rtp(e.receive_context, &s.srtp, packet, n, h.payload_offset, &index)
    if whole == E_REPLAY:
        s.counts.duplicates += 1
        return
    if whole == E_TOO_OLD:
        s.counts.late += 1
        return
    if whole < 0:
        s.counts.refused += 1
        return
    s.counts.verified += 1
    if not s.seen.started:
        load_emit(t, LOAD_STREAM_BOUND, e.id, s.id, NULL, 0, now_ns)
    if _note_number(t, s, index, h, arrival_ns, now_ns):
        s.counts.frame_ends += 1 if h.marker or not s.is_video else 0
        _deliver(t, e, s, c.codec, packet, whole, index, arrival_ns, now_ns)


cdef void _on_rtx(LoadThread* t, Endpoint* e, Stream* s, const CodecEntry* c, const RtpHeader* h, uint8_t* packet, Py_ssize_t n, int64_t arrival_ns,
                  int64_t now_ns) noexcept nogil:
    """RFC 4588 section 4: the first two bytes of the payload are the number of the packet that is repeated."""
    cdef int64_t index = 0
    cdef RtpHeader plain = h[0]
    cdef uint8_t* start
    cdef int whole = srtp_unprotect_rtp(e.receive_context, &s.rtx_srtp, packet, n, h.payload_offset, &index)
    s.counts.rtx_packets += 1
    if whole < 0:
        s.counts.refused += 1
        return
    if take_rtp_padding(packet, whole, &plain) < 0 or plain.payload_bytes < 2:
        # Probing padding rides on RTX streams.
        s.counts.padding += 1
        return
    if not s.seen.started:
        return
    index = guess_index(s.seen.started, s.seen.highest, get_u16(packet + h.payload_offset))
    if index < s.base_seq or index > s.seen.highest or check_index(s.seen.started, s.seen.highest, s.seen.window, index) < 0:
        s.counts.duplicates += 1
        return
    _forget_missing(s, index)
    mark_index(&s.seen.started, &s.seen.highest, s.seen.window, index)
    # A late original is then a replay.
    mark_index(&s.srtp.started, &s.srtp.highest, s.srtp.window, index)
    s.recovered += 1
    s.counts.recovered += 1
    if t.verify_every != 1:
        return
    # The header moves over the number: what follows is the original packet but for SSRC, number and payload type.
    start = packet + 2
    _move_header(packet, start, h.payload_offset)
    _deliver(t, e, s, c.codec, start, whole - 2, index, arrival_ns, now_ns)


cdef void _move_header(const uint8_t* from_, uint8_t* to, int n) noexcept nogil:
    cdef int i
    for i in range(n - 1, -1, -1):
        to[i] = from_[i]


cdef void receive_rtp(LoadThread* t, Endpoint* e, uint8_t* packet, Py_ssize_t n, int64_t arrival_ns, int64_t now_ns) noexcept nogil:
    cdef RtpHeader h
    cdef ExtView x
    cdef const CodecEntry* c
    cdef Stream* s
    cdef bint is_rtx = False
    cdef bint unused = False
    if parse_rtp(packet, n, &h) < 0:
        e.counts.malformed += 1
        return
    x.present = 0
    if h.ext_bytes:
        parse_hdrext(packet + h.ext_offset, h.ext_bytes, h.ext_profile, &e.extensions, &x)
    if (x.present >> EXT_TWCC) & 1 and x.by_kind[EXT_TWCC].bytes == 2:
        feedback_note(t, e, get_u16(x.by_kind[EXT_TWCC].data), h.ssrc, arrival_ns, now_ns)
    s = _find(t, e, &h, &x, &is_rtx)
    if s == NULL or e.receive_context == NULL:
        e.counts.unbound += 1
        return
    c = _find_codec(s, h.payload_type, &unused)
    if c == NULL:
        e.counts.unbound += 1
        return
    s.counts.bytes += <size_t>n
    s.clock_rate_hz = c.clock_rate_hz
    if is_rtx:
        _on_rtx(t, e, s, c, &h, packet, n, arrival_ns, now_ns)
    elif t.verify_every == 1:
        _on_primary(t, e, s, c, &h, packet, n, arrival_ns, now_ns)
    else:
        if not s.seen.started:
            load_emit(t, LOAD_STREAM_BOUND, e.id, s.id, NULL, 0, now_ns)
            # It may begin in the middle of a frame: the first marker tells.
            s.sample_next = -1
        _on_sampled(t, e, s, c, &h, packet, n, arrival_ns, now_ns)


# --- what is due -----------------------------------------------------------------------------------------------------

cdef int _give_up(LoadThread* t, Endpoint* e, Stream* s, int64_t now_ns) noexcept nogil:
    """Strike what nobody will bring any more. Returns how many."""
    cdef Repair* r = s.repair
    cdef Missing* m
    cdef int kept = 0
    cdef int i
    cdef int64_t patience_ns = ms(GIVE_UP_MS) if s.wants_nack else ms(REORDER_MS)
    for i in range(r.missing_count):
        m = &r.missing[i]
        if now_ns - m.noticed_ns < patience_ns and m.tries <= MAX_TRIES:
            r.missing[kept] = m[0]
            kept += 1
    i = r.missing_count - kept
    r.missing_count = kept
    s.counts.given_up += <uint64_t>i
    return i


cdef int64_t _poll_missing(LoadThread* t, Endpoint* e, Stream* s, int64_t now_ns) noexcept nogil:
    cdef uint16_t[64] wanted
    cdef int count = 0
    cdef int i
    cdef Missing* m
    cdef int64_t retry_ns = max(ms(SHORTEST_RETRY_MS), e.ice.rtt_ns if e.ice.rtt_ns else ms(UNKNOWN_RTT_MS))
    if _give_up(t, e, s, now_ns):
        if t.verify_every == 1:
            _advance(t, e, s, now_ns)
        if s.wants_pli and s.pli_due_ns == 0:
            s.pli_due_ns = max(now_ns, s.pli_sent_ns + ms(PLI_RETRY_MS))
    if s.repair.missing_count == 0:
        return 0
    if not s.wants_nack:
        return now_ns + ms(SHORTEST_RETRY_MS)
    for i in range(s.repair.missing_count):
        m = &s.repair.missing[i]
        if m.tries and now_ns - m.asked_ns < retry_ns:
            continue
        m.tries += 1
        m.asked_ns = now_ns
        # After the last try there is one more wait.
        if m.tries <= MAX_TRIES and count < NACKS_PER_POLL:
            wanted[count] = <uint16_t>(<uint64_t>m.ext_seq & 0xffffu)
            count += 1
    if count and report_nack(t, e, s.ssrc, wanted, count):
        s.counts.nacks_sent += <uint32_t>count
    return now_ns + ms(SHORTEST_RETRY_MS) // 2


cdef int64_t streams_poll(LoadThread* t, Endpoint* e, int64_t now_ns) noexcept nogil:
    cdef int64_t next_ns = INT64_MAX
    cdef Stream* s
    cdef int i
    if not e.ice.connected or e.send_context == NULL:
        return INT64_MAX
    for i in range(e.stream_count):
        s = e.streams[i]
        if s.nack_due_ns and s.nack_due_ns <= now_ns and s.repair != NULL:
            s.nack_due_ns = _poll_missing(t, e, s, now_ns)
        if s.pli_due_ns and s.pli_due_ns <= now_ns and s.ssrc:
            if report_pli(t, e, s.ssrc):
                s.counts.plis_sent += 1
            s.pli_sent_ns = now_ns
            # Until a frame can be shown again, which only who reads all of them knows.
            s.pli_due_ns = now_ns + ms(PLI_RETRY_MS) if t.verify_every == 1 and s.expects_frames else 0
        if s.nack_due_ns:
            next_ns = min(next_ns, s.nack_due_ns)
        if s.pli_due_ns and s.ssrc:
            next_ns = min(next_ns, s.pli_due_ns)
    return next_ns
