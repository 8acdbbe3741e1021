"""Chromium calls Chromium through a network that loses packets; `make lossy` runs the seeds and prints a table.

Every path of both browsers goes through the proxy (tests/support/proxy.py): the relay's media address is 127.0.0.1, what
it advertises is the proxy's. Frames are counted as the issue words it: decoded by the subscriber, per frame that the
publisher sent of the encoding which is forwarded at that time.

usage: python -m tests.interop.lossy [--seeds 1-5] [--seconds 30] [--loss 0.05] [--rtt 0.05]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.interop.clients.cast import cast
from tests.interop.clients.livekit_js import LiveKitJs
from tests.interop.matrix import CONNECT_S, until
from tests.sim.link import Impairment
from tests.support.proxy import proxy_process
from tests.support.relay_process import free_port, relay_process

RELAY_IP, PROXY_IP = "127.0.0.1", "127.0.0.2"
SECONDS, LOSS, RTT_S = 30.0, 0.05, 0.05
MIN_DECODED, MAX_FREEZE_S = 0.97, 2.0
# Often enough that a switch of encodings spoils no more than a percent of the window's count.
SAMPLE_S = 0.3
# Frames before the window: the encoder has ramped up and the forwarded encoding is the one that stays.
WARM_UP_FRAMES = 90


@dataclass(frozen=True)
class Call:
    """What came of one call."""

    seed: int
    sent: int
    decoded: int
    buffer_ms: float
    freeze_s: float
    frozen_s: float
    switches: int
    keyframes: int
    lost: int
    repaired: int
    nacks: int
    plis: int
    proxy: dict[str, Any]
    # What the viewer was told of both connections, by identity, in order.
    qualities: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        return self.decoded / max(1, self.sent)

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.share:.1%} of {self.sent} frames decoded, buffered for {self.buffer_ms:.0f} ms, "
            f"longest gap {self.freeze_s:.2f} s, frozen for {self.frozen_s:.1f} s in all, {self.keyframes} keyframes, "
            f"{self.switches} switches; {self.lost} packets lost, {self.repaired} repaired, {self.nacks} NACKs, {self.plis} PLIs; "
            f"proxy lost {self.proxy['up']['lost']} of {self.proxy['up']['sent']} up, {self.proxy['down']['lost']} of "
            f"{self.proxy['down']['sent']} down, late by p99 {self.proxy['late_us']['p99'] / 1e3:.2f} ms"
        )


def problems(calls: list[Call]) -> list[str]:
    """Return what the issue does not allow: the median of the shares, the worst of the freezes."""
    found = []
    median = statistics.median(call.share for call in calls)
    if median < MIN_DECODED:
        found.append(f"{median:.1%} of the frames decoded (median), {MIN_DECODED:.0%} wanted")
    worst = max(call.freeze_s for call in calls)
    if worst > MAX_FREEZE_S:
        found.append(f"a freeze of {worst:.2f} s, {MAX_FREEZE_S:.0f} s allowed")
    return found


def sent_between(before: list[dict[str, Any]], after: list[dict[str, Any]], width: int) -> int:
    """Return the frames the publisher sent meanwhile of the encoding of this width."""
    frames = {encoding["width"]: encoding["frames"] for encoding in before}
    return sum(e["frames"] - frames.get(width, e["frames"]) for e in after if e["width"] == width)


async def call(seed: int, *, seconds: float = SECONDS, loss: float = LOSS, rtt_s: float = RTT_S) -> Call:
    """Run one call and return its figures.   Errors: RuntimeError when no frames come at all."""
    link = Impairment(loss=loss, delay_s=rtt_s / 2)
    port = free_port()
    environ = {
        "VEIL_MEDIA_UDP_PORT": str(port),
        "VEIL_MEDIA_BIND_IPS": RELAY_IP,
        "VEIL_MEDIA_ADVERTISE_IPS": f"{RELAY_IP}={PROXY_IP}",
        "VEIL_LOG_LEVEL": "info",
    }
    async with (
        proxy_process((PROXY_IP, port), (RELAY_IP, port), seed=seed, up=link, down=link) as proxy,
        relay_process(environ=environ) as relay,
        cast(["chromium-new"]) as senders,
        cast(["chromium-new"]) as receivers,
    ):
        publisher, subscriber = senders["chromium-new"], receivers["chromium-new"]
        await publisher.join(relay.ws_url, relay.token("one"), room="room", identity="one")
        await subscriber.join(relay.ws_url, relay.token("two"), room="room", identity="two")
        await publisher.publish(audio=True, video=True, width=640, height=360, fps=30)

        async def is_warm() -> bool:
            return (await subscriber.state()).of("one").frames_decoded > WARM_UP_FRAMES

        if not await until(is_warm, CONNECT_S):
            raise RuntimeError(f"seed {seed}: {(await subscriber.state()).of('one').frames_decoded} frames in {CONNECT_S} s")
        found = await measured(publisher, subscriber, seconds)
        told = tuple(f"{s.identity} {s.detail}" for s in (await subscriber.state()).seen if s.what == "quality")
        return Call(seed=seed, **found, proxy=await proxy.stats(), qualities=told)


async def measured(publisher: LiveKitJs, subscriber: LiveKitJs, seconds: float) -> dict[str, Any]:
    """Sample both ends for the window."""

    async def sample() -> tuple[list[dict[str, Any]], dict[str, Any]]:
        ends = publisher.page.evaluate("() => client.outbound()"), subscriber.page.evaluate("() => client.frames()")
        return tuple(await asyncio.gather(*ends))

    await subscriber.page.evaluate("() => { client.watchFrames('one'); }")
    loop = asyncio.get_running_loop()
    sent, got = await sample()
    first, ends_at = got, loop.time() + seconds
    total = switches = 0
    while loop.time() < ends_at:
        await asyncio.sleep(SAMPLE_S)
        sent_now, got_now = await sample()
        total += sent_between(sent, sent_now, got_now["width"])
        switches += got_now["width"] != got["width"]
        sent, got = sent_now, got_now
    since = {name: got[name] - first[name] for name in first if name != "longest_gap_ms"}
    return {
        "sent": total,
        "decoded": since["decoded"],
        "buffer_ms": since["buffered_s"] / max(1, since["decoded"]) * 1e3,
        "freeze_s": got["longest_gap_ms"] / 1e3,
        "switches": switches,
        **{name: since[name] for name in ("frozen_s", "keyframes", "lost", "repaired", "nacks", "plis")},
    }


def table(calls: list[Call], title: str) -> Table:
    found = Table(title=title)
    for name in ("seed", "frames sent", "decoded", "longest gap", "frozen", "keyframes", "lost", "repaired", "NACKs", "PLIs"):
        found.add_column(name, justify="right")
    for c in calls:
        cells = (c.seed, c.sent, f"{c.share:.1%}", f"{c.freeze_s:.2f} s", f"{c.frozen_s:.1f} s", c.keyframes, c.lost)
        found.add_row(*map(str, (*cells, c.repaired, c.nacks, c.plis)))
    return found


async def run(seeds: list[int], *, seconds: float, loss: float, rtt_s: float) -> list[str]:
    """Run the calls one after another, print them, return what is wrong."""
    calls = []
    for seed in seeds:
        calls.append(await call(seed, seconds=seconds, loss=loss, rtt_s=rtt_s))
        print(calls[-1], flush=True)
    title = f"Chromium to Chromium, {loss:.0%} random loss each way, {rtt_s * 1e3:.0f} ms RTT, {seconds:.0f} s"
    Console(width=120).print(table(calls, title))
    median = statistics.median(call.share for call in calls)
    worst = max(call.freeze_s for call in calls)
    print(f"median {median:.1%} (goal {MIN_DECODED:.0%}), worst gap {worst:.2f} s (goal {MAX_FREEZE_S:.0f} s)")
    return problems(calls)


def main() -> None:
    parser = argparse.ArgumentParser(description="calls through a network that loses packets")
    parser.add_argument("--seeds", default="1-5", help="first-last, or one")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--loss", type=float, default=LOSS, help="share of packets, each way")
    parser.add_argument("--rtt", type=float, default=RTT_S, help="seconds")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    seeds = list(range(int(first), int(last or first) + 1))
    found = asyncio.run(run(seeds, seconds=options.seconds, loss=options.loss, rtt_s=options.rtt))
    for problem in found:
        print(f"FAIL {problem}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
