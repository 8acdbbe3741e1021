"""What one peer may send: alone, and beside others in an engine."""

import pytest

from relaycore.police import PoliceFace
from relaycore.port import EventKind
from tests.support.engine import MS, OPUS, PUBLISHER, Bench, rtp

S = 1_000 * MS


def admitted(police: PoliceFace, count: int, size: int, spread_ns: int, **options) -> int:
    return sum(police.admits(size, 10 * S + i * spread_ns // count, **options) for i in range(count))


def test_what_is_within_the_limits_always_passes():
    assert admitted(PoliceFace(1_000, 8_000_000), 3_000, 900, 3 * S) == 3_000


def test_an_excess_of_packets_is_cut_to_the_limit_and_one_burst():
    assert admitted(PoliceFace(1_000, 0), 10_000, 100, 2 * S) == pytest.approx(2_500, abs=2)


def test_an_excess_of_bytes_is_cut_to_the_limit_and_one_burst():
    assert admitted(PoliceFace(0, 8_000_000), 10_000, 1_000, 2 * S) == pytest.approx(2_500, abs=5)


def test_refused_packets_cost_nothing():
    """Who sends ten times too much gets as much through as who sends twice too much."""
    assert admitted(PoliceFace(100, 0), 1_000, 100, S) == pytest.approx(admitted(PoliceFace(100, 0), 200, 100, S), abs=2)


def test_the_reserve_is_an_eighth_and_does_not_depend_on_the_rest():
    police = PoliceFace(1_000, 0)
    admitted(police, 10_000, 100, S)
    assert admitted(police, 10_000, 100, S, reserved=True) == pytest.approx(187, abs=2)


def test_zero_is_no_limit():
    assert admitted(PoliceFace(0, 0), 5_000, 1_500, 1) == 5_000


@pytest.mark.parametrize(("of_all", "own", "goes_on"), [(0, 800_000, 150), (800_000, 0, 150), (800_000, 400_000, 75), (0, 0, 500)])
def test_a_transport_may_have_less_than_the_others(of_all: int, own: int, goes_on: int):
    """Ten seconds of a megabyte in a second and a half's burst: its own limit counts where it has one."""
    bench = Bench(bits_per_s=own, peer_bits_per_s=of_all)
    bench.ok("add_receiver", 1, 12, True, "2", ((98, "vp9", 90_000, None),), (), (9,))
    bench.ok("add_egress", 2, 22, 12, 0x99, None, "5", ((98, "vp9", 90_000, None),), "cname", 0)
    for number in range(500):
        bench.publish(rtp(9, number, pt=98, payload=bytes(1000)))
        bench.advance(2)
    policed = bench.snapshot()["counters"]["policed"]
    assert 500 - policed == pytest.approx(goes_on, abs=6)


def test_a_wild_camera_costs_its_owner_pictures_and_nobody_a_voice():
    bench = Bench(peer_packets_per_s=800)
    bench.audio()
    bench.ok("add_receiver", 1, 12, True, "2", ((98, "vp9", 90_000, None),), (), (9,))
    # The subscriber publishes a voice too; its transport has limits of its own.
    bench.ok("add_receiver", 2, 13, False, "0", OPUS, (), (8,))
    bench.ok("add_egress", 1, 22, 13, 0x99, None, "5", OPUS, "cname", 0)
    for number in range(100):
        for k in range(40):
            bench.publish(rtp(9, 40 * number + k, pt=98, payload=bytes(200)))
        bench.publish(rtp(7, number, pt=111, ts=960 * number, payload=b"voice"))
        bench.receive(bench.subscriber.protect(rtp(8, number, pt=111, ts=960 * number, payload=b"other")), ("192.0.2.2", 41_000))
        bench.advance(20)
    voices = [p for p in bench.subscriber.rtp if p[8:12] == (0x77).to_bytes(4)]
    assert len(voices) == 100
    assert len([p for p in bench.publisher.rtp if p[8:12] == (0x99).to_bytes(4)]) == 100
    counters = bench.snapshot()["counters"]
    assert 4_000 - 2 * 800 - 400 - 110 < counters["policed"] < 4_000 - 2 * 800
    assert 0 < counters["police_reserved"] <= 110


@pytest.mark.parametrize(("own", "goes_on"), [(800_000, 169), (0, 500)])
def test_data_channels_are_no_way_around_the_limit(own: int, goes_on: int):
    bench = Bench(bits_per_s=own)
    for _ in range(500):
        bench.receive(b"\x17" + bytes(1000), PUBLISHER)
        bench.advance(2)
    assert len(bench.taken(EventKind.DTLS)) == pytest.approx(goes_on, abs=6)


def test_data_goes_on_beside_a_wild_camera():
    bench = Bench(peer_packets_per_s=800)
    for number in range(100):
        for k in range(40):
            bench.publish(rtp(9, 40 * number + k, pt=98, payload=bytes(200)))
        bench.receive(b"\x17" + bytes(100), PUBLISHER)
        bench.advance(20)
    assert len(bench.taken(EventKind.DTLS)) == 100


def test_an_unknown_ssrc_has_no_reserve():
    bench = Bench(peer_packets_per_s=100)
    bench.audio()
    bench.publish(rtp(7, 0, pt=111, payload=b"voice"))
    for number in range(1_000):
        bench.publish(rtp(1_000 + number, number, pt=111, payload=b"x"))
    assert bench.snapshot()["counters"]["police_reserved"] == 0
    bench.publish(rtp(7, 1, pt=111, payload=b"voice"))
    assert len(bench.subscriber.rtp) == 2


def test_checks_pass_whatever_media_does():
    bench = Bench(peer_packets_per_s=10)
    for number in range(100):
        bench.publish(rtp(7, number, pt=111, payload=b"x"))
    before = bench.snapshot()["counters"]["stun_answered"]
    bench.receive(bench.publisher.check(), PUBLISHER)
    assert bench.snapshot()["counters"]["stun_answered"] == before + 1
