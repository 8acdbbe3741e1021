"""When a publisher is asked for a keyframe again: as arithmetic, and by an engine."""

import struct

from relaycore.keyframes import KeyframeFace
from tests.support.engine import MID, MS, RID, Bench, rtcp_packets, rtp, vp8_payload

PLI = (206, 1)


def test_requests_of_one_encoding_share_half_a_second():
    assert KeyframeFace().pause_ns() == 500 * MS


def test_what_is_owed_waits_for_two_round_trips():
    log = KeyframeFace()
    log.requested()
    assert log.is_owed and log.pause_ns(100 * MS) == 500 * MS and log.pause_ns(400 * MS) == 800 * MS
    log.packet(5, 100, True)
    assert not log.is_owed


def keyframe(log: KeyframeFace, rtp_ts: int, size: int) -> None:
    for at in range(0, size, 1_000):
        log.packet(rtp_ts, 1_000, at == 0)


def test_keyframes_above_the_budget_come_once_a_second():
    log = KeyframeFace()
    keyframe(log, 1, 100_000)
    log.packet(2, 4)
    paid = []
    for rtp_ts in range(3, 9):
        paid.append(log.pause_ns())
        log.requested()
        keyframe(log, rtp_ts, 100_000)
        log.packet(rtp_ts + 100, 4)
    assert paid[:2] == [500 * MS] * 2 and paid[3:] == [1_000 * MS] * 3
    for _ in range(1_600):
        log.packet(1_000, 1_000)
    assert log.pause_ns() == 500 * MS


def test_a_repeated_request_is_paid_once_and_an_unasked_keyframe_never():
    log = KeyframeFace()
    keyframe(log, 1, 100_000)
    log.packet(2, 4)
    assert log.spent_bytes == 0
    log.requested()
    log.requested()
    assert log.spent_bytes == 100_000


class Camera(Bench):
    """One simulcast publication that a subscriber is shown; `asked` tells when keyframes were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.video()
        self.seq, self.asked = 100, []
        self.frame(key=True)
        self.publisher.rtcp.clear()
        self.asked.clear()

    def frame(self, *, key: bool = False) -> None:
        self.seq += 1
        self.publish(rtp(1, self.seq, ts=3000 * self.seq, marker=True, extensions={MID: b"1", RID: b"q"},
                         payload=vp8_payload(key, self.seq)))

    def poll(self) -> None:
        super().poll()
        if hasattr(self, "asked"):
            self.asked += [self.now_ns for kind, count, _ in rtcp_packets(self.publisher.rtcp) if (kind, count) == PLI]
            self.publisher.rtcp.clear()

    def run(self, milliseconds: int) -> None:
        for _ in range(milliseconds // 20):
            self.advance(20)
            self.frame()

    def lose_sight(self) -> None:
        """The subscriber asks for a keyframe of what it is shown."""
        self.receive(self.subscriber.protect_rtcp(struct.pack("!BBHII", 0x81, 206, 2, 5, 0x88)), ("192.0.2.2", 41_000))


def test_a_request_that_nothing_answers_is_repeated_until_a_keyframe_comes():
    camera = Camera()
    camera.run(1_000)
    start = camera.now_ns
    camera.lose_sight()
    camera.run(2_200)
    assert [round((at - start) / (500 * MS)) for at in camera.asked] == [0, 1, 2, 3, 4]
    camera.frame(key=True)
    camera.asked.clear()
    camera.run(2_000)
    assert camera.asked == []


def test_nothing_is_repeated_for_nobody_and_for_a_publisher_that_is_silent():
    camera = Camera()
    camera.run(1_000)
    camera.lose_sight()
    assert len(camera.asked) == 1
    camera.advance(1_500)
    before = len(camera.asked)
    camera.advance(5_000)
    assert before <= 3 and len(camera.asked) == before
    camera.frame()
    assert len(camera.asked) == before + 1, "it came back, and the keyframe is still owed"
    camera.ok("select_encoding", 21, None)
    camera.asked.clear()
    camera.run(2_000)
    assert camera.asked == []


def test_what_was_lost_before_a_keyframe_needs_no_other():
    camera = Camera()
    camera.run(200)
    camera.seq += 1
    camera.frame()
    camera.frame(key=True)
    camera.run(2_000)
    assert camera.asked == []
    assert camera.snapshot()["counters"]["nacks_given_up"] == 1
    camera.seq += 1
    camera.run(1_200)
    assert len(camera.asked) >= 1


def crowded(per_s: float, seconds: int = 10) -> KeyframeFace:
    """A publisher into whose call so many came a second, whose first keyframe has just come."""
    face = KeyframeFace()
    for i in range(int(per_s * seconds)):
        face.joined(int(i / per_s * 1e9))
    return face


def test_who_joins_now_and_then_waits_no_longer_than_others():
    face = crowded(1.0)
    assert face.pause_ns(joins=True, now_ns=9_000 * MS) == face.pause_ns() == 500 * MS


def test_a_crowd_shares_keyframes_for_longer_and_only_the_crowd():
    face = crowded(20.0)
    assert face.pause_ns(joins=True, now_ns=10_000 * MS) == 3_400 * MS
    assert face.pause_ns(joins=False, now_ns=10_000 * MS) == 500 * MS
    # It is over within ten seconds.
    assert face.pause_ns(joins=True, now_ns=20_000 * MS) == 500 * MS


def test_a_keyframe_that_was_lost_is_asked_for_again_as_soon_in_a_crowd():
    face = crowded(20.0)
    face.requested()
    assert face.pause_ns(joins=True, now_ns=10_000 * MS) == 500 * MS
