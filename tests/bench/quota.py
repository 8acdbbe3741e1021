"""A CPU quota for one process, by cgroup v2 or v1: what makes a relay's knee lie below what a load generator can do."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

PERIOD_US = 10_000


def _group() -> tuple[Path, dict[str, str]] | None:
    """Return a group of our own and its files' contents for a quota of `{quota}` us, or None where none can be made."""
    root = Path("/sys/fs/cgroup")
    name = f"veil-bench-{os.getpid()}"
    if (root / "cgroup.controllers").exists():
        return root / name, {"cpu.max": f"{{quota}} {PERIOD_US}"}
    if (root / "cpu" / "cpu.cfs_quota_us").exists():
        return root / "cpu" / name, {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": "{quota}"}
    return None


@contextlib.contextmanager
def cpu_quota(pid: int, share: float) -> Iterator[bool]:
    """Hold a process to a share of one core while inside; say whether this machine let us."""
    found = _group()
    if found is None:
        yield False
        return
    group, files = found
    try:
        group.mkdir()
        for name, text in files.items():
            (group / name).write_text(text.format(quota=int(share * PERIOD_US)))
        (group / "cgroup.procs").write_text(str(pid))
    except OSError:
        _remove(group)
        yield False
        return
    try:
        yield True
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    """Remove the group; what still runs in it goes back to its parent."""
    with contextlib.suppress(OSError):
        for pid in (group / "cgroup.procs").read_text().split():
            (group.parent / "cgroup.procs").write_text(pid)
    # The kernel takes a moment to notice that a member is gone.
    for _ in range(20):
        with contextlib.suppress(OSError):
            group.rmdir()
        if not group.exists():
            return
        time.sleep(0.05)
