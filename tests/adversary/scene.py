"""A call of two clients, a storm beside it, and what is measured meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp

from tests.adversary.account import Holding, counters, growth, holding
from tests.adversary.attacker import Attacker
from tests.interop.clients.base import Client
from tests.interop.clients.cast import cast
from tests.support.relay_process import ROOT, RelayProcess

ROOM = "call"
# The SDK sends this size at 15 frames per second at most.
WIDTH, HEIGHT, FPS = 320, 180, 15
CONNECT_S = 30.0
SAMPLE_S = 0.2
# What the relay may take to give back what the last garbage held: its close timeout is 1 s.
SETTLE_S = 2.5
NOISE_IDENTITIES = 100


@dataclass
class Round:
    """One storm."""

    towards: str
    seconds: float
    # Frames per second that the two clients decoded of each other, summed.
    frames_per_s: float
    expected: Counter[str]
    grown: Counter[str]
    before: Holding
    peak: Holding
    after: Holding
    healthz_ms: list[float] = field(default_factory=list)
    newcomer_ms: float = 0.0

    def line(self) -> str:
        """Return the round as a line for people."""
        return (
            f"{self.towards:>6} {self.seconds:5.1f} s  {self.frames_per_s:5.2f} frames/s  "
            f"RSS {self.before.resident_kb / 1024:.0f} -> {self.peak.resident_kb / 1024:.0f} -> "
            f"{self.after.resident_kb / 1024:.0f} MiB  fds {self.before.descriptors} -> {self.peak.descriptors} -> "
            f"{self.after.descriptors}  healthz <= {max(self.healthz_ms, default=0):.0f} ms  "
            f"newcomer {self.newcomer_ms:.0f} ms"
        )


class Call:
    """Two participants with camera and microphone."""

    def __init__(self, one: Client, other: Client) -> None:
        self.members = (("ana", one, "bo"), ("bo", other, "ana"))

    async def start(self, relay: RelayProcess) -> None:
        """Join, publish, and wait until both decode each other."""
        for identity, client, _ in self.members:
            await client.join(relay.ws_url, relay.token(identity, room=ROOM), room=ROOM, identity=identity)
            await client.publish(audio=True, video=True, width=WIDTH, height=HEIGHT, fps=FPS)
        async with asyncio.timeout(CONNECT_S):
            while min(await self._decoded()) < 2 * FPS:
                await asyncio.sleep(0.2)

    async def _decoded(self) -> list[int]:
        states = await asyncio.gather(*(client.state() for _, client, _ in self.members))
        return [state.of(far).frames_decoded for state, (_, _, far) in zip(states, self.members, strict=True)]

    async def mark(self) -> tuple[float, int]:
        """Return the time and the frames decoded so far."""
        frames = await self._decoded()
        return time.monotonic(), sum(frames)

    async def is_connected(self) -> bool:
        states = await asyncio.gather(*(client.state() for _, client, _ in self.members))
        return all(state.connection == "connected" for state in states)


@contextlib.asynccontextmanager
async def call(relay: RelayProcess) -> AsyncIterator[Call]:
    """Two clients of the Python SDK in a call."""
    async with cast(["python-new"]) as first, cast(["python-new"]) as second:
        made = Call(first["python-new"], second["python-new"])
        await made.start(relay)
        yield made
        for _, client, _ in made.members:
            with contextlib.suppress(RuntimeError):
                await client.leave()


async def _child(module: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'ext'}"},
    )  # fmt: skip


async def _line(child: asyncio.subprocess.Process) -> str:
    assert child.stdout is not None
    line = (await asyncio.wait_for(child.stdout.readline(), 60)).decode()
    assert line, f"the child ended with {await child.wait()}"
    return line


@contextlib.asynccontextmanager
async def sink() -> AsyncIterator[dict[str, int]]:
    """A process that takes garbage; its UDP and TCP port."""
    child = await _child("tests.adversary.sink")
    try:
        yield json.loads(await _line(child))
    finally:
        child.kill()
        await child.wait()


async def _healthz(relay: RelayProcess) -> float:
    start = time.monotonic()
    async with aiohttp.ClientSession() as session, session.get(f"{relay.origin}/healthz") as answer:
        assert answer.status == 200
    return (time.monotonic() - start) * 1e3


async def _newcomer(relay: RelayProcess) -> float:
    """Join as somebody new; return how long that took."""
    start = time.monotonic()
    newcomer = Attacker()
    try:
        await asyncio.wait_for(newcomer.enter(relay.ws_url, relay.token("newcomer", room="other")), 10)
        return (time.monotonic() - start) * 1e3
    finally:
        await newcomer.close()


async def storm(
    relay: RelayProcess, running: Call, *, seconds: float, scale: float = 1.0, sink_ports: dict[str, int] | None = None
) -> Round:
    """Rage against the relay, or against a sink, while the call runs."""
    noise = [relay.token(f"noise-{i}", room="noise", canSubscribe=False) for i in range(NOISE_IDENTITIES)]
    order = {
        "ws_url": relay.ws_url,
        "http_port": sink_ports["tcp"] if sink_ports else relay.port,
        "sink_udp_port": sink_ports["udp"] if sink_ports else 0,
        "tokens": ["sink.signature"] if sink_ports else [*noise, relay.token("eve", room=ROOM, canSubscribe=False)],
        "seconds": seconds,
        "scale": scale,
    }
    before = holding(relay.pid)
    child = await _child("tests.adversary.storm")
    try:
        assert child.stdin is not None
        child.stdin.write((json.dumps(order) + "\n").encode())
        assert "ready" in await _line(child)
        async with aiohttp.ClientSession() as session:
            start_counts = await counters(relay, session)
        start, start_frames = await running.mark()
        child.stdin.write(b"go\n")
        samples, healthz, newcomer_ms = [before], [], 0.0
        while time.monotonic() < start + seconds:
            await asyncio.sleep(SAMPLE_S)
            samples.append(holding(relay.pid))
            if len(samples) % 5 == 0 and not sink_ports:
                healthz.append(await _healthz(relay))
            if not newcomer_ms and not sink_ports and time.monotonic() > start + seconds / 2:
                newcomer_ms = await _newcomer(relay)
        end, end_frames = await running.mark()
        told = json.loads(await _line(child))
    finally:
        if child.returncode is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), 5)
        if child.returncode is None:
            child.kill()
            await child.wait()
    await asyncio.sleep(SETTLE_S)
    async with aiohttp.ClientSession() as session:
        end_counts = await counters(relay, session)
    return Round(
        towards="sink" if sink_ports else "relay",
        seconds=told["seconds"],
        frames_per_s=(end_frames - start_frames) / (end - start),
        expected=Counter() if sink_ports else Counter(told["expected"]),
        grown=growth(start_counts, end_counts),
        before=before,
        peak=Holding(*(max(getattr(s, name) for s in samples) for name in ("resident_kb", "descriptors", "threads"))),
        after=holding(relay.pid),
        healthz_ms=healthz,
        newcomer_ms=newcomer_ms,
    )
