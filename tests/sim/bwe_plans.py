"""The bandwidth plans: what happens on a path, step by step, and what has to come of it.

A plan is a function of a seed that builds a world, lets time pass, changes things, and returns figures; its goals bound them,
for every seed. `control` breaks what the plan is about: no feedback, nobody who heeds the estimate, a path that
carries less than it says. A plan that holds its goals under its control would prove nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from relay.quality.allocator import Allocator, Ask
from tests.sim.bwe_sources import SOUND_BPS
from tests.sim.bwe_world import UNSEEN_BPS, Viewer, World

SIMULCAST = (150_000, 500_000, 1_500_000)
NEVER = math.inf
# Over that long what is sent is measured: a few frames.
WINDOW_S = 0.25

Figures = dict[str, float]


@dataclass(frozen=True)
class Goal:
    """A figure and its bounds; both None: told, not judged."""

    figure: str
    unit: str
    least: float | None = None
    most: float | None = None

    def holds(self, value: float) -> bool:
        return not math.isnan(value) and (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        if self.least is None and self.most is None:
            return "reported"
        if self.least is None:
            return f"<= {self.most:g} {self.unit}"
        return f">= {self.least:g} {self.unit}" if self.most is None else f"{self.least:g}-{self.most:g} {self.unit}"


@dataclass(frozen=True)
class Plan:
    name: str
    play: Callable[[int, bool], Figures]
    goals: tuple[Goal, ...]
    control: str


def percentile(values: list[float], share: float) -> float:
    """Nearest rank; NaN of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))] if ordered else math.nan


def first_in(world: World, viewer: Viewer, least: float, most: float, begin_s: float = 0.0) -> float:
    """Return how many seconds after begin_s the estimate first lay between the two."""
    begin_ns = world.start_ns + int(begin_s * 1e9)
    when = next((t for t, bps in viewer.estimates if t >= begin_ns and least <= bps <= most), None)
    return NEVER if when is None else (when - begin_ns) / 1e9


def elastic_viewer(world: World, way, *, reports: bool = True) -> Viewer:
    """A camera that is told what to send, 150 kbit/s at first, and somebody speaking."""
    return world.view(way, [world.publish_video(150_000)], sounds=(world.publish_sound(),), elastic=True, reports=reports)


# --- plans ---


def elastic(bps: int) -> Callable[[int, bool], Figures]:
    def play(seed: int, control: bool) -> Figures:
        world = World(seed)
        way = world.way(bps)
        viewer = elastic_viewer(world, way, reports=not control)
        world.run(20)
        shares = [value / bps * 100 for value in world.estimates_between(viewer, 8, 20)]
        return {
            "85-105 % first after": first_in(world, viewer, 0.85 * bps, 1.05 * bps),
            "estimate, median from 8 s on": statistics.median(shares),
            "estimate, lowest twentieth": percentile(shares, 0.05),
            "estimate, highest twentieth": percentile(shares, 0.95),
            "sent": world.sent_between(viewer, 8, 20) / bps * 100,
            "queue delay, p95": percentile(world.waits_between(way, 0, 20), 0.95),
            "dropped": way.down.queue_drops,
        }

    return play


ELASTIC = (
    Goal("85-105 % first after", "s", most=8.0),
    Goal("estimate, median from 8 s on", "%", 85, 105),
    Goal("estimate, lowest twentieth", "%"),
    Goal("estimate, highest twentieth", "%"),
    Goal("sent", "%"),
    Goal("queue delay, p95", "ms", most=100),
    Goal("dropped", "packets"),
)


def best_choice(bps: float, cameras: int) -> tuple[int, ...]:
    """What a path of that rate carries best, by the allocator that the relay has: the same for one of 87 % of it."""
    found = set()
    for share in (1.0, 0.87):
        asks = [Ask(i, World.options(SIMULCAST)) for i in range(cameras)]
        allocation = Allocator().allocate(bps * share, asks, 0, reserved_bps=SOUND_BPS * 1.1 + UNSEEN_BPS)
        picked = [allocation.grants[i].option for i in range(cameras)]
        found.add(tuple(sorted(-1 if option is None else option.encoding for option in picked)))
    assert len(found) == 1, f"{bps} bit/s for {cameras} cameras lie on an edge: {found}"
    return found.pop()


def settled(world: World, viewer: Viewer, best: tuple[int, ...], begin_s: float, end_s: float) -> float:
    """Return how many seconds after begin_s the best set was chosen for good, as seen at end_s."""
    begin_ns, end_ns = world.start_ns + int(begin_s * 1e9), world.start_ns + int(end_s * 1e9)
    since: float = NEVER
    for when, chosen in viewer.choices:
        if when >= end_ns:
            break
        is_best = tuple(sorted(chosen)) == best
        since = min(since, max(when, begin_ns)) if is_best else NEVER
    return NEVER if since == NEVER else (since - begin_ns) / 1e9


def first_best(world: World, viewer: Viewer, best: tuple[int, ...], begin_s: float) -> float:
    """Return how many seconds after begin_s the best set was first chosen."""
    begin_ns = world.start_ns + int(begin_s * 1e9)
    chosen_ns = next((when for when, chosen in viewer.choices if when >= begin_ns and tuple(sorted(chosen)) == best), None)
    return NEVER if chosen_ns is None else (chosen_ns - begin_ns) / 1e9


def cameras(bps: int, count: int) -> Callable[[int, bool], Figures]:
    def play(seed: int, control: bool) -> Figures:
        world = World(seed)
        way = world.way(bps // 2 if control else bps)
        best = best_choice(bps, count)
        videos = [world.publish_video(*SIMULCAST) for _ in range(count)]
        viewer = world.view(way, videos, sounds=(world.publish_sound(),))
        world.run(45)
        chosen_s = first_best(world, viewer, best, 0)
        begin_s = min(chosen_s, 14)
        changes = [c for c in world.choices_between(viewer, begin_s + 0.01, begin_s + 30) if tuple(sorted(c)) != best]
        return {
            "best set chosen after": chosen_s,
            "left in the 30 s after that": len(changes),
            "queue delay from 5 s on, p95": percentile(world.waits_between(way, 5, 45), 0.95),
            "queue delay before, p95": percentile(world.waits_between(way, 0, 5), 0.95),
            "sent": world.sent_between(viewer, 15, 45) / bps * 100,
            "of it RTX": viewer.guest.rtx_bytes / max(1, viewer.guest.arrived_bytes) * 100,
        }

    return play


CAMERAS = (
    Goal("best set chosen after", "s", most=14),
    Goal("left in the 30 s after that", "times", most=0),
    Goal("queue delay from 5 s on, p95", "ms", most=100),
    Goal("queue delay before, p95", "ms"),
    Goal("sent", "%"),
    Goal("of it RTX", "%"),
)


def drop(seed: int, control: bool) -> Figures:
    world = World(seed)
    way = world.way(3_000_000)
    videos = [world.publish_video(*SIMULCAST) for _ in range(2)]
    viewer = world.view(way, videos, sounds=(world.publish_sound(),))
    viewer.follows = not control
    world.run(15)
    way.set(500_000)
    world.run(15)
    way.set(3_000_000)
    world.run(30)
    windows = [world.sent_between(viewer, 16 + i * 0.05, 16 + i * 0.05 + WINDOW_S) for i in range(round((14 - WINDOW_S) / 0.05))]
    _, _, offered, published = viewer.trace[-1]
    return {
        "sent in the second after": world.sent_between(viewer, 16, 17) / 500_000 * 100,
        "sent 1 s after, median 250 ms": statistics.median(windows) / 500_000 * 100,
        "sent 1 s after, highest 250 ms": max(windows) / 500_000 * 100,
        "sound lost in our queue": published - offered,
        "sound lost on the path": offered - sum(viewer.guest.streams[s].packets for s in viewer.guest.audio_ssrcs),
        "best set of 500 kbit/s after": settled(world, viewer, best_choice(500_000, 2), 15, 30),
        "best set of 3 Mbit/s again after": first_best(world, viewer, best_choice(3_000_000, 2), 30),
    }


DROP = (
    Goal("sent in the second after", "%", most=100),
    Goal("sent 1 s after, median 250 ms", "%"),
    Goal("sent 1 s after, highest 250 ms", "%"),
    Goal("sound lost in our queue", "packets", most=0),
    Goal("sound lost on the path", "packets"),
    Goal("best set of 500 kbit/s after", "s"),
    Goal("best set of 3 Mbit/s again after", "s", most=12),
)


def drop_elastic(seed: int, control: bool) -> Figures:
    world = World(seed)
    way = world.way(3_000_000)
    viewer = elastic_viewer(world, way)
    world.run(15)
    way.set(500_000)
    viewer.follows = not control
    world.run(15)
    way.set(3_000_000)
    world.run(20)
    return {
        "sent in the second after": world.sent_between(viewer, 16, 17) / 500_000 * 100,
        "sent 2-15 s after": world.sent_between(viewer, 17, 30) / 500_000 * 100,
        "estimate below 105 % after": first_in(world, viewer, 0, 525_000, 15),
        "queue delay 4-15 s after, p95": percentile(world.waits_between(way, 19, 30), 0.95),
        "estimate at 85 % again after": first_in(world, viewer, 0.85 * 3e6, 1.05 * 3e6, 30),
    }


DROP_ELASTIC = (
    Goal("sent in the second after", "%", most=100),
    Goal("sent 2-15 s after", "%", 60, 100),
    Goal("estimate below 105 % after", "s"),
    Goal("queue delay 4-15 s after, p95", "ms", most=100),
    Goal("estimate at 85 % again after", "s", most=12),
)


def lossy(share: float) -> Callable[[int, bool], Figures]:
    def play(seed: int, control: bool) -> Figures:
        bps = 2_000_000
        world = World(seed)
        way = world.way(bps // 2 if control else bps, share)
        viewer = elastic_viewer(world, way)
        world.run(30)
        kept = [value / bps * 100 for value in world.estimates_between(viewer, 8, 30)]
        return {
            "estimate, median from 8 s on": statistics.median(kept),
            "estimate, lowest twentieth": percentile(kept, 0.05),
            "estimate, highest twentieth": percentile(kept, 0.95),
            "sent": world.sent_between(viewer, 8, 30) / bps * 100,
            "queue delay, p95": percentile(world.waits_between(way, 0, 30), 0.95),
            "loss told": viewer.guest.loss * 100,
        }

    return play


def lossy_goals(least: float | None) -> tuple[Goal, ...]:
    return (
        Goal("estimate, median from 8 s on", "%", least, None if least is None else 105),
        Goal("estimate, lowest twentieth", "%"),
        Goal("estimate, highest twentieth", "%"),
        Goal("sent", "%", least),
        Goal("queue delay, p95", "ms", most=None if least is None else 100),
        Goal("loss told", "%"),
    )


def shared(seed: int, control: bool) -> Figures:
    world = World(seed)
    way = world.way(4_000_000)
    first = elastic_viewer(world, way)
    if control:
        first.follows = False
        first.subscriptions[0].video.encodings[0].bps = 3_200_000
    world.run(10)
    second = elastic_viewer(world, way)
    world.run(50)
    a, b = world.sent_between(first, 30, 60), world.sent_between(second, 30, 60)
    early, late = world.sent_between(first, 12, 30), world.sent_between(second, 12, 30)
    return {
        "share of the one that came later": b / (a + b) * 100,
        "its share in its first 20 s": late / (early + late) * 100,
        "sent by both": (a + b) / 4e6 * 100,
        "queue delay, p95": percentile(world.waits_between(way, 0, 60), 0.95),
    }


SHARED = (
    Goal("share of the one that came later", "%", 35, 65),
    Goal("its share in its first 20 s", "%"),
    Goal("sent by both", "%"),
    Goal("queue delay, p95", "ms", most=100),
)


def little(seed: int, control: bool) -> Figures:
    """A path of 3 Mbit/s over which half a megabit is all there is to send, until a screen is shared."""
    world = World(seed, probes=not control)
    way = world.way(3_000_000)
    viewer = elastic_viewer(world, way)
    viewer.source_limit_bps = 500_000
    world.run(30)
    limited = world.estimates_between(viewer, 8, 30)
    probed = viewer.guest.rtx_bytes
    viewer.source_limit_bps = 2_400_000
    world._decide(viewer)
    world.run(15)
    return {
        "estimate while little is sent, lowest": min(limited) / 1e3,
        "estimate while little is sent, highest": max(limited) / 1e3,
        "probes in 30 s": probed / 1e3,
        "95 % of 2.4 Mbit/s after": first_in(world, viewer, 2_280_000, 3_150_000, 30),
        "queue delay, p95": percentile(world.waits_between(way, 0, 45), 0.95),
    }


LITTLE = (
    Goal("estimate while little is sent, lowest", "kbit/s", 500, None),
    Goal("estimate while little is sent, highest", "kbit/s", None, 3150),
    Goal("probes in 30 s", "kB", most=200),
    Goal("95 % of 2.4 Mbit/s after", "s", most=12),
    Goal("queue delay, p95", "ms", most=100),
)

PLANS = (
    *(Plan(f"elastic, {bps / 1e6:g} Mbit/s", elastic(bps), ELASTIC, "no feedback") for bps in (300_000, 1_000_000, 3_000_000, 10_000_000)),
    Plan("one camera, 2.1 Mbit/s", cameras(2_100_000, 1), CAMERAS, "half the rate is there"),
    Plan("three cameras, 2 Mbit/s", cameras(2_000_000, 3), CAMERAS, "half the rate is there"),
    Plan("four cameras, 900 kbit/s", cameras(900_000, 4), CAMERAS, "half the rate is there"),
    Plan("cameras, 3 Mbit/s to 500 kbit/s and back", drop, DROP, "all is sent"),
    Plan("elastic, 3 Mbit/s to 500 kbit/s and back", drop_elastic, DROP_ELASTIC, "nobody heeds the fall"),
    Plan("2 % lost at random", lossy(0.02), lossy_goals(70), "half the rate is there"),
    Plan("8 % lost at random", lossy(0.08), lossy_goals(70), "half the rate is there"),
    Plan("15 % lost at random", lossy(0.15), lossy_goals(None), ""),
    Plan("two on one path", shared, SHARED, "one heeds nothing"),
    Plan("little to send", little, LITTLE, "no probes"),
)
