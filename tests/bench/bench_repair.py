"""`make bench-repair`: native media through a path that loses 10 % at either end, judged frame by frame.

Every frame has a keyed digest, so that a receiver knows what it got. The goal: every frame reached the subscriber, or a
keyframe was asked for because one did not; and not one frame of a million is wrong.

usage: python -m tests.bench.bench_repair [--frames 1000000] [--loss 0.1] [--rooms 16] [--subscribers 16]
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.bench.fan_out import FanOut, Room
from tests.bench.hosts import RelayHost

# Nothing follows the last packets, so nobody can see that they are missing.
LAST_FRAMES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description="repair under loss, judged frame by frame")
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--loss", type=float, default=0.1)
    parser.add_argument("--rooms", type=int, default=16)
    parser.add_argument("--subscribers", type=int, default=16)
    options = parser.parse_args()
    rooms = [Room(options.subscribers, kind="video") for _ in range(options.rooms)]
    with FanOut(RelayHost(), rooms, loss=options.loss, drain="eager") as bench:
        generator = bench.generator
        generator.set_sending(True)
        seen = 0
        while seen < options.frames:
            time.sleep(2)
            seen = int(generator.stats()["receivers"]["frames_complete"].sum())
            print(f"{seen:,} frames", end="\r", flush=True)
        generator.set_sending(False)
        time.sleep(2)
        stats = generator.stats()
    sys.exit(report(stats, options.subscribers))


def report(stats: dict, subscribers: int) -> int:
    """Print what came of it; return the exit code."""
    receivers, senders = stats["receivers"], stats["senders"]
    sent = int(senders["frames"].sum()) * subscribers
    totals = {name: int(receivers[name].sum()) for name in receivers.dtype.names if name.startswith("frames_")}
    for name, value in totals.items():
        print(f"{name:20} {value:12,}")
    lost = receivers["frames_missing"] + receivers["frames_incomplete"]
    silent = int(((lost > LAST_FRAMES) & (receivers["plis_sent"] == 0)).sum())
    print(f"sent {sent:,}; complete {totals['frames_complete'] / sent:.4%}; recovered packets "
          f"{int(receivers['recovered'].sum()):,} of {int(receivers['packets'].sum()):,}; keyframe requests "
          f"{int(receivers['plis_sent'].sum()):,}; keyframes {int(senders['keyframes'].sum()):,}")
    wrong = totals["frames_corrupt"]
    print(f"{wrong} wrong frames; {silent} of {len(receivers)} receivers lost frames and asked for no keyframe")
    for reason in stats["verdict"]["reasons"]:
        print(f"the generator: {reason}")
    return 1 if wrong or silent else 0


if __name__ == "__main__":
    main()
