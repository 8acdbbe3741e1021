"""A quota holds a busy process to its share of a core."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.bench.hosts import cpu_ns
from tests.bench.quota import cpu_quota


def share_of_a_core(pid: int, wall_s: float = 0.5) -> float:
    began_s, before_ns = time.monotonic(), cpu_ns(pid)
    time.sleep(wall_s)
    return (cpu_ns(pid) - before_ns) / 1e9 / (time.monotonic() - began_s)


def test_a_busy_process_gets_its_quota_and_no_more():
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        with cpu_quota(busy.pid, 0.2) as is_held:
            if not is_held:
                pytest.skip("this machine lets nobody make control groups")
            time.sleep(0.1)
            assert 0.05 < share_of_a_core(busy.pid) < 0.3
        assert share_of_a_core(busy.pid) > 0.3
    finally:
        busy.kill()
        busy.wait()
