"""Peers with valid keys and bad intentions, and the accidents that look like them: what one does costs no other."""

import struct

import pytest

from relaycore.port import EventKind
from tests.support.engine import MID, MS, PUBLISHER, RID, RRID, SUBSCRIBER, VP8, Bench, rtcp_packets, rtp, vp8_payload
from tests.support.peer import MediaPeer, stun_check

RR, BYE = 201, 203
OPUS = ((111, "opus", 48_000, None),)
THIRD = ("thirdufrag", "t" * 24)
DTLS = b"\x16\xfe\xfd" + bytes(20)


def video_packet(ssrc: int, seq: int, rid: bytes = b"q", key: bool = False) -> bytes:
    return rtp(ssrc, seq, marker=True, extensions={MID: b"1", RID: rid}, payload=vp8_payload(key))


def dtls_owner(bench: Bench) -> int:
    bench.receive(DTLS, PUBLISHER)
    return bench.taken(EventKind.DTLS)[-1][1]


# --- addresses --------------------------------------------------------------------------------------------------------

def test_an_address_that_was_claimed_by_another_comes_back_with_the_next_check():
    """Anybody may forge a source address, and whoever has an account may authenticate from it."""
    bench = Bench()
    bench.audio()
    bench.ok("add_transport", 3, *THIRD)
    bench.receive(stun_check(*THIRD), PUBLISHER)
    assert dtls_owner(bench) == 3
    bench.receive(bench.publisher.check(), PUBLISHER)
    bench.publish(rtp(7, 1, pt=111, payload=b"a"))
    assert len(bench.subscriber.rtp) == 1
    bench.ok("remove_transport", 3)
    bench.publish(rtp(7, 2, pt=111, payload=b"b"))
    assert len(bench.subscriber.rtp) == 2


def test_an_eviction_does_not_take_the_address_of_its_present_owner():
    bench = Bench()
    bench.ok("add_transport", 3, *THIRD)
    bench.receive(stun_check(*THIRD, use_candidate=False), PUBLISHER)
    bench.ok("add_transport", 4, "fourthufrag", "f" * 24)
    bench.receive(stun_check("fourthufrag", "f" * 24), PUBLISHER)
    for i in range(8):
        bench.now_ns += MS
        bench.receive(stun_check(*THIRD, use_candidate=False), ("198.51.100.1", 1000 + i))
    assert dtls_owner(bench) == 4


# --- SSRCs ------------------------------------------------------------------------------------------------------------

def test_a_publication_may_come_back_under_its_former_ssrc():
    """Firefox keeps a sender's SSRCs over renegotiations. The SRTP state is kept too, so nothing old is taken for new."""
    bench = Bench()
    bench.audio()
    old = bench.publisher.protect(rtp(7, 1, pt=111, payload=b"a"))
    bench.receive(old)
    bench.ok("remove_receiver", 10)
    bench.ok("add_receiver", 1, 12, False, "0", OPUS, (), (7,))
    bench.ok("add_egress", 2, 22, 12, 0x79, None, "5", OPUS, "cname", 0)
    bench.receive(old)
    assert bench.snapshot()["errors"]["E_REPLAY"] == 1
    bench.publish(rtp(7, 2, pt=111, payload=b"b"))
    assert [p[-1:] for p in bench.subscriber.rtp] == [b"a", b"b"]
    assert bench.taken(EventKind.STREAM_BOUND)[-1][1:] == (12, 0, 7)


def test_a_late_packet_of_a_replaced_ssrc_does_not_take_its_encoding_back():
    bench = Bench()
    bench.video()
    bench.publish(video_packet(1, 1, key=True))
    bench.publish(video_packet(2, 1, key=True))
    bench.publish(video_packet(1, 2, key=True))
    assert [e[2:] for e in bench.taken(EventKind.STREAM_BOUND)] == [(0, 1), (0, 2)]
    assert len(bench.subscriber.rtp) == 2


def test_repair_streams_of_former_restarts_make_room():
    bench = Bench()
    bench.video()
    for i in range(60):
        bench.publish(rtp(1000 + i, 1, pt=97, extensions={MID: b"1", RRID: b"q"}, payload=b"\0\1" + vp8_payload(True)))
        bench.advance(100)
    bench.advance(61_000)
    for i in range(10):
        bench.publish(video_packet(2000 + i, 1, key=True))
    assert bench.taken(EventKind.STREAM_BOUND)[-1][3] == 2009
    assert bench.snapshot()["errors"]["E_LIMIT"] == 0


@pytest.mark.parametrize("order", [(10, 11, 12), (12, 11, 10), (11, 12, 10)])
def test_a_declared_ssrc_is_found_whatever_the_order_of_receivers(order):
    """Two m-lines declare nothing, the third declares 7; all share a payload type."""
    bench = Bench()
    for receiver in order:
        bench.ok("add_receiver", 1, receiver, False, str(receiver), OPUS, (), (7,) if receiver == 12 else ())
    bench.publish(rtp(7, 1, pt=111, payload=b"a"))
    assert bench.taken(EventKind.STREAM_BOUND) == [(EventKind.STREAM_BOUND, 12, 0, 7)]


@pytest.mark.parametrize("order", [(10, 12), (12, 10)])
def test_a_shared_payload_type_alone_binds_nothing_in_either_order(order):
    """RFC 9143 section 9.2: a payload type tells an m-line only where no other one uses it."""
    bench = Bench()
    for receiver in order:
        bench.ok("add_receiver", 1, receiver, False, str(receiver), OPUS, (), (7,) if receiver == 12 else ())
    bench.publish(rtp(8, 1, pt=111, payload=b"a"))
    assert bench.taken(EventKind.STREAM_BOUND) == []


def test_every_stream_is_reported_on_however_many_there_are():
    bench = Bench()
    for i in range(32):
        bench.ok("add_receiver", 1, 100 + i, True, f"m{i}", ((96, "vp8", 90_000, 97),), (), (1000 + i,), (2000 + i,))
    for seq in range(40):
        for i in range(20):
            bench.publish(rtp(1000 + i, seq, payload=vp8_payload(True)))
            bench.publish(rtp(2000 + i, seq, pt=97, payload=b"\0\1" + vp8_payload(True)))
        bench.advance(100)
    reported = set()
    for kind, count, body in rtcp_packets(bench.publisher.rtcp):
        if kind == RR:
            reported |= {struct.unpack_from("!I", body, 4 + 24 * i)[0] for i in range(count)}
    assert reported == {1000 + i for i in range(20)} | {2000 + i for i in range(20)}


# --- floods of events -------------------------------------------------------------------------------------------------

def flood(bench: Bench, datagram: bytes, times: int) -> None:
    """Datagrams faster than the control plane takes events."""
    for _ in range(times):
        bench.engine.receive(datagram, PUBLISHER, bench.now_ns)


def test_a_flood_of_dtls_leaves_room_for_the_events_of_others():
    bench = Bench(connect=False)
    bench.receive(bench.publisher.check())
    flood(bench, DTLS, 10_000)
    bench.engine.receive(bench.subscriber.check(), SUBSCRIBER, bench.now_ns)
    bench.poll()
    assert len(bench.taken(EventKind.DTLS)) < 2_000
    assert (EventKind.ICE_SELECTED, 2, SUBSCRIBER) in bench.events


def test_dtls_at_the_pace_of_a_busy_data_channel_passes_whole():
    bench = Bench()
    for _ in range(1_000):
        bench.receive(DTLS)
        bench.advance(1)
    assert len(bench.taken(EventKind.DTLS)) == 1_000


def test_goodbyes_between_packets_do_not_flood_the_control_plane():
    bench = Bench()
    bench.video()
    for i in range(200):
        bench.publish(video_packet(1, 1 + i, key=i == 0))
        bench.receive(bench.publisher.protect_rtcp(struct.pack("!BBHI", 0x81, BYE, 1, 1)))
    assert len(bench.taken(EventKind.ENCODING_SILENT)) <= 2
    assert len(bench.taken(EventKind.ENCODING_ACTIVE)) <= 2
    bench.advance(1_500)
    assert bench.events[-1][0] != EventKind.ENCODING_ACTIVE
    silent, active = (len(bench.taken(k)) for k in (EventKind.ENCODING_SILENT, EventKind.ENCODING_ACTIVE))
    assert silent == active


def test_a_pair_that_hops_is_told_at_a_bounded_pace_and_at_last_right():
    bench = Bench()
    elsewhere = ("198.51.100.9", 5000)
    for i in range(400):
        bench.receive(bench.publisher.check(priority=1_900_000_000 + i), elsewhere if i % 2 else PUBLISHER)
    last = elsewhere
    bench.advance(1_500, checks=False)
    told = bench.taken(EventKind.ICE_SELECTED)
    assert 2 <= len(told) <= 10
    assert told[-1] == (EventKind.ICE_SELECTED, 1, last)


def test_the_first_check_is_told_once():
    bench = Bench(connect=False)
    for i in range(50):
        bench.receive(bench.publisher.check(use_candidate=False), ("198.51.100.1", 1000 + i))
    assert len(bench.taken(EventKind.ICE_CHECK)) == 1


def test_what_a_full_ring_lost_is_told_again():
    """The control plane stands still while a publisher's encodings come and go: no state may be lost for ever."""
    bench = Bench()
    bench.ok("request_snapshot", 0, 0, 0)
    dropped = bench.engine.snapshot()["counters"]["events_dropped"]
    for i in range(30):
        bench.ok("add_receiver", 1, 100 + i, True, f"m{i}", VP8, (), (1000 + i,))
    seq = 0
    for seq in range(120):
        bench.engine.receive(bench.publisher.check(), PUBLISHER, bench.now_ns)
        for i in range(30):
            bench.engine.receive(bench.publisher.protect(rtp(1000 + i, seq, payload=vp8_payload(True))), PUBLISHER, bench.now_ns)
        bench.now_ns += 2_100 * MS
        bench.engine.poll(bench.now_ns)
    bench.ok("add_receiver", 1, 11, True, "late", VP8, (), (77,))
    bench.events.clear()
    for seq in range(120, 300):
        bench.engine.receive(bench.publisher.check(), PUBLISHER, bench.now_ns)
        for i in range(30):
            bench.engine.receive(bench.publisher.protect(rtp(1000 + i, seq, payload=vp8_payload(True))), PUBLISHER, bench.now_ns)
        bench.now_ns += 2_100 * MS
        bench.engine.poll(bench.now_ns)
    late = MediaPeer(bench.rng)
    bench.engine.add_transport(200, late.ufrag, late.password)
    bench.engine.receive(late.check(), ("203.0.113.2", 1), bench.now_ns)
    bench.engine.receive(bench.publisher.protect(rtp(77, 1, payload=vp8_payload(True))), PUBLISHER, bench.now_ns)
    bench.poll()
    bench.advance(1_500)
    assert bench.snapshot()["counters"]["events_dropped"] > dropped
    assert (EventKind.ICE_SELECTED, 200, ("203.0.113.2", 1)) in bench.events
    assert (EventKind.STREAM_BOUND, 11, 0, 77) in bench.events
    for i in range(30):
        states = [e[0] for e in bench.events
                  if e[0] in (EventKind.ENCODING_ACTIVE, EventKind.ENCODING_SILENT) and e[1] == 100 + i]
        assert states[-1] == EventKind.ENCODING_SILENT
        assert all(before != after for before, after in zip(states, states[1:], strict=False))


@pytest.mark.parametrize("profile", [1, 7, 8])
def test_a_stream_whose_numbers_wrapped_before_it_was_expected_can_be_bound(profile):
    """Pion's senders begin anywhere in 16 bits; what comes before the receiver is added is lost."""
    bench = Bench()
    peer = MediaPeer(bench.rng, profile)
    address = ("203.0.113.1", 2000)
    bench.ok("add_transport", 9, peer.ufrag, peer.password)
    bench.ok("set_srtp", 9, *peer.relay_keys().values())
    bench.receive(peer.check(), address)
    early = [peer.protect(rtp(7, seq, pt=111, payload=b"a%d" % seq)) for seq in range(65_530, 65_546)]
    for datagram in early:
        bench.receive(datagram, address)
    bench.ok("add_receiver", 9, 10, False, "0", OPUS, (), (7,))
    bench.ok("add_egress", 2, 20, 10, 0x77, None, "5", OPUS, "cname", 0)
    for seq in range(10, 14):
        bench.receive(peer.protect(rtp(7, seq, pt=111, payload=b"b%d" % seq)), address)
    assert [p[-3:] for p in bench.subscriber.rtp] == [b"b%d" % seq for seq in range(10, 14)]
    bench.receive(early[-1], address)
    bench.receive(early[-1], address)
    assert bench.snapshot()["errors"]["E_REPLAY"] == 1
    assert bench.snapshot()["errors"]["E_AUTH"] == 0
