"""The limit program sleeps between frames where it is told to, and says what the frames alone cost."""

from __future__ import annotations

import platform
import resource
import subprocess
from pathlib import Path

import pytest

from tests.bench.limit import limit_rounds

ROOT = Path(__file__).resolve().parents[3]
PAUSE_US = 4000
# The round that warms caches and the one that is printed, of 30 frames each.
PACED_FRAMES = 60

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="ipsec-mb exists for x86-64 alone")


def sleeps_and_cost(pause_us: int) -> tuple[int, float]:
    """Return how often the program gave up its core by itself, and its CPU-us per packet."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_nvcsw
    [us] = limit_rounds("gso", 2, rounds=1, pause_us=pause_us)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_nvcsw - before, us


def test_a_paced_round_sleeps_before_every_frame_and_does_not_count_it():
    subprocess.run(["make", "-s", "build/bench/limit"], cwd=ROOT, check=True, timeout=60)
    sleeps, us = sleeps_and_cost(PAUSE_US)
    assert sleeps >= PACED_FRAMES
    assert us < PAUSE_US / (2 * 8) / 4
    never, _ = sleeps_and_cost(0)
    assert never < PACED_FRAMES / 2
