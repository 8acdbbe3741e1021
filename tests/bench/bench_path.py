"""`make bench-path`: CPU time per forwarded packet of the whole relay process, beside the raw limit in the same rounds.

Every round runs the limit program and the relay under each load, in an order that turns round from one to the next (ABBA).
Ratios are of one round's two sides, with their 95 % interval. The run is void when the limit program itself moved by more
than 10 %: then others were using the machine. Ends with 1 when a goal is missed for certain and the run is not void.

The goal is a ratio to the limit as LIMITS has it, a loop that never pauses. The relay's load does pause, 32 ms between frames,
after which core and caches are cold; what the limit program costs at that pace stands beside it, without a goal.

usage: python -m tests.bench.bench_path [--rounds 10] [--window 3] [--subscribers 50,100,400] [--workers 2]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.fan_out import LOSS, FanOut, Room, Window
from tests.bench.figures import CONTROL_MAY_MOVE, Figure, movement, ratio, spread
from tests.bench.hosts import RelayHost
from tests.bench.limit import PACE_US, limit_us

RESULT = Path(__file__).resolve().parents[2] / "build" / "bench" / "path.json"
GOAL_OF_LIMIT = 2.5
GOAL_FLATNESS = 1.15
GOAL_MORE_WORKERS = 1.15
# mediasoup 3.27 with NACK over WebRTC transports, GCM, the clean load on another machine (LIMITS section 1).
MEDIASOUP_US = {50: 3.01, 100: 2.69, 400: 3.19}
# A clean window that lost more was disturbed; in a lossy one a repair may need longer than the window.
MAX_LOSS = {False: 0.001, True: 0.005}
ATTEMPTS = 3


@dataclass(frozen=True)
class Load:
    """One row of the table."""

    subscribers: int
    is_lossy: bool = False
    workers: int = 1

    def __str__(self) -> str:
        kind = "RTCP, TWCC, 1 % loss" if self.is_lossy else "clean"
        return f"N={self.subscribers} {kind}" + (f", {self.workers} workers" if self.workers > 1 else "")


class Run:
    """All rounds of one run: CPU-us per packet by load, and of the limit by N."""

    def __init__(self, subscribers: list[int], *, window_s: float, workers: int = 1) -> None:
        self.subscribers = subscribers
        self.loads = [Load(n, is_lossy) for n in subscribers for is_lossy in (False, True)]
        if workers > 1:
            self.loads.append(Load(subscribers[-1], workers=workers))
        self.relay: dict[Load, list[Window]] = {load: [] for load in self.loads}
        self.limit: dict[int, list[float]] = {n: [] for n in subscribers}
        self.paced: dict[int, list[float]] = {n: [] for n in subscribers}
        self.notes: list[str] = []
        self._window_s = window_s

    def round(self, number: int) -> None:
        """Run every side once, the other way round in odd rounds."""
        sides: list[Load | int] = []
        for n in self.subscribers:
            sides += [n, *(load for load in self.loads if load.subscribers == n)]
        for side in sides if number % 2 == 0 else reversed(sides):
            if isinstance(side, int):
                self.limit[side].append(limit_us("gso", side))
                self.paced[side].append(limit_us("gso", side, rounds=1, pause_us=PACE_US))
            else:
                self.relay[side].append(self._window(side))

    def _window(self, load: Load) -> Window:
        for _ in range(ATTEMPTS):
            host = RelayHost(workers=load.workers)
            with FanOut(host, [Room(load.subscribers)], loss=LOSS if load.is_lossy else 0.0) as bench:
                window = bench.measure(self._window_s)
            if window.loss <= MAX_LOSS[load.is_lossy] and not window.reasons:
                return window
            self.notes.append(f"{load}: {max(0.0, window.loss):.2%} lost; {'; '.join(window.reasons) or 'the generator kept up'}")
        return window

    def us(self, load: Load) -> list[float]:
        return [window.us_per_packet for window in self.relay[load]]

    def of_limit(self, load: Load) -> Figure:
        return ratio(self.us(load), self.limit[load.subscribers])

    def verdicts(self) -> list[tuple[str, Figure, float]]:
        """Return every goal: what, the figure, the most it may be."""
        few, many = Load(self.subscribers[0]), Load(self.subscribers[-1])
        found = [(f"{load}, of the limit", self.of_limit(load), GOAL_OF_LIMIT) for load in self.loads if load.workers == 1]
        if few != many:
            found.append((f"N={many.subscribers} of N={few.subscribers}", ratio(self.us(many), self.us(few)), GOAL_FLATNESS))
        for load in self.loads:
            if load.workers > 1:
                what = f"{load.workers} workers of 1, N={many.subscribers}"
                found.append((what, ratio(self.us(load), self.us(many)), GOAL_MORE_WORKERS))
        return found

    def table(self) -> Table:
        found = Table(title="CPU-us per forwarded packet, all threads of the relay process; median [range]")
        names = ("load", "relay", "limit, GSO 8", "ratio, 95 % interval", "limit, paced", "ratio", "core", "lost", "mediasoup")
        for name in names:
            found.add_column(name)
        for load in self.loads:
            windows = self.relay[load]
            core = statistics.median(window.core for window in windows)
            lost = statistics.median(window.loss for window in windows)
            paced = self.paced[load.subscribers]
            reference = MEDIASOUP_US.get(load.subscribers) if not load.is_lossy and load.workers == 1 else None
            found.add_row(
                str(load), spread(self.us(load)), spread(self.limit[load.subscribers]), str(self.of_limit(load)),
                spread(paced), f"{ratio(self.us(load), paced).value:.2f}", f"{core:.1%}", f"{max(0.0, lost):.3%}",
                f"{reference}" if reference else "",
            )  # fmt: skip
        return found

    def save(self) -> None:
        """Keep the rounds for later comparison."""
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        rounds = {str(load): [vars(window) for window in windows] for load, windows in self.relay.items()}
        RESULT.write_text(json.dumps({"relay": rounds, "limit": self.limit, "paced": self.paced, "notes": self.notes}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description="cost per forwarded packet beside the raw limit")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--window", type=float, default=3.0, help="seconds")
    parser.add_argument("--subscribers", default="50,100,400")
    parser.add_argument("--workers", type=int, default=1, help="2: also with two, the largest N")
    options = parser.parse_args()
    subscribers = [int(word) for word in options.subscribers.split(",")]
    run = Run(subscribers, window_s=options.window, workers=options.workers)
    machine = [os.getloadavg()[0]]
    for number in range(options.rounds):
        run.round(number)
        machine.append(os.getloadavg()[0])
        print(f"round {number + 1} of {options.rounds}, load {machine[-1]:.1f}", flush=True)
    run.save()
    sys.exit(report(run, machine))


def report(run: Run, machine: list[float]) -> int:
    """Print table and verdicts; return the exit code."""
    Console(width=165).print(run.table())
    print("mediasoup: LIMITS section 1, measured on another machine")
    moved = {n: movement(values) for n, values in run.limit.items()}
    is_void = max(moved.values()) > CONTROL_MAY_MOVE
    misses = 0
    for what, figure, goal in run.verdicts():
        verdict = "MISSED" if figure.misses(goal) else "met" if figure.high <= goal else "open"
        misses += figure.misses(goal)
        print(f"{verdict:7} {what}: {figure}, goal {goal}")
    for note in dict.fromkeys(run.notes):
        print(f"repeated: {note}")
    movements = ", ".join(f"N={n}: {share:.0%}" for n, share in moved.items())
    print(f"the limit program moved by {movements}; machine's load {min(machine):.1f}-{max(machine):.1f} on {os.cpu_count()} cores")
    if is_void:
        print(f"VOID: the control moved by more than {CONTROL_MAY_MOVE:.0%}, so others used the machine; repeat on a quiet one")
        return 0
    return 1 if misses else 0


if __name__ == "__main__":
    main()
