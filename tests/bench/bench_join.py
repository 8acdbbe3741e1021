"""`make bench-join`: two hundred people come into a call of ten all at once, and what it costs those who are there.

Native endpoints at both ends (relaycore.loadgen), each in a process of its own: ten publishers with a camera each, who send keyframes
only when asked, twenty viewers who are shown all ten, and then two hundred more as fast as the relay takes them, or spread over some
seconds. First frames are whole decodable frames at the receiver, counted from when its subscription was asked for.

usage: python -m tests.bench.bench_join [--joiners 200] [--publishers 10] [--viewers 20] [--over SECONDS ...]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from relaycore.loadgen import EventKind as LoadEvent
from relaycore.loadgen import LoadGenerator
from tests.support.load_scene import Publication, Scene, WorkerRelay

JOINERS, PUBLISHERS, VIEWERS = 200, 10, 20
CAMERA = {"fps": 15.0, "bitrate_bps": 120_000, "width": 320, "height": 180}
# What was cached of the first keyframes is gone by then, and the estimate of each path has risen above what is sent.
SETTLE_S, BEFORE_S, WINDOW_S = 10.0, 4.0, 10.0
MAX_KEYFRAMES, MAX_FIRST_S, MAX_DROP = 3, 4.0, 0.2


@dataclass(frozen=True)
class Joined:
    """What came of one crowd."""

    over_s: float
    keyframes: list[int]  # of each publisher, in WINDOW_S from the first join
    first_s: list[float]  # of each joiner: until the last of its publishers was seen
    unseen: int  # subscriptions without a frame
    join_s: float  # how long it took to subscribe all
    fps_before: float  # of each viewer's subscription
    fps_meanwhile: float
    counters: dict[str, int]

    @property
    def drop(self) -> float:
        return 1 - self.fps_meanwhile / max(0.01, self.fps_before)


def problems(found: Joined) -> list[str]:
    """Return what the issue does not allow."""
    wrong = []
    if max(found.keyframes) > MAX_KEYFRAMES:
        wrong.append(f"{max(found.keyframes)} keyframes of one publisher in {WINDOW_S:.0f} s, {MAX_KEYFRAMES} allowed")
    if found.unseen:
        wrong.append(f"{found.unseen} subscriptions were shown nothing")
    if max(found.first_s, default=0.0) > MAX_FIRST_S:
        wrong.append(f"a joiner's first frame after {max(found.first_s):.2f} s, {MAX_FIRST_S:.0f} s allowed")
    if found.drop >= MAX_DROP:
        wrong.append(f"viewers' frame rate fell by {found.drop:.0%}, less than {MAX_DROP:.0%} allowed")
    return wrong


def enter(scene: Scene, publications: list[Publication]) -> list[int]:
    """Bring in one endpoint that is shown everything; return its receivers."""
    endpoint = scene.connect()
    return [scene.subscribe(endpoint, publication, nack=False) for publication in publications]


def frames_of(load: LoadGenerator, receivers: set[int]) -> int:
    rows = load.stats()["receivers"]
    return int(sum(row["frames_complete"] for row in rows if row["receiver"] in receivers))


def keyframes_of(load: LoadGenerator, senders: list[int]) -> np.ndarray:
    rows = {row["sender"]: row["keyframes"] for row in load.stats()["senders"]}
    return np.array([rows[sender] for sender in senders])


def crowd(over_s: float, joiners: int, publishers: int, viewers: int) -> Joined:
    """Run one room and its crowd."""
    relay = WorkerRelay()
    try:
        with LoadGenerator(seed=1, threads=1, drain="eager") as load:
            scene = Scene(relay, load)
            publications = [scene.publish_video(scene.connect(), rtx=False, **CAMERA) for _ in range(publishers)]
            senders = [publication.sender for publication in publications]
            watching = {receiver for _ in range(viewers) for receiver in enter(scene, publications)}
            scene.wait(LoadEvent.FIRST_FRAME, viewers * publishers, 20)
            time.sleep(SETTLE_S)
            frames, began = frames_of(load, watching), time.monotonic()
            time.sleep(BEFORE_S)
            fps_before = (frames_of(load, watching) - frames) / (time.monotonic() - began) / len(watching)

            keyframes, frames, began = keyframes_of(load, senders), frames_of(load, watching), time.monotonic()
            asked_ns: dict[int, int] = {}
            people = []
            for i in range(joiners):
                pause = began + over_s * i / joiners - time.monotonic()
                if pause > 0:
                    time.sleep(pause)
                at_ns = time.monotonic_ns()
                people.append(enter(scene, publications))
                asked_ns.update(dict.fromkeys(people[-1], at_ns))
            join_s = time.monotonic() - began
            time.sleep(max(0.0, began + WINDOW_S - time.monotonic()))
            sent = keyframes_of(load, senders) - keyframes
            fps = (frames_of(load, watching) - frames) / (time.monotonic() - began) / len(watching)
            # Who came last has the full time too.
            time.sleep(max(0.0, began + join_s + MAX_FIRST_S + 0.5 - time.monotonic()))
            seen = {row["receiver"]: row["first_frame_ns"] for row in load.stats()["receivers"] if row["first_frame_ns"]}
            first = [max((seen[r] - asked_ns[r]) / 1e9 for r in person if r in seen) for person in people if any(r in seen for r in person)]
            unseen = sum(receiver not in seen for receiver in asked_ns)
            counters = relay.snapshot()["counters"]
            return Joined(over_s, sent.tolist(), first, unseen, join_s, fps_before, fps, counters)
    finally:
        relay.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="a crowd comes into a call")
    parser.add_argument("--joiners", type=int, default=JOINERS)
    parser.add_argument("--publishers", type=int, default=PUBLISHERS)
    parser.add_argument("--viewers", type=int, default=VIEWERS)
    parser.add_argument("--over", type=float, nargs="+", default=[0.0, 8.0], help="seconds over which they come")
    options = parser.parse_args()
    table = Table(title=f"{options.joiners} join a call of {options.publishers} publishers and {options.viewers} viewers")
    for name in ("over", "keyframes of a publisher", "first frame p50", "p99", "worst", "viewers' frame rate", "from the cache", "asked"):
        table.add_column(name, justify="right")
    wrong = []
    for over_s in options.over:
        found = crowd(over_s, options.joiners, options.publishers, options.viewers)
        p50, p99, worst = np.percentile(found.first_s, (50, 99, 100))
        few, many = min(found.keyframes), max(found.keyframes)
        cells = f"{found.join_s:.1f} s", f"{few} to {many}", f"{p50:.2f} s", f"{p99:.2f} s", f"{worst:.2f} s"
        rate = f"{found.fps_before:.1f} to {found.fps_meanwhile:.1f} ({-found.drop:+.0%})"
        c = found.counters
        table.add_row(*cells, rate, f"{c['cache_hits']} ({c['cache_bytes'] / 1e6:.1f} MB)", str(c["keyframe_requests_sent"]))
        wrong += [f"over {over_s:.0f} s: {what}" for what in problems(found)]
    Console(width=140).print(table)
    print(f"goals: at most {MAX_KEYFRAMES} keyframes of each publisher in {WINDOW_S:.0f} s, first frames within {MAX_FIRST_S:.0f} s, "
          f"viewers' frame rate down by less than {MAX_DROP:.0%}; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for what in wrong:
        print(f"FAIL {what}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
