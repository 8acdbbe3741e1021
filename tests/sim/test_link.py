"""The impairments are what their settings say, and the same for the same seed."""

from __future__ import annotations

import random
from itertools import groupby

import pytest

from tests.sim.link import Burst, Impairment, Link

MS = 1_000_000
COUNT = 20_000


def fates(impairment: Impairment, *, seed: int = 1, interval_ns: int = MS, size: int = 1200) -> tuple[Link, list]:
    link = Link(random.Random(seed), impairment)
    return link, [link.plan(size, i * interval_ns) for i in range(COUNT)]


def test_a_clean_link_only_delays():
    link, found = fates(Impairment(delay_s=0.025))
    assert found == [(i * MS + 25 * MS,) for i in range(COUNT)]
    assert (link.sent, link.lost) == (COUNT, 0)


def test_a_seed_decides_by_packet_and_not_by_time():
    bad = Impairment(loss=0.05, duplicate=0.02, reorder=0.1, jitter_s=0.01, burst=Burst(0.01, 0.2))

    def shape(seed: int, interval_ns: int) -> list[int]:
        return [len(fate) for fate in fates(bad, seed=seed, interval_ns=interval_ns)[1]]

    assert shape(3, MS) == shape(3, 7 * MS) != shape(4, MS)


def test_changing_one_impairment_leaves_the_others_alone():
    lost = [i for i, fate in enumerate(fates(Impairment(loss=0.05))[1]) if not fate]
    also_duplicated = fates(Impairment(loss=0.05, duplicate=0.5, reorder=0.5, jitter_s=0.1))[1]
    assert [i for i, fate in enumerate(also_duplicated) if not fate] == lost


@pytest.mark.parametrize("loss", [0.01, 0.05, 0.3])
def test_single_loss_has_its_share_and_comes_alone(loss):
    link, found = fates(Impairment(loss=loss))
    assert link.lost / COUNT == pytest.approx(loss, rel=0.15)
    runs = [len(list(run)) for is_lost, run in groupby(not fate for fate in found) if is_lost]
    assert sum(runs) / len(runs) == pytest.approx(1 / (1 - loss), rel=0.1)


def test_bursts_have_their_length():
    link, found = fates(Impairment(burst=Burst(enter=0.01, leave=0.2)))
    runs = [len(list(run)) for is_lost, run in groupby(not fate for fate in found) if is_lost]
    assert sum(runs) / len(runs) == pytest.approx(5, rel=0.2)
    assert link.lost / COUNT == pytest.approx(0.01 / 0.21, rel=0.25)


def test_jitter_keeps_the_order_and_reordering_does_not():
    _, jittered = fates(Impairment(delay_s=0.01, jitter_s=0.02))
    due = [fate[0] for fate in jittered]
    assert due == sorted(due) and max(d - i * MS for i, d in enumerate(due)) <= 30 * MS
    link, reordered = fates(Impairment(delay_s=0.01, reorder=0.1))
    overtaken = sum(a[0] > b[0] for a, b in zip(reordered, reordered[1:]))
    assert link.reordered / COUNT == pytest.approx(0.1, rel=0.1)
    assert overtaken > 0.8 * link.reordered


def test_duplicates_have_their_share():
    link, found = fates(Impairment(duplicate=0.05))
    assert sum(len(fate) == 2 for fate in found) == link.duplicated
    assert link.duplicated / COUNT == pytest.approx(0.05, rel=0.15)


def test_a_rate_passes_what_it_says_and_drops_the_tail():
    wanted = Impairment(delay_s=0, rate_bps=1_000_000, queue_bytes=12_280)
    # 1,228 bytes on the wire every ms are 9.8 times the rate.
    link, found = fates(wanted)
    passed = [fate[0] for fate in found if fate]
    assert len(passed) * 1228 * 8 / (passed[-1] / 1e9) == pytest.approx(1e6, rel=0.01)
    assert link.queue_drops == COUNT - len(passed)
    # What passes waited for at most a full queue and itself.
    assert max(fate[0] - i * MS for i, fate in enumerate(found) if fate) <= (12_280 + 2 * 1228) * 8 * 1000
