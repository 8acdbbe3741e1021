"""Frames declared encrypted that are not are stopped within ten, and nothing that is encrypted is."""

import random
import struct

import pytest

from relaycore.frameseal import sframe_header
from relaycore.markprobe import HEAD_BYTES, TAIL_BYTES, Probe
from tests.support.encoders import frames
from tests.support.marks import CODEC_NAMES, FORMATS, SEALED, Publisher, cipher, frames_until_stopped, invented, numbers


def declared(frame_format: str, first_kid: int = 0, last_kid: int = 0) -> Probe:
    probe = Probe(frame_format)
    if frame_format == "sframe":
        probe.announce(first_kid, last_kid)
    return probe


def mark(publisher: Publisher, *, key_index: int = 0, ssrc: int | None = None, rtp_ts: int | None = None) -> bytes:
    ssrc, rtp_ts = publisher.ssrc if ssrc is None else ssrc, publisher.rtp_ts if rtp_ts is None else rtp_ts
    return struct.pack("!III", ssrc, rtp_ts & 0xFFFFFFFF, 77) + bytes([12, key_index])


# --- what is not encrypted -----------------------------------------------------------------------------------------

CLEAR = [
    ("opus", "voice", {}),
    ("opus", "mixed", {"dtx": "1"}),
    ("opus", "voice", {"bit_rate": 8_000}),
    ("opus", "voice", {"bit_rate": 128_000, "layout": "stereo", "application": "audio"}),
    *((codec, kind, {}) for codec in CODEC_NAMES[1:] for kind in ("moving", "still", "black")),
    ("vp8", "still", {"bit_rate": 30_000}),
]


@pytest.mark.parametrize("frame_format", FORMATS)
@pytest.mark.parametrize(("codec", "kind", "options"), CLEAR)
def test_clear_frames_of_an_encoder_are_stopped_within_ten(frame_format, codec, kind, options):
    encoded = list(frames(codec, kind, **options))
    for begin in range(0, len(encoded) - 12, 3):
        publisher = Publisher(declared(frame_format), codec)
        assert frames_until_stopped(publisher, encoded[begin:]) in range(8, 11)
        assert publisher.probe.reason == "unmarked"


@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_many_announced_keys_leave_clear_frames_no_way(codec):
    encoded = list(frames(codec))
    for begin in range(0, len(encoded) - 12, 3):
        publisher = Publisher(declared("sframe", 0, 15), codec)
        assert frames_until_stopped(publisher, encoded[begin:]) in range(8, 11)


def test_a_stopped_publication_stays_stopped():
    publisher = Publisher(declared("livekit_gcm"), "opus")
    box = cipher("livekit_gcm", "opus", ssrc=publisher.ssrc)
    assert frames_until_stopped(publisher, [(b"\x78" + bytes(40), True)] * 20) == 8
    counts = publisher.probe.counts
    assert all(not publisher.send(publisher.seal(box, b"\x78" + bytes(40), True)) for _ in range(20))
    # Nothing is looked at any more, and the reason stays.
    assert (publisher.probe.counts, publisher.probe.reason) == (counts, "unmarked")


def test_every_other_frame_clear_is_not_enough_to_stop():
    publisher = Publisher(declared("livekit_gcm"), "opus")
    box = cipher("livekit_gcm", "opus", ssrc=publisher.ssrc)
    for number in range(100):
        assert publisher.send(publisher.seal(box if number % 2 else None, b"\x78" + bytes(40), True))
    for bad in (8, 7):
        publisher = Publisher(declared("livekit_gcm"), "opus")
        goes_on = [publisher.send(publisher.seal(box if n % 10 >= bad else None, b"\x78" + bytes(40), True)) for n in range(40)]
        assert all(goes_on) is (bad == 7)


def test_sframe_for_h264_does_not_exist():
    # From CTR 256 on the header's first byte is that of a delimiter's NAL unit.
    for first, front in ((0, b"\x41"), (300, b"")):
        publisher = Publisher(declared("sframe"), "h264")
        units = [b"\0\0\1" + front + sframe_header(0, first + n) + b"\x55" * 50 for n in range(20)]
        assert frames_until_stopped(publisher, [(unit, False) for unit in units]) == 8


def test_frames_that_never_can_be_judged_do_not_pass_for_ever():
    publisher = Publisher(declared("livekit_gcm"), "vp8")
    sent = 0
    # The last packet never comes.
    while publisher.send(b"\x11" + bytes(3000), pick=lambda packets: packets[:-1]):
        sent += 1
        assert sent < 3000
    assert publisher.probe.counts["judged"] == 0
    assert publisher.probe.reason == "unmarked"


# --- the marks ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("codec", ["vp8", "h264", "vp9"])
def test_a_good_frame_now_and_then_does_not_pay_for_those_that_cannot_be_judged(codec):
    """Their last packets may well come, as repairs."""
    publisher = Publisher(declared("livekit_gcm"), codec)
    box = cipher("livekit_gcm", codec, ssrc=publisher.ssrc)
    frame = b"\0\0\1\x41" + bytes(3000)
    goes_on = True
    for number in range(4000):
        if number % 25 == 0:
            goes_on = publisher.send(publisher.seal(box, frame, False))
        else:
            goes_on = publisher.send(frame, pick=lambda packets: packets[:-1])
        if not goes_on:
            break
    assert publisher.probe.reason == "unmarked"
    assert publisher.probe.counts["unmarked"] == 0


def test_half_of_all_packets_may_be_lost():
    rng = random.Random(2)
    publisher = Publisher(declared("livekit_gcm"), "vp8", limit=300)
    box = cipher("livekit_gcm", "vp8", ssrc=publisher.ssrc)
    for _ in range(4000):
        sealed = publisher.seal(box, b"\x11" + bytes(2000), False)
        assert publisher.send(sealed, pick=lambda packets: [p for p in packets if rng.random() < 0.5])


WRONG = {
    "no mark": lambda p: b"",
    "key index 16": lambda p: mark(p, key_index=16),
    "another length": lambda p: mark(p)[:-2] + b"\x0b\0",
    "another SSRC": lambda p: mark(p, ssrc=p.ssrc + 1),
    "another timestamp": lambda p: mark(p, rtp_ts=p.rtp_ts + 1),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("codec", ["opus", "vp8", "h264"])
def test_livekit_marks_that_are_wrong_in_one_thing(name, codec):
    publisher = Publisher(declared("livekit_gcm"), codec)
    head = b"\0\0\0\1\x41" if codec == "h264" else b"\x11"
    goes_on = [publisher.send(head + b"\x55" * 60 + WRONG[name](publisher)) for _ in range(12)]
    assert goes_on == [True] * 7 + [False] * 5


def test_every_key_index_is_a_mark():
    publisher = Publisher(declared("livekit_gcm"), "opus")
    assert all(publisher.send(b"\x78" + bytes(60) + mark(publisher, key_index=n % 16)) for n in range(64))


def test_the_ssrc_of_another_encoding_is_the_publishers_too():
    probe = declared("livekit_gcm")
    low, high = Publisher(probe, "vp8", ssrc=5), Publisher(probe, "vp8", ssrc=6, encoding=1)
    for _ in range(40):
        assert low.send(b"\x11" + bytes(60) + mark(low))
        assert high.send(b"\x11" + bytes(60) + mark(high, ssrc=5))
    assert probe.counts["unmarked"] == 0


HEADERS = {
    "a key that nobody announced": lambda n: (3, n),
    "the same count again": lambda n: (0, 9),
    "counting down": lambda n: (0, 1000 - n),
    "counting in leaps": lambda n: (0, n * 10**6),
    "two keys in turn": lambda n: (n % 2, n),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("codec", ["opus", "vp8", "vp9"])
def test_sframe_headers_alone_are_no_mark(name, codec):
    publisher = Publisher(declared("sframe", 0, 1), codec)
    head = b"\x11" if codec == "vp8" else b""
    rng = random.Random(3)
    stopped = frames_until_stopped(publisher, [(head + sframe_header(*HEADERS[name](n)) + rng.randbytes(60), False) for n in range(20)])
    assert stopped in (8, 9)


def test_a_longer_header_than_needed_is_none():
    publisher = Publisher(declared("sframe"), "opus")
    # CTR n in two bytes though one is enough.
    assert frames_until_stopped(publisher, [(bytes([0x09, 0, 20 + n]) + bytes(60), True) for n in range(20)]) == 8


def test_keys_are_announced_in_ranges():
    probe = Probe("sframe")
    assert probe.waits
    probe.announce(4, 6)
    assert not probe.waits
    publisher = Publisher(probe, "opus")
    rng = random.Random(1)
    for kid in (4, 5, 6):
        for count in range(60):
            assert publisher.send(sframe_header(kid, count) + rng.randbytes(60))
    # The first frames under a new key are good ones too.
    assert probe.counts["unmarked"] == 0
    assert frames_until_stopped(publisher, [(sframe_header(7, n) + rng.randbytes(60), True) for n in range(20)]) == 8
    probe = Probe("sframe")
    for first in range(0, 400, 10):
        probe.announce(first, first)
    publisher = Publisher(probe, "opus")
    assert all(publisher.send(sframe_header(390, n) + rng.randbytes(60)) for n in range(20)) and probe.counts["marked"] == 20
    # The oldest ranges made place.
    publisher.send(sframe_header(0, 0) + bytes(60))
    assert probe.counts["unmarked"] == 1


def test_keys_follow_each_other_quickly_when_many_join():
    rng = random.Random(9)
    for codec in ("opus", "vp8"):
        publisher = Publisher(declared("sframe", 0, 200), codec)
        head = b"\x11" if codec == "vp8" else b""
        for kid in range(200):
            for count in range(rng.choice((1, 2, 3, 8, 30))):
                assert publisher.send(head + sframe_header(kid, count) + rng.randbytes(60))
        assert publisher.probe.counts["unmarked"] == 0


def test_encodings_share_one_key_and_one_count_and_overtake_each_other():
    probe = declared("sframe")
    rng = random.Random(4)
    rungs = [Publisher(probe, "vp8", ssrc=50 + i, encoding=i) for i in range(3)]
    waiting: list[tuple[Publisher, bytes]] = []
    for count in range(3000):
        waiting.append((rungs[count % 3], b"\x11" + sframe_header(0, count) + rng.randbytes(80)))
        if len(waiting) == 12:
            # Each encoding keeps its order.
            for publisher in rng.sample(rungs, 3):
                for entry in [w for w in waiting if w[0] is publisher]:
                    assert publisher.send(entry[1])
            waiting.clear()
    assert probe.counts["unmarked"] == 0


def test_an_encoding_that_comes_back_finds_the_count_far_ahead():
    probe = declared("sframe")
    publisher = Publisher(probe, "vp8")
    rng = random.Random(4)
    count = 0
    for _ in range(30):
        for _ in range(20):
            assert publisher.send(b"\x11" + sframe_header(0, count) + rng.randbytes(80))
            count += 3
        # Two others sent on for five minutes.
        publisher.pause(30 * 300)
        count += 60 * 300
    assert probe.counts["unmarked"] == 0


# --- what is encrypted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frame_format", "codec"), SEALED)
def test_nothing_encrypted_is_stopped(frame_format, codec):
    rng = random.Random(f"{frame_format} {codec}")
    probe = declared(frame_format)
    publisher = Publisher(probe, codec)
    box = cipher(frame_format, codec, ssrc=publisher.ssrc)
    for number in range(2500):
        frame, keyframe = invented(codec, rng, number)
        assert publisher.send(publisher.seal(box, frame, keyframe), keyframe)
        if rng.random() < 0.02:
            publisher.send(b"")
            publisher.pause(rng.randrange(100))
    assert probe.counts == {"judged": 2500, "marked": 2500, "unmarked": 0, "plain": 0, "parsed": 0, "unparsed": 0}


@pytest.mark.parametrize(("frame_format", "codec"), SEALED)
def test_loss_and_disorder_leave_frames_unjudged_not_bad(frame_format, codec):
    rng = random.Random(f"{codec} {frame_format}")
    probe = declared(frame_format)
    publisher = Publisher(probe, codec, limit=200)
    box = cipher(frame_format, codec, ssrc=publisher.ssrc)

    def disturb(packets):
        left = [p for p in packets if rng.random() > 0.2]
        if len(left) > 1 and rng.random() < 0.3:
            i = rng.randrange(len(left) - 1)
            left[i], left[i + 1] = left[i + 1], left[i]
        return left + ([rng.choice(left)] if left and rng.random() < 0.1 else [])

    for number in range(1500):
        frame, keyframe = invented(codec, rng, number)
        assert publisher.send(publisher.seal(box, frame, keyframe), keyframe, pick=disturb)
    assert probe.counts["unmarked"] == 0
    assert probe.counts["marked"] > 600


@pytest.mark.parametrize(("codec", "left"), [("vp8", 3), ("vp8", 13), ("h264", 3), ("h264", 13)])
def test_too_little_of_a_mark_behind_a_gap_says_nothing(codec, left):
    publisher = Publisher(declared("livekit_gcm"), codec, limit=10_000)
    box = cipher("livekit_gcm", codec, ssrc=publisher.ssrc)

    def cut(packets):
        [(seq, payload, _)] = packets
        if codec == "h264":
            parts = fragments(seq, payload, [40, left])
        else:
            parts = [(seq, payload[:-40], False), (seq + 2, b"\0" + payload[-left:], True)]
        return [parts[0], parts[-1]]

    for _ in range(30):
        assert publisher.send(publisher.seal(box, bytes.fromhex("00000001419a") + bytes(200), False), pick=cut)
        publisher.seq += 2
    assert publisher.probe.counts["judged"] == 0


@pytest.mark.parametrize("codec", ["vp8", "h264"])
@pytest.mark.parametrize("limit", range(60, 100))
def test_a_mark_across_the_last_two_packets_is_one(codec, limit):
    publisher = Publisher(declared("livekit_gcm"), codec, limit=limit)
    box = cipher("livekit_gcm", codec, ssrc=publisher.ssrc)
    head = bytes.fromhex("00000001419a") if codec == "h264" else b"\x11"
    for size in range(40, 160, 3):
        assert publisher.send(publisher.seal(box, head + bytes(size), False))
    assert publisher.probe.counts["unmarked"] == 0
    assert publisher.probe.counts["marked"] == 40


def fragments(seq: int, nal: bytes, cuts: list[int]) -> list[tuple[int, bytes, bool]]:
    """One NAL unit as FU-A packets that end at `cuts`, counted from its end."""
    edges = [0, *(len(nal) - 1 - c for c in cuts), len(nal) - 1]
    out = []
    for i, (begin, end) in enumerate(zip(edges, edges[1:], strict=False)):
        header = nal[0] & 31 | (0x80 if i == 0 else 0) | (0x40 if end == edges[-1] else 0)
        out.append((seq + i, bytes([nal[0] & 0x60 | 28, header]) + nal[1 + begin : 1 + end], end == edges[-1]))
    return out


@pytest.mark.parametrize("cuts", [[left] for left in range(1, 26)] + [[11, 5], [13, 12], [3, 2, 1], [24, 13, 2], [14, 13]])
@pytest.mark.parametrize("ssrc", [0x11223344, 0x100])
def test_a_mark_across_fragments_of_h264_is_one(cuts, ssrc):
    publisher = Publisher(declared("livekit_gcm"), "h264", ssrc=ssrc, limit=10_000)
    box = cipher("livekit_gcm", "h264", ssrc=ssrc)
    for size in range(60, 80):
        sealed = publisher.seal(box, bytes.fromhex("00000001419a") + bytes(size), False)
        assert publisher.send(sealed, pick=lambda packets: fragments(packets[0][0], packets[0][1], cuts))
        publisher.seq += len(cuts)
    assert publisher.probe.counts["marked"] == 20


def test_emulation_prevention_within_the_mark():
    for ssrc, rtp_ts in ((0, 0), (0x0000_0100, 0x0001_0000), (0x0300_0000, 2), (0x0000_0001, 0x0000_0300)):
        publisher = Publisher(declared("livekit_gcm"), "h264", ssrc=ssrc, rtp_ts=rtp_ts)
        publisher.ticks = 0
        box = cipher("livekit_gcm", "h264", ssrc=ssrc, counter=1)
        for size in range(40):
            publisher.send(publisher.seal(box, bytes.fromhex("00000001419a") + bytes(size), False))
        assert publisher.probe.counts["unmarked"] == 0
        assert publisher.probe.counts["marked"] == 40


@pytest.mark.parametrize("frame_format", FORMATS)
def test_red_and_other_audio_sealed_whole(frame_format):
    for codec in ("red", "other_audio"):
        rng = random.Random(codec)
        publisher = Publisher(declared(frame_format), codec)
        box = cipher(frame_format, codec, ssrc=publisher.ssrc)
        for _ in range(300):
            assert publisher.send(publisher.seal(box, rng.randbytes(rng.choice((1, 5, 160))), True))


# --- marked, but plain ----------------------------------------------------------------------------------------------


def forged(publisher: Publisher, frame_format: str, frame: bytes, count: int) -> bytes:
    """The mark of the format around a frame that nobody encrypted."""
    if frame_format == "livekit_gcm":
        return frame + mark(publisher)
    header = sframe_header(0, count)
    if publisher.codec == "vp8":
        return frame[:1] + header + frame[1:]
    if publisher.codec == "av1":
        return b"\x30" + header + frame
    return header + frame


FORGED = [("sframe", "opus", 40), ("sframe", "vp8", 30), ("sframe", "vp9", 40), ("sframe", "av1", 40), ("livekit_gcm", "vp9", 40)]


@pytest.mark.parametrize(("frame_format", "codec", "limit"), FORGED)
def test_frames_that_are_marked_but_plain_are_stopped(frame_format, codec, limit):
    encoded = frames(codec, "voice" if codec == "opus" else "moving", count=60)
    publisher = Publisher(declared(frame_format), codec)
    for count, (frame, keyframe) in enumerate(encoded):
        if not publisher.send(forged(publisher, frame_format, frame, count), keyframe):
            break
    assert publisher.probe.reason == "plaintext"
    assert count < limit


# --- declared clear -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frame_format", "codec"), SEALED)
def test_encrypted_frames_declared_clear_are_told_of_after_three_seconds(frame_format, codec):
    rng = random.Random(8)
    probe = Probe("clear")
    publisher = Publisher(probe, codec)
    box = cipher(frame_format, codec, ssrc=publisher.ssrc, counter=300)
    for number in range(400):
        frame, keyframe = invented(codec, rng, number)
        assert publisher.send(publisher.seal(box, frame, keyframe), keyframe)
        if probe.is_undeclared:
            break
    assert probe.is_undeclared
    assert 3.0 <= publisher.now_ns / 1e9 < 3.2
    assert probe.reason is None


@pytest.mark.parametrize(("codec", "kind", "options"), CLEAR)
def test_clear_frames_declared_clear_are_nothing_to_tell(codec, kind, options):
    probe = Probe("clear")
    publisher = Publisher(probe, codec)
    for _ in range(10):
        for frame, keyframe in frames(codec, kind, **options):
            assert publisher.send(frame, keyframe)
    assert not probe.is_undeclared
    assert probe.counts["unparsed"] == 0
    assert probe.counts["parsed"] >= 380


def test_other_audio_and_red_declared_clear_are_nothing_to_tell():
    rng = random.Random(3)
    for payload in (lambda: rng.randbytes(160), lambda: b"\xff" * 160, lambda: b"\xd5" * 160):
        publisher = Publisher(Probe("clear"), "other_audio")
        for _ in range(600):
            publisher.send(payload())
        assert not publisher.probe.is_undeclared
    opus = [f for f, _ in frames("opus", "mixed", dtx="1")]
    publisher = Publisher(Probe("clear"), "red")
    for number in range(600):
        former, newest = opus[(number - 1) % len(opus)], opus[number % len(opus)]
        block = struct.pack("!BI", 0x80 | 111, (960 << 10 | len(former)) << 0)[:1] + (960 << 10 | len(former)).to_bytes(3, "big")
        publisher.send(block + bytes([111]) + former + newest)
    assert publisher.probe.counts["unparsed"] == 0


@pytest.mark.parametrize(("bad", "is_told"), [(1, False), (2, False), (3, True), (4, True)])
def test_most_frames_must_be_none_of_the_codecs(bad, is_told):
    publisher = Publisher(Probe("clear"), "vp9")
    for number in range(300):
        publisher.send((b"\x00" if number % 5 < bad else b"\x86") + bytes(200))
    assert publisher.probe.is_undeclared is is_told
    assert publisher.probe.counts["unparsed"] == 60 * bad


def test_silence_between_frames_is_no_time_of_bad_ones():
    publisher = Publisher(Probe("clear"), "opus")
    # DTX: one byte every 400 ms.
    for _ in range(100):
        publisher.send(b"\x78")
        publisher.pause(19)
    assert not publisher.probe.is_undeclared


def test_random_bytes_are_no_video():
    rng = random.Random(5)
    for codec in ("vp8", "vp9"):
        publisher = Publisher(Probe("clear"), codec)
        for number in range(120):
            publisher.send(rng.randbytes(900), number % 60 == 0)
        assert publisher.probe.is_undeclared, codec


# --- the view -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frame_format", "codec"), [*SEALED, ("clear", "vp8"), ("clear", "vp9"), ("clear", "opus")])
def test_bytes_between_head_and_tail_change_nothing(frame_format, codec):
    rng = random.Random(6)
    number, is_video, ticks, _ = numbers(codec)
    probes = [declared(frame_format), declared(frame_format)]
    publishers = [Publisher(p, codec) for p in probes]
    box = cipher("sframe" if codec == "av1" else "livekit_gcm" if frame_format == "clear" else frame_format, codec, ssrc=publishers[0].ssrc)

    def scrambled(packets):
        out = []
        for i, (seq, payload, marker) in enumerate(packets):
            begin = HEAD_BYTES + 3 if i == 0 else 3
            end = max(begin, len(payload) - TAIL_BYTES)
            out.append((seq, payload[:begin] + rng.randbytes(end - begin) + payload[end:], marker))
        return out

    for n in range(200):
        frame, keyframe = invented(codec, rng, n)
        sealed = publishers[0].seal(box if n < 150 else None, frame, keyframe)
        results = [publishers[0].send(sealed, keyframe), publishers[1].send(sealed, keyframe, pick=scrambled)]
        assert results[0] == results[1]
    assert probes[0].counts == probes[1].counts
    assert probes[0].is_undeclared == probes[1].is_undeclared
