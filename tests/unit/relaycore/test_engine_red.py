"""RED goes through to who takes it, as Opus to everybody else, and never out of what is encrypted; DTX passes as it comes."""

import struct

import pytest

from tests.support.engine import MID, OPUS, Bench, rtp
from tests.support.peer import header_bytes
from tests.unit.relaycore.test_red import red

BOTH = ((63, "red", 48_000, None), (111, "opus", 48_000, None))
OURS = ((63, "red", 48_000, None), (109, "opus", 48_000, None))
VOICES = [bytes([0x78, i]) + bytes(30) for i in range(10)]


class RedBench(Bench):
    def __init__(self, takes=OURS, frame_format: str | None = "clear") -> None:
        super().__init__()
        self.ok("add_receiver", 1, 10, False, "0", BOTH, (), (7,))
        if frame_format:
            self.ok("set_frame_format", 10, frame_format)
        self.ok("add_egress", 2, 20, 10, 0x77, None, "5", takes, "cname", 0)

    def voice(self, seq: int, payload: bytes, *, pt: int = 63, marker: bool = False, ts: int | None = None) -> None:
        self.publish(rtp(7, seq, pt=pt, ts=960 * seq if ts is None else ts, marker=marker, extensions={MID: b"0"}, payload=payload))

    def heard(self) -> list[tuple[int, int, int, bytes]]:
        """(payload type, sequence number, timestamp, payload), padding cut off."""
        found = []
        for packet in self.subscriber.rtp:
            kind, seq, ts = struct.unpack_from("!xBHI", packet)
            end = len(packet) - (packet[-1] if packet[0] & 0x20 else 0)
            found.append((kind & 0x7F, seq, ts, packet[header_bytes(packet) : end]))
        return found


def test_who_takes_red_gets_it_whole():
    bench = RedBench()
    packets = [red(VOICES[i], VOICES[i + 1]) for i in range(5)]
    for i, packet in enumerate(packets):
        bench.voice(i, packet)
    # By the receiver's own number of Opus.
    theirs = [red(VOICES[i], VOICES[i + 1], payload_type=109) for i in range(5)]
    assert [(kind, payload) for kind, _, _, payload in bench.heard()] == [(63, packet) for packet in theirs]
    assert bench.snapshot()["counters"]["red_stripped"] == 0


def test_who_does_not_gets_the_opus_in_it():
    bench = RedBench(takes=((109, "opus", 48_000, None),))
    for i in range(5):
        bench.voice(i, red(VOICES[i], VOICES[i + 1], VOICES[i + 2]))
    bench.voice(5, VOICES[7], pt=111)
    heard = bench.heard()
    assert [(kind, payload) for kind, _, _, payload in heard] == [(109, VOICES[i + 2]) for i in range(6)]
    assert [ts for _, _, ts, _ in heard] == [960 * i for i in range(6)]
    assert [seq - heard[0][1] for _, seq, _, _ in heard] == list(range(6))
    assert bench.snapshot()["counters"]["red_stripped"] == 5


@pytest.mark.parametrize("packet", [red(b"abc", b"v")[:-1], red(b"a", b"v", payload_type=63), b"\xff" * 40])
def test_what_is_no_red_goes_to_nobody_and_leaves_no_hole(packet):
    bench = RedBench(takes=((109, "opus", 48_000, None),))
    bench.voice(0, red(VOICES[0]))
    bench.voice(1, packet)
    bench.voice(2, red(VOICES[2]))
    heard = bench.heard()
    assert [payload for _, _, _, payload in heard] == [VOICES[0], VOICES[2]]
    assert heard[1][1] == heard[0][1] + 1


@pytest.mark.parametrize("frame_format", ["livekit_gcm", None])
def test_nothing_is_taken_out_of_what_may_be_encrypted(frame_format):
    bench = RedBench(takes=((109, "opus", 48_000, None),), frame_format=frame_format)
    for i in range(5):
        bench.voice(i, red(VOICES[i], VOICES[i + 1]))
    assert bench.heard() == []


def test_pauses_of_dtx_pass_as_they_come():
    """20 ms of voice, 400 ms of nothing, one packet of comfort noise, and the marker where speech begins again."""
    bench = RedBench(takes=OPUS, frame_format="clear")
    sent = [(0, 0, False), (1, 960, False), (2, 960 * 22, False), (3, 960 * 42, False), (4, 960 * 60, True), (5, 960 * 61, False)]
    for seq, ts, marker in sent:
        bench.voice(seq, VOICES[seq][: 32 if marker or seq != 2 else 3], pt=111, ts=ts, marker=marker)
        bench.advance(20)
    got = [(struct.unpack_from("!HI", p, 2), p[1] >> 7) for p in bench.subscriber.rtp]
    assert [(ts, bool(marker)) for (_, ts), marker in got] == [(ts, marker) for _, ts, marker in sent]
    assert [seq - got[0][0][0] for (seq, _), _ in got] == list(range(6))
