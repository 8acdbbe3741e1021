"""Judges encoded frames by their marks, so that a publication declared encrypted that is not is stopped (DESIGN section 5).

A frame is judged when its first and its last packet arrived in order; under SVC each layer's frame is a frame. Repairs, empty
payloads and padding are not. What is judged, by format:

    LiveKit     ... | SSRC | RTP timestamp | any: 4 | 0x0C | key index < 16 |      the last 14 bytes, H264: unescaped
    SFrame      [VP8: one clear byte, AV1: OBU wrapper] | config | KID | CTR | ...  RFC 9605 section 4.3, at the frame's start

LiveKit: the publisher's own SSRC and timestamp, which no clear frame ends with. SFrame: a KID that was announced and a CTR above
that of the encoding's frame before, by no more than one sender counts in the time between; an encoding's frames leave their
sender in the order of their CTRs, while encodings among themselves may overtake each other. A KID above all before is the next. As the first bytes of clear frames
often are such headers, frames are good ones only when seven in a row count on, and all bad when one of these does not. 8 bad
frames of the last 10 are a stop. So are frames that are marked while what follows the mark is plain: two keyframes in a row with VP8's or VP9's
start code, or 32 frames in a row that begin as the codec's do (each by chance with at most 1 in 4). And so is most of what comes, for
4,096 packets, as frames whose first or last packet never does, or as repairs alone.

Conversely a publication declared clear is told of when most of its frames in 3 s are not its codec's, or bear a mark. It goes on.
Catches accidents and downgrades, not clients that collude. Does not look at what is between head and tail.
"""
cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int32_t, int64_t, uint64_t, UINT64_MAX
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove, memset
from relaycore.be cimport get_u32, need
from relaycore.codecheads cimport (
    find_av1_body, is_av1, is_obu_header, is_opus, is_red, is_vp8, is_vp8_start_code, is_vp9, is_vp9_keyframe,
)
from relaycore.counters cimport Counters
from relaycore.errs cimport E_FORMAT, E_INVALID, E_OK, E_SHORT
from relaycore.errs import raise_for
from relaycore.rtp cimport RtpHeader
from relaycore.views cimport (
    CODEC_AV1, CODEC_H264, CODEC_OPUS, CODEC_OTHER_VIDEO, CODEC_RED, CODEC_VP8, CODEC_VP9, DdStructure, FrameView,
    view_packet,
)
from relaycore.units cimport ms

cdef enum:
    LIVEKIT_MARK_BYTES = 14
    LIVEKIT_IV_BYTES = 12
    LIVEKIT_KEYS = 16
    JUDGED = 0x3ff                 # the last ten verdicts
    BAD_LIMIT = 8
    UNJUDGED_LIMIT = 4096          # packets, repairs included, beyond what the judged frames account for
    JUDGED_WEIGHT = 8              # a judged frame's packets account for so many others each: half of all may be lost
    PLAIN_RUN = 32
    PLAIN_KEYFRAMES = 2
    PLAIN_BYTES = 16               # the detectors look no further into a frame
    # A sender counts its encodings' and layers' frames together: at most this many at once, and 1 for so many ticks.
    CTR_STEP = 64
    CTR_TICKS_SHIFT = 5
    KID_FRAMES = 50                # an earlier key comes back less often
    STEPS = 7                      # so many in a row are no chance; by then a clear stream has nearly shown eight bad frames
    CLEAR_STEPS = 4
    CLEAR_STEP = 8
    WINDOW_MS = 3000
    WINDOW_FRAMES = 15

# H264's fragments (RFC 6184 section 5.8): indicator and header, a bit of which says that this is the first.
cdef enum:
    FU_A = 28
    FU_BYTES = 2
    FU_START = 0x80

cdef enum Verdict:
    UNKNOWN = 0                    # not enough of the frame came
    MARKED = 1
    UNMARKED = 2
    COUNTING = 3                   # as good as the frames behind it


# --- the view ---------------------------------------------------------------------------------------------------

cdef inline void _begin_view(MarkView* m, int codec, uint32_t rtp_ts, const uint8_t* p, Py_ssize_t n) noexcept nogil:
    """Take the head of a frame whose first packet has the codec's bytes p[0:n]."""
    m.codec = <uint8_t>codec
    m.rtp_ts = rtp_ts
    m.has_gap = 0
    m.frame_bytes = 0
    m.tail_bytes = 0
    if n >= MARK_HEAD_BYTES:
        m.head_bytes = MARK_HEAD_BYTES
        memcpy(m.head, p, MARK_HEAD_BYTES)
    else:
        m.head_bytes = <uint8_t>n
        memcpy(m.head, p, <size_t>n)


cdef inline void _extend_view(MarkView* m, const uint8_t* p, Py_ssize_t n) noexcept nogil:
    """Take the tail of one packet of the frame; the mark may lie across the last two."""
    cdef Py_ssize_t kept
    m.frame_bytes += <uint32_t>n
    if n >= MARK_TAIL_BYTES:
        m.tail_bytes = MARK_TAIL_BYTES
        memcpy(m.tail, p + n - MARK_TAIL_BYTES, MARK_TAIL_BYTES)
        return
    kept = min(<Py_ssize_t>m.tail_bytes, MARK_TAIL_BYTES - n)
    memmove(m.tail, m.tail + m.tail_bytes - kept, <size_t>kept)
    memcpy(m.tail + kept, p, <size_t>n)
    m.tail_bytes = <uint8_t>(kept + n)


# --- LiveKit ----------------------------------------------------------------------------------------------------

cdef bint _is_livekit_mark(const MarkProbe* p, const MarkTrack* k, const MarkView* m, const uint8_t* tail, Py_ssize_t n) noexcept nogil:
    cdef uint32_t ssrc
    cdef int i
    if n < LIVEKIT_MARK_BYTES:
        return False
    tail += n - LIVEKIT_MARK_BYTES
    if tail[12] != LIVEKIT_IV_BYTES or tail[13] >= LIVEKIT_KEYS or get_u32(tail + 4) != m.rtp_ts:
        return False
    ssrc = get_u32(tail)
    if ssrc == k.ssrc:
        return True
    # A sender may name another one of its encodings.
    for i in range(MARK_ENCODINGS):
        if p.tracks[i].started and p.tracks[i].ssrc == ssrc:
            return True
    return False


cdef Py_ssize_t _unescape(const uint8_t* src, Py_ssize_t n, uint8_t* dst) noexcept nogil:
    """Take emulation prevention out (ITU-T H.264 section 7.4.1). What was before src is unknown: two bytes in front may be wrong,
    and of 24 bytes at least 14 others are left."""
    cdef Py_ssize_t i, at = 0
    cdef Py_ssize_t zeros = 0
    for i in range(n):
        if zeros >= 2 and src[i] == 3:
            zeros = 0
            continue
        dst[at] = src[i]
        at += 1
        zeros = zeros + 1 if src[i] == 0 else 0
    return at


cdef bint _bears_livekit(const MarkProbe* p, const MarkTrack* k, const MarkView* m) noexcept nogil:
    cdef uint8_t plain[MARK_TAIL_BYTES]
    cdef Py_ssize_t n
    if m.codec != CODEC_H264 and _is_livekit_mark(p, k, m, m.tail, m.tail_bytes):
        return True
    if m.codec != CODEC_H264 and m.codec != CODEC_OTHER_VIDEO:
        return False
    n = _unescape(m.tail, m.tail_bytes, plain)
    return _is_livekit_mark(p, k, m, plain, n)


cdef int _judge_livekit(const MarkProbe* p, const MarkTrack* k, const MarkView* m) noexcept nogil:
    cdef int wanted = MARK_TAIL_BYTES if m.codec == CODEC_H264 or m.codec == CODEC_OTHER_VIDEO else LIVEKIT_MARK_BYTES
    if _bears_livekit(p, k, m):
        return MARKED
    # Behind a gap the end of the frame may be too short to say.
    return UNKNOWN if m.has_gap and m.tail_bytes < wanted else UNMARKED


# --- SFrame -----------------------------------------------------------------------------------------------------

cdef inline Py_ssize_t _take_field(int half, const uint8_t* p, Py_ssize_t n, Py_ssize_t at, uint64_t* value) noexcept nogil:
    cdef int size = (half & 7) + 1
    cdef int i
    value[0] = <uint64_t>half
    if half < 8:
        return at
    if not need(n, at + size):
        return E_SHORT
    value[0] = 0
    for i in range(size):
        value[0] = (value[0] << 8) | p[at + i]
    # The shortest form alone is allowed.
    if value[0] < 8 or (size > 1 and p[at] == 0):
        return E_FORMAT
    return at + size


cdef Py_ssize_t _take_sframe_header(const MarkView* m, uint64_t* kid, uint64_t* ctr, Py_ssize_t* begin) noexcept nogil:
    """Return where the ciphertext begins; `begin`: where the header does."""
    cdef Py_ssize_t at
    cdef bint has_dummy
    begin[0] = 0
    if m.codec == CODEC_H264:
        # There is no SFrame for it that packetisers could read.
        return E_FORMAT
    if m.codec == CODEC_VP8:
        begin[0] = 1
    elif m.codec == CODEC_AV1:
        begin[0] = find_av1_body(m.head, m.head_bytes, &has_dummy)
        if begin[0] < 0:
            return begin[0]
    if not need(m.head_bytes, begin[0] + 1):
        return E_SHORT
    at = _take_field(m.head[begin[0]] >> 4, m.head, m.head_bytes, begin[0] + 1, kid)
    if at < 0:
        return at
    return _take_field(m.head[begin[0]] & 0x0f, m.head, m.head_bytes, at, ctr)


cdef bint _is_announced(const MarkProbe* p, uint64_t kid) noexcept nogil:
    cdef uint32_t i
    for i in range(min(p.key_range_count, <uint32_t>MARK_KEY_RANGES)):
        if p.first_kid[i] <= kid <= p.last_kid[i]:
            return True
    return False


cdef bint _counts_on(MarkTrack* k, uint64_t kid, uint64_t ctr, uint32_t rtp_ts) noexcept nogil:
    """Whether a frame's KID and CTR go on from those before."""
    cdef uint64_t most = CTR_STEP + ((rtp_ts - k.counter_ts) >> CTR_TICKS_SHIFT)
    cdef bint is_next
    if not k.has_counter:
        is_next = True
    elif kid != k.kid:
        # A key that nobody has seen yet: every join makes one, and many people join at once.
        is_next = kid > k.highest_kid or k.frames_under_kid >= KID_FRAMES
        k.frames_under_kid = 0
    elif ctr <= k.ctr:
        # What counts backwards is no sender, or one that seals two frames under one nonce.
        return False
    else:
        is_next = ctr - k.ctr <= most
    k.has_counter = 1
    k.kid = kid
    k.highest_kid = max(k.highest_kid, kid)
    k.ctr = ctr
    k.counter_ts = rtp_ts
    if k.frames_under_kid < KID_FRAMES:
        k.frames_under_kid += 1
    return is_next


cdef int _judge_sframe(const MarkProbe* p, MarkTrack* k, const MarkView* m, Py_ssize_t* body) noexcept nogil:
    cdef uint64_t kid = 0, ctr = 0
    cdef Py_ssize_t begin = 0
    body[0] = _take_sframe_header(m, &kid, &ctr, &begin)
    if body[0] < 0 or not _is_announced(p, kid) or not _counts_on(k, kid, ctr, m.rtp_ts):
        k.steps = 0
        return UNMARKED
    if k.steps < STEPS:
        k.steps += 1
        return COUNTING
    return MARKED


# --- plaintext behind a mark ------------------------------------------------------------------------------------

cdef bint _looks_plain(const MarkProbe* p, MarkTrack* k, const MarkView* m, Py_ssize_t body) noexcept nogil:
    """Whether enough frames behind a mark are the codec's own. body: where what is encrypted begins."""
    cdef const uint8_t* b = m.head + body
    cdef Py_ssize_t n = min(<Py_ssize_t>m.head_bytes, <Py_ssize_t>PLAIN_BYTES) - body
    cdef bint is_plain = False
    cdef bint is_keyframe = False
    if n < 1:
        return False
    if m.codec == CODEC_VP9:
        is_plain = b[0] >> 6 == 2
        is_keyframe = n >= 4 and is_vp9_keyframe(b)
        if is_keyframe:
            k.plain_keyframes += 1
        elif n >= 4 and b[0] & 0xcc == 0x80:
            k.plain_keyframes = 0
    elif m.codec == CODEC_AV1:
        is_plain = is_obu_header(b[0])
    elif m.codec == CODEC_OPUS:
        is_plain = b[0] == k.body_first
    elif m.codec == CODEC_VP8 and m.head[0] & 1 == 0 and n >= 5:
        # Bytes 3 to 5 of the frame, of which the first stands before the header.
        k.plain_keyframes = <uint8_t>(k.plain_keyframes + 1) if is_vp8_start_code(b + 2) else 0
    k.body_first = b[0]
    k.plain_run = <uint16_t>(k.plain_run + 1) if is_plain else 0
    return k.plain_run >= PLAIN_RUN or k.plain_keyframes >= PLAIN_KEYFRAMES


# --- frames declared clear --------------------------------------------------------------------------------------

cdef bint _is_of_codec(const MarkProbe* p, MarkTrack* k, const MarkView* m) noexcept nogil:
    """Whether a frame that was declared clear may be what it is said to be."""
    cdef uint64_t kid = 0, ctr = 0
    cdef Py_ssize_t begin = 0
    cdef bint counts = False
    if m.head_bytes == 0:
        return True
    if _bears_livekit(p, k, m):
        return False
    if _take_sframe_header(m, &kid, &ctr, &begin) > 0:
        counts = k.has_counter and kid == k.kid and k.ctr < ctr <= k.ctr + CLEAR_STEP
        k.has_counter = 1
        k.kid = kid
        k.ctr = ctr
    k.steps = <uint8_t>(k.steps + 1) if counts and k.steps < CLEAR_STEPS else <uint8_t>(CLEAR_STEPS if counts else 0)
    if k.steps == CLEAR_STEPS:
        return False
    if m.codec == CODEC_OPUS:
        return is_opus(m)
    if m.codec == CODEC_RED:
        return is_red(m)
    if m.codec == CODEC_VP8:
        return is_vp8(m)
    if m.codec == CODEC_VP9:
        return is_vp9(m)
    if m.codec == CODEC_AV1:
        return is_av1(m)
    return True


cdef void _watch_clear(MarkProbe* p, Counters* c, MarkTrack* k, int64_t now_ns) noexcept nogil:
    if k.window_frames == 0:
        k.window_ns = now_ns
    k.window_frames += 1
    if _is_of_codec(p, k, &k.frame):
        c.frames_parsed += 1
    else:
        c.frames_unparsed += 1
        k.window_bad += 1
    if now_ns - k.window_ns < ms(WINDOW_MS) or k.window_frames < WINDOW_FRAMES:
        return
    if 5 * k.window_bad >= 3 * k.window_frames and not p.is_undeclared:
        p.is_undeclared = 1
        c.undeclared_encryption += 1
    k.window_frames = 0
    k.window_bad = 0


# --- packets into frames ----------------------------------------------------------------------------------------

cdef void _judge(MarkProbe* p, Counters* c, MarkTrack* k, int64_t now_ns) noexcept nogil:
    """A frame is whole, as far as its first and its last packet go."""
    cdef Py_ssize_t body = 0
    cdef uint32_t packets
    cdef int verdict
    k.in_frame = 0
    packets = min(k.unjudged_packets, JUDGED_WEIGHT * k.frame_packets)
    k.frame_packets = 0
    if p.kind == FRAMES_CLEAR:
        _watch_clear(p, c, k, now_ns)
        return
    if p.kind == FRAMES_LIVEKIT:
        verdict = _judge_livekit(p, k, &k.frame)
    else:
        verdict = _judge_sframe(p, k, &k.frame, &body)
    if verdict == UNKNOWN:
        return
    k.unjudged_packets -= packets
    if verdict != UNMARKED:
        # LiveKit leaves the beginning of all but VP9 readable, and rightly so.
        if (p.kind == FRAMES_SFRAME or k.frame.codec == CODEC_VP9) and _looks_plain(p, k, &k.frame, body):
            c.frames_plain += 1
            p.reason = STOP_PLAINTEXT
    k.waiting += 1
    if verdict == COUNTING:
        return
    c.frames_judged += k.waiting
    if verdict == MARKED:
        c.frames_marked += k.waiting
    else:
        c.frames_unmarked += k.waiting
    while k.waiting:
        k.waiting -= 1
        k.verdicts = <uint16_t>(((k.verdicts << 1) | (verdict == UNMARKED)) & JUDGED)
    if verdict == UNMARKED and _count_bits(k.verdicts) >= BAD_LIMIT:
        p.reason = STOP_UNMARKED


cdef inline int _count_bits(uint16_t bits) noexcept nogil:
    cdef int n = 0
    while bits:
        bits = <uint16_t>(bits & (bits - 1))
        n += 1
    return n


cdef inline bint _goes_on(const MarkTrack* k, int codec, const RtpHeader* h, const FrameView* v) noexcept nogil:
    """Whether what looks like a frame's start is within one: descriptors of AV1 and H264 tell where a unit begins."""
    return v.source == 1 and (codec == CODEC_AV1 or codec == CODEC_H264) and k.frame.rtp_ts == h.rtp_ts


cdef void _take_video(MarkProbe* p, Counters* c, MarkTrack* k, int codec, const RtpHeader* h, int64_t ext_seq, const FrameView* v,
                      const uint8_t* body, Py_ssize_t n, int64_t now_ns) noexcept nogil:
    cdef bint follows = ext_seq == k.next_seq
    cdef bint starts = v.start_of_frame if v.source else follows and k.next_starts
    if codec == CODEC_H264 and n > FU_BYTES and body[0] & 0x1f == FU_A and not body[1] & FU_START:
        # What a fragment goes on with: the mark may lie across it and the one before.
        body += FU_BYTES
        n -= FU_BYTES
    k.next_seq = ext_seq + 1
    k.next_starts = h.marker
    if starts and k.in_frame and _goes_on(k, codec, h, v):
        starts = False
    if starts:
        if k.in_frame and follows:
            # Its end was not told, but nothing is between.
            _judge(p, c, k, now_ns)
        k.in_frame = 1
        k.frame_packets = 0
        _begin_view(&k.frame, codec, h.rtp_ts, body, n)
    elif not k.in_frame:
        return
    elif h.rtp_ts != k.frame.rtp_ts:
        k.in_frame = 0
        return
    elif not follows:
        k.frame.has_gap = 1
        k.frame.tail_bytes = 0
    k.frame_packets += 1
    _extend_view(&k.frame, body, n)
    if v.end_of_frame or h.marker:
        _judge(p, c, k, now_ns)


cdef inline bint _is_accounted_for(MarkProbe* p, const MarkTrack* k) noexcept nogil:
    if p.kind != FRAMES_CLEAR and k.unjudged_packets >= UNJUDGED_LIMIT:
        p.reason = STOP_UNMARKED
    return p.reason == STOP_NOT


cdef bint probe_repair(MarkProbe* p, int32_t encoding) noexcept nogil:
    cdef MarkTrack* k = &p.tracks[encoding]
    k.unjudged_packets += 1
    return _is_accounted_for(p, k)


cdef bint probe_packet(MarkProbe* p, Counters* c, int codec, bint is_video, int32_t encoding, const RtpHeader* h, int64_t ext_seq,
                       const FrameView* v, const uint8_t* payload, int64_t now_ns) noexcept nogil:
    cdef MarkTrack* k = &p.tracks[encoding]
    cdef const uint8_t* body = payload + v.descriptor_bytes
    cdef Py_ssize_t n = <Py_ssize_t>h.payload_bytes - v.descriptor_bytes
    if p.reason != STOP_NOT:
        return False
    if n <= 0:
        return True
    if not k.started or k.ssrc != h.ssrc:
        k.started = 1
        k.ssrc = h.ssrc
        k.in_frame = 0
        k.next_starts = 0
        k.next_seq = ext_seq
    k.unjudged_packets += 1
    if ext_seq < k.next_seq:
        # Late: its frame is over, or goes on as one with a gap.
        pass
    elif is_video:
        _take_video(p, c, k, codec, h, ext_seq, v, body, n, now_ns)
    else:
        k.next_seq = ext_seq + 1
        k.frame_packets = 1
        _begin_view(&k.frame, codec, h.rtp_ts, body, n)
        _extend_view(&k.frame, body, n)
        _judge(p, c, k, now_ns)
    return _is_accounted_for(p, k)


# --- life -------------------------------------------------------------------------------------------------------

cdef MarkProbe* probe_new(int kind) noexcept nogil:
    cdef MarkProbe* p = <MarkProbe*>calloc(1, sizeof(MarkProbe))
    if p != NULL:
        p.kind = kind
    return p


cdef int probe_announce(MarkProbe* p, uint64_t first_kid, uint64_t last_kid) noexcept nogil:
    cdef uint32_t i
    if first_kid > last_kid:
        return E_INVALID
    for i in range(min(p.key_range_count, <uint32_t>MARK_KEY_RANGES)):
        if ((p.last_kid[i] == UINT64_MAX or first_kid <= p.last_kid[i] + 1)
                and (last_kid == UINT64_MAX or p.first_kid[i] <= last_kid + 1)):
            p.first_kid[i] = min(p.first_kid[i], first_kid)
            p.last_kid[i] = max(p.last_kid[i], last_kid)
            return E_OK
    i = p.key_range_count % MARK_KEY_RANGES
    p.first_kid[i] = first_kid
    p.last_kid[i] = last_kid
    # Above the limit it only has to say which one is the oldest.
    p.key_range_count += 1
    if p.key_range_count == 2 * MARK_KEY_RANGES:
        p.key_range_count = MARK_KEY_RANGES
    return E_OK


cdef bint probe_waits(const MarkProbe* p) noexcept nogil:
    return p.kind == FRAMES_SFRAME and p.key_range_count == 0


KINDS = {"clear": FRAMES_CLEAR, "livekit_gcm": FRAMES_LIVEKIT, "sframe": FRAMES_SFRAME}
REASONS = {STOP_NOT: None, STOP_UNMARKED: "unmarked", STOP_PLAINTEXT: "plaintext"}
HEAD_BYTES = MARK_HEAD_BYTES
TAIL_BYTES = MARK_TAIL_BYTES


@cython.final
cdef class Probe:
    """Test face: the probe of one receiver, fed with payloads as a codec's packetiser makes them."""
    cdef MarkProbe* _probe
    cdef Counters _counters
    cdef DdStructure _structure

    def __cinit__(self, str kind not None):
        memset(&self._counters, 0, sizeof(Counters))
        memset(&self._structure, 0, sizeof(DdStructure))
        self._probe = probe_new(KINDS[kind])
        if self._probe == NULL:
            raise MemoryError("probe")

    def __dealloc__(self):
        free(self._probe)

    def announce(self, uint64_t first_kid, uint64_t last_kid) -> None:
        raise_for(probe_announce(self._probe, first_kid, last_kid))

    def packet(self, const uint8_t[::1] payload not None, *, int codec, bint is_video=True, int encoding=0, uint32_t ssrc=1,
               int64_t ext_seq=0, uint32_t rtp_ts=0, bint marker=False, const uint8_t[::1] dd=None, int64_t now_ns=0) -> bool:
        """Judge one packet with the header view of its codec; true = go on.   Errors: WireError of the view."""
        cdef RtpHeader h
        cdef FrameView v
        cdef const uint8_t* element = NULL
        if not 0 <= encoding < MARK_ENCODINGS or payload.shape[0] == 0:
            raise ValueError("encoding or payload")
        memset(&h, 0, sizeof(h))
        memset(&v, 0, sizeof(v))
        h.ssrc = ssrc
        h.rtp_ts = rtp_ts
        h.marker = <uint8_t>marker
        h.payload_bytes = <uint16_t>payload.shape[0]
        if is_video:
            if dd is not None:
                element = &dd[0]
            raise_for(view_packet(codec, &payload[0], payload.shape[0], marker, element, 0 if dd is None else dd.shape[0],
                                  &self._structure, &v))
        return probe_packet(self._probe, &self._counters, codec, is_video, encoding, &h, ext_seq, &v, &payload[0], now_ns)

    def repair(self, int encoding=0) -> bool:
        """Count a packet that was sent again; true = go on."""
        if not 0 <= encoding < MARK_ENCODINGS:
            raise ValueError("encoding")
        return probe_repair(self._probe, encoding)

    @property
    def waits(self) -> bool:
        return probe_waits(self._probe)

    @property
    def reason(self):
        return REASONS[self._probe.reason]

    @property
    def is_undeclared(self) -> bool:
        return bool(self._probe.is_undeclared)

    @property
    def counts(self) -> dict:
        """Frames so far: judged, marked, unmarked, plain, parsed, unparsed."""
        cdef Counters* c = &self._counters
        return {"judged": c.frames_judged, "marked": c.frames_marked, "unmarked": c.frames_unmarked, "plain": c.frames_plain,
                "parsed": c.frames_parsed, "unparsed": c.frames_unparsed}
