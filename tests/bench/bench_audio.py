"""`make bench-audio`: a microphone and 1,000 listeners for a minute; every frame has to arrive, and be the right one.

usage: python -m tests.bench.bench_audio [--listeners 1000] [--seconds 60] [--workers 1]
"""

from __future__ import annotations

import argparse
import sys

from tests.bench.fan_out import FanOut, Room
from tests.bench.hosts import RelayHost


def main() -> None:
    parser = argparse.ArgumentParser(description="a thousand listeners")
    parser.add_argument("--listeners", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with FanOut(RelayHost(workers=options.workers), [Room(options.listeners, kind="audio")], verify_every=1) as bench:
        window = bench.measure(options.seconds)
        stats = bench.stats
    receivers = stats["receivers"]
    right, wrong = int(receivers["verified"].sum()), int(receivers["frames_corrupt"].sum())
    print(f"{window.expected:,} frames sent to {options.listeners:,} listeners in {window.wall_s:.0f} s; {right:,} right, "
          f"{wrong} wrong, {window.expected - right} missing; relay {window.us_per_packet:.2f} us per packet, "
          f"{window.core:.1%} of a core")  # fmt: skip
    for reason in window.reasons:
        print(f"the generator: {reason}")
    sys.exit(0 if right == window.expected and not wrong else 1)


if __name__ == "__main__":
    main()
