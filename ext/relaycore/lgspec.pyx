"""What Python says of senders and receivers, checked; defaults are a browser's unless a comment says whose.

Numbers that a seed decides (first sequence numbers and timestamps, sizes, phases) come from it and the sender's id, so a run
can be repeated whatever else the process does.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from relaycore.hdrext cimport ExtMap, number_extensions, put_extension_ids
from relaycore.lgmodel cimport (
    LG_ENCODINGS, LG_HISTORY, SENDER_AUDIO, SENDER_BURST, SENDER_VIDEO, SendEncoding, Sender, SentFrame, Stream,
)
from relaycore.lgstamp cimport DIGEST_BYTES, MAX_HEAD_BYTES, STAMP_BYTES
from relaycore.lgtrace cimport trace_random, trace_seed

from relaycore.port import CODECS

KINDS = {"audio": SENDER_AUDIO, "video": SENDER_VIDEO, "burst": SENDER_BURST}
CODECS_OF_KIND = {"audio": ("opus",), "video": ("vp8", "vp9", "av1"), "burst": ("vp8", "vp9", "av1")}
CLOCK_RATE_HZ = {"audio": 48000, "video": 90000, "burst": 90000}
_COMMON = {"ssrc": None, "codec": None, "mid": "", "clock_rate_hz": None, "started": True}
_VIDEO = {"encodings": None, "rtx_payload_type": None, "rtx_ssrc": None, "temporal_layers": 1, "keyframe_interval_s": 0.0}
SPEC = {
    "audio": {**_COMMON, "ptime_ms": 20, "min_bytes": 60, "max_bytes": 160},
    "video": {**_COMMON, **_VIDEO, "fps": 30.0, "bitrate_bps": 1_000_000, "width": 640, "height": 360, "keyframe_factor": 6.0,
              "deviation": 0.2, "payload_bytes": 1100},
    # The load of the cost table: 250 packets a second of 1,200 bytes in frames of 8.
    "burst": {**_COMMON, **_VIDEO, "keyframe_interval_s": 1.0, "packet_bytes": 1200, "burst": 8, "rate_pps": 250.0},
}
ENCODING = {"ssrc": None, "rtx_ssrc": None, "rid": "", "bitrate_bps": 1_000_000, "width": 640, "height": 360, "active": True}
RECEIVER = {"ssrc": None, "rtx_ssrc": None, "mid": "", "nack": True, "pli": True, "expect_frames": True}


cdef int put_number(uint32_t* out, str what, object number, uint32_t least) except -1:
    if not isinstance(number, int) or not least <= number <= 0xFFFFFFFF:
        raise ValueError(f"{what} {number!r} is no number from {least} to 2^32 - 1")
    out[0] = number
    return 0


cdef int put_short(str what, object text, uint8_t* out, uint8_t* out_bytes, Py_ssize_t limit) except -1:
    cdef bytes data = text.encode()
    if len(data) > limit:
        raise ValueError(f"{what} has {len(data)} bytes, at most {limit}")
    if data:
        memcpy(out, <const char*>data, <size_t>len(data))
    out_bytes[0] = <uint8_t>len(data)
    return 0


cdef int put_extensions(object id_by_uri, ExtMap* out) except -1:
    cdef uint8_t id_of_kind[17]
    memset(id_of_kind, 0, sizeof(id_of_kind))
    put_extension_ids(id_by_uri, id_of_kind)
    number_extensions(out, id_of_kind)
    return 0


cdef int _payload_type(object number) except -1:
    # 64..95 with the marker bit would look like RTCP (RFC 5761 section 4).
    if not isinstance(number, int) or not 0 <= number <= 127 or 64 <= number <= 95:
        raise ValueError(f"payload type {number!r} is not allowed")
    return number


cdef dict _complete(str what, dict given, dict known):
    unknown = set(given) - set(known)
    if unknown:
        raise ValueError(f"{what} has no {', '.join(sorted(unknown))}")
    return {**known, **given}


cdef object _between(str what, object value, object least, object most):
    if not least <= value <= most:
        raise ValueError(f"{what} {value!r} is not {least} to {most}")
    return value


cdef int _put_encoding(Sender* s, SendEncoding* x, dict spec, bint has_rtx) except -1:
    put_number(&x.ssrc, "SSRC", spec["ssrc"], 1)
    if spec["rtx_ssrc"] is not None:
        if not has_rtx:
            raise ValueError("rtx_ssrc needs rtx_payload_type")
        put_number(&x.rtx_ssrc, "RTX SSRC", spec["rtx_ssrc"], 1)
    put_short("rid", spec["rid"], x.rid, &x.rid_bytes, 16)
    x.is_active = 1 if spec["active"] else 0
    x.wants_keyframe = 1
    x.bitrate_bps = _between("bitrate_bps", spec["bitrate_bps"], 8_000, 50_000_000)
    x.width = _between("width", spec["width"], 1, 16383)
    x.height = _between("height", spec["height"], 1, 16383)
    x.base_ts = <uint32_t>(trace_random(&s.random) >> 32)
    # Below 2^15, so that the first wrap-around cannot be mistaken by a receiver that misses the first packets.
    x.next_seq = <int64_t>(trace_random(&s.random) >> 49)
    x.next_rtx_seq = <int64_t>(trace_random(&s.random) >> 49)
    x.picture_id = <uint16_t>(trace_random(&s.random) >> 49)
    x.tl0 = <uint8_t>(trace_random(&s.random) >> 56)
    if s.kind != SENDER_AUDIO:
        x.history = <SentFrame*>calloc(LG_HISTORY, sizeof(SentFrame))
        if x.history == NULL:
            raise MemoryError("history")
    s.encoding_count += 1
    return 0


cdef int _put_video(Sender* s, dict spec) except -1:
    s.temporal_layers = _between("temporal_layers", spec["temporal_layers"], 1, 3)
    s.keyframe_interval_ns = int(_between("keyframe_interval_s", spec["keyframe_interval_s"], 0, 3600) * 1e9)
    if spec["rtx_payload_type"] is not None:
        s.rtx_payload_type = <uint8_t>_payload_type(spec["rtx_payload_type"])
    if s.kind == SENDER_BURST:
        s.burst = _between("burst", spec["burst"], 1, 64)
        s.payload_bytes = _between("packet_bytes", spec["packet_bytes"], 200, 1400)
        s.interval_ns = int(s.burst / _between("rate_pps", spec["rate_pps"], 0.1, 1e6) * 1e9)
    else:
        s.payload_bytes = _between("payload_bytes", spec["payload_bytes"], 200, 1300)
        s.interval_ns = int(1e9 / _between("fps", spec["fps"], 0.5, 240))
        s.keyframe_factor = _between("keyframe_factor", spec["keyframe_factor"], 1, 50)
        s.deviation = _between("deviation", spec["deviation"], 0, 2)
    return 0


cdef list _encodings(str kind, dict spec):
    given = spec.get("encodings")
    if given is None:
        one = {name: spec[name] for name in ("ssrc", "rtx_ssrc", "bitrate_bps", "width", "height") if name in spec}
        return [_complete("encoding", one, ENCODING)]
    if spec["ssrc"] is not None or not 1 <= len(given) <= LG_ENCODINGS or kind == "burst":
        raise ValueError(f"encodings: 1 to {LG_ENCODINGS} of video, and then no ssrc beside them")
    return [_complete("encoding", dict(one), ENCODING) for one in given]


cdef void drop_sender(Sender* s) noexcept:
    cdef int i
    for i in range(LG_ENCODINGS):
        free(s.encodings[i].history)
    free(s)


cdef Sender* make_sender(uint32_t id, uint64_t seed, str kind, dict spec) except NULL:
    cdef Sender* s
    if kind not in KINDS:
        raise ValueError(f"sender {kind!r} is none of {', '.join(KINDS)}")
    payload_type = spec.pop("payload_type")
    spec = _complete(f"sender {kind}", spec, SPEC[kind])
    codec = spec["codec"] or CODECS_OF_KIND[kind][0]
    if codec not in CODECS_OF_KIND[kind]:
        raise ValueError(f"codec {codec!r} is none of {', '.join(CODECS_OF_KIND[kind])}")
    s = <Sender*>calloc(1, sizeof(Sender))
    if s == NULL:
        raise MemoryError("sender")
    try:
        s.id = id
        s.kind = KINDS[kind]
        s.codec = CODECS[codec]
        s.payload_type = <uint8_t>_payload_type(payload_type)
        s.is_started = 1 if spec["started"] else 0
        s.random = trace_seed(seed, id)
        clock_rate_hz = spec["clock_rate_hz"] or CLOCK_RATE_HZ[kind]
        s.clock_rate_hz = _between("clock_rate_hz", clock_rate_hz, 1000, 1_000_000)
        s.temporal_layers = 1
        put_short("mid", spec["mid"], s.mid, &s.mid_bytes, 16)
        if kind == "audio":
            s.interval_ns = _between("ptime_ms", spec["ptime_ms"], 2.5, 120) * 1_000_000
            s.min_bytes = _between("min_bytes", spec["min_bytes"], MAX_HEAD_BYTES + STAMP_BYTES + DIGEST_BYTES, 1200)
            s.max_bytes = _between("max_bytes", spec["max_bytes"], spec["min_bytes"], 1200)
            s.was_silent = 1
        else:
            _put_video(s, spec)
        for one in _encodings(kind, spec):
            _put_encoding(s, &s.encodings[s.encoding_count], one, s.rtx_payload_type != 0)
        s.next_number = <uint32_t>(trace_random(&s.random) >> 40)
    except BaseException:
        drop_sender(s)
        raise
    return s


cdef int _put_codecs(Stream* s, object codecs) except -1:
    entries = list(codecs)
    if not 1 <= len(entries) <= 16:
        raise ValueError(f"{len(entries)} codecs, not 1 to 16")
    for payload_type, codec, clock_rate_hz, rtx in entries:
        if codec not in CODECS:
            raise ValueError(f"codec {codec!r} is none of {', '.join(CODECS)}")
        s.codecs[s.codec_count].payload_type = <uint8_t>_payload_type(payload_type)
        s.codecs[s.codec_count].codec = CODECS[codec]
        s.codecs[s.codec_count].rtx_payload_type = 0 if rtx is None else <uint8_t>_payload_type(rtx)
        s.codecs[s.codec_count].clock_rate_hz = _between("clock rate", clock_rate_hz, 1, 1_000_000)
        s.codec_count += 1
    return 0


cdef Stream* make_stream(uint32_t id, str kind, object codecs, dict spec) except NULL:
    cdef Stream* s
    if kind not in ("audio", "video"):
        raise ValueError(f"receiver {kind!r} is neither audio nor video")
    spec = _complete("receiver", spec, RECEIVER)
    s = <Stream*>calloc(1, sizeof(Stream))
    if s == NULL:
        raise MemoryError("receiver")
    try:
        s.id = id
        s.is_video = kind == "video"
        _put_codecs(s, codecs)
        s.clock_rate_hz = s.codecs[0].clock_rate_hz
        if spec["ssrc"] is not None:
            put_number(&s.ssrc, "SSRC", spec["ssrc"], 1)
            s.ssrc_is_given = 1
        if spec["rtx_ssrc"] is not None:
            put_number(&s.rtx_ssrc, "RTX SSRC", spec["rtx_ssrc"], 1)
        put_short("mid", spec["mid"], s.mid, &s.mid_bytes, 16)
        s.wants_nack = 1 if spec["nack"] and kind == "video" else 0
        s.wants_pli = 1 if spec["pli"] else 0
        s.expects_frames = 1 if spec["expect_frames"] else 0
    except BaseException:
        free(s)
        raise
    return s
