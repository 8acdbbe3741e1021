"""Repair of what publishers send: NACK to them, RTX from them, duplicates, keyframes for what stays lost."""

import struct

import pytest

from tests.support.engine import MID, MS, PUBLISHER, RID, RRID, Bench, rtcp_packets, rtp, vp8_payload
from tests.support.peer import header_bytes

RTPFB, PSFB = 205, 206
PRIMARY, REPAIR = 1, 2


class LossyBench(Bench):
    """A simulcast publication (VP8 with RTX) that one subscriber is shown; `send` returns the protected packet."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed)
        self.video()
        self.rtx_seq = 7
        self.publish(self.media(100, key=True))
        self.advance(20)
        self.publisher.rtcp.clear()

    def media(self, seq: int, *, key: bool = False) -> bytes:
        extensions = {MID: b"1", RID: b"q"}
        return rtp(PRIMARY, seq, ts=3000 * seq, marker=True, extensions=extensions, payload=vp8_payload(key, seq & 0x7FFF))

    def rtx(self, seq: int, payload: bytes | None = None) -> bytes:
        """The retransmission of media(seq)."""
        self.rtx_seq += 1
        original = self.media(seq)
        body = struct.pack("!H", seq & 0xFFFF) + original[header_bytes(original):] if payload is None else payload
        return rtp(REPAIR, self.rtx_seq, pt=97, ts=3000 * seq, marker=True, extensions={MID: b"1", RRID: b"q"}, payload=body)

    def asked(self) -> list[int]:
        """Numbers asked for by NACK since the last call."""
        found = []
        for kind, count, body in rtcp_packets(self.publisher.rtcp):
            if (kind, count) == (RTPFB, 1):
                assert struct.unpack_from("!I", body, 4)[0] == PRIMARY
                for pid, mask in struct.iter_unpack("!HH", body[8:]):
                    found += [pid, *(pid + k + 1 & 0xFFFF for k in range(16) if mask >> k & 1)]
        self.publisher.rtcp.clear()
        return found

    def pictures(self) -> list[int]:
        """Picture ids that the subscriber got, in order of its sequence numbers, from the first one on."""
        packets = sorted(self.subscriber.rtp, key=lambda p: struct.unpack_from("!H", p, 2)[0])
        ids = [struct.unpack_from("!H", p, header_bytes(p) + 2)[0] & 0x7FFF for p in packets]
        return [number - ids[0] for number in ids]

    def counter(self, name: str) -> int:
        return self.snapshot()["counters"][name]


def test_a_gap_is_asked_for_and_its_repair_forwarded_in_its_place():
    bench = LossyBench()
    for seq in (101, 104):
        bench.publish(bench.media(seq))
    assert bench.asked() == [102, 103]
    for seq in (103, 102):
        bench.publish(bench.rtx(seq))
    assert bench.pictures() == [0, 1, 2, 3, 4]
    assert bench.counter("rtx_recovered") == 2
    bench.advance(500)
    assert bench.asked() == []


def test_numbers_that_wrap_are_repaired():
    bench = LossyBench()
    sent = 100
    while sent < 65_534:
        sent += 400
        bench.publish(bench.media(min(sent, 65_534)))
    bench.advance(2_000)
    bench.publisher.rtcp.clear()
    before = len(bench.subscriber.rtp)
    bench.publish(bench.media(65_538))
    assert bench.asked() == [65_535, 0, 1]
    for seq in (65_535, 65_536, 65_537):
        bench.publish(bench.rtx(seq))
    assert len(bench.subscriber.rtp) == before + 4


def test_a_repair_of_what_is_there_goes_nowhere():
    bench = LossyBench()
    bench.publish(bench.media(101))
    before = len(bench.subscriber.rtp)
    bench.publish(bench.rtx(101))
    assert len(bench.subscriber.rtp) == before and bench.counter("duplicates_dropped") == 1


def test_a_repair_is_taken_once():
    bench = LossyBench()
    bench.publish(bench.media(102))
    bench.publish(bench.rtx(101))
    before = len(bench.subscriber.rtp)
    bench.publish(bench.rtx(101))
    assert len(bench.subscriber.rtp) == before and bench.counter("duplicates_dropped") == 1


def test_an_original_behind_its_repair_is_a_replay():
    bench = LossyBench()
    late = bench.publisher.protect(bench.media(101))
    bench.publish(bench.media(102))
    bench.publish(bench.rtx(101))
    before, errors = len(bench.subscriber.rtp), bench.snapshot()["errors"]["E_REPLAY"]
    bench.receive(late, PUBLISHER)
    assert len(bench.subscriber.rtp) == before
    assert bench.snapshot()["errors"]["E_REPLAY"] == errors + 1


def test_repairs_do_not_mend_the_loss_that_is_reported():
    """RFC 4588 section 5.3 and libwebrtc: the report block tells what the path lost."""
    bench = LossyBench()
    for seq in (101, 103, 104):
        bench.publish(bench.media(seq))
    bench.publish(bench.rtx(102))
    bench.advance(1_600)
    reports = [(count, body) for kind, count, body in rtcp_packets(bench.publisher.rtcp) if kind == 201]
    blocks = [body[4 + 24 * i : 28 + 24 * i] for count, body in reports for i in range(count)]
    lost = {struct.unpack_from("!I", b)[0]: int.from_bytes(b[5:8]) for b in blocks}
    assert lost[PRIMARY] == 1


@pytest.mark.parametrize("payload", [b"", b"\0"])
def test_probes_and_stumps_on_the_repair_stream_go_nowhere(payload):
    bench = LossyBench()
    before = len(bench.subscriber.rtp)
    bench.publish(bench.rtx(101, payload))
    assert len(bench.subscriber.rtp) == before
    assert bench.counter("rtx_padding") == (0 if payload else 1)


def test_a_repair_before_its_stream_is_bound_goes_nowhere():
    bench = Bench()
    bench.video()
    bench.publish(rtp(REPAIR, 1, pt=97, extensions={MID: b"1", RRID: b"q"}, payload=b"\0\1" + vp8_payload(True)))
    assert bench.subscriber.rtp == []


def test_what_stays_lost_brings_a_keyframe_request():
    bench = LossyBench()
    for seq in (101, 103):
        bench.publish(bench.media(seq))
    bench.advance(1_500)
    requests = [body for kind, count, body in rtcp_packets(bench.publisher.rtcp) if (kind, count) == (PSFB, 1)]
    assert [struct.unpack_from("!I", body, 4)[0] for body in requests] == [PRIMARY]
    assert bench.counter("nacks_given_up") == 1


def test_a_break_brings_a_keyframe_request_and_no_flood_of_nacks():
    bench = LossyBench()
    bench.publish(bench.media(900))
    bench.advance(600)
    kinds = [(kind, count) for kind, count, _ in rtcp_packets(bench.publisher.rtcp)]
    assert (PSFB, 1) in kinds and (RTPFB, 1) not in kinds


def test_nobody_asks_again_for_audio():
    bench = Bench()
    bench.audio()
    for seq in (1, 2, 5):
        bench.publish(rtp(7, seq, pt=111, ts=960 * seq, payload=b"opus"))
    bench.advance(300)
    assert not [kind for kind, count, _ in rtcp_packets(bench.publisher.rtcp) if (kind, count) == (RTPFB, 1)]


def test_padding_fills_a_gap_too():
    bench = LossyBench()
    bench.publish(bench.media(102))
    assert bench.asked() == [101]
    padding = rtp(PRIMARY, 101, ts=9, extensions={MID: b"1", RID: b"q"}, payload=b"\0\0\0\4")
    bench.publish(bytes([padding[0] | 0x20]) + padding[1:])
    bench.advance(400)
    assert bench.asked() == []


def test_requests_stop_after_ten():
    bench = LossyBench()
    bench.publish(bench.media(102))
    bench.advance(3_000)
    assert 9 <= bench.asked().count(101) <= 10
    assert bench.now_ns > 3_000 * MS
