"""What a relay counts and holds, read from outside: /metrics and /proc."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.support.relay_process import RelayProcess

_SAMPLE = re.compile(r'^veil_(?:plane_(dropped)_total|(refused)_total)\{reason="([^"]+)"\} (\S+)$', re.M)
_PLANE = re.compile(r"^veil_plane_(\w+)_total (\S+)$", re.M)


async def counters(relay: RelayProcess, session: aiohttp.ClientSession) -> Counter[str]:
    """Return every counter by its short name: dropped:replay, refused:offer, plane:dtls_received."""
    async with session.get(f"{relay.origin}/metrics") as answer:
        text = await answer.text()
        assert answer.status == 200, text
    found: Counter[str] = Counter()
    for dropped, refused, reason, value in _SAMPLE.findall(text):
        found[f"{dropped or refused}:{reason}"] = int(float(value))
    for name, value in _PLANE.findall(text):
        found[f"plane:{name}"] = int(float(value))
    return found


def growth(before: Counter[str], after: Counter[str]) -> Counter[str]:
    """Return what grew, reasons only and what garbage is expected to move."""
    return Counter({name: after[name] - before[name] for name in after if after[name] != before[name]})


def wrong_counts(expected: Counter[str], grown: Counter[str], *, tolerance: float = 0.0, others: int = 0) -> list[str]:
    """Return a line for every reason that was not counted as it should.

    `tolerance` is the share by which a count may differ; at most `others` may be counted under any reason that is not
    expected.
    """
    found = []
    for name, count in expected.items():
        if abs(grown[name] - count) > tolerance * count:
            found.append(f"{name}: {grown[name]} counted, {count} sent")
    for name, count in grown.items():
        if name not in expected and not name.startswith("plane:") and count > others:
            found.append(f"{name}: {count} counted, none sent")
    return found


@dataclass(frozen=True)
class Holding:
    """What a process holds at one moment."""

    resident_kb: int
    descriptors: int
    threads: int


def holding(pid: int) -> Holding:
    """Return what a process holds now."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return Holding(
        int(fields["VmRSS"].split()[0]), len(os.listdir(f"/proc/{pid}/fd")), int(fields["Threads"].strip())
    )
