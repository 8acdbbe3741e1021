"""Congestion control towards a subscriber, over the engine: a bottleneck on virtual time, feedback as a browser writes it."""

from __future__ import annotations

import heapq
import random
import struct

import pytest

from relaycore.port import EventKind
from relaycore.twcc import TwccFace
from relaycore.twccread import read_feedback as read_in_the_relay
from tests.sim.link import Impairment, Link
from tests.support.engine import MID, MS, RID, SUBSCRIBER, TWCC, Bench, rtp
from tests.support.feedback import read_feedback
from tests.unit.relaycore.test_engine_media import extension

VP8_RTX = ((96, "vp8", 90_000, 97),)
SSRC, RTX_SSRC = 0x88, 0x89
FEEDBACK_MS = 50


class Path(Bench):
    """One video of `source_bps` (30 frames a second) to a subscriber behind a link of `rate_bps` with 300 ms of queue."""

    def __init__(self, rate_bps: int, source_bps: int, *, seed: int = 1, loss: float = 0.0, rtx: bool = True) -> None:
        queue = rate_bps * 300 // 8000
        self.link: Link | None = None
        self.late: list[tuple[int, int, bytes]] = []
        super().__init__(seed)
        self.link = Link(random.Random(seed), Impairment(delay_s=0.025, rate_bps=rate_bps, queue_bytes=queue, loss=loss))
        self.ok("add_receiver", 1, 11, True, "1", VP8_RTX, ("q",))
        self.ok("add_egress", 2, 21, 11, SSRC, RTX_SSRC if rtx else None, "6", VP8_RTX, "cname", 0)
        self.source_bps, self.seq, self.frame = source_bps, 0, 0
        self.keyframes = {0}
        self.recorder, self.feedback_ns, self.order = TwccFace(), 0, 0

    def poll(self) -> None:
        for datagram, address in self.engine.poll(self.now_ns):
            if address != SUBSCRIBER:
                self.publisher.receive(datagram)
            elif self.link is None:
                self.subscriber.receive(datagram)
            else:
                self.link.send(datagram, self.now_ns)
        self.events += self.engine.take_events(10_000)

    def publish_frame(self) -> None:
        count = max(1, round(self.source_bps / 30 / 8 / 1000))
        size = self.source_bps // 30 // 8 // count
        for i in range(count):
            payload = bytes([0x90 if i == 0 else 0x80, 0x80]) + struct.pack("!H", 0x8000 | self.frame & 0x7FFF)
            payload += bytes([0x10 if self.frame in self.keyframes else 0x11]) + bytes(size)
            packet = rtp(1, self.seq, ts=3000 * self.frame, marker=i == count - 1, payload=payload,
                         extensions={MID: b"1", RID: b"q"})
            self.engine.receive(self.publisher.protect(packet), ("192.0.2.1", 40_000), self.now_ns)
            self.seq += 1
        self.frame += 1

    def run(self, seconds: float) -> None:
        end = self.now_ns + int(seconds * 1e9)
        while self.now_ns < end:
            before = self.now_ns
            self.now_ns += MS
            if before // (1000 * MS) != self.now_ns // (1000 * MS):
                self.receive(self.publisher.check())
                self.receive(self.subscriber.check(), SUBSCRIBER)
            if before * 30 // 10**9 != self.now_ns * 30 // 10**9:
                self.publish_frame()
            self.poll()
            for datagram in self.link.take_due(self.now_ns):
                plain = self.subscriber.receive(datagram)
                if plain is not None and (number := extension(plain, TWCC)) is not None:
                    self.recorder.record(struct.unpack("!H", number)[0], self.now_ns)
            if self.now_ns - self.feedback_ns >= FEEDBACK_MS * MS:
                self.feedback_ns = self.now_ns
                while self.recorder.pending and (packet := self.recorder.write_feedback()):
                    self.order += 1
                    heapq.heappush(self.late, (self.now_ns + 25 * MS, self.order, packet))
            while self.late and self.late[0][0] <= self.now_ns:
                self.receive(self.subscriber.protect_rtcp(heapq.heappop(self.late)[2]), SUBSCRIBER)

    def estimates(self) -> list[int]:
        return [event[2] for event in self.taken(EventKind.ESTIMATE)]

    def resent(self) -> list[bytes]:
        return [p for p in self.subscriber.rtp if struct.unpack_from("!I", p, 8)[0] == RTX_SSRC]


def test_a_free_path_is_known_for_what_is_wanted_of_it_within_three_seconds():
    path = Path(20_000_000, 600_000)
    path.engine.set_wanted_rate(2, 3_000_000)
    path.run(3)
    assert path.estimates()[-1] > 3_000_000
    snapshot = path.snapshot()
    assert snapshot["counters"]["probes"] >= 1 and snapshot["transports"]["estimate_bps"].max() == path.estimates()[-1]
    probes = path.resent()
    numbers = [struct.unpack_from("!H", packet, 2)[0] for packet in probes]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "RTX has numbers of its own without a hole"
    assert path.subscriber.refused == 0, "no SRTP index was used twice"


def test_nobody_who_wants_nothing_more_is_probed():
    path = Path(20_000_000, 600_000)
    path.run(3)
    assert path.snapshot()["counters"]["probes"] == 0 and path.resent() == []


def test_a_subscriber_without_rtx_gets_no_padding():
    path = Path(20_000_000, 600_000, rtx=False)
    path.engine.set_wanted_rate(2, 3_000_000)
    path.run(3)
    assert path.snapshot()["counters"]["probe_bytes"] == 0
    assert {struct.unpack_from("!I", p, 8)[0] for p in path.subscriber.rtp} == {SSRC}


def test_a_path_that_is_too_narrow_is_noticed_within_a_second():
    path = Path(500_000, 1_500_000)
    path.run(1.5)
    assert path.estimates()[-1] < 600_000


@pytest.mark.parametrize("share", [0.02, 0.08])
def test_loss_by_chance_is_not_taken_for_a_full_path(share):
    path = Path(20_000_000, 1_000_000, loss=share)
    path.engine.set_wanted_rate(2, 1_500_000)
    path.run(8)
    assert path.estimates()[-1] > 1_000_000
    assert abs(path.taken(EventKind.ESTIMATE)[-1][3] / 1000 - share) < 0.06


def test_the_start_rate_is_no_estimate_where_a_first_cluster_can_be_sent():
    path = Path(20_000_000, 600_000)
    path.engine.set_wanted_rate(2, 3_000_000)
    path.run(2)
    assert path.estimates()[0] > 500_000, "videos would be paused for a guess"


def test_a_video_that_is_paused_for_want_of_room_carries_the_probes_that_bring_it_back():
    path = Path(20_000_000, 600_000)
    path.run(1)
    known = path.estimates()[-1]
    path.ok("select_layers", 21, None)
    path.run(0.2)
    sent = len(path.subscriber.rtp)
    path.engine.set_wanted_rate(2, 3_000_000)
    path.run(8)
    assert path.estimates()[-1] > 2 * known
    probes = path.subscriber.rtp[sent:]
    assert probes and {struct.unpack_from("!I", p, 8)[0] for p in probes} == {RTX_SSRC}
    assert all(p[0] & 0x20 and len(p) < 300 for p in probes), "padding alone: nothing of a paused video is sent again"
    assert {extension(p, MID) for p in probes} == {b"6"}, "nobody reports on an RTX stream, so it always says whose it is"


def test_who_gives_no_feedback_may_say_a_maximum():
    path = Path(20_000_000, 600_000)
    # REMB (draft-alvestrand-rmcat-remb-03): 1 SSRC, exponent 3, mantissa 50,000.
    remb = struct.pack("!BBHII4sBBHI", 0x8F, 206, 5, 1, 0, b"REMB", 1, 3 << 2, 50_000, SSRC)
    path.receive(path.subscriber.protect_rtcp(remb), SUBSCRIBER)
    assert path.estimates() == [400_000]
    path.run(1)
    assert path.estimates()[-1] != 400_000, "feedback says more"


def test_feedback_is_read_as_an_independent_reader_reads_it():
    rng = random.Random(7)
    for _ in range(200):
        face, now_ns = TwccFace(), 5_000 * MS
        for number in range(65_500, 65_500 + rng.randrange(1, 120)):
            now_ns += rng.choice([0, 100_000, 3 * MS, 90 * MS])
            if rng.random() < 0.8:
                face.record(number & 0xFFFF, now_ns)
        while face.pending and (packet := face.write_feedback()):
            wanted = read_feedback(packet)
            found = read_in_the_relay(packet)
            assert len(found) == wanted.count
            arrived = tuple((n, ns // 250_000 & 0xFFFFFFFF) for n, ns in found if ns is not None)
            assert arrived == tuple((n, t & 0xFFFFFFFF) for n, t in wanted.arrivals)


def test_feedback_of_chance_is_refused_or_read_and_never_more():
    rng = random.Random(9)
    path = Path(20_000_000, 600_000)
    path.run(0.3)
    for _ in range(2000):
        body = rng.randbytes(4 * rng.randrange(2, 20))
        packet = struct.pack("!BBH", 0x8F, 205, len(body) // 4) + body
        path.engine.receive(path.subscriber.protect_rtcp(packet), SUBSCRIBER, path.now_ns)
    path.run(0.5)
    assert path.snapshot()["errors"]["E_SHORT"] > 100
