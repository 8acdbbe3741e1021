"""The raw limit program and what it said; see limit.c.

usage: python -m tests.bench.limit [SUBSCRIBERS …]      a table of median and range
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

from tests.bench.figures import spread

PROGRAM = Path(__file__).resolve().parents[2] / "build" / "bench" / "limit"
FRAME_PACKETS, PACKET_BYTES = 8, 1200
# Between frames of the usual load: 250 packets/s in bursts of 8.
PACE_US = 32_000


def limit_rounds(
    how: str, subscribers: int, *, rounds: int = 5, frame: int = FRAME_PACKETS, pause_us: int = 0
) -> list[float]:
    """Return CPU-us per packet of each round; `how` is gso or sendmmsg. Paced rounds are of 30 frames."""
    command = [str(PROGRAM), how, *map(str, (subscribers, frame, PACKET_BYTES, rounds, pause_us))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.returncode}")
    return [float(word) for word in done.stdout.split()]


def limit_us(how: str, subscribers: int, **options: int) -> float:
    """Return the median of a few rounds."""
    return statistics.median(limit_rounds(how, subscribers, **options))


if __name__ == "__main__":
    for count in [int(word) for word in sys.argv[1:]] or [50, 100, 400]:
        for way in ("gso", "sendmmsg"):
            hot, paced = limit_rounds(way, count, rounds=9), limit_rounds(way, count, rounds=5, pause_us=PACE_US)
            print(f"{way:8} {count:5} subscribers  {spread(hot)} CPU-us per packet, paced {spread(paced)}")
