"""Stage costs: sampled by a running worker, zero where nothing ran, exported."""

import time

from relaycore.stages import STAGES, ns_per_tick
from tests.support.engine import Bench, rtp


def test_a_tick_is_as_long_as_the_clock_says():
    time.sleep(0.02)
    first = ns_per_tick()
    time.sleep(0.02)
    assert 0.05 < first < 1.1 * ns_per_tick() < 50


def test_an_engine_on_virtual_time_is_not_sampled():
    bench = Bench()
    bench.audio()
    bench.publish(rtp(7, 1, pt=111, payload=b"opus"))
    stages = bench.snapshot()["stages"]
    assert set(stages) == set(STAGES) and set(stages.values()) == {(0.0, 0)}
