"""What estimation costs in machine time: the feedback of a subscriber, taken by a relay that estimates and by one that cannot."""

from __future__ import annotations

import time

from tests.sim.bwe_plans import elastic_viewer
from tests.sim.bwe_world import World

# A call of nine: everybody takes eight videos over one transport.
SUBSCRIPTIONS_EACH = 8
RATE_BPS = 3_000_000
SECONDS = 20


def _engine_s(reports: bool) -> float:
    """Return the seconds that the engine works for one subscriber who is sent RATE_BPS."""
    world = World(1, probes=False)
    viewer = elastic_viewer(world, world.way(2 * RATE_BPS), reports=reports)
    viewer.follows = False
    viewer.subscriptions[0].video.encodings[0].bps = RATE_BPS
    spent = 0.0
    engine = world.engine

    class Timed:
        def __getattr__(self, name):
            return getattr(engine, name)

        def receive(self, *arguments) -> None:
            nonlocal spent
            begun = time.thread_time()
            engine.receive(*arguments)
            spent += time.thread_time() - begun

        def poll(self, now_ns: int):
            nonlocal spent
            begun = time.thread_time()
            found = engine.poll(now_ns)
            spent += time.thread_time() - begun
            return found

    world.engine = Timed()
    world.run(SECONDS)
    return spent


def cost() -> None:
    """Print it, decryption of the feedback and Python's part of the call included; the least of five."""
    with_it, without = (min(_engine_s(reports) for _ in range(5)) for reports in (True, False))
    ms_per_s = (with_it - without) / SECONDS * 1e3
    print(
        f"estimator: {ms_per_s * 1e3:.0f} us per second and subscriber at {RATE_BPS / 1e6:g} Mbit/s with 20 reports a second,"
        f" {ms_per_s * 1e3 / SUBSCRIPTIONS_EACH:.1f} ms per second and 1,000 subscriptions ({SUBSCRIPTIONS_EACH} to a subscriber)"
    )
