"""What a relay costs while nothing happens, by the kernel's own account of its threads."""

import asyncio
from pathlib import Path

import pytest

from tests.support.relay_process import relay_process

pytestmark = [pytest.mark.slow, pytest.mark.interop, pytest.mark.timeout(120)]

SETTLE_S = 3.0
SPAN_S = 10.0
SHARE_MAX = 0.005


def cpu_ns(pid: int) -> int:
    """Time that all threads of a process have run (first field of schedstat, in ns)."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
async def test_an_idle_relay_uses_less_than_half_a_percent_of_a_core(workers: int) -> None:
    async with relay_process(environ={"VEIL_MEDIA_WORKERS": str(workers), "VEIL_LOG_LEVEL": "info"}) as relay:
        await asyncio.sleep(SETTLE_S)
        threads = len(list(Path(f"/proc/{relay.pid}/task").iterdir()))
        before = cpu_ns(relay.pid)
        await asyncio.sleep(SPAN_S)
        share = (cpu_ns(relay.pid) - before) / (SPAN_S * 1e9)
    print(f"{workers} workers, {threads} threads: {share:.3%} of a core")
    assert share < SHARE_MAX


async def test_the_account_sees_a_thread_that_is_awake() -> None:
    """The control: this process, kept busy for a fifth of the time, is far above the limit."""
    import os
    import time

    before, until = cpu_ns(os.getpid()), time.monotonic() + 2.0
    while time.monotonic() < until:
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass
        await asyncio.sleep(0.08)
    assert (cpu_ns(os.getpid()) - before) / 2e9 > 10 * SHARE_MAX
