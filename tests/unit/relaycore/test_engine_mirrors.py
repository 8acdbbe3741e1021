"""A publication on one engine, its subscriber on another: what crosses, what goes back, and what happens when either end goes."""

from __future__ import annotations

import random
import struct

import pytest

from relaycore.exchange import WorkerExchange
from relaycore.port import EventKind
from relaycore.sansio import SansIoEngine
from tests.support.engine import (
    LEVEL,
    MID,
    MS,
    OPUS,
    PUBLISHER,
    RID,
    SUBSCRIBER,
    URIS,
    VP8,
    rtcp_packets,
    rtp,
    vp8_payload,
)
from tests.support.peer import MediaPeer, header_bytes

E_STATE, E_UNKNOWN_STREAM = -18, -16
NEAR, FAR = 0, 1


class Across:
    """Transport 1 publishes on engine NEAR, transport 2 receives on engine FAR."""

    def __init__(self, *, ring_bytes: int = 1 << 18, mirrored: bool = True) -> None:
        rng = random.Random(1)
        self.exchange = WorkerExchange(2, ring_bytes)
        self.engines = [SansIoEngine(seed=1 + i, slots=1024, exchange=self.exchange, index=i) for i in (NEAR, FAR)]
        self.now_ns = 10_000 * MS
        self.peers = MediaPeer(rng), MediaPeer(rng)
        self.codes: list[dict[int, int]] = [{}, {}]
        for where, peer, address in zip((NEAR, FAR), self.peers, (PUBLISHER, SUBSCRIBER), strict=True):
            self.ok(where, "add_transport", 1 + where, peer.ufrag, peer.password)
            self.ok(where, "set_srtp", 1 + where, *peer.relay_keys().values())
            self.ok(where, "set_extensions", 1 + where, URIS)
            self.engines[where].receive(peer.check(), address, self.now_ns)
        self.ok(NEAR, "add_receiver", 1, 10, False, "0", OPUS, (), (7,))
        self.ok(NEAR, "add_receiver", 1, 11, True, "1", VP8, ("q", "h", "f"))
        if mirrored:
            self.mirror()

    def mirror(self) -> None:
        for receiver, is_video, encodings in ((10, False, 1), (11, True, 3)):
            self.ok(FAR, "add_mirror", receiver, NEAR, is_video, encodings)
            self.ok(NEAR, "add_export", receiver, FAR)

    def command(self, where: int, name: str, *arguments) -> int:
        number = getattr(self.engines[where], name)(*arguments)
        self.poll()
        return self.codes[where][number]

    def ok(self, where: int, name: str, *arguments) -> None:
        code = self.command(where, name, *arguments)
        assert code >= 0, f"{name}: {code}"

    def poll_one(self, where: int) -> None:
        for datagram, address in self.engines[where].poll(self.now_ns):
            self.peers[address == SUBSCRIBER].receive(datagram)
        for event in self.engines[where].take_events(10_000):
            if event[0] == EventKind.ACK:
                self.codes[where][event[1]] = event[2]

    def poll(self) -> None:
        for _ in range(3):
            self.poll_one(NEAR)
            self.poll_one(FAR)

    def advance(self, milliseconds: int) -> None:
        end = self.now_ns + milliseconds * MS
        while self.now_ns < end:
            self.now_ns += 5 * MS
            if self.now_ns // MS % 1000 == 0:
                for where, address in ((NEAR, PUBLISHER), (FAR, SUBSCRIBER)):
                    self.engines[where].receive(self.peers[where].check(), address, self.now_ns)
            self.poll()

    def publish(self, packet: bytes, *, poll: bool = True) -> None:
        self.engines[NEAR].receive(self.peers[NEAR].protect(packet), PUBLISHER, self.now_ns)
        if poll:
            self.poll()

    def frame(self, ssrc: int, seq: int, *, key: bool = False, rid: str = "q", ts: int | None = None, poll: bool = True) -> None:
        extensions = {MID: b"1", RID: rid.encode()}
        self.publish(rtp(ssrc, seq, ts=3_000 * seq if ts is None else ts, marker=True, extensions=extensions,
                         payload=vp8_payload(key, seq & 0x7FFF)), poll=poll)

    def ask(self, kind: int, count: int, body: bytes) -> None:
        packet = struct.pack("!BBH", 0x80 | count, kind, len(body) // 4) + body
        self.engines[FAR].receive(self.peers[FAR].protect_rtcp(packet), SUBSCRIBER, self.now_ns)
        self.poll()

    def counters(self, where: int) -> dict[str, int]:
        self.ok(where, "request_snapshot")
        return self.engines[where].snapshot()["counters"]

    def plis(self) -> list[int]:
        """SSRCs that the publisher was asked for a keyframe of, and forget them."""
        found = [struct.unpack_from("!I", body, 4)[0] for kind, count, body in rtcp_packets(self.peers[NEAR].rtcp)
                 if (kind, count) == (206, 1)]
        self.peers[NEAR].rtcp.clear()
        return found

    @property
    def got(self) -> list[bytes]:
        return self.peers[FAR].rtp


@pytest.fixture
def across() -> Across:
    return Across()


def listen(across: Across) -> None:
    across.ok(FAR, "add_egress", 2, 20, 10, 0x77, None, "5", OPUS, "cname", 0)


def watch(across: Across, encoding: int | None = 0, *, egress: int = 21, ssrc: int = 0x88) -> None:
    across.ok(FAR, "add_egress", 2, egress, 11, ssrc, ssrc + 0x1000, "6", VP8, "cname", encoding)


def test_audio_crosses_with_its_payload_and_extensions(across):
    listen(across)
    for seq in range(5):
        across.publish(rtp(7, seq, pt=111, ts=960 * seq, extensions={LEVEL: b"\x8a"}, payload=bytes([seq]) * 60))
    assert [p[header_bytes(p):] for p in across.got] == [bytes([seq]) * 60 for seq in range(5)]
    # The level is read through a pointer into the packet, which has moved.
    assert all(b"\x8a" in p[12 : header_bytes(p)] for p in across.got)
    first, *rest = (struct.unpack_from("!H", p, 2)[0] for p in across.got)
    assert rest == [first + 1 + i for i in range(4)]
    assert across.counters(NEAR)["exported"] == across.counters(FAR)["imported"] == 5


def test_nothing_crosses_that_nobody_wants(across):
    for seq in range(3):
        across.publish(rtp(7, seq, pt=111, payload=bytes(60)))
        across.frame(50, seq, key=True)
    assert across.counters(NEAR)["exported"] == 0
    watch(across, None)
    across.frame(50, 3, key=True)
    assert across.counters(NEAR)["exported"] == 0


def test_only_the_wanted_encoding_crosses_and_after_a_switch_only_the_new_one(across):
    watch(across, 0)
    def all_three(seq: int, key: bool) -> None:
        for ssrc, rid in ((50, "q"), (51, "h"), (52, "f")):
            across.frame(ssrc, seq, key=key, rid=rid)

    all_three(1, True)
    assert across.counters(NEAR)["exported"] == 1
    across.ok(FAR, "select_encoding", 21, 2)
    # Both: the old one is shown until the new one's keyframe.
    all_three(2, False)
    assert across.counters(NEAR)["exported"] == 3
    all_three(3, True)
    across.advance(1_100)
    before = across.counters(NEAR)["exported"]
    all_three(4, False)
    assert across.counters(NEAR)["exported"] == before + 1
    across.ok(FAR, "remove_egress", 21)
    all_three(5, True)
    assert across.counters(NEAR)["exported"] == before + 1


def test_a_keyframe_request_crosses_and_is_coalesced_at_home(across):
    across.frame(50, 1, key=True)
    watch(across, 0)
    assert across.plis() == [50]
    across.advance(600)
    across.frame(50, 2, key=True)
    assert across.got
    for _ in range(5):
        across.ask(206, 1, struct.pack("!II", 1, 0x88))
        across.advance(30)
    assert across.plis() == [50]
    across.advance(600)
    # The others shared it, or were met by one more.
    assert across.plis() in ([], [50])


def test_a_subscriber_that_waits_reminds_the_publisher(across):
    watch(across, 0)
    for seq in range(200):
        across.frame(50, seq)
        across.advance(10)
    assert not across.got
    assert 3 <= len(across.plis()) <= 5


def test_lost_packets_are_sent_again_by_the_workers_own_history(across):
    watch(across, 0)
    for seq in range(6):
        across.frame(50, seq, key=seq == 0)
    numbers = [struct.unpack_from("!H", p, 2)[0] for p in across.got]
    across.got.clear()
    across.advance(20)
    across.ask(205, 1, struct.pack("!IIHH", 1, 0x88, numbers[2], 0b10))
    again = across.got
    assert [struct.unpack_from("!I", p, 8)[0] for p in again] == [0x1088, 0x1088]
    assert [struct.unpack_from("!H", p, header_bytes(p))[0] for p in again] == [numbers[2], numbers[4]]
    assert across.counters(NEAR)["rtx_sent"] == 0 and across.counters(FAR)["rtx_sent"] == 2


def sender_report(across: Across, ssrc: int, rtp_ts: int) -> None:
    ntp = (3_900_000_000 << 32) + (across.now_ns << 32) // 10**9
    across.engines[NEAR].receive(across.peers[NEAR].protect_rtcp(struct.pack("!BBHIQIII", 0x80, 200, 6, ssrc, ntp, rtp_ts, 1, 1)),
                                 PUBLISHER, across.now_ns)


def reports(across: Across) -> list[tuple[int, int]]:
    """(NTP, RTP timestamp) of the sender reports that the subscriber got."""
    return [struct.unpack_from("!QI", body, 4) for kind, _, body in rtcp_packets(across.peers[FAR].rtcp) if kind == 200]


@pytest.mark.parametrize("early", [False, True])
def test_sender_reports_cross_also_those_from_before_the_export(early):
    across = Across(mirrored=not early)
    across.publish(rtp(7, 1, pt=111, ts=48_000, payload=bytes(60)))
    sender_report(across, 7, 48_000)
    across.poll()
    if early:
        across.mirror()
    listen(across)
    across.publish(rtp(7, 2, pt=111, ts=48_960, payload=bytes(60)))
    across.advance(50)
    (ntp, rtp_ts), *_ = reports(across)
    out_ts = struct.unpack_from("!I", across.got[0], 4)[0]
    # Report and packet lie on one line: the packet's timestamp is 20 ms behind the publisher's report.
    elapsed = (ntp - (3_900_000_000 << 32)) / 2**32 - 10.0
    apart = ((rtp_ts - out_ts + 0x80000000) & 0xFFFFFFFF) - 0x80000000
    assert apart / 48_000 == pytest.approx(elapsed - 0.02, abs=0.002)


def test_a_publisher_that_starts_over_under_a_new_ssrc_goes_on_at_its_keyframe(across):
    watch(across, 0)
    for seq in range(3):
        across.frame(50, seq, key=seq == 0)
    before = len(across.got)
    across.frame(90, 7_000, ts=5)
    assert len(across.got) == before
    across.frame(90, 7_001, key=True, ts=3_005)
    across.frame(90, 7_002, ts=6_005)
    numbers = [struct.unpack_from("!H", p, 2)[0] for p in across.got]
    assert numbers == list(range(numbers[0], numbers[0] + 5))
    assert {struct.unpack_from("!I", p, 8)[0] for p in across.got} == {0x88}
    # What is left of the former stream is not mixed in.
    across.frame(50, 3, key=True)
    assert len(across.got) == 5


def test_what_is_under_way_when_the_mirror_goes_is_dropped_and_counted(across):
    listen(across)
    across.publish(rtp(7, 1, pt=111, payload=bytes(60)))
    across.publish(rtp(7, 2, pt=111, payload=bytes(60)), poll=False)
    across.poll_one(NEAR)
    assert across.engines[FAR].has_mail
    across.engines[FAR].remove_receiver(10)
    across.poll_one(FAR)
    assert len(across.got) == 1
    assert across.counters(FAR)["exchange_unknown"] == 1
    across.ok(NEAR, "remove_export", 10, FAR)
    across.publish(rtp(7, 3, pt=111, payload=bytes(60)))
    assert across.counters(NEAR)["exported"] == 2


def test_requests_for_a_publication_that_is_gone_are_dropped_and_counted(across):
    watch(across, 0)
    across.ok(NEAR, "remove_receiver", 11)
    across.ok(FAR, "request_keyframe", 11, 0)
    across.advance(1_100)
    assert across.counters(NEAR)["exchange_unknown"] >= 2
    across.ok(FAR, "remove_receiver", 11)


def test_a_full_ring_drops_whole_frames_and_leaves_room_for_audio():
    across = Across(ring_bytes=16_384)
    listen(across)
    watch(across, 0)
    across.frame(50, 0, key=True)
    across.got.clear()
    # The far engine stands still: nothing is taken. Frames of four packets.
    for frame in range(1, 30):
        for part in range(4):
            seq = frame * 4 + part
            across.publish(rtp(50, seq, ts=3_000 * frame, marker=part == 3, extensions={MID: b"1", RID: b"q"},
                               payload=bytes([0x90 if part == 0 else 0x80, 0x80]) + struct.pack("!H", 0x8000 | frame) + b"\x11"
                               + bytes(300)), poll=False)
            across.engines[NEAR].poll(across.now_ns)
    for seq in range(3):
        across.publish(rtp(7, seq, pt=111, ts=960 * seq, payload=bytes(60)), poll=False)
        across.engines[NEAR].poll(across.now_ns)
    across.poll()
    video = [p for p in across.got if struct.unpack_from("!I", p, 8)[0] == 0x88]
    per_frame: dict[int, int] = {}
    for packet in video:
        ts = struct.unpack_from("!I", packet, 4)[0]
        per_frame[ts] = per_frame.get(ts, 0) + 1
    assert set(per_frame.values()) == {4} and 2 <= len(per_frame) <= 8
    assert len(across.got) - len(video) == 3
    counters = across.counters(NEAR)
    assert counters["export_dropped_video"] == 29 * 4 - len(video)
    assert counters["export_dropped_audio"] == 0


def test_slots_of_a_mirror_are_given_back_when_its_stream_falls_silent(across):
    watch(across, 0)
    for seq in range(50):
        across.frame(50, seq, key=seq == 0)
    assert across.engines[FAR].slots_used >= 50
    across.advance(2_100)
    assert across.engines[FAR].slots_used == 0


def test_both_ends_go_in_any_order_and_keep_nothing():
    for order in ((NEAR, FAR), (FAR, NEAR)):
        across = Across()
        listen(across)
        watch(across, 0)
        for seq in range(20):
            across.frame(50, seq, key=seq == 0, poll=False)
        for where in order:
            across.ok(where, "remove_transport", 1 + where)
            across.frame(50, 30) if where == FAR else None
        across.ok(FAR, "remove_receiver", 10)
        across.ok(FAR, "remove_receiver", 11)
        across.poll()
        assert [engine.slots_used for engine in across.engines] == [0, 0]
        across.now_ns += 1_100 * MS
        across.poll()
        assert across.engines[FAR].next_ns is None


@pytest.mark.parametrize("where, name, arguments, code", [
    (NEAR, "add_export", (11, NEAR), E_STATE),
    (NEAR, "add_export", (11, 2), E_STATE),
    (NEAR, "add_export", (99, FAR), E_UNKNOWN_STREAM),
    (NEAR, "remove_export", (99, FAR), E_UNKNOWN_STREAM),
    (FAR, "add_export", (11, NEAR), E_STATE),
    (FAR, "add_mirror", (11, NEAR, True, 3), E_STATE),
    (FAR, "add_mirror", (12, FAR, True, 3), E_STATE),
    (FAR, "add_mirror", (12, 2, True, 3), E_STATE),
    (NEAR, "add_mirror", (11, FAR, True, 3), E_STATE),
])
def test_impossible_mirrors_and_exports_are_refused(across, where, name, arguments, code):
    assert across.command(where, name, *arguments) == code


def test_an_engine_without_others_refuses_mirrors():
    engine = SansIoEngine(seed=1)
    numbers = engine.add_mirror(5, 1, False, 1), engine.add_export(5, 1)
    engine.poll(1)
    codes = {event[1]: event[2] for event in engine.take_events()}
    assert [codes[n] for n in numbers] == [E_STATE, E_UNKNOWN_STREAM]
    with pytest.raises(ValueError):
        engine.add_mirror(5, 1, False, 5)
