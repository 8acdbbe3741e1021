"""One room that stays: some speak, many listen, and every frame is checked by the native endpoints."""

import asyncio
import time
from dataclasses import dataclass

import numpy as np

from loadtests.bot import Bot, Track
from loadtests.fleet import Fleet
from loadtests.server import CpuMeter, Server
from loadtests.tokens import mint
from relaycore.loadgen import percentile

AT_ONCE = 20
"""Joins under way at a time: entering is not what this measures."""

LAYERS = ((320, 180, 150_000), (640, 360, 500_000), (1280, 720, 1_700_000))


@dataclass(frozen=True)
class Plan:
    """Who is in the room and for how long it is measured."""

    room: str = "load"
    publishers: int = 1
    subscribers: int = 10
    video: bool = False
    seconds: float = 20.0
    drain: str = "eager"
    seed: int = 1
    timeout_s: float = 60.0


async def run(server: Server, plan: Plan) -> dict[str, object]:
    """Return the figures by name; `is_clean` where everything sent has arrived whole, in order and once."""
    async with Fleet(server.url, seed=plan.seed, drain=plan.drain) as fleet:
        gate = asyncio.Semaphore(AT_ONCE)
        tracks = [Track.audio(), Track.video(*LAYERS)] if plan.video else [Track.audio()]

        async def enter(name: str, publish: list[Track]) -> Bot:
            async with gate:
                token = mint(server.key, server.secret, name, plan.room)
                return await Bot.join(fleet, token, publish=publish, timeout_s=plan.timeout_s)

        bots = await asyncio.gather(
            *(enter(f"speaker-{n}", tracks) for n in range(plan.publishers)),
            *(enter(f"listener-{n}", []) for n in range(plan.subscribers)),
        )
        for number, bot in enumerate(bots):
            others = plan.publishers - (number < plan.publishers)
            await bot.until(lambda bot=bot, others=others: bot.flowing >= others * len(tracks), plan.timeout_s)
        fleet.load.reset_stats()
        meter = CpuMeter(server.pid) if server.pid else None
        began = time.monotonic()
        await asyncio.sleep(plan.seconds)
        cpu_ns = meter.total_ns() if meter is not None else 0
        wall_s = time.monotonic() - began
        stats = fleet.load.stats()
        report = judge(stats, cpu_ns, wall_s)
        await asyncio.gather(*(bot.leave() for bot in bots))
    return report


def judge(stats: dict[str, np.ndarray], cpu_ns: int, wall_s: float) -> dict[str, object]:
    """Sum the receivers of a run up."""
    receivers = stats["receivers"]
    wrong = ("lost", "frames_corrupt", "frames_out_of_order", "frames_duplicate", "frames_missing")
    total = {name: int(receivers[name].sum()) for name in ("packets", "frames_complete", "keyframes", *wrong)}
    delays = stats["delay"].sum(axis=0)
    silent = int((receivers["packets"] == 0).sum())
    quantiles = {f"delay_us_p{str(q * 100).rstrip('0').rstrip('.')}": round(percentile(delays, q) / 1e3, 1)
                 for q in (0.5, 0.99, 0.999)} if delays.sum() else {}  # fmt: skip
    verdict = dict(stats["verdict"])
    return {
        "is_clean": silent == 0 and total["packets"] > 0 and not any(total[name] for name in wrong),
        "receivers": len(receivers),
        "silent_receivers": silent,
        "packets_per_s": round(total["packets"] / wall_s),
        **total,
        **quantiles,
        "server_cores": round(cpu_ns / 1e9 / wall_s, 3),
        "server_cpu_us_per_packet": round(cpu_ns / 1e3 / max(1, total["packets"]), 3),
        "generator_was_bottleneck": bool(verdict["was_bottleneck"]),
        "generator_reasons": list(verdict["reasons"]),
    }
