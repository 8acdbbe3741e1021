"""Who gets in: STUN authentication, tuples, restarts, address changes, DTLS datagrams (RFC 8445, DESIGN section 4)."""

import struct

import pytest

from relaycore.port import EventKind
from tests.support.engine import MS, PUBLISHER, SUBSCRIBER, Bench, rtp
from tests.support.peer import stun_check

ELSEWHERE = ("198.51.100.9", 5000)
E_INVALID = -19


def flipped(datagram: bytes) -> bytes:
    """The datagram with one bit of its last byte, the FINGERPRINT's, turned."""
    return datagram[:-1] + bytes([datagram[-1] ^ 1])


def kind_of(datagram: bytes) -> int:
    return struct.unpack_from("!H", datagram)[0]


def test_an_authenticated_check_is_answered_and_selects_its_tuple():
    bench = Bench(connect=False)
    bench.receive(bench.publisher.check())
    assert [kind_of(d) for d in bench.publisher.stun] == [0x0101]
    assert bench.taken(EventKind.ICE_SELECTED) == [(EventKind.ICE_SELECTED, 1, PUBLISHER)]


@pytest.mark.parametrize("datagram, error", [
    (lambda p: stun_check(p.ufrag, "x" * 28), "E_AUTH"),
    (lambda p: stun_check("nobody", p.password), "E_UNKNOWN_TRANSPORT"),
    (lambda p: flipped(p.check()), "E_AUTH"),
    (lambda p: p.check()[:60], "E_FORMAT"),
])
def test_a_bad_check_gets_silence_and_a_reason(datagram, error):
    bench = Bench(connect=False)
    bench.receive(datagram(bench.publisher))
    snapshot = bench.snapshot()
    assert bench.publisher.stun == []
    assert snapshot["counters"]["stun_refused"] == 1
    assert snapshot["errors"][error] == 1


def test_a_peer_that_thinks_itself_controlled_is_told_to_switch():
    bench = Bench(connect=False)
    bench.receive(bench.publisher.check(controlling=False))
    assert [kind_of(d) for d in bench.publisher.stun] == [0x0111]
    assert struct.pack("!BB", 4, 87) in bench.publisher.stun[0]
    assert bench.taken(EventKind.ICE_SELECTED) == []


def test_media_from_an_unknown_address_is_dropped():
    bench = Bench()
    bench.audio()
    bench.receive(bench.publisher.protect(rtp(7, 1, pt=111, payload=b"a")), ELSEWHERE)
    assert bench.subscriber.rtp == []
    assert bench.snapshot()["errors"]["E_UNKNOWN_PEER"] == 1


def test_media_never_moves_the_selected_pair_but_a_nominating_check_does():
    bench = Bench()
    bench.audio()
    bench.advance(6_000, checks=False)
    bench.receive(bench.publisher.check(), PUBLISHER)
    bench.receive(bench.subscriber.check(priority=2_000_000_000), ELSEWHERE)
    bench.publish(rtp(7, 1, pt=111, payload=b"a"))
    media = [d for d, address in bench.other if address == ELSEWHERE and d[0] >= 128]
    assert media
    assert bench.subscriber.rtp == []


def test_media_over_another_valid_tuple_leaves_the_selected_one_and_silence_hands_over_to_it():
    bench = Bench()
    bench.audio()
    report = struct.pack("!BBHI", 0x80, 201, 1, 7)
    # Valid and nominated, but of a lower priority.
    bench.receive(bench.subscriber.check(priority=1), ELSEWHERE)
    for _ in range(5):
        bench.receive(bench.subscriber.protect_rtcp(report), ELSEWHERE)
    bench.publish(rtp(7, 1, pt=111, payload=b"a"))
    assert len(bench.subscriber.rtp) == 1
    assert not [d for d, address in bench.other if address == ELSEWHERE and d[0] >= 128]
    bench.advance(5_100, checks=False)
    bench.receive(bench.publisher.check(), PUBLISHER)
    bench.receive(bench.subscriber.check(priority=1, use_candidate=False), ELSEWHERE)
    bench.advance(1_000, checks=False)
    bench.publish(rtp(7, 2, pt=111, payload=b"a"))
    assert len(bench.subscriber.rtp) == 1
    assert [d for d, address in bench.other if address == ELSEWHERE and d[0] >= 128]


def test_after_an_ice_restart_the_old_credentials_serve_until_the_new_ones_are_used():
    bench = Bench(connect=False)
    peer = bench.publisher
    bench.ok("set_ice", 1, "newfragment", "n" * 24)
    # The peer has not seen the answer yet: its consent checks still carry the old pair.
    bench.receive(peer.check())
    assert len(peer.stun) == 1
    # Old and new do not mix.
    bench.receive(stun_check("newfragment", peer.password))
    bench.receive(stun_check(peer.ufrag, "n" * 24))
    assert len(peer.stun) == 1
    bench.receive(stun_check("newfragment", "n" * 24))
    assert len(peer.stun) == 2
    bench.receive(peer.check())
    assert len(peer.stun) == 2


def test_a_restarted_nomination_wins_at_once_over_the_old_one():
    bench = Bench(connect=False)
    bench.receive(bench.publisher.check(priority=2_000_000_000))
    bench.ok("set_ice", 1, "newfragment", "n" * 24)
    bench.receive(stun_check("newfragment", "n" * 24, priority=5), ELSEWHERE)
    assert bench.taken(EventKind.ICE_SELECTED)[-1] == (EventKind.ICE_SELECTED, 1, ELSEWHERE)


def test_a_ufrag_of_two_restarts_ago_is_free_again():
    bench = Bench(connect=False)
    first = (bench.publisher.ufrag, bench.publisher.password)
    bench.ok("set_ice", 1, "newfragment", "n" * 24)
    assert bench.command("add_transport", 9, *first) == E_INVALID
    bench.ok("set_ice", 1, "newerfragment", "n" * 24)
    bench.ok("add_transport", 9, *first)


def test_two_transports_cannot_share_a_ufrag():
    bench = Bench()
    assert bench.command("add_transport", 9, bench.publisher.ufrag, "p" * 24) == E_INVALID


def test_a_silent_transport_dies_once_and_comes_back_by_restart():
    bench = Bench()
    bench.advance(31_500, checks=False)
    assert sorted(e[1] for e in bench.taken(EventKind.ICE_DEAD)) == [1, 2]
    bench.ok("set_ice", 1, "newfragment", "n" * 24)
    bench.events.clear()
    bench.receive(stun_check("newfragment", "n" * 24))
    assert len(bench.publisher.stun) >= 2


def test_a_tuple_may_leave_one_transport_for_another():
    """A browser that reloads may get the same local port: the newer session owns the address."""
    bench = Bench()
    bench.ok("add_transport", 3, "thirdufrag", "t" * 24)
    bench.receive(stun_check("thirdufrag", "t" * 24), PUBLISHER)
    bench.receive(b"\x16\xfe\xfd" + bytes(20), PUBLISHER)
    assert bench.taken(EventKind.DTLS)[-1][1] == 3
    bench.ok("remove_transport", 1)
    bench.receive(b"\x16\xfe\xfd" + bytes(20), PUBLISHER)
    assert bench.taken(EventKind.DTLS)[-1][1] == 3


def test_dtls_reaches_the_control_plane_and_its_answer_the_peer():
    bench = Bench(connect=False)
    bench.receive(bench.publisher.check(use_candidate=False))
    hello = b"\x16\xfe\xfd" + bytes(60)
    bench.receive(hello)
    assert bench.taken(EventKind.DTLS) == [(EventKind.DTLS, 1, hello)]
    number = bench.engine.send_dtls(1, b"\x16\xfe\xfdanswer")
    sent = bench.engine.poll(bench.now_ns)
    assert [d for d in sent if d[0] == b"\x16\xfe\xfdanswer"] == [(b"\x16\xfe\xfdanswer", PUBLISHER)]
    assert (EventKind.ACK, number, 0) in bench.engine.take_events(10)


def test_dtls_from_an_unknown_address_is_not_an_event():
    bench = Bench(connect=False)
    bench.receive(b"\x16\xfe\xfd" + bytes(60), ELSEWHERE)
    assert bench.taken(EventKind.DTLS) == []


def test_ipv6_and_ipv4_tuples_live_side_by_side():
    bench = Bench()
    v6 = ("2001:db8::7", 4444)
    bench.receive(bench.publisher.check(priority=1), v6)
    assert [address for _, address in bench.other] == [v6]
    assert 0x0101 == kind_of(bench.other[0][0])


def test_a_ninth_tuple_evicts_the_stalest_and_the_table_stays_bounded():
    bench = Bench()
    for i in range(40):
        bench.now_ns += MS
        bench.receive(bench.publisher.check(use_candidate=False, priority=10), ("198.51.100.1", 1000 + i))
    bench.receive(bench.publisher.protect(rtp(9, 1)), ("198.51.100.1", 1000))
    assert bench.snapshot()["errors"]["E_UNKNOWN_PEER"] == 1
    bench.receive(bench.subscriber.check(), SUBSCRIBER)
    assert bench.engine.slots_used == 0
