"""`make bench-memory`: what a subscription costs in memory, as the slope of the relay's RSS between two crowds.

A process of its own per crowd and kind, measured while media flows with RTX, feedback and 1 % loss, so that histories are full.
The slope leaves out what does not grow: interpreter, cipher library, slabs that are there from the start. Python's share is
the plane's; signalling is not in it.

usage: python -m tests.bench.bench_memory [--few 500] [--many 2500]
"""

from __future__ import annotations

import argparse
import sys

from rich.console import Console
from rich.table import Table

from tests.bench.fan_out import LOSS, FanOut, Room
from tests.bench.hosts import RelayHost, rss_bytes

GOAL_KB = {"audio": 40.0, "video": 120.0}
# Video at a rate that a shared core can feed to the larger crowd.
ROOMS = {"audio": {"kind": "audio"}, "video": {"rate_pps": 40.0}}
SETTLE_S = 4.0
# A crowd that was hardly served says nothing. Audio is not repaired, so 2 % are always missing.
MAX_LOSS = 0.1


def rss(kind: str, subscribers: int) -> tuple[int, bool]:
    """Return the relay's RSS in bytes with that many subscribers, and whether they were served."""
    host = RelayHost()
    with FanOut(host, [Room(subscribers, **ROOMS[kind])], loss=LOSS) as bench:
        window = bench.measure(SETTLE_S)
        print(f"  {kind}, {subscribers}: {window.forwarded / window.wall_s:.0f} packets/s, {window.loss:.2%} lost", flush=True)
        return rss_bytes(host.pid), window.loss <= MAX_LOSS


def main() -> None:
    parser = argparse.ArgumentParser(description="memory per subscription")
    parser.add_argument("--few", type=int, default=500)
    parser.add_argument("--many", type=int, default=2500)
    options = parser.parse_args()
    table = Table(title="RSS of the relay process")
    for title in ("", f"{options.few}, MB", f"{options.many}, MB", "kB per subscription", "goal"):
        table.add_column(title, justify="right")
    misses = 0
    is_void = False
    for kind, goal in GOAL_KB.items():
        (few, few_served), (many, many_served) = rss(kind, options.few), rss(kind, options.many)
        slope_kb = (many - few) / (options.many - options.few) / 1000
        misses += slope_kb > goal
        is_void |= not (few_served and many_served)
        table.add_row(kind, f"{few / 1e6:.1f}", f"{many / 1e6:.1f}", f"{slope_kb:.1f}", f"{goal:.0f}")
    Console(width=100).print(table)
    if is_void:
        print(f"VOID: a crowd lost more than {MAX_LOSS:.0%}, so the machine was too busy to serve it; repeat on a quiet one")
    sys.exit(1 if misses and not is_void else 0)


if __name__ == "__main__":
    main()
