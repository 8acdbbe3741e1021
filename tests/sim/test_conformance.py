"""What leaves the relay obeys the oracle, through loss, reordering, duplicates, padding and encoding switches."""

from __future__ import annotations

import random

import pytest

from tests.sim.link import Impairment
from tests.sim.relay import VP8, Simulation

SEEDS = range(1, 6)


def judged(simulation: Simulation, *, lossless: bool) -> int:
    """Assert that every subscriber's stream is clean; return the packets seen."""
    seen = 0
    for subscriber in simulation.subscribers:
        lost = 1 << 30 if not lossless else 0
        assert subscriber.oracle.violations(lost_at_source=lost) == []
        assert subscriber.peer.refused == 0
        seen += len(subscriber.oracle.packets)
    return seen


@pytest.mark.parametrize("profile", [0x0001, 0x0007, 0x0008])
def test_a_clean_network_gives_a_stream_without_holes(profile):
    simulation = Simulation(1, profile=profile)
    simulation.run(4)
    assert judged(simulation, lossless=True) > 2 * 100


@pytest.mark.parametrize("seed", SEEDS)
def test_padding_and_switches_leave_no_trace(seed):
    simulation = Simulation(seed, padding_share=0.3)
    for step in range(12):
        simulation.run(1.1)
        for i, subscriber in enumerate(simulation.subscribers):
            simulation.select(subscriber, (step + i) % 3)
    simulation.run(1)
    assert judged(simulation, lossless=True) > 400
    for subscriber in simulation.subscribers:
        encodings = {packet.stamp.encoding for packet in subscriber.oracle.packets.values()}
        assert encodings == {0, 1, 2}


@pytest.mark.parametrize("seed", SEEDS)
def test_loss_reordering_and_duplicates_before_the_relay(seed):
    bad = Impairment(loss=0.05, duplicate=0.02, reorder=0.1)
    simulation = Simulation(seed, upstream=bad, padding_share=0.1)
    for step in range(6):
        simulation.run(2)
        for i, subscriber in enumerate(simulation.subscribers):
            simulation.select(subscriber, (step + i) % 3)
    assert judged(simulation, lossless=False) > 400


@pytest.mark.parametrize("start_seq", [0, 1, 32767, 32768, 65400, 65534, 65535])
def test_source_numbers_wrap_unseen(start_seq):
    simulation = Simulation(3, start_seq=start_seq)
    simulation.run(6)
    assert judged(simulation, lossless=True) > 300


def test_pause_and_resume_start_at_a_keyframe_without_a_hole():
    simulation = Simulation(2)
    simulation.run(2)
    for subscriber in simulation.subscribers:
        simulation.select(subscriber, None)
    before = [len(s.oracle.packets) for s in simulation.subscribers]
    simulation.run(2)
    assert [len(s.oracle.packets) - n for s, n in zip(simulation.subscribers, before)] <= [10, 10]
    for subscriber in simulation.subscribers:
        simulation.select(subscriber, 0)
    simulation.run(2)
    assert judged(simulation, lossless=True) > 2 * 100


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_who_comes_late_or_again_is_shown_a_clean_stream_from_the_cache(seed, workers):
    simulation = Simulation(seed, subscribers=4, workers=workers, upstream=Impairment(loss=0.01, reorder=0.05), padding_share=0.1)
    rng = random.Random(seed)
    for _ in range(25):
        simulation.run(0.25)
        for subscriber in simulation.subscribers:
            simulation.select(subscriber, rng.choice((0, 1, 2, None)))
    assert judged(simulation, lossless=False) > 200
    counters = [simulation.counters(engine) for engine in simulation.engines]
    assert sum(c["cache_hits"] for c in counters) > 5 and sum(c["cache_bytes"] for c in counters) > 0


def test_the_same_seed_gives_the_same_bytes():
    def fingerprint() -> list:
        simulation = Simulation(4, upstream=Impairment(loss=0.05, reorder=0.1))
        simulation.run(3)
        return [sorted((p.ext_seq, p.rtp_ts, p.stamp) for p in s.oracle.packets.values()) for s in simulation.subscribers]

    assert fingerprint() == fingerprint()


# --- streams that cross the rings between workers ---

@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_streams_that_cross_rings_are_as_clean(seed, workers):
    bad = Impairment(loss=0.05, duplicate=0.02, reorder=0.1)
    simulation = Simulation(seed, subscribers=4, workers=workers, upstream=bad, padding_share=0.1)
    for step in range(6):
        simulation.run(2)
        for i, subscriber in enumerate(simulation.subscribers):
            simulation.select(subscriber, (step + i) % 3)
    assert judged(simulation, lossless=False) > 800
    assert all(len(s.oracle.packets) > 200 for s in simulation.subscribers)


@pytest.mark.parametrize("start_seq", [0, 32767, 65400, 65535])
def test_what_crosses_a_ring_has_no_holes(start_seq):
    simulation = Simulation(3, start_seq=start_seq, workers=2, padding_share=0.3)
    for step in range(6):
        simulation.run(1.1)
        for i, subscriber in enumerate(simulation.subscribers):
            simulation.select(subscriber, (step + i) % 3)
    simulation.run(1)
    assert judged(simulation, lossless=True) > 300
    for subscriber in simulation.subscribers:
        assert {packet.stamp.encoding for packet in subscriber.oracle.packets.values()} == {0, 1, 2}


def test_both_sides_of_a_ring_see_the_same_stream():
    simulation = Simulation(5, workers=2)
    simulation.run(3)
    near, far = ({p.stamp for p in s.oracle.packets.values()} for s in simulation.subscribers)
    assert len(near) > 90 and len(near ^ far) < 10


def test_a_ring_too_small_for_the_stream_loses_whole_frames():
    # 4 kB hold eight small packets, far less than a keyframe of the highest encoding has.
    simulation = Simulation(1, workers=2, ring_bytes=4_096)
    far = simulation.subscribers[1]
    for encoding in (0, 2, 0):
        simulation.select(far, encoding)
        simulation.run(4)
    assert judged(simulation, lossless=False) > 200
    assert len(far.oracle.packets) > 100
    assert simulation.counters(simulation.engine)["export_dropped_video"] > 5


def test_a_mirror_may_go_and_come_back_while_packets_are_under_way():
    simulation = Simulation(2, workers=2, subscribers=2)
    far = simulation.subscribers[1]
    for attempt in range(5):
        simulation.run(0.5)
        simulation.unmirror(1)
        simulation.run(0.1)
        simulation.mirror(1)
        far.ssrc = 0x2000_0000 + attempt
        far.oracle = type(far.oracle)()
        simulation.command(far.engine, "add_egress", far.transport, 2_000 + attempt, 10, far.ssrc, None, "7", VP8, "c", 2)
        far.egress = 2_000 + attempt
    simulation.run(2)
    assert judged(simulation, lossless=True) > 200
    assert len(far.oracle.packets) > 200
