"""The server under test: its processor time, and a relay of our own started for one run."""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

ROOT = Path(__file__).resolve().parents[1]
START_S = 20.0
STOP_S = 10.0


@dataclass(frozen=True)
class Server:
    """Where to call, with whose key, and whose processor time to count (0: nobody's)."""

    url: str
    key: str
    secret: str
    pid: int = 0


class CpuMeter:
    """Processor time of a process by thread, from the scheduler's own clock (/proc/PID/task/*/schedstat, nanoseconds)."""

    def __init__(self, pid: int) -> None:
        self._tasks = Path(f"/proc/{pid}/task")
        self._seen: dict[str, tuple[str, int]] = {}
        self._began = self._read()

    def by_thread_ns(self) -> dict[str, int]:
        """Return the time since the meter was made, by thread name. Threads that ended in between count up to their last reading."""
        spent: dict[str, int] = {}
        for task, (name, total) in self._read().items():
            spent[name] = spent.get(name, 0) + total - self._began.get(task, ("", 0))[1]
        return spent

    def total_ns(self) -> int:
        return sum(self.by_thread_ns().values())

    def _read(self) -> dict[str, tuple[str, int]]:
        for task in self._tasks.iterdir():
            with contextlib.suppress(OSError):
                total = int((task / "schedstat").read_text().split()[0])
                self._seen[task.name] = ((task / "comm").read_text().strip(), total)
        return dict(self._seen)


@contextlib.asynccontextmanager
async def own_relay(*, environ: Mapping[str, str] | None = None, wrapper: Sequence[str] = ()) -> AsyncIterator[Server]:
    """Run `python -m relay serve` on free ports of loopback with a key of its own; `wrapper` goes before, such as a profiler."""
    port, udp_port, secret = free_port(), free_port(), secrets.token_hex(24)
    with tempfile.NamedTemporaryFile(prefix="loadtest-relay-", suffix=".log", delete=False) as log:
        process = await asyncio.create_subprocess_exec(
            *wrapper, sys.executable, "-m", "relay", "serve",
            cwd=ROOT, stdout=log, stderr=asyncio.subprocess.STDOUT,
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'ext'}",
                "VEIL_KEYS": f"loadtest:{secret}",
                "VEIL_SERVER_BIND_IP": "127.0.0.1",
                "VEIL_SERVER_HTTP_PORT": str(port),
                "VEIL_MEDIA_BIND_IPS": "127.0.0.1",
                "VEIL_MEDIA_UDP_PORT": str(udp_port),
                "VEIL_MEDIA_TCP_PORT": "0",
                **(environ or {}),
            },
        )  # fmt: skip
    try:
        await _until_ready(process, f"http://127.0.0.1:{port}/readyz", log.name)
        yield Server(f"ws://127.0.0.1:{port}", "loadtest", secret, process.pid)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()
    os.unlink(log.name)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def _until_ready(process: asyncio.subprocess.Process, url: str, log: str) -> None:
    give_up = time.monotonic() + START_S
    async with aiohttp.ClientSession() as http:
        while time.monotonic() < give_up and process.returncode is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(url) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.05)
    raise RuntimeError(f"the relay did not start; see {log}")
