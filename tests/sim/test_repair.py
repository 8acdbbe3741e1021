"""Repair on both paths, judged by the oracle: what the network loses comes again, and nothing else changes."""

from __future__ import annotations

import pytest

from tests.sim.link import Impairment
from tests.sim.relay import CLEAN
from tests.sim.repair import RepairSimulation

UP = Impairment(loss=0.1, duplicate=0.02, reorder=0.05)
# Without duplicates: a subscriber's SRTP refuses those, and here nothing may be refused.
DOWN = Impairment(loss=0.1, reorder=0.05)


def holes(simulation: RepairSimulation) -> tuple[int, int]:
    """Return (numbers missing, packets there) over all subscribers."""
    missing = there = 0
    for subscriber in simulation.subscribers:
        numbers = sorted({*subscriber.oracle.packets, *subscriber.oracle.padding})
        missing += numbers[-1] - numbers[0] + 1 - len(numbers)
        there += len(numbers)
    return missing, there


def run(seed: int, *, switches: int = 0, **options) -> RepairSimulation:
    simulation = RepairSimulation(seed, upstream=UP, downstream=DOWN, **options)
    for i, subscriber in enumerate(simulation.subscribers):
        simulation.select(subscriber, 1 + i % 2)
    for step in range(4):
        simulation.run(3)
        for i, subscriber in enumerate(simulation.subscribers if step < switches else ()):
            simulation.select(subscriber, (step + i) % 3)
    # What is under repair when everything stops is not judged.
    for subscriber in simulation.subscribers:
        subscriber.link.impairment = CLEAN
    simulation.uplink.impairment = CLEAN
    simulation.run(1)
    for subscriber in simulation.subscribers:
        assert subscriber.oracle.violations(lost_at_source=1 << 30) == []
        assert subscriber.peer.refused == 0
    return simulation


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("seed", range(1, 6))
def test_a_tenth_lost_on_both_paths_is_repaired(seed, workers):
    missing, there = holes(run(seed, workers=workers))
    assert there > 2_000
    assert missing <= there * 0.001


@pytest.mark.parametrize("seed", range(1, 4))
def test_a_switch_leaves_open_only_what_was_under_repair(seed):
    """Numbers reserved for packets of the former encoding that were missing at the switch: a keyframe follows them."""
    missing, there = holes(run(seed, switches=4))
    assert missing <= 4 * 2 * 8


@pytest.mark.parametrize("start_seq", [65_400, 65_534])
def test_repair_goes_on_over_the_wrap(start_seq):
    missing, there = holes(run(1, start_seq=start_seq))
    assert missing <= there * 0.001


@pytest.mark.parametrize("control", [{"answers": False}, {"asks": False}])
def test_without_repair_on_either_path_the_loss_shows(control):
    missing, there = holes(run(1, **control))
    assert missing > there * 0.04
