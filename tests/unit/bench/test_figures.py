"""What makes a benchmark's verdict: intervals that hold the truth, controls that void a run."""

from __future__ import annotations

import random

import pytest

from tests.bench.figures import Figure, difference, is_void, movement, ratio


def test_the_ratio_of_steady_rounds_is_exact():
    found = ratio([3.0] * 10, [1.5] * 10)
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))


def test_a_drift_that_both_sides_share_does_not_widen_the_interval():
    drift = [1 + i / 10 for i in range(10)]
    found = ratio([2 * d for d in drift], drift)
    assert found.high - found.low < 1e-9


def test_the_interval_holds_the_truth_nineteen_times_in_twenty(rng: random.Random):
    hits = 0
    for _ in range(400):
        found = ratio([2 * rng.lognormvariate(0, 0.1) for _ in range(10)], [rng.lognormvariate(0, 0.1) for _ in range(10)])
        hits += found.low <= 2 <= found.high
    assert 365 <= hits <= 395


def test_a_goal_is_missed_only_when_the_interval_says_so():
    assert Figure(2.6, 2.4, 2.8).misses(2.5) is False
    assert Figure(2.7, 2.55, 2.9).misses(2.5) is True
    assert ratio([5.0], [1.0]).misses(2.5) is False


def test_a_run_is_void_when_its_control_drifts_or_scatters():
    assert not is_void([1.0, 1.02, 0.99, 1.01, 1.0, 1.03, 0.98, 1.0, 1.01, 3.0])
    assert is_void([1.0] * 5 + [1.2] * 5)
    assert is_void([1.0, 1.3] * 5)
    assert movement([1.0] * 5 + [1.2] * 5) == pytest.approx(0.2 / 1.1)


def test_a_difference_is_a_median_that_odd_rounds_do_not_move():
    # Of ten rounds the second and the ninth bound the median (97.9 %); of five nothing does.
    found = difference([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 1000], [0.0] * 10)
    assert (found.value, found.low, found.high) == (5.5, 2, 9)
    few = difference([3.0] * 5, [1.0] * 5)
    assert few.value == 2 and few.misses(1.0) is False
    assert difference([3.0] * 6, [1.0] * 6).misses(1.0) is True


def test_the_interval_of_a_median_holds_the_truth(rng: random.Random):
    hits = 0
    for _ in range(400):
        found = difference([rng.expovariate(1) for _ in range(12)], [rng.expovariate(1) for _ in range(12)])
        hits += found.low <= 0 <= found.high
    assert hits >= 370
