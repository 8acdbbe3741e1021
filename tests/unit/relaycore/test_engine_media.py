"""Binding, forwarding, reports and feedback of the engine, packet by packet."""

import struct

import pytest

from relaycore.port import EventKind
from tests.support.engine import LEVEL, MID, MS, RID, RRID, TWCC, Bench, rtcp_packets, rtp, vp8_payload
from tests.support.peer import header_bytes

SR, RR, SDES, RTPFB, PSFB = 200, 201, 202, 205, 206
E_STATE, E_INVALID = -18, -19


def extension(packet: bytes, number: int) -> bytes | None:
    """Value of a one-byte extension of a plain packet."""
    if not packet[0] & 0x10:
        return None
    at, end = 16, header_bytes(packet)
    while at < end:
        if packet[at] == 0:
            at += 1
            continue
        length = (packet[at] & 15) + 1
        if packet[at] >> 4 == number:
            return packet[at + 1 : at + 1 + length]
        at += 1 + length
    return None


def video_packet(ssrc: int, seq: int, rid: bytes, *, key: bool, ts: int = 0, picture_id: int = 1) -> bytes:
    return rtp(ssrc, seq, ts=ts, marker=True, extensions={MID: b"1", RID: rid}, payload=vp8_payload(key, picture_id))


def test_audio_is_forwarded_with_the_subscribers_numbers():
    bench = Bench()
    bench.audio()
    for seq in range(5):
        bench.publish(rtp(7, 100 + seq, pt=111, ts=960 * seq, extensions={LEVEL: b"\x85"}, payload=b"opus%d" % seq))
    got = bench.subscriber.rtp
    assert [p[header_bytes(p):] for p in got] == [b"opus%d" % i for i in range(5)]
    assert {struct.unpack_from("!I", p, 8)[0] for p in got} == {0x77}
    seqs = [struct.unpack_from("!H", p, 2)[0] for p in got]
    assert seqs == list(range(seqs[0], seqs[0] + 5)) and seqs[0] < 1 << 15
    assert {extension(p, LEVEL) for p in got} == {b"\x85"}
    assert {extension(p, MID) for p in got} == {b"5"}


def test_hop_by_hop_extensions_do_not_pass():
    bench = Bench()
    bench.video()
    extensions = {MID: b"1", RID: b"q", TWCC: b"\x00\x01"}
    bench.publish(rtp(1, 1, marker=True, extensions=extensions, payload=vp8_payload(True)))
    packet = bench.subscriber.rtp[0]
    # The number is the subscriber's transport's own, from 0 on.
    assert extension(packet, RID) is None and extension(packet, TWCC) == bytes(2)
    assert extension(packet, MID) == b"6"


def test_mid_is_left_out_once_the_subscriber_reported_on_the_ssrc():
    bench = Bench()
    bench.audio()
    bench.publish(rtp(7, 1, pt=111, payload=b"a"))
    report = struct.pack("!BBHIIIIIII", 0x81, RR, 7, 99, 0x77, 0, 1, 0, 0, 0)
    bench.receive(bench.subscriber.protect_rtcp(report), ("192.0.2.2", 41_000))
    bench.publish(rtp(7, 2, pt=111, payload=b"b"))
    assert [extension(p, MID) for p in bench.subscriber.rtp] == [b"5", None]


@pytest.mark.parametrize("how", ["mid", "ssrc", "payload type"])
def test_an_ssrc_is_bound_by(how):
    bench = Bench()
    declared = (7,) if how == "ssrc" else ()
    bench.ok("add_receiver", 1, 10, False, "0", ((111, "opus", 48_000, None),), (), declared)
    bench.publish(rtp(7, 1, pt=111, extensions={MID: b"0"} if how == "mid" else None, payload=b"a"))
    assert bench.taken(EventKind.STREAM_BOUND) == [(EventKind.STREAM_BOUND, 10, 0, 7)]


def test_a_payload_type_that_two_receivers_share_binds_nothing():
    bench = Bench()
    for receiver, mid in ((10, "0"), (12, "2")):
        bench.ok("add_receiver", 1, receiver, False, mid, ((111, "opus", 48_000, None),))
    bench.publish(rtp(7, 1, pt=111, payload=b"a"))
    assert bench.taken(EventKind.STREAM_BOUND) == []
    assert bench.snapshot()["counters"]["unbound_dropped"] == 1


def test_rids_bind_encodings_and_repaired_rids_their_repair():
    bench = Bench()
    bench.video()
    for ssrc, rid in ((1, b"q"), (2, b"h"), (3, b"f")):
        bench.publish(video_packet(ssrc, 1, rid, key=True))
    bench.publish(rtp(4, 1, pt=97, extensions={MID: b"1", RRID: b"q"}, payload=b"\0\1" + vp8_payload(True)))
    bound = [e[2:] for e in bench.taken(EventKind.STREAM_BOUND)]
    assert bound == [(0, 1), (1, 2), (2, 3)]
    assert bench.snapshot()["counters"]["rtx_received"] == 1


def test_a_forged_packet_binds_nothing():
    bench = Bench()
    bench.video()
    good = bench.publisher.protect(video_packet(1, 1, b"q", key=True))
    bench.receive(good[:-1] + bytes([good[-1] ^ 1]))
    assert bench.taken(EventKind.STREAM_BOUND) == []
    assert bench.snapshot()["errors"]["E_AUTH"] == 1
    bench.receive(good)
    bench.receive(good)
    assert bench.snapshot()["errors"]["E_REPLAY"] == 1
    assert len(bench.subscriber.rtp) == 1


def test_a_flood_of_new_ssrcs_is_bounded_and_the_call_goes_on():
    bench = Bench()
    bench.audio()
    bench.video()
    for i in range(500):
        bench.publish(video_packet(1000 + i, 1, b"q", key=True))
    snapshot = bench.snapshot()
    assert snapshot["errors"]["E_LIMIT"] >= 500 - 64
    assert len(snapshot["streams"]) <= 64
    bench.advance(61_000)
    bench.publish(rtp(7, 1, pt=111, payload=b"a"))
    assert bench.subscriber.rtp[-1].endswith(b"a")


def test_an_encoding_that_restarts_under_a_new_ssrc_goes_on_at_its_keyframe():
    bench = Bench()
    bench.video()
    bench.publish(video_packet(1, 1, b"q", key=True, ts=1000, picture_id=5))
    bench.now_ns += 33 * MS
    bench.publish(video_packet(2, 1, b"q", key=False, ts=77, picture_id=900))
    bench.publish(video_packet(2, 2, b"q", key=True, ts=3077, picture_id=901))
    first, second = bench.subscriber.rtp
    assert struct.unpack_from("!H", second, 2)[0] == struct.unpack_from("!H", first, 2)[0] + 1
    assert 0 < struct.unpack_from("!I", second, 4)[0] - struct.unpack_from("!I", first, 4)[0] < 90_000
    ids = [struct.unpack_from("!H", p, header_bytes(p) + 2)[0] & 0x7FFF for p in (first, second)]
    assert ids[1] == ids[0] + 1


# --- keyframes --------------------------------------------------------------------------------------------------------

def plis(bench: Bench) -> list[int]:
    """SSRCs that the publisher was asked for since last time."""
    asked = [struct.unpack_from("!I", body, 4)[0] for kind, count, body in rtcp_packets(bench.publisher.rtcp)
             if (kind, count) == (PSFB, 1)]
    bench.publisher.rtcp.clear()
    return asked


def test_a_new_subscription_asks_once_the_encoding_is_there():
    bench = Bench()
    bench.video()
    assert plis(bench) == []
    bench.publish(video_packet(1, 1, b"q", key=False))
    assert plis(bench) == [1]


def test_requests_are_coalesced_and_repeated_until_the_keyframe_comes():
    bench = Bench()
    bench.video()
    bench.publish(video_packet(1, 1, b"q", key=False))
    plis(bench)
    for i in range(40):
        bench.advance(25)
        bench.publish(video_packet(1, 2 + i, b"q", key=False))
    assert plis(bench) == [1, 1]
    bench.publish(video_packet(1, 50, b"q", key=True))
    for i in range(40):
        bench.advance(25)
        bench.publish(video_packet(1, 51 + i, b"q", key=False))
    assert plis(bench) == []
    assert bench.snapshot()["counters"]["keyframe_requests_coalesced"] >= 30


@pytest.mark.parametrize("request_bytes", [
    struct.pack("!BBHII", 0x81, PSFB, 2, 99, 0x88),
    struct.pack("!BBHIIIBxxx", 0x84, PSFB, 4, 99, 0, 0x88, 1),
], ids=["PLI", "FIR"])
def test_a_subscribers_request_reaches_the_publisher(request_bytes):
    bench = Bench()
    bench.video()
    bench.publish(video_packet(1, 1, b"q", key=True))
    bench.advance(600)
    plis(bench)
    bench.receive(bench.subscriber.protect_rtcp(request_bytes), ("192.0.2.2", 41_000))
    assert plis(bench) == [1]


def test_a_switch_waits_for_the_keyframe_and_then_reports_itself():
    bench = Bench()
    bench.video()
    bench.publish(video_packet(1, 1, b"q", key=True))
    bench.publish(video_packet(2, 1, b"h", key=False))
    bench.ok("select_encoding", 21, 1)
    bench.publish(video_packet(1, 2, b"q", key=False))
    bench.publish(video_packet(2, 2, b"h", key=False))
    assert len(bench.subscriber.rtp) == 2
    bench.publish(video_packet(2, 3, b"h", key=True))
    bench.publish(video_packet(1, 3, b"q", key=False))
    assert len(bench.subscriber.rtp) == 3
    assert [e[1:] for e in bench.taken(EventKind.EGRESS_SWITCHED)] == [(21, 0), (21, 1)]
    assert bench.command("select_encoding", 21, 3) == E_INVALID


# --- reports ------------------------------------------------------------------------------------------------------------

def test_a_new_stream_is_reported_on_within_20_ms():
    bench = Bench()
    bench.audio()
    bench.publish(rtp(7, 1, pt=111, payload=b"a"))
    bench.advance(20)
    reports = [body for kind, count, body in rtcp_packets(bench.publisher.rtcp) if (kind, count) == (RR, 1)]
    assert [struct.unpack_from("!I", body, 4)[0] for body in reports] == [7]


def test_receiver_reports_tell_loss():
    bench = Bench()
    bench.audio()
    for seq in range(100):
        if seq % 10 != 5:
            bench.publish(rtp(7, 65500 + seq, pt=111, ts=960 * seq, payload=b"a"))
        bench.advance(20)
    bench.advance(1000)
    bodies = [body for kind, count, body in rtcp_packets(bench.publisher.rtcp) if (kind, count) == (RR, 1)]
    fraction, lost, highest = bodies[-1][8], int.from_bytes(bodies[-1][9:12], "big"), struct.unpack_from("!I", bodies[-1], 12)[0]
    assert 0.05 < fraction / 256 < 0.15
    assert lost == 10
    assert highest >> 16 == 1


def test_egress_sender_reports_derive_from_the_publishers():
    bench = Bench()
    bench.audio()
    ntp = 0xE000_0000_1234_5678
    bench.publish(rtp(7, 1, pt=111, ts=5000, payload=b"abcd"))
    bench.receive(bench.publisher.protect_rtcp(struct.pack("!BBHIQIII", 0x80, SR, 6, 7, ntp, 4800, 1, 4)))
    bench.advance(1500)
    packets = rtcp_packets(bench.subscriber.rtcp)
    reports = [body for kind, _, body in packets if kind == SR]
    assert len(reports) >= 2
    for body in reports:
        ssrc, got_ntp, ts, count, octets = struct.unpack("!IQIII", body)
        assert (ssrc, count, octets) == (0x77, 1, 4)
        # One relation of NTP time and RTP time over the whole session: the publisher's.
        elapsed = (got_ntp - ntp) / 2**32
        assert abs((ts - 4800) - elapsed * 48_000) < 2
    assert any(kind == SDES and b"cname" in body for kind, _, body in packets)
    first = struct.unpack_from("!Q", reports[0], 4)[0]
    assert (first - ntp) / 2**32 < 0.05, "the first report must come at once: lip-sync waits for it"


def test_round_trip_time_from_a_receiver_report():
    bench = Bench()
    bench.audio()
    bench.publish(rtp(7, 1, pt=111, ts=5000, payload=b"abcd"))
    bench.receive(bench.publisher.protect_rtcp(struct.pack("!BBHIQIII", 0x80, SR, 6, 7, 0xE000_0000_1234_5678, 4800, 1, 4)))
    bench.advance(15)
    body = next(body for kind, _, body in rtcp_packets(bench.subscriber.rtcp) if kind == SR)
    middle = struct.unpack_from("!Q", body, 4)[0] >> 16 & 0xFFFFFFFF
    bench.advance(100)
    report = struct.pack("!BBHIIIIIII", 0x81, RR, 7, 99, 0x77, 0x10000003, 1, 9, middle, int(0.03 * 65536))
    bench.receive(bench.subscriber.protect_rtcp(report), ("192.0.2.2", 41_000))
    row = bench.snapshot()["egresses"][0]
    assert 60 * MS < row["rtt_ns"] < 90 * MS
    assert (row["fraction_lost"], row["total_lost"], row["jitter_ticks"]) == (0x10, 3, 9)


def test_transport_wide_feedback_is_sent_every_50_ms_while_packets_come():
    bench = Bench()
    bench.video()
    for i in range(60):
        bench.publish(rtp(1, 1 + i, marker=True, extensions={MID: b"1", RID: b"q", TWCC: struct.pack("!H", 65500 + i & 0xFFFF)},
                          payload=vp8_payload(i == 0)))
        bench.advance(10)
    bench.advance(60)
    feedback = [body for kind, count, body in rtcp_packets(bench.publisher.rtcp) if (kind, count) == (RTPFB, 15)]
    assert 10 <= len(feedback) <= 13
    reported = sum(struct.unpack_from("!H", body, 10)[0] for body in feedback)
    assert reported == 60
    quiet = len(bench.publisher.rtcp)
    bench.advance(500)
    assert not [1 for kind, count, _ in rtcp_packets(bench.publisher.rtcp[quiet:]) if (kind, count) == (RTPFB, 15)]


def test_truncated_rtcp_is_counted_and_what_came_before_it_counts():
    bench = Bench()
    bench.video()
    bench.publish(video_packet(1, 1, b"q", key=True))
    bench.advance(600)
    plis(bench)
    pli = struct.pack("!BBHII", 0x81, PSFB, 2, 99, 0x88)
    bench.receive(bench.subscriber.protect_rtcp(pli + struct.pack("!BBH", 0x81, RR, 40) + bytes(8)), ("192.0.2.2", 41_000))
    assert plis(bench) == [1]
    assert bench.snapshot()["errors"]["E_LENGTH"] == 1


# --- life ----------------------------------------------------------------------------------------------------------------

def test_encodings_report_activity_and_silence():
    bench = Bench()
    bench.video()
    bench.publish(video_packet(1, 1, b"q", key=True))
    bench.advance(2_500)
    bench.publish(video_packet(1, 2, b"q", key=False))
    active = [e[1:] for e in bench.taken(EventKind.ENCODING_ACTIVE)]
    silent = [e[1:] for e in bench.taken(EventKind.ENCODING_SILENT)]
    assert (active, silent) == ([(11, 0), (11, 0)], [(11, 0)])


def test_an_ssrc_is_never_given_to_a_second_subscription_of_a_transport():
    bench = Bench()
    bench.audio()
    bench.publish(rtp(7, 1, pt=111, payload=b"a"))
    bench.ok("remove_egress", 20)
    opus = ((111, "opus", 48_000, None),)
    assert bench.command("add_egress", 2, 23, 10, 0x77, None, "5", opus, "cname", 0) == E_INVALID
    bench.ok("add_egress", 2, 24, 10, 0x78, None, "5", opus, "cname", 0)


def test_keys_are_set_once():
    bench = Bench()
    assert bench.command("set_srtp", 1, *bench.publisher.relay_keys().values()) == E_STATE


def test_removing_transports_frees_everything_that_stood_on_them():
    bench = Bench()
    bench.audio()
    bench.video()
    for i in range(50):
        bench.publish(video_packet(1, 1 + i, b"q", key=i == 0))
        bench.publish(rtp(7, 1 + i, pt=111, payload=b"a"))
    bench.ok("remove_transport", 1)
    snapshot = bench.snapshot()
    assert [len(snapshot[name]) for name in ("transports", "streams", "egresses")] == [1, 0, 0]
    bench.ok("remove_transport", 2)
    assert bench.engine.slots_used == 0
    assert len(bench.snapshot()["transports"]) == 0


def test_a_subscriber_without_the_codec_gets_nothing_and_no_holes():
    bench = Bench()
    bench.ok("add_receiver", 1, 10, False, "0", ((111, "opus", 48_000, None), (63, "red", 48_000, None)), (), (7,))
    bench.ok("add_egress", 2, 20, 10, 0x77, None, "5", ((109, "opus", 48_000, None),), "c", 0)
    for i in range(20):
        bench.publish(rtp(7, i, pt=63 if i % 3 == 1 else 111, payload=b"x%d" % i))
    seqs = [struct.unpack_from("!H", p, 2)[0] for p in bench.subscriber.rtp]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert {p[1] & 0x7F for p in bench.subscriber.rtp} == {109}


def test_speech_is_told_by_its_level_and_silence_is_not():
    bench = Bench()
    bench.audio()

    def speak(dbov: int, first: int) -> list[int]:
        bench.events.clear()
        for n in range(first, first + 60):
            packet = rtp(7, n, pt=111, ts=960 * n, extensions={MID: b"0", LEVEL: bytes([0x80 | dbov])}, payload=bytes(40))
            bench.publish(packet)
            bench.advance(20)
        return [event[2] for event in bench.taken(EventKind.SPEAKING) if event[1] == 10]

    assert speak(12, 0) == [12, 12]
    assert speak(80, 60) == [12], "the window that had begun"
    assert speak(80, 120) == []
