"""Media out: a frame is made, stamped, cut, protected and sent in one go, like a browser's capture tick.

Packets are not kept for repair: the history holds what a frame was made of (lgmodel.SentFrame), and a NACK makes it again.
Spec: RFC 3550 section 5.1, RFC 4588 section 4 (RTX), RFC 8852 (RID until the receiver has reported), RFC 6464 (audio level).
"""
cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t, uint64_t, INT64_MAX
from libc.string cimport memcpy, memset
from relaycore.be cimport put_u16, put_u24
from relaycore.hdrext cimport (
    EXT_ABS_SEND_TIME, EXT_AUDIO_LEVEL, EXT_DD, EXT_MID, EXT_REPAIRED_RID, EXT_RID, EXT_TWCC, ExtView, write_hdrext,
)
from relaycore.lghistogram cimport histogram_add
from relaycore.lgmodel cimport (
    LG_BATCH, LG_FRAME_PACKETS, LG_HISTORY, LG_PACKET_BYTES, SENDER_AUDIO, SENDER_BURST, Endpoint, LoadThread,
    SendEncoding, Sender, SentFrame,
)
from relaycore.lgpacket cimport read_pattern, write_depdesc, write_descriptor
from relaycore.lgsocket cimport socket_place, socket_send_batch, socket_set_bytes
from relaycore.lgstamp cimport Digest, fill_frame, seal_frame
from relaycore.lgtrace cimport trace_audio, trace_video
from relaycore.rtp cimport write_rtp_fixed
from relaycore.seq cimport unwrap_u16
from relaycore.srtp cimport srtp_protect_rtp
from relaycore.units cimport ms
from relaycore.views cimport CODEC_AV1, CODEC_VP9

cdef extern from *:
    """
    #include <time.h>
    static inline long long lg_send_now_ns(void)
    {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (long long)t.tv_sec * 1000000000LL + t.tv_nsec;
    }
    """
    int64_t lg_send_now_ns() noexcept nogil

cdef enum:
    RTP_HEAD_BYTES = 12
    OSN_BYTES = 2
    CATCH_UP_MS = 200              # later than that, frames are left out instead of sent in a heap
    FRAMES_PER_POLL = 32

ctypedef struct Elements:          # what ExtView points into
    uint8_t twcc[2]
    uint8_t send_time[3]
    uint8_t level[1]
    uint8_t depdesc[40]


cdef void _put_element(ExtView* v, int kind, const uint8_t* data, uint16_t n) noexcept nogil:
    v.present |= <uint32_t>1 << kind
    v.by_kind[kind].data = data
    v.by_kind[kind].bytes = n


cdef int _write_header(Endpoint* e, const Sender* s, const SendEncoding* x, const SentFrame* f, uint32_t place, bint is_rtx,
                       int64_t seq, uint16_t number, int64_t now_ns, uint8_t* dst) noexcept nogil:
    """Write RTP header and extensions of packet `place` of a frame. Returns their bytes."""
    cdef Elements k
    cdef ExtView v
    cdef int n
    cdef bint is_last = place + 1 == f.packets
    v.present = 0
    if not x.reported:
        if s.mid_bytes:
            _put_element(&v, EXT_MID, s.mid, s.mid_bytes)
        if x.rid_bytes:
            _put_element(&v, EXT_REPAIRED_RID if is_rtx else EXT_RID, x.rid, x.rid_bytes)
    put_u16(k.twcc, number)
    _put_element(&v, EXT_TWCC, k.twcc, 2)
    # Seconds in 6.18 fixed point, so modulo 64 s.
    put_u24(k.send_time, <uint32_t>((((now_ns % ms(64000)) << 18) // 1000000000) & 0xffffff))
    _put_element(&v, EXT_ABS_SEND_TIME, k.send_time, 3)
    if s.kind == SENDER_AUDIO:
        k.level[0] = <uint8_t>((0 if s.was_silent else 0x80) | (<int>s.level & 0x7f))
        _put_element(&v, EXT_AUDIO_LEVEL, k.level, 1)
    elif s.codec == CODEC_AV1 or s.codec == CODEC_VP9:
        if e.extensions.id_of_kind[EXT_DD]:
            n = write_depdesc(k.depdesc, f, place == 0, is_last, s.temporal_layers, x.width, x.height)
            _put_element(&v, EXT_DD, k.depdesc, <uint16_t>n)
    n = write_hdrext(dst + RTP_HEAD_BYTES, LG_PACKET_BYTES - RTP_HEAD_BYTES, &e.extensions, &v)
    if n < 0:
        n = 0
    write_rtp_fixed(dst, n > 0, False, f.marker and is_last, s.rtx_payload_type if is_rtx else s.payload_type,
                    <uint16_t>(seq & 0xffff), f.rtp_ts, x.rtx_ssrc if is_rtx else x.ssrc)
    return RTP_HEAD_BYTES + n


cdef int _write_payload(const Sender* s, const SentFrame* f, uint32_t place, const uint8_t* frame, uint8_t* dst) noexcept nogil:
    """Write descriptor and piece of packet `place`. Returns their bytes."""
    cdef int n = write_descriptor(dst, s.codec, f, place, s.temporal_layers)
    cdef uint32_t start = place * f.chunk_bytes
    cdef uint32_t piece = min(f.chunk_bytes, f.stamp.bytes - start)
    memcpy(dst + n, frame + start, piece)
    return n + <int>piece


cdef void _make_frame(LoadThread* t, const Sender* s, SendEncoding* x, const SentFrame* f) noexcept nogil:
    """Have the frame in t.scratch, as it was sent."""
    cdef Digest digest
    if t.scratch_encoding == x and t.scratch_number == f.stamp.number:
        return
    fill_frame(t.scratch, s.codec, &f.stamp, x.width, x.height, t.key, &digest)
    seal_frame(t.scratch, s.codec, &f.stamp, &digest)
    t.scratch_encoding = x
    t.scratch_number = f.stamp.number


@cython.cdivision(True)
cdef uint32_t rtp_ts_at(const Sender* s, const SendEncoding* x, int64_t now_ns) noexcept nogil:
    cdef int64_t elapsed_ns = now_ns - s.start_ns
    cdef int64_t ticks = (elapsed_ns // 1000000000) * s.clock_rate_hz
    ticks += ((elapsed_ns % 1000000000) * s.clock_rate_hz + 500000000) // 1000000000
    return x.base_ts + <uint32_t>(<uint64_t>ticks & 0xffffffffu)


cdef void _place_in_pattern(const Sender* s, SendEncoding* x, SentFrame* f) noexcept nogil:
    """Give the frame its layer, reference and picture numbers."""
    cdef uint32_t reference = 0
    cdef bint is_sync = False
    if f.stamp.is_keyframe:
        x.position = 0
        f.template_id = 0
    else:
        x.position = (x.position + 1) & 3
        read_pattern(s.temporal_layers, x.position, &f.stamp.temporal_id, &reference, &f.template_id, &is_sync)
        f.is_sync = 1 if is_sync else 0
    f.stamp.reference = f.stamp.number if f.stamp.is_keyframe else x.pattern_numbers[reference]
    # T0 builds on the T0 before; every frame of T0 stands at place 0.
    x.pattern_numbers[x.position if f.stamp.temporal_id else 0] = f.stamp.number
    x.picture_id = (x.picture_id + 1) & 0x7fff
    x.frame_number = <uint16_t>(x.frame_number + 1)
    if f.stamp.temporal_id == 0:
        x.tl0 = <uint8_t>(x.tl0 + 1)
    f.picture_id = x.picture_id
    f.frame_number = x.frame_number
    f.tl0 = x.tl0


@cython.cdivision(True)
cdef void _cut(Endpoint* e, Sender* s, SendEncoding* x, SentFrame* f, int64_t now_ns) noexcept nogil:
    """Choose the frame's size and how it is cut."""
    cdef uint8_t[1472] probe
    cdef bint begins_spurt = False
    cdef uint32_t room
    f.packets = 1
    if s.kind == SENDER_AUDIO:
        f.stamp.bytes = trace_audio(s, &begins_spurt)
        f.chunk_bytes = f.stamp.bytes
        f.marker = 1 if begins_spurt else 0
        return
    f.marker = 1
    if s.kind == SENDER_BURST:
        f.packets = s.burst
        room = s.payload_bytes - <uint32_t>_write_header(e, s, x, f, 1, False, 0, 0, now_ns, probe)
        room -= <uint32_t>write_descriptor(probe, s.codec, f, 0, s.temporal_layers)
        f.chunk_bytes = room
        f.stamp.bytes = s.burst * room
        return
    f.stamp.bytes = trace_video(s, x, f.stamp.is_keyframe)
    f.packets = <uint32_t>min((f.stamp.bytes + s.payload_bytes - 1) // s.payload_bytes, <uint32_t>LG_FRAME_PACKETS)
    f.chunk_bytes = (f.stamp.bytes + f.packets - 1) // f.packets
    f.packets = (f.stamp.bytes + f.chunk_bytes - 1) // f.chunk_bytes


cdef void _send_packets(LoadThread* t, Endpoint* e, Sender* s, SendEncoding* x, const SentFrame* f, int64_t now_ns) noexcept nogil:
    cdef uint32_t place
    cdef int batch = 0
    cdef int head, payload, whole
    cdef uint8_t* dst
    for place in range(f.packets):
        dst = socket_place(t, batch)
        head = _write_header(e, s, x, f, place, False, x.next_seq, e.twcc_next, now_ns, dst)
        payload = _write_payload(s, f, place, t.scratch, dst + head)
        whole = srtp_protect_rtp(e.send_context, &x.srtp, x.next_seq, dst, head, dst + head, payload)
        x.next_seq += 1
        e.twcc_next = <uint16_t>(e.twcc_next + 1)
        if whole < 0:
            x.counts.refused += 1
            continue
        socket_set_bytes(t, batch, whole)
        x.counts.packets += 1
        x.counts.bytes += <uint32_t>(head + payload)
        x.total_packets += 1
        x.total_bytes += <uint32_t>payload
        batch += 1
        if batch == LG_BATCH or place + 1 == f.packets:
            x.counts.refused += <uint32_t>(batch - socket_send_batch(t, e, batch))
            batch = 0


cdef void _send_frame(LoadThread* t, Endpoint* e, Sender* s, SendEncoding* x, bint is_keyframe, int64_t due_ns, int64_t now_ns) noexcept nogil:
    cdef SentFrame f
    cdef Digest digest
    memset(&f, 0, sizeof(SentFrame))
    f.stamp.stream = x.ssrc
    f.stamp.number = s.next_number
    f.stamp.is_keyframe = 1 if is_keyframe else 0
    f.rtp_ts = rtp_ts_at(s, x, due_ns)
    f.first_seq = x.next_seq
    if s.kind == SENDER_AUDIO:
        f.stamp.reference = s.next_number
    else:
        _place_in_pattern(s, x, &f)
    _cut(e, s, x, &f, now_ns)
    fill_frame(t.scratch, s.codec, &f.stamp, x.width, x.height, t.key, &digest)
    # Taken as late as can be: what comes after counts as delay.
    f.stamp.send_ns = lg_send_now_ns()
    seal_frame(t.scratch, s.codec, &f.stamp, &digest)
    t.scratch_encoding = x
    t.scratch_number = f.stamp.number
    _send_packets(t, e, s, x, &f, f.stamp.send_ns)
    if x.history != NULL:
        x.history[x.history_count & (LG_HISTORY - 1)] = f
        x.history_count += 1
    x.counts.frames += 1
    if is_keyframe:
        x.counts.keyframes += 1
        x.last_keyframe_ns = due_ns
        x.wants_keyframe = 0


cdef void _tick(LoadThread* t, Endpoint* e, Sender* s, int64_t now_ns) noexcept nogil:
    """Send the frame of every active encoding that is due at s.next_ns."""
    cdef SendEncoding* x
    cdef bint is_keyframe
    cdef int i
    for i in range(s.encoding_count):
        x = &s.encodings[i]
        if not x.is_active:
            # Its decoder, and the relay, start anew when it comes back.
            x.wants_keyframe = 1
            continue
        is_keyframe = s.kind != SENDER_AUDIO and (
            x.wants_keyframe or (s.keyframe_interval_ns and s.next_ns - x.last_keyframe_ns >= s.keyframe_interval_ns))
        _send_frame(t, e, s, x, is_keyframe, s.next_ns, now_ns)
    s.next_number += 1


cdef int64_t _poll_sender(LoadThread* t, Endpoint* e, Sender* s, int64_t now_ns) noexcept nogil:
    cdef int64_t behind
    cdef int i
    if not s.is_started or not t.sending:
        s.next_ns = 0
        return INT64_MAX
    if s.next_ns == 0:
        # A random phase: thousands of senders that start together are not one burst for ever.
        s.random ^= s.random << 13
        s.random ^= s.random >> 7
        s.random ^= s.random << 17
        s.next_ns = now_ns + <int64_t>(s.random % <uint64_t>s.interval_ns)
        if s.start_ns == 0:
            s.start_ns = s.next_ns
    for i in range(FRAMES_PER_POLL):
        if s.next_ns > now_ns:
            break
        histogram_add(t.lateness, now_ns - s.next_ns)
        behind = (now_ns - s.next_ns) // s.interval_ns
        if now_ns - s.next_ns > ms(CATCH_UP_MS) and behind > 1:
            t.counts.frames_skipped += <uint64_t>behind
            s.next_ns += behind * s.interval_ns
        _tick(t, e, s, now_ns)
        s.next_ns += s.interval_ns
    return s.next_ns


cdef int64_t senders_poll(LoadThread* t, Endpoint* e, int64_t now_ns) noexcept nogil:
    cdef int64_t next_ns = INT64_MAX
    cdef int i
    if not e.ice.connected or e.send_context == NULL:
        return INT64_MAX
    for i in range(e.sender_count):
        next_ns = min(next_ns, _poll_sender(t, e, e.senders[i], now_ns))
    return next_ns


cdef SendEncoding* find_encoding(Endpoint* e, uint32_t ssrc, Sender** sender) noexcept nogil:
    cdef int i, k
    for i in range(e.sender_count):
        for k in range(e.senders[i].encoding_count):
            if e.senders[i].encodings[k].ssrc == ssrc:
                sender[0] = e.senders[i]
                return &e.senders[i].encodings[k]
    return NULL


cdef SentFrame* _find_frame(SendEncoding* x, int64_t ext_seq) noexcept nogil:
    cdef uint64_t back
    cdef SentFrame* f
    if x.history == NULL:
        return NULL
    for back in range(1, min(x.history_count, <uint64_t>LG_HISTORY) + 1):
        f = &x.history[(x.history_count - back) & (LG_HISTORY - 1)]
        if f.first_seq <= ext_seq:
            return f if ext_seq < f.first_seq + f.packets else NULL
    return NULL


cdef int sender_repeat(LoadThread* t, Endpoint* e, Sender* s, SendEncoding* x, uint16_t seq, int64_t now_ns) noexcept nogil:
    cdef int64_t ext_seq = unwrap_u16(x.next_seq - 1, seq)
    cdef SentFrame* f = _find_frame(x, ext_seq)
    cdef uint8_t* dst = socket_place(t, 0)
    cdef int head, payload, whole
    cdef uint32_t place
    x.counts.nacked += 1
    if f == NULL or x.rtx_ssrc == 0 or e.send_context == NULL or not e.ice.connected:
        return 0
    place = <uint32_t>(ext_seq - f.first_seq)
    _make_frame(t, s, x, f)
    head = _write_header(e, s, x, f, place, True, x.next_rtx_seq, e.twcc_next, now_ns, dst)
    put_u16(dst + head, seq)
    payload = OSN_BYTES + _write_payload(s, f, place, t.scratch, dst + head + OSN_BYTES)
    whole = srtp_protect_rtp(e.send_context, &x.rtx_srtp, x.next_rtx_seq, dst, head, dst + head, payload)
    x.next_rtx_seq += 1
    e.twcc_next = <uint16_t>(e.twcc_next + 1)
    if whole < 0:
        return 0
    socket_set_bytes(t, 0, whole)
    x.counts.retransmitted += 1
    return socket_send_batch(t, e, 1)
