"""`make bench-delay`: one-way delay through the relay beside a plain C forwarder, and what a burst next door costs a call.

1. The knee: the highest rate without loss at N = 100 of a relay held to a quarter of a core, so that it lies below what the
   generator on the other core can do.
2. Half of that rate, without the quota (which would itself stop the relay for milliseconds): delay of whole frames, from the
   stamp before the first packet left to the kernel's receive time of the last, in turns with the plain forwarder (ABBA).
3. A call of two on a worker that also serves 1,000 subscribers bursts of 40 packets each: its delay with and without them.

usage: python -m tests.bench.bench_delay [--rounds 10] [--window 3] [--rate PPS (no search)]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from relaycore.loadgen import percentile
from tests.bench.fan_out import FanOut, Room
from tests.bench.figures import Figure, difference
from tests.bench.hosts import PlainHost, RelayHost
from tests.bench.quota import cpu_quota

SUBSCRIBERS = 100
QUOTA = 0.25
START_PPS, STEP, LAST_STEP = 250.0, 1.5, 1.1
NO_LOSS = 0.0005
PERCENTILES = (50, 99, 99.9)
GOAL_MS = 1.0
CROWD, CROWD_PACKETS, CROWD_PER_S = 1000, 40, 2
GOAL_CROWD_MS = 5.0


def loses(rate_pps: float, window_s: float) -> str:
    """Run the held relay at a rate; return what went wrong, "" when nothing was lost."""
    host = RelayHost()
    with FanOut(host, [Room(SUBSCRIBERS, rate_pps=rate_pps)]) as bench, cpu_quota(host.pid, QUOTA) as is_held:
        window = bench.measure(window_s, warm_s=0.5)
    held = "held" if is_held else "NOT held (no control groups here)"
    print(f"  {rate_pps:6.0f} packets/s in, {window.forwarded / window.wall_s:8.0f}/s out, {window.loss:.3%} lost, "
          f"{window.core:.2f} core, {held} {'; '.join(window.reasons)}", flush=True)  # fmt: skip
    if window.reasons:
        return "the generator was the bottleneck"
    return f"{window.loss:.2%} lost" if window.loss > NO_LOSS else ""


def knee(window_s: float) -> float:
    """Return the highest rate without loss: up in large steps, then from the last good one in small ones."""
    good, step = START_PPS, STEP
    rate = good
    while step >= LAST_STEP:
        if loses(rate, window_s):
            if rate == START_PPS:
                raise RuntimeError(f"lost packets at {rate:.0f} packets/s already")
            step = 1 + (step - 1) / 2
        else:
            good = rate
        rate = good * step
    return good


def percentiles_ms(counts: np.ndarray) -> list[float]:
    return [percentile(counts, q) / 1e6 for q in PERCENTILES]


def delays(rate_pps: float, rounds: int, window_s: float) -> Figure:
    """Measure both sides in turns; print the table; return the difference of p99 in ms."""
    hosts = {"relay": RelayHost, "plain forwarder": PlainHost}
    found: dict[str, list[np.ndarray]] = {name: [] for name in hosts}
    notes = []
    for number in range(rounds):
        for name in list(hosts)[:: 1 if number % 2 == 0 else -1]:
            room = Room(SUBSCRIBERS, rate_pps=rate_pps)
            with FanOut(hosts[name](), [room], drain="eager") as bench:
                window = bench.measure(window_s, warm_s=0.5)
                found[name].append(bench.delays(room))
            if window.loss > NO_LOSS or window.reasons:
                notes.append(f"{name}: {window.loss:.2%} lost {'; '.join(window.reasons)}")
    table = Table(title=f"One-way delay of whole frames, N={SUBSCRIBERS}, {rate_pps:.0f} packets/s in bursts of 8, ms")
    for title in ("", "p50", "p99", "p99.9", "frames"):
        table.add_column(title, justify="right")
    for name, rows in found.items():
        merged = np.sum(rows, axis=0)
        table.add_row(name, *(f"{value:.2f}" for value in percentiles_ms(merged)), str(int(merged.sum())))
    Console(width=120).print(table)
    for note in dict.fromkeys(notes):
        print(f"note: {note}")
    p99 = {name: [percentiles_ms(row)[1] for row in rows] for name, rows in found.items()}
    return difference(p99["relay"], p99["plain forwarder"])


def neighbour(rounds: int, window_s: float) -> Figure:
    """Measure a call of two with and without bursts to a crowd on its worker; return the difference of p99 in ms."""
    alone: list[np.ndarray] = []
    beside: list[np.ndarray] = []
    call = Room(1, kind="audio")
    crowd = Room(CROWD, rate_pps=CROWD_PACKETS * CROWD_PER_S, burst=CROWD_PACKETS)
    with FanOut(RelayHost(), [call, crowd], drain="eager", threads=2) as bench:
        for number in range(rounds):
            for has_crowd in (False, True) if number % 2 == 0 else (True, False):
                bench.generator.set_sender(crowd.sender, started=has_crowd)
                bench.measure(window_s, warm_s=0.3)
                (beside if has_crowd else alone).append(bench.delays(call))
    table = Table(title=f"A call of two beside {CROWD_PER_S} bursts/s of {CROWD_PACKETS} packets to {CROWD} subscribers, ms")
    for title in ("", "p50", "p99", "p99.9", "frames"):
        table.add_column(title, justify="right")
    for name, rows in (("alone", alone), ("beside the crowd", beside)):
        merged = np.sum(rows, axis=0)
        table.add_row(name, *(f"{value:.2f}" for value in percentiles_ms(merged)), str(int(merged.sum())))
    Console(width=120).print(table)

    def p99(rows: Sequence[np.ndarray]) -> list[float]:
        return [percentiles_ms(row)[1] for row in rows]

    return difference(p99(beside), p99(alone))


def main() -> None:
    parser = argparse.ArgumentParser(description="one-way delay beside a plain forwarder")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--window", type=float, default=3.0, help="seconds")
    parser.add_argument("--rate", type=float, default=0.0, help="packets/s in; 0 = half of the knee, searched first")
    options = parser.parse_args()
    rate = options.rate
    if not rate:
        print(f"knee of a relay held to {QUOTA:.0%} of a core, N={SUBSCRIBERS}:", flush=True)
        found = knee(options.window)
        print(f"knee {found:.0f} packets/s in, {found * SUBSCRIBERS:.0f}/s out")
        rate = found / 2
    checks = [
        ("p99 over the plain forwarder", delays(rate, options.rounds, options.window), GOAL_MS),
        ("p99 of a call beside a crowd, over alone", neighbour(options.rounds, options.window), GOAL_CROWD_MS),
    ]
    for what, figure, goal in checks:
        verdict = "MISSED" if figure.misses(goal) else "met" if figure.high <= goal else "open"
        print(f"{verdict:7} {what}: {figure} ms, goal {goal} ms")
    print(f"machine's load at the end {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    sys.exit(1 if any(figure.misses(goal) for _, figure, goal in checks) else 0)


if __name__ == "__main__":
    main()
