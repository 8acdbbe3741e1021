"""All kinds of garbage at once for some seconds, from a process of its own: `python -m tests.adversary.storm`.

Reads one JSON line {ws_url, http_port, tokens, seconds, scale, sink_udp_port}; joins (or, towards a sink, makes up keys),
prints "ready", waits for a line, rages, prints one JSON line {"expected": …, "seconds": …}. The same bytes go to a sink,
so that a control run costs this process the same.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from collections import Counter

import uvloop

from tests.adversary.attacker import Attacker, MediaPath
from tests.adversary.generators import HOST, KINDS, Target, warm_up

# Items of each kind in ten seconds; what an attacker with one core and a token could do for long, and the issue's
# 10,000 connections.
ITEMS_IN_10_S = {
    "random_datagrams": 20_000,
    "forged_stun": 6_000,
    "replayed_srtp": 10_000,
    "forged_srtp": 3_000,
    "flooded_ssrcs": 8_000,
    "unknown_mids": 2_000,
    "garbage_rtcp": 4_000,
    "flooded_rtcp_senders": 2_000,
    "dtls_noise": 500,
    "http_noise": 300,
    "unauthorised_joins": 200,
    "websocket_noise": 20,
    "control_frame_abuse": 20,
    "big_descriptions": 5,
    "compressed_bombs": 5,
    "big_frames": 6,
    "body_bombs": 5,
    "join_bombs": 50,
    "silent_connections": 10_000,
    "slow_requests": 50,
}


async def rage(target: Target, seconds: float, scale: float) -> Counter[str]:
    """Send everything; return what the relay must have counted."""
    kinds = [
        KINDS[name](target, random.Random(f"1:{name}"), max(1, int(items * scale * seconds / 10)), seconds)
        for name, items in ITEMS_IN_10_S.items()
    ]
    expected: Counter[str] = Counter()
    for counted in await asyncio.gather(*kinds):
        expected.update(counted)
    return expected


async def main() -> None:
    order = json.loads(sys.stdin.readline())
    attacker = None
    if order["sink_udp_port"]:
        path = MediaPath.made_up(HOST, order["sink_udp_port"], random.Random(1))
        udp_port = order["sink_udp_port"]
    else:
        attacker = await Attacker().connect(order["ws_url"], order["tokens"].pop())
        path, udp_port = attacker.path, attacker.media_port
    tokens = itertools.cycle(order["tokens"])
    target = Target(path, udp_port, order["http_port"], lambda: next(tokens))
    warm_up(target)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    start = time.monotonic()
    expected = await rage(target, order["seconds"], order["scale"])
    print(json.dumps({"expected": expected, "seconds": time.monotonic() - start}), flush=True)
    if attacker is not None:
        await attacker.close()


if __name__ == "__main__":
    uvloop.run(main())
