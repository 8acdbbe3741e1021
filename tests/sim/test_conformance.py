"""What leaves the relay obeys the oracle, through loss, reordering, duplicates, padding and encoding switches."""

from __future__ import annotations

import pytest

from tests.sim.link import Impairment
from tests.sim.relay import Simulation

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


def test_the_same_seed_gives_the_same_bytes():
    def fingerprint() -> list:
        simulation = Simulation(4, upstream=Impairment(loss=0.05, reorder=0.1))
        simulation.run(3)
        return [sorted((p.ext_seq, p.rtp_ts, p.stamp) for p in s.oracle.packets.values()) for s in simulation.subscribers]

    assert fingerprint() == fingerprint()
