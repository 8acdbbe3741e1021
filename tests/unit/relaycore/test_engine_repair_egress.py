"""Retransmissions to subscribers, transport-wide numbers, pacing and levelling of the engine, packet by packet."""

import struct

import pytest

from tests.support.engine import MID, MS, RID, TWCC, Bench, rtp, vp8_payload
from tests.support.peer import header_bytes
from tests.unit.relaycore.test_engine_media import extension

RTX_VP8 = ((96, "vp8", 90_000, 97),)
SSRC, RTX_SSRC = 0x88, 0x89


class RepairBench(Bench):
    """A simulcast publication whose subscriber has RTX; the publisher's first packet is a keyframe."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed)
        self.ok("add_receiver", 1, 11, True, "1", RTX_VP8, ("q", "h", "f"))
        self.ok("add_egress", 2, 21, 11, SSRC, RTX_SSRC, "6", RTX_VP8, "cname", 0)
        self.seq = 100

    def frame(self, *, key: bool = False, payload: bytes | None = None, seq: int | None = None, ts: int | None = None,
              marker: bool = True) -> None:
        self.seq = self.seq + 1 if seq is None else seq
        body = vp8_payload(key, self.seq & 0x7FFF) if payload is None else payload
        self.publish(rtp(1, self.seq, ts=3000 * self.seq if ts is None else ts, marker=marker,
                         extensions={MID: b"1", RID: b"q"}, payload=body))

    def primary(self) -> list[bytes]:
        return [p for p in self.subscriber.rtp if struct.unpack_from("!I", p, 8)[0] == SSRC]

    def resent(self) -> list[bytes]:
        return [p for p in self.subscriber.rtp if struct.unpack_from("!I", p, 8)[0] == RTX_SSRC]

    def nack(self, *numbers: int) -> None:
        """Ask for numbers again, one NACK item each."""
        items = b"".join(struct.pack("!HH", number & 0xFFFF, 0) for number in numbers)
        packet = struct.pack("!BBHII", 0x81, 205, 2 + len(items) // 4, 0x4242, SSRC) + items
        self.receive(self.subscriber.protect_rtcp(packet), ("192.0.2.2", 41_000))

    def counter(self, name: str) -> int:
        return self.snapshot()["counters"][name]


def number(packet: bytes) -> int:
    return struct.unpack_from("!H", packet, 2)[0]


def body(packet: bytes) -> bytes:
    return packet[header_bytes(packet):]


def without_padding(packet: bytes) -> bytes:
    return body(packet)[: -packet[-1]] if packet[0] & 0x20 else body(packet)


def test_a_lost_packet_comes_again_as_rtx():
    bench = RepairBench()
    bench.frame(key=True)
    for _ in range(4):
        bench.frame()
    lost = bench.primary()[2]
    bench.nack(number(lost))
    [again] = bench.resent()
    assert body(again) == struct.pack("!H", number(lost)) + body(lost)
    assert again[1] & 0x7F == 97 and again[1] & 0x80 == lost[1] & 0x80
    assert again[4:8] == lost[4:8], "the timestamp is the original's"
    assert extension(again, MID) == b"6"


def test_rtx_has_numbers_of_its_own_without_a_hole():
    bench = RepairBench()
    bench.frame(key=True)
    for _ in range(40):
        bench.frame()
    for packet in bench.primary()[5:35]:
        bench.nack(number(packet))
        bench.advance(5)
    numbers = [number(p) for p in bench.resent()]
    assert numbers == list(range(numbers[0], numbers[0] + 30)) and numbers[0] < 1 << 15


def test_the_mask_of_a_nack_asks_for_sixteen_more():
    bench = RepairBench()
    bench.frame(key=True)
    for _ in range(20):
        bench.frame()
    first = number(bench.primary()[1])
    item = struct.pack("!HH", first, 0b1000_0000_0000_0001)
    bench.receive(bench.subscriber.protect_rtcp(struct.pack("!BBHII", 0x81, 205, 3, 1, SSRC) + item), ("192.0.2.2", 41_000))
    bench.advance(50)
    assert [body(p)[:2] for p in bench.resent()] == [struct.pack("!H", first + k) for k in (0, 1, 16)]


def test_what_came_before_a_keyframe_is_not_sent_again():
    """Over a path that just became narrow, repairs of the encoding that was left would take the room of the other's keyframe."""
    bench = RepairBench()
    bench.frame(key=True)
    bench.frame()
    before = bench.primary()[1]
    bench.ok("select_encoding", 21, 1)
    bench.publish(rtp(2, 7, ts=77, marker=True, extensions={MID: b"1", RID: b"h"}, payload=vp8_payload(True, 9)))
    after = bench.primary()[2]
    assert body(after)[2:4] != struct.pack("!H", 0x8000 | 9), "the switch moved nothing"
    bench.nack(number(before), number(after))
    bench.advance(20)
    again = bench.resent()
    assert [body(p)[2:] for p in again] == [body(after)]
    assert [p[4:8] for p in again] == [after[4:8]]
    assert bench.counter("rtx_refused") == 1


def test_the_same_number_is_not_sent_again_within_a_round_trip():
    bench = RepairBench()
    bench.frame(key=True)
    bench.frame()
    lost = number(bench.primary()[1])
    for _ in range(3):
        bench.nack(lost)
    assert len(bench.resent()) == 1
    bench.advance(60)
    bench.nack(lost)
    assert len(bench.resent()) == 2
    assert bench.counter("rtx_refused") == 2


def test_nobody_gets_one_packet_for_ever():
    bench = RepairBench()
    bench.frame(key=True)
    bench.frame()
    lost = number(bench.primary()[1])
    for _ in range(14):
        bench.nack(lost)
        bench.advance(60)
    assert len(bench.resent()) == 10


def test_what_was_never_sent_or_is_too_old_is_counted():
    bench = RepairBench()
    bench.frame(key=True)
    bench.frame()
    known = number(bench.primary()[1])
    bench.nack(known + 500)
    assert bench.counter("rtx_unknown") == 1
    bench.advance(3000)
    bench.nack(known)
    assert not bench.resent()
    assert bench.counter("rtx_unknown") == 2


def vp8_of(layer: int, key: bool, picture_id: int) -> bytes:
    """A whole VP8 frame of that temporal layer in one packet."""
    return bytes([0x90, 0xA0]) + struct.pack("!H", 0x8000 | picture_id) + bytes([layer << 6, 0x10 if key else 0x11]) + bytes(40)


def lose_for_good(bench: RepairBench, layer: int = 0) -> int:
    """Send a picture that leans on the keyframe, and wait until it is too old to be sent again; return its number."""
    bench.frame(payload=vp8_of(0, True, 1))
    bench.frame(payload=vp8_of(layer, False, 2))
    bench.advance(3000)
    bench.frame(payload=vp8_of(0, False, 3))
    return number(bench.primary()[1])


def test_who_asks_in_vain_for_what_its_picture_leans_on_has_a_keyframe_asked_for():
    bench = RepairBench()
    lost = lose_for_good(bench)
    asked = bench.counter("keyframe_requests_sent")
    bench.nack(lost)
    bench.nack(lost)
    assert not bench.resent()
    assert bench.counter("keyframe_requests_sent") == asked + 1
    assert bench.counter("keyframe_requests_received") == 0
    bench.frame(payload=vp8_of(0, True, 50))
    bench.advance(3000)
    bench.nack(lost)
    assert bench.counter("keyframe_requests_sent") == asked + 1, "it goes on at the keyframe"


def test_nobody_needs_a_keyframe_for_motion_that_is_lost():
    bench = RepairBench()
    lost = lose_for_good(bench, layer=1)
    asked = bench.counter("keyframe_requests_sent")
    bench.nack(lost)
    assert bench.counter("rtx_unknown") == 1 and bench.counter("keyframe_requests_sent") == asked


def test_what_was_sent_ten_times_in_vain_is_given_up():
    bench = RepairBench()
    bench.frame(key=True)
    bench.frame()
    lost = number(bench.primary()[1])
    asked = bench.counter("keyframe_requests_sent")
    for _ in range(10):
        bench.nack(lost)
        bench.advance(60)
    assert len(bench.resent()) == 10 and bench.counter("keyframe_requests_sent") == asked
    bench.nack(lost)
    assert len(bench.resent()) == 10 and bench.counter("keyframe_requests_sent") == asked + 1


def test_a_silent_stream_gives_its_slots_back():
    bench = RepairBench()
    bench.frame(key=True)
    for _ in range(50):
        bench.frame()
    assert bench.engine.slots_used >= 50
    bench.advance(3000)
    assert bench.engine.slots_used < 10


def test_history_goes_with_its_transport():
    bench = RepairBench()
    bench.frame(key=True)
    bench.frame()
    bench.ok("remove_transport", 1)
    bench.ok("remove_transport", 2)
    assert bench.engine.slots_used == 0


def test_without_rtx_nothing_is_sent_again():
    """A second packet under the primary's index would give the key away."""
    bench = Bench()
    bench.video()
    for seq in range(3):
        bench.publish(rtp(1, seq, ts=seq, marker=True, extensions={MID: b"1", RID: b"q"}, payload=vp8_payload(seq == 0, seq)))
    before = len(bench.subscriber.rtp)
    packet = struct.pack("!BBHIIHH", 0x81, 205, 3, 1, 0x88, number(bench.subscriber.rtp[1]), 0)
    bench.receive(bench.subscriber.protect_rtcp(packet), ("192.0.2.2", 41_000))
    bench.advance(100)
    assert len(bench.subscriber.rtp) == before


def test_the_rtx_ssrc_is_as_taken_as_the_other():
    bench = RepairBench()
    assert bench.command("add_egress", 2, 22, 11, RTX_SSRC, None, "7", RTX_VP8, "c", 0) < 0
    assert bench.command("add_egress", 2, 22, 11, 0x90, SSRC, "7", RTX_VP8, "c", 0) < 0
    bench.ok("remove_egress", 21)
    assert bench.command("add_egress", 2, 22, 11, RTX_SSRC, None, "7", RTX_VP8, "c", 0) < 0, "spent"


def test_transport_wide_numbers_count_video_and_rtx_in_sending_order():
    bench = RepairBench()
    bench.frame(key=True)
    for _ in range(3):
        bench.frame()
    bench.nack(number(bench.primary()[1]))
    bench.frame()
    numbers = [extension(p, TWCC) for p in bench.subscriber.rtp]
    assert numbers == [struct.pack("!H", k) for k in range(6)]


def test_a_late_padding_packet_fills_its_number():
    """It was reserved as a hole; left open, the subscriber would ask for it until it gives up."""
    bench = RepairBench()
    bench.frame(key=True)
    missing = bench.seq + 1
    bench.frame(seq=bench.seq + 2)
    numbers = [number(p) for p in bench.primary()]
    assert numbers[1] == numbers[0] + 2
    padding = rtp(1, missing, ts=3000 * missing, extensions={MID: b"1", RID: b"q"}, payload=b"\0\0\0\4")
    bench.publish(bytes([padding[0] | 0x20]) + padding[1:])
    filled = bench.primary()[2]
    assert number(filled) == numbers[0] + 1 and without_padding(filled) == b""


def paced(rate_bps: int | None) -> list[float]:
    """Times (ms) at which 40 packets of 1,000 bytes that came at once go out to a subscriber paced at 2.5 * rate."""
    bench = RepairBench()
    if rate_bps:
        bench.ok("set_pacing", 2, rate_bps)
    bench.frame(key=True)
    start = bench.now_ns
    times: list[float] = []
    ts = 1_000_000
    for i in range(40):
        bench.frame(payload=b"\x90\x80\x80\x01" + bytes(996), ts=ts, marker=i == 39)
        times += [(bench.now_ns - start) / MS] * (len(bench.primary()) - 1 - len(times))
    while len(times) < 40 and bench.now_ns - start < 2_000 * MS:
        bench.now_ns += MS
        bench.poll()
        times += [(bench.now_ns - start) / MS] * (len(bench.primary()) - 1 - len(times))
    return times


def test_without_an_estimate_media_is_not_paced():
    assert paced(None) == [0.0] * 40


def test_media_beyond_the_budget_goes_out_in_quanta_of_five_milliseconds():
    times = paced(1_000_000)  # 2.5 Mbit/s: 3.3 ms a packet, 40 ms = 12 packets at once
    at_once = times.count(0.0)
    assert 12 <= at_once <= 14
    assert len(times) == 40 and 75 <= times[-1] <= 100
    gaps = [b - a for a, b in zip(times[at_once:], times[at_once + 1:]) if b != a]
    assert all(4 <= gap <= 8 for gap in gaps), gaps


def test_repair_is_paced_even_without_an_estimate():
    bench = RepairBench()
    bench.frame(key=True)
    for _ in range(100):
        bench.frame(payload=b"\x90\x80\x80\x01\x01" + bytes(995))
    bench.nack(*[number(p) for p in bench.primary()[1:101]])
    at_once = len(bench.resent())
    assert 1 <= at_once <= 7
    for _ in range(120):
        bench.advance(1)
    assert len(bench.resent()) == 100


@pytest.mark.parametrize("sizes", [[900, 900, 901, 901], [500, 1000, 1001, 700], [100, 1000, 100], [1000]])
def test_padding_makes_the_packets_of_a_frame_equally_long_and_changes_no_payload(sizes):
    bench = RepairBench()
    bench.engine.takes_gso = True
    bench.frame(key=True)
    payloads = [b"\x90\x80\x80\x01" + bytes([i]) * size for i, size in enumerate(sizes)]
    protected = []
    for i, payload in enumerate(payloads):
        bench.seq += 1
        packet = rtp(1, bench.seq, ts=5, marker=i == len(sizes) - 1, extensions={MID: b"1", RID: b"q"}, payload=payload)
        protected.append(bench.publisher.protect(packet))
    for datagram in protected:
        bench.engine.receive(datagram, ("192.0.2.1", 40_000), bench.now_ns)
    bench.poll()
    got = bench.primary()[1:]
    assert [without_padding(p)[4:] for p in got] == [p[4:] for p in payloads]
    lengths = [len(p) for p in got]
    if sizes[:2] == [900, 900]:
        assert lengths[0] == lengths[1] == lengths[2]
    if sizes == [500, 1000, 1001, 700]:
        assert lengths[0] < 600 and lengths[1] == lengths[2] and lengths[3] < 800
    if sizes == [100, 1000, 100]:
        assert lengths[0] < 200 and lengths[2] < 200, "too much padding"
