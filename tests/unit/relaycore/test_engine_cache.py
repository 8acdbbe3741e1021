"""Subscribers who come late begin at the cached keyframe: whole, paced, numbered without a hole, and never at what was dropped."""

import struct

from tests.support.engine import MID, RID, SUBSCRIBER, VP8, Bench, rtcp_packets, rtp, vp8_payload
from tests.support.peer import header_bytes

PSFB = 206
FRAME_MS, FRAME_TICKS = 30, 2700


class LateBench(Bench):
    """A publisher of one encoding whose subscriber is paused: frames of `packets` packets each."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.video(encoding=None)
        self.seq = 1
        self.frames = 0

    def frame(self, *, key: bool = False, packets: int = 1, skip: int = 0, size: int = 40, ssrc: int = 1, rid: bytes = b"q") -> None:
        for i in range(packets):
            first = vp8_payload(key, self.frames + 1)
            payload = first if i == 0 else bytes([0x80, 0x80]) + first[2:4] + b"\x77" * 20
            self.seq += skip if i == 1 else 0
            self.publish(rtp(ssrc, self.seq, ts=self.frames * FRAME_TICKS, marker=i == packets - 1,
                             extensions={MID: b"1", RID: rid}, payload=payload + bytes(size)))
            self.seq += 1
        self.frames += 1
        self.advance(FRAME_MS)

    def frames_of(self, count: int, **options) -> None:
        for _ in range(count):
            self.frame(**options)

    def show(self) -> None:
        self.plis()
        self.ok("select_encoding", 21, 0)

    def plis(self) -> int:
        asked = sum((kind, count) == (PSFB, 1) for kind, count, _ in rtcp_packets(self.publisher.rtcp))
        self.publisher.rtcp.clear()
        return asked

    def seen(self) -> list[tuple[int, int, int]]:
        """(sequence number, timestamp, picture id) of what the subscriber got."""
        got = []
        for packet in self.subscriber.rtp:
            seq, ts = struct.unpack_from("!HI", packet, 2)
            got.append((seq, ts, struct.unpack_from("!H", packet, header_bytes(packet) + 2)[0] & 0x7FFF))
        return got

    def counters(self) -> dict[str, int]:
        return self.snapshot()["counters"]


def assert_gapless(bench: LateBench) -> None:
    numbers = [seq for seq, _, _ in bench.seen()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_who_comes_late_is_sent_the_keyframe_and_the_live_frames_follow():
    bench = LateBench()
    bench.frame(key=True, packets=5)
    bench.frames_of(10)
    bench.show()
    bench.frame()
    bench.advance(100)
    bench.frames_of(5)
    assert bench.plis() == 0, "no keyframe is asked for"
    assert [picture for _, _, picture in bench.seen()] == [1] * 5 + list(range(2, 18))
    assert [ts for _, ts, _ in bench.seen()][4:] == [i * FRAME_TICKS for i in range(17)]
    assert_gapless(bench)
    counters = bench.counters()
    assert (counters["cache_hits"], counters["cache_incomplete"], counters["cache_aborted"]) == (1, 0, 0)
    assert counters["cache_bytes"] > 0


def test_a_cache_with_a_hole_is_not_sent():
    bench = LateBench()
    bench.frame(key=True, packets=3, skip=1)
    bench.frame()
    bench.show()
    bench.frame()
    assert bench.subscriber.rtp == [] and bench.plis() > 0
    assert bench.counters()["cache_incomplete"] == 1
    bench.frame(key=True)
    assert len(bench.subscriber.rtp) == 1


def test_an_old_keyframe_is_not_sent():
    bench = LateBench()
    bench.frame(key=True)
    bench.frames_of(55)
    bench.show()
    bench.frame()
    assert bench.subscriber.rtp == [] and bench.plis() == 1
    assert bench.counters()["cache_hits"] == 0


def test_what_was_dropped_nobody_begins_at():
    """As at a change of the roster of an encrypted call: until the next keyframe there is nothing."""
    bench = LateBench()
    bench.frame(key=True)
    bench.frames_of(3)
    bench.ok("drop_keyframe_cache", 11)
    bench.show()
    bench.frames_of(2)
    assert bench.subscriber.rtp == [] and bench.plis() > 0
    bench.frame(key=True)
    bench.ok("select_encoding", 21, None)
    bench.ok("select_encoding", 21, 0)
    bench.frame()
    bench.advance(50)
    assert bench.counters()["cache_hits"] == 1


def test_a_cache_dropped_while_it_is_sent_ends_at_once():
    bench = LateBench()
    bench.frame(key=True, packets=100, size=1000)
    bench.show()
    bench.frame()
    assert 0 < len(bench.subscriber.rtp) < 60
    bench.ok("drop_keyframe_cache", 11)
    before = len(bench.subscriber.rtp)
    bench.frames_of(3)
    assert len(bench.subscriber.rtp) <= before + 1 and bench.plis() > 0
    assert bench.counters()["cache_aborted"] == 1
    bench.frame(key=True)
    bench.frame()
    assert_gapless(bench)


def test_it_is_paced_and_live_packets_wait_behind_it():
    """100 kB at the pace of repair on an unknown path, 8 Mbit/s, take 100 ms."""
    bench = LateBench()
    bench.frame(key=True, packets=100, size=1000)
    bench.show()
    bench.publish(rtp(1, bench.seq, ts=FRAME_TICKS, marker=True, extensions={MID: b"1", RID: b"q"}, payload=vp8_payload(False, 2)))
    at_once = len(bench.subscriber.rtp)
    assert 1 <= at_once <= 8
    bench.advance(50)
    assert 25 <= len(bench.subscriber.rtp) <= 60
    bench.advance(150)
    assert [picture for _, _, picture in bench.seen()] == [1] * 100 + [2]
    assert_gapless(bench)


def test_a_newer_keyframe_overtakes_the_rest():
    bench = LateBench()
    bench.frame(key=True, packets=100, size=1000)
    bench.show()
    bench.frame()
    bench.frame(key=True)
    bench.frames_of(2)
    pictures = [picture for _, _, picture in bench.seen()]
    assert 0 < pictures.count(1) < 100 and pictures[-3:] == [pictures[-1] - 2, pictures[-1] - 1, pictures[-1]]
    assert bench.plis() == 0
    assert_gapless(bench)
    times = [ts for _, ts, _ in bench.seen()]
    assert times == sorted(times)


def test_a_packet_lost_while_it_is_sent_finds_its_number():
    bench = LateBench()
    bench.frame(key=True, packets=100, size=1000)
    bench.show()
    bench.frame()
    missing, bench.seq = bench.seq, bench.seq + 1
    bench.frame()
    bench.advance(200)
    bench.publish(rtp(1, missing, ts=FRAME_TICKS + 1, marker=True, extensions={MID: b"1", RID: b"q"}, payload=vp8_payload(False, 50)))
    numbers = sorted(seq for seq, _, _ in bench.seen())
    assert numbers == list(range(numbers[0], numbers[0] + 103))


def test_padding_in_the_cache_takes_no_number():
    bench = LateBench()
    bench.frame(key=True)
    bench.publish(rtp(1, bench.seq, ts=0, extensions={MID: b"1", RID: b"q"}))
    bench.seq += 1
    bench.frame()
    bench.show()
    bench.frame()
    bench.advance(50)
    assert len(bench.subscriber.rtp) == 3
    assert_gapless(bench)


def test_a_pause_while_it_is_sent_ends_it():
    bench = LateBench()
    bench.frame(key=True, packets=100, size=1000)
    bench.show()
    bench.frame()
    bench.ok("select_encoding", 21, None)
    before = len(bench.subscriber.rtp)
    bench.frames_of(3)
    assert len(bench.subscriber.rtp) == before
    bench.ok("remove_egress", 21)
    bench.frame()


def test_a_subscriber_that_goes_while_it_is_sent_leaves_nothing_behind():
    bench = LateBench()
    bench.frame(key=True, packets=100, size=1000)
    bench.show()
    bench.frame()
    bench.ok("remove_transport", 2)
    bench.frames_of(2)
    bench.ok("remove_transport", 1)
    assert bench.snapshot()["slots_used"] == 0


def test_a_publisher_that_starts_over_ends_it():
    bench = LateBench()
    bench.frame(key=True, packets=100, size=1000)
    bench.show()
    bench.frame()
    bench.frame(ssrc=2)
    before = len(bench.subscriber.rtp)
    bench.frames_of(2, ssrc=2)
    assert len(bench.subscriber.rtp) == before
    bench.frame(ssrc=2, key=True)
    assert len(bench.subscriber.rtp) == before + 1
    assert_gapless(bench)


def switching() -> LateBench:
    """The subscriber is shown the lowest encoding; the next one had a keyframe just now."""
    bench = LateBench()
    bench.ok("select_encoding", 21, 0)
    bench.publish(rtp(1, 1, ts=0, marker=True, extensions={MID: b"1", RID: b"q"}, payload=vp8_payload(True, 1)))
    for i in range(1, 8):
        bench.advance(FRAME_MS)
        bench.publish(rtp(1, 1 + i, ts=i * FRAME_TICKS, marker=True, extensions={MID: b"1", RID: b"q"}, payload=vp8_payload(False, 1 + i)))
        bench.publish(rtp(2, 1 + i, ts=77 + i * FRAME_TICKS, marker=True, extensions={MID: b"1", RID: b"h"},
                          payload=vp8_payload(i == 1, 500 + i)))
    bench.plis()
    return bench


def test_who_switches_goes_on_behind_what_was_shown():
    """Older pictures stand right behind the last one, and the stream is in time again when it has caught up."""
    bench = switching()
    shown = bench.seen()[-1]
    bench.ok("select_encoding", 21, 1)
    for i in range(8, 12):
        bench.advance(FRAME_MS)
        bench.publish(rtp(2, 1 + i, ts=77 + i * FRAME_TICKS, marker=True, extensions={MID: b"1", RID: b"h"},
                          payload=vp8_payload(False, 500 + i)))
    bench.advance(50)
    behind = bench.seen()[8:]
    assert bench.plis() == 0
    assert [picture for _, _, picture in behind] == [shown[2] + i for i in range(1, 12)]
    times = [ts for _, ts, _ in behind]
    assert all(before < after for before, after in zip([shown[1], *times], times))
    caught_up = [ts for ts in times if ts > shown[1] + FRAME_TICKS // 2]
    assert len(caught_up) == 4
    assert caught_up[-1] - caught_up[0] == 3 * FRAME_TICKS
    assert abs(caught_up[0] - (shown[1] + FRAME_TICKS)) < 600, "arrival is what they are placed by without sender reports"
    assert_gapless(bench)


def test_who_switches_is_not_sent_an_older_keyframe():
    bench = switching()
    bench.advance(500)
    bench.ok("select_encoding", 21, 1)
    bench.advance(5)
    assert bench.plis() == 1 and bench.counters()["cache_hits"] == 0


def test_a_packet_sent_from_the_cache_is_sent_again_when_asked_for():
    bench = LateBench()
    bench.ok("remove_egress", 21)
    bench.frame(key=True, packets=3)
    bench.frames_of(40)
    bench.ok("add_egress", 2, 22, 11, 0x99, 0x9A, "6", VP8, "cname", 0)
    bench.frame()
    bench.advance(100)
    first = bench.seen()[0][0]
    bench.receive(bench.subscriber.protect_rtcp(struct.pack("!BBHIIHH", 0x81, 205, 3, 99, 0x99, first, 0)), SUBSCRIBER)
    bench.advance(20)
    assert bench.counters()["rtx_sent"] == 1


def late_keyframe(bench: LateBench) -> bytes:
    """Let a keyframe of two packets come without the first of them, and two frames more; return that first packet."""
    first, seq = vp8_payload(True, bench.frames + 1), bench.seq
    late = rtp(1, seq, ts=bench.frames * FRAME_TICKS, extensions={MID: b"1", RID: b"q"}, payload=first + bytes(40))
    bench.publish(rtp(1, seq + 1, ts=bench.frames * FRAME_TICKS, marker=True, extensions={MID: b"1", RID: b"q"},
                      payload=bytes([0x80, 0x80]) + first[2:4] + bytes(60)))  # fmt: skip
    bench.seq, bench.frames = seq + 2, bench.frames + 1
    bench.frames_of(2)
    return late


def test_a_keyframe_whose_beginning_comes_behind_the_next_frames_is_not_taken_for_whole():
    bench = LateBench()
    bench.frame(key=True)
    bench.publish(late_keyframe(bench))
    bench.show()
    bench.frame()
    assert not bench.seen() and bench.plis() == 1


def test_nobody_starts_at_a_late_packet_behind_which_packets_were_let_go():
    bench = LateBench()
    bench.frame(key=True)
    late = late_keyframe(bench)
    bench.show()
    bench.publish(late)
    bench.frame()
    assert not bench.seen() and bench.plis() >= 1


def test_a_late_beginning_is_kept_with_what_was_shown_to_others_meanwhile():
    bench = LateBench()
    bench.ok("select_encoding", 21, 0)
    bench.frame(key=True)
    bench.publish(late_keyframe(bench))
    bench.advance(FRAME_MS)
    bench.ok("select_encoding", 21, None)
    shown = len(bench.seen())
    bench.plis()
    bench.show()
    bench.frame()
    bench.advance(200)
    assert bench.plis() == 0
    assert len(bench.seen()) - shown == 5, "the keyframe's two packets and three frames"
    numbers = [seq for seq, _, _ in bench.seen()[shown:]]
    assert numbers == list(range(numbers[0], numbers[0] + 5))
