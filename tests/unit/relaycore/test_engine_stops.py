"""After a publication was stopped nothing of it leaves any worker: not what waits, what was kept, or what comes late."""

import struct

import pytest

from tests.support.engine import MID, OPUS, PUBLISHER, RID, VP8, rtp
from tests.unit.relaycore.test_engine_mirrors import FAR, NEAR, Across

SSRC, OUT = 9, 0x88
SIGNAL_KEYFRAME, SIGNAL_STOP, SIGNAL_PLACES = 2, 3, 4096


class Stopping(Across):
    """A video publication declared encrypted on NEAR; subscribers of both workers, those of FAR by a mirror."""

    def __init__(self) -> None:
        super().__init__(mirrored=False)
        self.ok(NEAR, "set_frame_format", 11, "livekit_gcm")
        self.mirror()
        self.ok(FAR, "add_egress", 2, 20, 11, OUT, OUT + 1, "6", VP8, "c", 0)

    def packet(self, seq: int, *, mark: bool = True) -> None:
        tail = struct.pack("!IIIBB", SSRC, 3000 * seq, seq, 12, 0) if mark else b""
        payload = b"\x10" + (b"\x10" if seq == 0 else b"\x11") + bytes(60) + tail
        extensions = {MID: b"1", RID: b"q"}
        datagram = self.peers[NEAR].protect(rtp(SSRC, seq, ts=3000 * seq, marker=True, extensions=extensions, payload=payload))
        self.engines[NEAR].receive(datagram, PUBLISHER, self.now_ns)

    def frames(self, first: int, count: int, *, mark: bool = True) -> None:
        for seq in range(first, first + count):
            self.packet(seq, mark=mark)
            self.poll()

    def ask_again(self, packets: list[bytes]) -> None:
        self.ask(205, 1, struct.pack("!II", 1, OUT) + b"".join(p[2:4] + b"\0\0" for p in packets))

    @property
    def is_stopped(self) -> bool:
        return self.counters(NEAR)["receivers_stopped"] == 1


def test_a_mirror_sends_nothing_again():
    call = Stopping()
    call.frames(0, 30)
    assert len(call.got) == 30
    call.ask_again(call.got[-2:])
    assert len(call.got) == 32 and call.counters(FAR)["rtx_sent"] == 2
    call.frames(30, 8, mark=False)
    assert call.is_stopped
    got = len(call.got)
    call.advance(100)
    call.ask_again(call.got[20:30])
    call.advance(200)
    assert len(call.got) == got
    counters = call.counters(FAR)
    assert (counters["rtx_sent"], counters["rtx_unknown"]) == (2, 10)
    # Slots go back with what was kept.
    assert call.engines[FAR].slots_used == call.engines[NEAR].slots_used == 0


def test_packets_under_way_to_a_mirror_end_there():
    call = Stopping()
    call.frames(0, 5)
    for seq in range(5, 5 + 40):
        call.packet(seq)
    call.poll_one(NEAR)
    for seq in range(45, 53):
        call.packet(seq, mark=False)
    # The stop overtakes 47 packets.
    call.poll_one(NEAR)
    got = len(call.got)
    call.poll()
    assert call.is_stopped
    assert len(call.got) == got == 5
    assert call.counters(FAR)["stopped_dropped"] == 47


def test_requests_that_wait_for_the_pacer_end():
    call = Stopping()
    call.frames(0, 30)
    call.ok(FAR, "set_pacing", 2, 50_000)
    call.ask_again(call.got[-8:])
    sent = call.counters(FAR)["rtx_sent"]
    assert sent < 8
    call.frames(30, 8, mark=False)
    call.advance(3000)
    assert call.is_stopped
    assert call.counters(FAR)["rtx_sent"] <= sent


@pytest.mark.parametrize("is_bad", [True, False])
@pytest.mark.parametrize("where", [NEAR, FAR])
def test_what_the_sockets_have_not_taken_stays(where, is_bad):
    call = Stopping()
    call.ok(NEAR, "add_egress", 1, 21, 11, OUT, OUT + 1, "6", VP8, "c", 0)
    for engine, transport in ((NEAR, 1), (FAR, 2)):
        call.ok(engine, "add_egress", transport, 30 + engine, 10, 0x99, None, "7", OPUS, "c", 0)
    call.frames(0, 20)
    for seq in range(20, 24):
        call.packet(seq)
        voice = rtp(7, seq, pt=111, ts=960 * seq, payload=b"voice")
        call.engines[NEAR].receive(call.peers[NEAR].protect(voice), PUBLISHER, call.now_ns)
        for engine in call.engines if where == FAR else call.engines[:1]:
            engine.poll_blocked(call.now_ns)
    for seq in range(24, 32):
        call.packet(seq, mark=not is_bad)
    call.poll()
    assert call.is_stopped is is_bad
    heard = [struct.unpack_from("!I", packet, 8)[0] for packet in call.peers[where].rtp]
    assert heard.count(OUT) == (20 if is_bad else 32)
    # What else waited there goes its way.
    assert heard.count(0x99) == 4


def test_a_stop_that_finds_no_room_is_told_again():
    call = Stopping()
    call.frames(0, 30)
    while call.exchange.signal(NEAR, FAR, SIGNAL_KEYFRAME, 999, 0) == 0:
        pass
    for seq in range(30, 38):
        call.packet(seq, mark=False)
    call.poll_one(NEAR)
    assert call.is_stopped
    call.advance(100)
    got = len(call.got)
    call.ask_again(call.got[:10])
    call.advance(100)
    assert len(call.got) == got
    assert call.counters(FAR)["exchange_unknown"] >= SIGNAL_PLACES


def test_what_waits_for_its_fan_out_ends():
    call = Stopping()
    ssrc = 0x1000
    for i in range(120):
        call.ok(NEAR, "add_egress", 1, 100 + i, 11, ssrc + i * 2, None, "6", VP8, "c", 0)
    call.frames(0, 2)
    # 120 subscribers cost more than a stream's share of the fast lane: some of these packets wait as jobs.
    for seq in range(2, 12):
        call.packet(seq)
    for seq in range(12, 20):
        call.packet(seq, mark=False)
    before = len(call.peers[NEAR].rtp)
    call.poll()
    assert call.is_stopped
    assert len(call.peers[NEAR].rtp) == before
    assert call.engines[NEAR].slots_used == 0


def test_a_stop_is_believed_of_its_home_alone():
    call = Stopping()
    call.frames(0, 5)
    # A mirror cannot stop what is published elsewhere.
    call.exchange.signal(FAR, NEAR, SIGNAL_STOP, 11, 0)
    call.exchange.signal(NEAR, FAR, SIGNAL_STOP, 4711, 0)
    call.frames(5, 5)
    assert len(call.got) == 10
    assert call.counters(NEAR)["exchange_unknown"] == 1
    assert not call.is_stopped
