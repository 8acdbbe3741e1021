"""Keyframes and switches when something comes in between: a subscriber that is not there yet, a restart, a late packet."""

import struct

from relaycore.port import EventKind
from tests.support.engine import MID, MS, RID, SUBSCRIBER, VP8, Bench, rtcp_packets, rtp, vp8_payload
from tests.support.peer import header_bytes

PSFB = 206


def packet(ssrc: int, seq: int, rid: bytes, *, key: bool = False, ts: int = 0, picture_id: int = 1) -> bytes:
    return rtp(ssrc, seq, ts=ts, marker=True, extensions={MID: b"1", RID: rid}, payload=vp8_payload(key, picture_id))


def plis(bench: Bench) -> list[int]:
    """SSRCs that the publisher was asked for since last time."""
    asked = [struct.unpack_from("!I", body, 4)[0] for kind, count, body in rtcp_packets(bench.publisher.rtcp)
             if (kind, count) == (PSFB, 1)]
    bench.publisher.rtcp.clear()
    return asked


def picture_ids(bench: Bench) -> list[int]:
    return [struct.unpack_from("!H", p, header_bytes(p) + 2)[0] & 0x7FFF for p in bench.subscriber.rtp]


def unconnected_subscriber() -> Bench:
    """A subscription whose transport has keys and no pair yet; the publisher sends."""
    bench = Bench(connect=False)
    bench.receive(bench.publisher.check())
    bench.video()
    return bench


def test_a_keyframe_before_the_subscriber_is_connected_is_asked_for_again():
    bench = unconnected_subscriber()
    bench.publish(packet(1, 1, b"q", key=True))
    bench.advance(2_000, checks=False)
    plis(bench)
    bench.receive(bench.subscriber.check(), SUBSCRIBER)
    bench.publish(packet(1, 2, b"q"))
    assert plis(bench) == [1]
    bench.publish(packet(1, 3, b"q", key=True))
    assert len(bench.subscriber.rtp) == 1


def test_a_subscriber_that_cannot_be_reached_costs_the_publisher_no_keyframes():
    bench = unconnected_subscriber()
    bench.publish(packet(1, 1, b"q"))
    bench.advance(1_000, checks=False)
    plis(bench)
    for i in range(100):
        bench.publish(packet(1, 2 + i, b"q"))
        bench.advance(25, checks=False)
    assert plis(bench) == []


def test_a_keyframe_that_fell_out_of_the_queue_is_asked_for_again():
    """An outage of 30 s drops what waits; the flag that a keyframe waits must go with it."""
    bench = Bench()
    bench.video()
    for _ in range(31):
        bench.advance(1_000, checks=False)
        bench.receive(bench.publisher.check())
    assert [e[1] for e in bench.taken(EventKind.ICE_DEAD)] == [2]
    bench.publish(packet(1, 1, b"q", key=True))
    bench.advance(2_000, checks=False)
    plis(bench)
    bench.receive(bench.subscriber.check(), SUBSCRIBER)
    bench.publish(packet(1, 2, b"q"))
    assert plis(bench) == [1]


def test_a_restart_during_a_switch_falls_back_on_what_still_flows():
    bench = Bench()
    bench.video()
    bench.publish(packet(1, 1, b"q", key=True))
    bench.ok("select_encoding", 21, 1)
    # The wanted encoding never comes; the present one starts over under a new SSRC.
    bench.publish(packet(5, 1, b"q", key=False))
    assert plis(bench)[-1:] == [5] or bench.advance(600) or plis(bench) == [5]
    bench.publish(packet(5, 2, b"q", key=True))
    bench.publish(packet(5, 3, b"q"))
    assert len(bench.subscriber.rtp) == 3
    assert struct.unpack_from("!H", bench.subscriber.rtp[2], 2)[0] == struct.unpack_from("!H", bench.subscriber.rtp[0], 2)[0] + 2
    bench.publish(packet(2, 1, b"h", key=True))
    assert len(bench.subscriber.rtp) == 4
    bench.publish(packet(5, 4, b"q"))
    assert len(bench.subscriber.rtp) == 4


def test_a_late_packet_before_a_switch_does_not_turn_picture_ids_back():
    bench = Bench()
    bench.video()
    bench.publish(packet(1, 1, b"q", key=True, ts=3000, picture_id=10))
    bench.publish(packet(1, 3, b"q", ts=9000, picture_id=12))
    bench.publish(packet(1, 2, b"q", ts=6000, picture_id=11))
    bench.ok("select_encoding", 21, 1)
    bench.publish(packet(2, 1, b"h", key=True, ts=77, picture_id=500))
    assert picture_ids(bench) == [10, 12, 11, 13]


def test_seven_bit_picture_ids_wrap_and_go_on_after_a_switch():
    def short(ssrc: int, seq: int, rid: bytes, key: bool, picture_id: int) -> bytes:
        payload = bytes([0x90, 0x80, picture_id, 0x10 if key else 0x11]) + bytes(20)
        return rtp(ssrc, seq, ts=seq * 3000, marker=True, extensions={MID: b"1", RID: rid}, payload=payload)

    bench = Bench()
    bench.video()
    for i in range(4):
        bench.publish(short(1, 1 + i, b"q", i == 0, (126 + i) & 127))
    bench.ok("select_encoding", 21, 1)
    bench.publish(short(2, 1, b"h", True, 50))
    assert [p[header_bytes(p) + 2] for p in bench.subscriber.rtp] == [126, 127, 0, 1, 2]


def test_a_packet_that_nobody_may_have_leaves_no_hole():
    """A payload type that was not negotiated, or a descriptor cut short, takes no number."""
    bench = Bench()
    bench.video()
    bench.publish(packet(1, 1, b"q", key=True))
    bench.publish(rtp(1, 2, pt=126, extensions={MID: b"1", RID: b"q"}, payload=b"tone"))
    bench.publish(rtp(1, 3, extensions={MID: b"1", RID: b"q"}, payload=b"\x90"))
    bench.publish(packet(1, 4, b"q"))
    first, second = (struct.unpack_from("!H", p, 2)[0] for p in bench.subscriber.rtp)
    assert second == first + 1
    assert bench.snapshot()["errors"]["E_FORMAT"] == 1
    assert bench.snapshot()["errors"]["E_SHORT"] == 1


def test_a_pending_request_is_sent_once_the_publisher_can_be_reached():
    bench = Bench()
    bench.video()
    bench.publish(packet(1, 1, b"q", key=True))
    for _ in range(32):
        bench.advance(1_000, checks=False)
        bench.receive(bench.subscriber.check(), SUBSCRIBER)
        bench.publish(packet(1, 2 + _, b"q"))
    plis(bench)
    bench.receive(bench.subscriber.protect_rtcp(struct.pack("!BBHII", 0x81, PSFB, 2, 99, 0x88)), SUBSCRIBER)
    assert plis(bench) == []
    bench.receive(bench.publisher.check())
    bench.advance(1_200)
    sent = plis(bench)
    assert sent == [1] * len(sent) and 1 <= len(sent) <= 3, "one, repeated while no keyframe comes"


def test_a_second_codec_of_the_subscriber_is_not_needed_to_switch():
    """A subscriber without the codec gets nothing, and the publisher is not asked for keyframes for its sake."""
    bench = Bench()
    bench.ok("add_receiver", 1, 11, True, "1", VP8, ("q", "h", "f"))
    bench.ok("add_egress", 2, 21, 11, 0x88, None, "6", ((102, "h264", 90_000, None),), "cname", 0)
    bench.publish(packet(1, 1, b"q", key=True))
    bench.advance(1_000)
    plis(bench)
    for i in range(50):
        bench.publish(packet(1, 2 + i, b"q"))
        bench.advance(25)
    assert plis(bench) == []
    assert bench.subscriber.rtp == []
    assert bench.now_ns > 10_000 * MS
