"""A quota holds a busy process to its share of a core."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bench.hosts import cpu_ns
from tests.bench.quota import cpu_quota


def share_of_a_core(pid: int, wall_s: float = 0.5) -> float:
    began_s, before_ns = time.monotonic(), cpu_ns(pid)
    time.sleep(wall_s)
    return (cpu_ns(pid) - before_ns) / 1e9 / (time.monotonic() - began_s)


def groups(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()


def test_a_busy_process_gets_its_quota_and_no_more():
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        before = groups(busy.pid)
        with cpu_quota(busy.pid, 0.1) as is_held:
            if not is_held:
                pytest.skip("this machine lets nobody make control groups")
            assert "veil-bench" in groups(busy.pid)
            time.sleep(0.1)
            # Nothing but the quota bounds it from above; a machine under load may give it less.
            assert 0 < share_of_a_core(busy.pid) < 0.15
        # And afterwards it is as free as before.
        assert groups(busy.pid) == before
    finally:
        busy.kill()
        busy.wait()
