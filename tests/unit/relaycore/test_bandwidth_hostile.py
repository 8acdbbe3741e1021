"""Subscribers whose feedback is made up: it costs the worker and the control plane no more than a datagram may."""

import struct

from relaycore.port import EventKind
from tests.support.engine import MS, SUBSCRIBER
from tests.unit.relaycore.test_bandwidth import SSRC, Path

STATUSES = 4096


def feedback(count: int) -> bytes:
    """That of the next `count` packets nothing arrived, in 24 bytes."""
    body = struct.pack("!IIHHIHxx", 1, SSRC, 0, count, 0, count)
    return struct.pack("!BBH", 0x8F, 205, len(body) // 4) + body


def remb(bps: int) -> bytes:
    exponent = max(0, bps.bit_length() - 18)
    return struct.pack("!BBHII4sBBHI", 0x8F, 206, 5, 1, 0, b"REMB", 1, exponent << 2 | bps >> exponent + 16,
                       bps >> exponent & 0xFFFF, SSRC)  # fmt: skip


def test_one_datagram_names_no_more_packets_than_a_client_ever_collects():
    path = Path(20_000_000, 600_000)
    path.receive(path.subscriber.protect_rtcp(feedback(STATUSES) * 48), SUBSCRIBER)
    snapshot = path.snapshot()
    assert snapshot["counters"]["transport_feedback_received"] == 48
    assert snapshot["errors"]["E_LIMIT"] == 47
    path.receive(path.subscriber.protect_rtcp(feedback(600) * 6), SUBSCRIBER)
    assert path.snapshot()["errors"]["E_LIMIT"] == 47


def test_an_estimate_that_is_claimed_to_jump_is_told_at_a_bounded_pace():
    path = Path(20_000_000, 600_000)
    for _ in range(100):
        claims = [remb(int(400_000_000 * 0.9**i)) for i in range(40)]
        path.receive(path.subscriber.protect_rtcp(b"".join(claims)), SUBSCRIBER)
        path.now_ns += 10 * MS
    assert 2 <= len(path.taken(EventKind.ESTIMATE)) <= 110
    path.receive(path.subscriber.protect_rtcp(remb(50_000)), SUBSCRIBER)
    assert path.estimates()[-1] == 50_000, "a fall that lasts is told at once"


def test_a_maximum_of_nothing_holds_nobody_up_for_longer_than_it_lasts():
    path = Path(20_000_000, 600_000)
    path.receive(path.subscriber.protect_rtcp(remb(0)), SUBSCRIBER)
    for _ in range(3):
        path.publish_frame()
        path.poll()
    path.receive(path.subscriber.protect_rtcp(remb(5_000_000)), SUBSCRIBER)
    path.run(3)
    assert len(path.subscriber.rtp) > 100
