"""How much a join costs the server, and how long it takes the one who joins.

Rooms of two, begun at a steady rate: both join over /rtc (v0) with a microphone and data channels, wait until each gets the
other's sound and a message, stay a moment, leave. A *complete join* is one participant for whom all of that came true; the
server's processor time over the run, divided by them, includes the leaving. Open loop: a room begins when it is due, however
many are still under way, so a server that falls behind shows it.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from loadtests.bot import Bot, JoinError, Track
from loadtests.fleet import Fleet
from loadtests.server import CpuMeter, Server
from loadtests.tokens import mint


@dataclass(frozen=True)
class Plan:
    """What to do. Rooms per second is half of `joins_per_s`."""

    joins_per_s: float = 20.0
    seconds: float = 20.0
    stay_s: float = 0.5
    data: bool = True
    video: bool = False
    timeout_s: float = 15.0
    warm_up_rooms: int = 3
    seed: int = 1


@dataclass
class Outcome:
    """What came of it. Times are from the first byte of a join to what they name."""

    complete: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    connected_s: list[float] = field(default_factory=list)
    complete_s: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    lag_s: float = 0.0
    server_cpu_ns: dict[str, int] = field(default_factory=dict)
    own_cpu_s: float = 0.0

    @property
    def cpu_ms_per_join(self) -> float:
        """Server's processor milliseconds per complete join."""
        return sum(self.server_cpu_ns.values()) / 1e6 / self.complete if self.complete else float("nan")

    def report(self) -> dict[str, object]:
        """Return the figures by name."""

        def quantile(values: list[float], q: float) -> float:
            return round(float(np.quantile(values, q)) * 1e3, 1) if values else float("nan")

        threads = sorted(self.server_cpu_ns.items(), key=lambda item: -item[1])
        return {
            "complete_joins": self.complete,
            "failures": dict(self.failures),
            "joins_per_s": round(self.complete / self.wall_s, 2) if self.wall_s else 0.0,
            "cpu_ms_per_join": round(self.cpu_ms_per_join, 2),
            "cpu_ms_per_join_by_thread": {name: round(ns / 1e6 / max(1, self.complete), 2) for name, ns in threads if ns > 1_000_000},
            "connected_ms_p50": quantile(self.connected_s, 0.5),
            "connected_ms_p99": quantile(self.connected_s, 0.99),
            "complete_ms_p50": quantile(self.complete_s, 0.5),
            "complete_ms_p99": quantile(self.complete_s, 0.99),
            "own_cpu_ms_per_join": round(self.own_cpu_s * 1e3 / max(1, self.complete), 2),
            "latest_start_ms": round(self.lag_s * 1e3, 1),
        }


async def run(server: Server, plan: Plan) -> Outcome:
    """Carry out a plan."""
    if plan.data:
        # Half a second of imports belongs to nobody's join.
        import loadtests.channels  # noqa: F401
    outcome = Outcome()
    async with Fleet(server.url, seed=plan.seed, drain="eager") as fleet:
        warm_up = Outcome()
        for number in range(plan.warm_up_rooms):
            await _room(fleet, server, plan, f"warm-{number}", warm_up)
        if warm_up.complete == 0 and plan.warm_up_rooms:
            warm_up.failures.update({"the first rooms already failed": 1})
            return warm_up
        meter = CpuMeter(server.pid) if server.pid else None
        own, began = time.process_time(), time.monotonic()
        rooms: set[asyncio.Task[None]] = set()
        for number in range(int(plan.seconds * plan.joins_per_s / 2)):
            due = began + 2 * number / plan.joins_per_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            outcome.lag_s = max(outcome.lag_s, time.monotonic() - due)
            room = asyncio.create_task(_room(fleet, server, plan, f"room-{number}", outcome))
            rooms.add(room)
            room.add_done_callback(rooms.discard)
        await asyncio.gather(*rooms)
        outcome.wall_s = time.monotonic() - began
        # What the server still does for those who left counts too.
        await asyncio.sleep(0.3)
        if meter is not None:
            outcome.server_cpu_ns = meter.by_thread_ns()
        outcome.own_cpu_s = time.process_time() - own
    return outcome


async def _room(fleet: Fleet, server: Server, plan: Plan, room: str, outcome: Outcome) -> None:
    """One room of two. Both stay until both are done, so that a slow one still finds the other."""
    is_done = asyncio.Barrier(2)
    results = await asyncio.gather(
        *(_participant(fleet, server, plan, room, name, outcome, is_done) for name in ("ana", "bo")), return_exceptions=True
    )
    for result in results:
        if isinstance(result, JoinError):
            outcome.failures[str(result).partition(";")[0]] += 1
        elif isinstance(result, BaseException):
            outcome.failures[repr(result)] += 1


async def _participant(fleet: Fleet, server: Server, plan: Plan, room: str, name: str, outcome: Outcome,
                       is_done: asyncio.Barrier) -> None:
    began = time.monotonic()
    tracks = [Track.audio(), Track.video()] if plan.video else [Track.audio()]
    try:
        token = mint(server.key, server.secret, name, room)
        bot = await Bot.join(fleet, token, publish=tracks, data=plan.data, timeout_s=plan.timeout_s)
    except BaseException:
        await is_done.abort()
        raise
    try:
        outcome.connected_s.append(bot.timings_s["connected"])
        if plan.data:
            # Reliable data reaches those who are in the room, so each waits for the other's entry first.
            await bot.until(lambda: len(bot.participants) > 0, plan.timeout_s)
            bot.send(name.encode())
        await bot.until(lambda: bot.flowing >= len(tracks) and (not plan.data or bool(bot.messages)), plan.timeout_s)
        outcome.complete += 1
        outcome.complete_s.append(time.monotonic() - began)
        try:
            await asyncio.wait_for(is_done.wait(), plan.timeout_s)
        except (asyncio.BrokenBarrierError, TimeoutError):
            return
        await asyncio.sleep(plan.stay_s)
    except BaseException:
        await is_done.abort()
        raise
    finally:
        await bot.leave()
