"""What an engine that is behind leaves out: levels over virtual time, whole frames, voices never."""

import random
import struct

from relaycore.overload import OverloadFace
from tests.support.engine import MID, MS, RID, Bench, rtcp_packets, rtp
from tests.support.peer import header_bytes

LIMIT = 50 * MS
NOT, LAYER, ALL = 0, 1, 2


def feel(overload: OverloadFace, lag_ms: int, from_ms: int, to_ms: int, step_ms: int = 2) -> int:
    for at in range(from_ms, to_ms, step_ms):
        overload.feel(lag_ms * MS, 1_000_000 * MS + at * MS)
    return overload.level


def test_one_stall_is_not_an_overload():
    overload = OverloadFace(LIMIT)
    assert feel(overload, 0, 0, 100) == 0
    overload.feel(900 * MS, 1_000_100 * MS)
    assert feel(overload, 0, 102, 500) == 0


def test_levels_rise_one_after_the_other():
    overload = OverloadFace(LIMIT)
    assert feel(overload, 60, 0, 70) == 0
    assert feel(overload, 60, 70, 140) == 1
    assert feel(overload, 60, 140, 1_000) == 1
    assert feel(overload, 200, 1_000, 1_170) == 2


def test_a_level_is_held_until_calm_has_lasted():
    overload = OverloadFace(LIMIT)
    feel(overload, 200, 0, 220)
    assert overload.level == 2
    assert feel(overload, 0, 220, 1_200) == 2
    assert feel(overload, 0, 1_200, 1_360) == 1
    assert feel(overload, 20, 1_360, 3_000) == 1, "neither calm nor too much"
    assert feel(overload, 0, 3_000, 3_600) == 0


def test_a_relapse_doubles_the_hold():
    overload = OverloadFace(LIMIT)
    at, holds = 0, []
    for _ in range(6):
        feel(overload, 300, at, at + 220)
        assert overload.level == 2
        at += 220
        since = at
        while overload.level == 2:
            feel(overload, 0, at, at + 20)
            at += 20
        holds.append((at - since) // 1_000)
    assert holds == [1, 2, 4, 8, 8, 8]


def test_no_limit_is_no_shedding():
    assert feel(OverloadFace(0), 5_000, 0, 1_000) == 0


def layers(stream: OverloadFace, level: int, start: int, count: int, *, switch_up: bool) -> list[int]:
    """Verdicts of L1T3 frames of one packet each: T0 T2 T1 T2."""
    return [stream.judge(level, 3_000 * i, i, temporal_id=(0, 2, 1, 2)[i % 4], switch_up=switch_up)[0] for i in range(start, start + count)]


def test_upper_layers_stay_out_until_one_may_switch_up():
    stream = OverloadFace(LIMIT)
    assert layers(stream, 0, 0, 8, switch_up=True) == [NOT] * 8
    assert layers(stream, 1, 8, 8, switch_up=True) == [NOT, LAYER, LAYER, LAYER] * 2
    assert layers(stream, 0, 16, 8, switch_up=False) == [NOT, LAYER, LAYER, LAYER] * 2
    assert stream.judge(0, 90_000, 24)[0] == NOT
    assert stream.judge(0, 93_000, 25, temporal_id=1, switch_up=True)[0] == NOT
    assert stream.judge(0, 96_000, 26, temporal_id=2)[0] == LAYER
    assert stream.judge(0, 99_000, 27, keyframe=True)[0] == NOT
    assert stream.judge(0, 102_000, 28, temporal_id=2)[0] == NOT


def test_frames_go_out_whole_or_not_at_all():
    stream = OverloadFace(LIMIT)
    assert stream.judge(0, 1, 100, temporal_id=2)[0] == NOT
    assert stream.judge(1, 1, 101, temporal_id=2)[0] == NOT, "it began before"
    assert stream.judge(1, 2, 103, temporal_id=2)[0] == LAYER
    assert stream.judge(1, 1, 102, temporal_id=2)[0] == NOT, "late, of the frame that went out"
    assert stream.judge(2, 3, 104) == (ALL, True)
    assert stream.judge(0, 3, 105) == (ALL, False)
    assert stream.judge(0, 4, 106) == (NOT, True)


def test_discardable_frames_go_with_the_layers():
    stream = OverloadFace(LIMIT)
    assert stream.judge(1, 1, 1, discardable=True)[0] == LAYER
    assert stream.judge(0, 2, 2, keyframe=True)[0] == NOT
    assert stream.judge(0, 3, 3, discardable=True)[0] == NOT


def test_any_sequence_of_levels_cuts_no_frame():
    rng = random.Random(5)
    for _ in range(100):
        stream, seq, fate = OverloadFace(LIMIT), 0, {}
        level = 0
        for frame in range(200):
            temporal_id = (0, 2, 1, 2)[frame % 4]
            for _ in range(rng.randint(1, 5)):
                if rng.random() < 0.1:
                    level = rng.randrange(3)
                seq += 1
                fate.setdefault(frame, set()).add(
                    stream.judge(level, frame, seq, temporal_id=temporal_id, switch_up=rng.random() < 0.2)[0])
        assert all(len(verdicts) == 1 for verdicts in fate.values())


# --- in an engine ---------------------------------------------------------------------------------------------------


class Call(Bench):
    """A voice and a camera (VP8, L1T2, a T1 frame of two packets) that one subscriber gets; `lag_ms` is felt all the time."""

    def __init__(self, limit_ns: int = LIMIT) -> None:
        super().__init__(overload_lag_ns=limit_ns)
        self.audio()
        self.video()
        self.lag_ms = 0
        self.number, self.video_seq, self.pictures = 0, 500, 0
        self.answer = True

    def vp8(self, temporal_id: int, key: bool, start: bool, marker: bool) -> None:
        self.video_seq += 1
        head = bytes([0x90 if start else 0x80, 0xA0]) + struct.pack("!H", 0x8000 | self.pictures) + bytes([temporal_id << 6 | 0x20])
        self.publish(rtp(1, self.video_seq, ts=3000 * self.pictures, marker=marker, extensions={MID: b"1", RID: b"q"},
                         payload=head + bytes([0x10 if key else 0x11]) + bytes(40)))

    def run(self, milliseconds: int) -> None:
        for _ in range(milliseconds // 20):
            self.engine.feel(self.lag_ms * MS, self.now_ns)
            self.publish(rtp(7, self.number, pt=111, ts=960 * self.number, payload=b"voice"))
            wanted = self.pictures == 0 or (self.answer and any(
                (kind, count) == (206, 1) for kind, count, _ in rtcp_packets(self.publisher.rtcp)))
            self.publisher.rtcp.clear()
            temporal_id = 0 if wanted else self.number % 2
            self.vp8(temporal_id, wanted, True, not temporal_id)
            if temporal_id:
                self.vp8(1, False, False, True)
            self.pictures += 1
            self.number += 1
            self.advance(20)

    def got(self) -> tuple[int, list[bytes]]:
        """Voices and video packets since the last call."""
        voices = sum(p[8:12] == (0x77).to_bytes(4) for p in self.subscriber.rtp)
        video = [p for p in self.subscriber.rtp if p[8:12] == (0x88).to_bytes(4)]
        self.subscriber.rtp.clear()
        return voices, video


def numbers(video: list[bytes]) -> list[int]:
    return [struct.unpack_from("!H", p, 2)[0] for p in video]


def test_layers_are_shed_without_a_trace_in_the_numbers():
    call = Call()
    call.run(400)
    voices, video = call.got()
    assert voices == 20 and len(video) == 30
    last = numbers(video)[-1]
    call.lag_ms = 60
    call.run(1_000)
    assert call.engine.overload_level == 1
    voices, video = call.got()
    assert voices == 50 and 25 <= len(video) <= 31
    assert numbers(video) == [(last + 1 + i) & 0xFFFF for i in range(len(video))]
    call.lag_ms = 0
    call.run(2_000)
    assert call.engine.overload_level == 0
    voices, video = call.got()
    assert voices == 100 and len(video) > 120
    assert call.snapshot()["counters"]["shed_layers"] > 30


def test_under_the_second_level_only_voices_go_out_and_pictures_come_back_at_a_keyframe():
    call = Call()
    call.run(400)
    call.got()
    call.lag_ms = 200
    call.run(200)
    assert call.engine.overload_level == 2
    call.got()
    call.publisher.rtcp.clear()
    call.run(1_000)
    assert not [1 for kind, count, _ in rtcp_packets(call.publisher.rtcp) if (kind, count) in ((206, 1), (205, 1))]
    voices, video = call.got()
    assert (voices, video) == (50, [])
    call.lag_ms = 0
    call.run(3_000)
    assert call.engine.overload_level == 0
    voices, video = call.got()
    assert voices == 150 and len(video) > 60
    first = video[0]
    assert first[header_bytes(first) + 5] == 0x10, "a keyframe"
    assert numbers(video) == [(numbers(video)[0] + i) & 0xFFFF for i in range(len(video))]
    counters = call.snapshot()["counters"]
    assert counters["overload_rises"] == 2 and counters["shed_video"] > 50


def test_a_queue_that_is_not_served_is_felt_too():
    """The engine sees by itself how long its transports wait for their turn."""
    call = Call()
    call.run(200)
    for _ in range(40):
        call.engine.feel(0, call.now_ns)
        call.engine.receive(call.publisher.protect(rtp(7, call.number, pt=111, payload=b"voice")), ("192.0.2.1", 40_000), call.now_ns)
        call.number += 1
        call.now_ns += 80 * MS
        call.poll()
    assert call.engine.overload_level == 1


def test_without_a_limit_nothing_is_shed():
    call = Call(0)
    call.lag_ms = 5_000
    call.run(600)
    voices, video = call.got()
    assert voices == 30 and len(video) == 45
