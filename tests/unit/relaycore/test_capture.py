"""Captures of a transport's headers: what is kept, what never is, and how they end."""

import random
import struct

import pytest

from relaycore import capture
from relaycore.port import CAPTURE_KEPT_BYTES, CAPTURE_LIMITS
from tests.support.captured import found_in
from tests.support.engine import LEVEL, MID, PUBLISHER, RID, RRID, SUBSCRIBER, TWCC, Bench, rtp, vp8_payload
from tests.support.peer import header_bytes

RTP, RTCP, STUN, DTLS = 1, 2, 3, 4
RECEIVED, SENT = 0, 1
PLACES = 4096
E_UNKNOWN_TRANSPORT = -15
GCM_TAG_BYTES, SRTCP_BYTES = 16, 20
# No run of four bytes of it occurs by chance in a header of these tests.
SECRET = random.Random(5).randbytes(200)


def take(bench: Bench) -> list[dict]:
    names = ("transport", "now_ns", "missed", "kind", "direction", "remote", "socket", "wire_bytes", "kept")
    return [dict(zip(names, record, strict=True)) for record in bench.engine.take_captured(1 << 20)]


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.audio()
    made.video()
    return made


def of_kind(records: list[dict], kind: int, direction: int) -> list[dict]:
    return [r for r in records if (r["kind"], r["direction"]) == (kind, direction)]


def test_off_nothing_is_kept(bench):
    bench.publish(rtp(7, 1, pt=111, payload=SECRET))
    assert take(bench) == []
    assert bench.snapshot()["counters"]["captured"] == 0


def test_a_received_packet_leaves_its_clear_header(bench):
    bench.ok("capture", 1, 10, 100)
    packet = rtp(7, 1, pt=111, ts=960, extensions={MID: b"0", LEVEL: b"\x85"}, payload=SECRET)
    bench.publish(packet)
    (record,) = of_kind(take(bench), RTP, RECEIVED)
    assert record["kept"] == packet[: header_bytes(packet)]
    assert record["wire_bytes"] == len(packet) + GCM_TAG_BYTES
    assert record["now_ns"] == bench.now_ns
    assert (record["transport"], record["remote"], record["missed"]) == (1, PUBLISHER, 0)


def test_a_sent_packet_leaves_the_header_its_receiver_reads(bench):
    bench.ok("capture", 2, 10, 100)
    bench.publish(rtp(7, 1, pt=111, extensions={LEVEL: b"\x85"}, payload=SECRET))
    (record,) = of_kind(take(bench), RTP, SENT)
    (got,) = bench.subscriber.rtp
    assert record["kept"] == got[: header_bytes(got)]
    assert record["wire_bytes"] == len(got) + GCM_TAG_BYTES
    assert (record["transport"], record["remote"]) == (2, SUBSCRIBER)


def test_one_transport_is_captured_and_no_other(bench):
    bench.ok("capture", 2, 10, 100)
    bench.publish(rtp(7, 1, pt=111, payload=SECRET))
    assert {r["transport"] for r in take(bench)} == {2}


def test_retransmissions_both_ways_leave_headers_alone():
    bench = Bench()
    bench.ok("add_receiver", 1, 11, True, "1", ((96, "vp8", 90_000, 97),), ("q",))
    bench.ok("add_egress", 2, 21, 11, 0x88, 0x89, "6", ((96, "vp8", 90_000, 97),), "cname", 0)
    for transport in (1, 2):
        bench.ok("capture", transport, 10, 100)
    key = {"marker": True, "extensions": {MID: b"1", RID: b"q", TWCC: b"\0\1"}}
    bench.publish(rtp(1, 1, payload=vp8_payload(True) + SECRET, **key))
    bench.publish(rtp(1, 3, ts=6000, payload=vp8_payload(False, 3) + SECRET, **key))
    repaired = {MID: b"1", RRID: b"q"}
    bench.publish(rtp(2, 1, pt=97, ts=3000, extensions=repaired, payload=b"\0\2" + vp8_payload(False, 2) + SECRET))
    seq = struct.unpack_from("!H", bench.subscriber.rtp[0], 2)[0]
    nack = struct.pack("!BBHIIHH", 0x81, 205, 3, 99, 0x88, seq, 0)
    bench.receive(bench.subscriber.protect_rtcp(nack), SUBSCRIBER)
    bench.advance(50)
    records = take(bench)
    ssrcs = {struct.unpack_from("!I", r["kept"], 8)[0] for r in records if r["kind"] == RTP}
    assert ssrcs == {1, 2, 0x88, 0x89}
    assert all(len(r["kept"]) == header_bytes(r["kept"]) for r in records if r["kind"] == RTP)
    assert found_in(b"".join(r["kept"] for r in records), SECRET) is None
    row = bench.snapshot()["transports"]
    assert row["rtx_recovered"].tolist() == [1, 0]
    assert (row["rtx_sent"].tolist(), row["nacks_received"].tolist()) == ([0, 1], [0, 1])


def test_rtcp_is_kept_clear_up_to_a_limit(bench):
    bench.ok("capture", 1, 10, 1000)
    short = struct.pack("!BBHI", 0x80, 201, 1, 7)
    # A receiver report behind an APP packet of 400 bytes.
    long = struct.pack("!BBHI4s", 0x80, 204, 102, 7, b"test") + bytes(400) + short
    for compound in (short, long):
        bench.receive(bench.publisher.protect_rtcp(compound), PUBLISHER)
    bench.publish(rtp(7, 1, pt=111, extensions={TWCC: b"\0\1"}, payload=SECRET))
    bench.advance(1500)
    records = take(bench)
    heard = of_kind(records, RTCP, RECEIVED)
    assert [r["kept"] for r in heard] == [short, long[:CAPTURE_KEPT_BYTES]]
    assert [r["wire_bytes"] for r in heard] == [len(short) + SRTCP_BYTES, len(long) + SRTCP_BYTES]
    said = of_kind(records, RTCP, SENT)
    assert [r["kept"] for r in said] == [c[:CAPTURE_KEPT_BYTES] for c in bench.publisher.rtcp]
    assert [r["wire_bytes"] for r in said] == [len(c) + SRTCP_BYTES for c in bench.publisher.rtcp]


def test_of_stun_and_dtls_only_passing_by_is_kept(bench):
    bench.ok("capture", 1, 10, 100)
    check = bench.publisher.check()
    bench.receive(check, PUBLISHER)
    bench.receive(b"\x16" + SECRET, PUBLISHER)
    bench.ok("send_dtls", 1, b"\x17" + SECRET[:99])
    records = take(bench)
    assert [(r["kind"], r["direction"], r["wire_bytes"], r["kept"]) for r in records] == [
        (STUN, RECEIVED, len(check), b""),
        (STUN, SENT, len(bench.publisher.stun[-1]), b""),
        (DTLS, RECEIVED, 201, b""),
        (DTLS, SENT, 100, b""),
    ]
    assert {r["remote"] for r in records} == {PUBLISHER}


def test_what_is_not_authentic_is_not_recorded(bench):
    bench.ok("capture", 1, 10, 100)
    bench.receive(rtp(7, 1, pt=111, payload=SECRET), PUBLISHER)
    bench.receive(struct.pack("!BBHI", 0x80, 201, 1, 7) + SECRET, PUBLISHER)
    bench.receive(bench.subscriber.check(), PUBLISHER)
    assert take(bench) == []


def test_it_ends_with_its_time(bench):
    bench.ok("capture", 1, 0.5, 100)
    bench.advance(499, checks=False)
    bench.publish(rtp(7, 1, pt=111))
    bench.advance(1, checks=False)
    bench.publish(rtp(7, 2, pt=111))
    assert len(of_kind(take(bench), RTP, RECEIVED)) == 1


def test_it_ends_with_its_records(bench):
    bench.ok("capture", 1, 10, 3)
    for seq in range(5):
        bench.publish(rtp(7, seq, pt=111, payload=b"a"))
    assert [struct.unpack_from("!H", r["kept"], 2)[0] for r in take(bench)] == [0, 1, 2]


def test_it_ends_when_asked_to(bench):
    bench.ok("capture", 1, 10, 100)
    bench.publish(rtp(7, 1, pt=111))
    bench.ok("capture", 1, 0, 0)
    bench.publish(rtp(7, 2, pt=111))
    assert len(take(bench)) == 1


def test_a_full_ring_costs_records_and_no_packet(bench):
    bench.ok("capture", 1, 60, 100_000)
    for seq in range(PLACES + 10):
        bench.publish(rtp(7, seq, pt=111, payload=b"a"))
    first = take(bench)
    bench.publish(rtp(7, PLACES + 10, pt=111, payload=b"a"))
    (after,) = of_kind(take(bench), RTP, RECEIVED)
    lost = [r for r in first if r["missed"]]
    assert len(first) == PLACES and lost == [] and after["missed"] >= 10
    assert bench.snapshot()["counters"]["capture_missed"] == after["missed"]
    assert bench.snapshot()["counters"]["rtp_forwarded"] == PLACES + 11


def test_a_removed_transport_takes_its_capture_along(bench):
    bench.ok("capture", 1, 10, 100)
    bench.ok("remove_transport", 1)
    assert bench.command("capture", 1, 0, 0) == E_UNKNOWN_TRANSPORT
    assert take(bench) == []


def test_the_callers_idea_of_a_header_decides_nothing():
    packet = rtp(7, 1, extensions={MID: b"0"}, payload=SECRET)
    header = packet[: header_bytes(packet)]
    assert capture.kept_of(packet, len(packet)) == header
    assert capture.kept_of(packet, len(header)) == header
    assert capture.kept_of(packet, len(header) - 1) == b""
    assert capture.kept_of(SECRET, len(SECRET)) == b"" or SECRET[0] >> 6 == 2
    csrcs = bytes([0x8F]) + rtp(7, 1)[1:] + bytes(60)
    assert capture.kept_of(csrcs + SECRET, len(csrcs) + 200) == csrcs
    long = bytes([0x90]) + rtp(7, 1)[1:] + struct.pack("!HH", 0xBEDE, 100) + bytes(400)
    assert capture.kept_of(long + SECRET, len(long) + 200) == long[:CAPTURE_KEPT_BYTES]


@pytest.mark.parametrize(("seconds", "records"), [(-1, 1), (CAPTURE_LIMITS[0] + 1, 1), (1, -1), (1, CAPTURE_LIMITS[1] + 1)])
def test_more_than_the_limits_is_refused(bench, seconds, records):
    with pytest.raises(ValueError):
        bench.engine.capture(1, seconds, records)


def test_two_captures_share_the_ring(bench):
    bench.ok("capture", 1, 10, 100)
    bench.ok("capture", 2, 10, 1)
    bench.publish(rtp(7, 1, pt=111, payload=b"a"))
    bench.publish(rtp(7, 2, pt=111, payload=b"b"))
    assert [r["transport"] for r in take(bench)] == [1, 2, 1]
