"""`make bench-serve`: CPU time per forwarded packet of a whole `veil serve`, Python and all threads included.

Bots join by the LiveKit protocol: one publishes video of 2.4 Mbit/s at 30 frames a second, which is frames of about 8 packets,
N watch, and all of them go on reporting, probing and pinging as clients do. The raw limit program runs beside it in every round.
The engine alone, under a load that is the same to the packet, is `make bench-path`.

usage: python -m tests.bench.bench_serve [--rounds 5] [--window 5] [--subscribers 50,100,400]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time

from rich.console import Console
from rich.table import Table

from loadtests.bot import Bot, Track
from loadtests.calls import AT_ONCE, judge
from loadtests.fleet import Fleet
from loadtests.server import CpuMeter, own_relay
from loadtests.tokens import mint
from tests.bench.figures import CONTROL_MAY_MOVE, movement, ratio, spread
from tests.bench.limit import limit_us

LAYER = (1280, 720, 2_400_000)
JOIN_S = 120.0
# After everybody is there: the first reports, and the end of what joining costs.
SETTLE_S = 2.0


async def watch(subscribers: int, window_s: float) -> dict[str, object]:
    """Return what one window of a call with that many watchers gave (calls.judge), and `python_share` of the CPU time."""
    async with own_relay(environ={"VEIL_LIMITS_PARTICIPANTS_PER_ROOM": "1000", "VEIL_LIMITS_CONNECTIONS_PER_ADDRESS": "1000"}) as server:
        async with Fleet(server.url, drain="lazy") as fleet:
            gate = asyncio.Semaphore(AT_ONCE)

            async def enter(name: str, publish: list[Track]) -> Bot:
                async with gate:
                    return await Bot.join(fleet, mint(server.key, server.secret, name, "load"), publish=publish, timeout_s=JOIN_S)

            bots = [await enter("speaker", [Track.video(LAYER)])]
            bots += await asyncio.gather(*(enter(f"watcher-{n}", []) for n in range(subscribers)))
            for bot in bots[1:]:
                await bot.until(lambda bot=bot: bot.flowing >= 1, JOIN_S)
            await asyncio.sleep(SETTLE_S)
            fleet.load.reset_stats()
            meter = CpuMeter(server.pid)
            began = time.monotonic()
            await asyncio.sleep(window_s)
            spent = meter.by_thread_ns()
            report = judge(fleet.load.stats(), sum(spent.values()), time.monotonic() - began)
            workers = sum(ns for name, ns in spent.items() if name.startswith("veil-worker"))
            report["python_share"] = 1 - workers / max(1, sum(spent.values()))
            await asyncio.gather(*(bot.leave() for bot in bots))
            return report


def main() -> None:
    parser = argparse.ArgumentParser(description="cost per forwarded packet of a whole relay beside the raw limit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--window", type=float, default=5.0, help="seconds")
    parser.add_argument("--subscribers", default="50,100,400")
    options = parser.parse_args()
    counts = [int(word) for word in options.subscribers.split(",")]
    found: dict[int, list[dict[str, object]]] = {n: [] for n in counts}
    limit: dict[int, list[float]] = {n: [] for n in counts}
    for number in range(options.rounds):
        for n in counts if number % 2 == 0 else reversed(counts):
            limit[n].append(limit_us("gso", n))
            found[n].append(asyncio.run(watch(n, options.window)))
            print(f"N={n}: {found[n][-1]}", flush=True)
    table = Table(title="CPU-us per forwarded packet of `veil serve`, all threads; median [range]")
    for name in ("watchers", "relay", "limit, GSO 8", "ratio, 95 % interval", "of it Python", "packets/s", "not clean"):
        table.add_column(name)
    for n in counts:
        us = [float(report["server_cpu_us_per_packet"]) for report in found[n]]
        python = statistics.median(report["python_share"] for report in found[n])
        rate = statistics.median(report["packets_per_s"] for report in found[n])
        unclean = sum(not report["is_clean"] for report in found[n])
        table.add_row(str(n), spread(us), spread(limit[n]), str(ratio(us, limit[n])), f"{python:.0%}", f"{rate:,.0f}", str(unclean))
    Console(width=140).print(table)
    moved = max(movement(values) for values in limit.values())
    print(f"the limit program moved by up to {moved:.0%}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if moved > CONTROL_MAY_MOVE:
        print(f"VOID: the control moved by more than {CONTROL_MAY_MOVE:.0%}, so others used the machine; repeat on a quiet one")


if __name__ == "__main__":
    main()
