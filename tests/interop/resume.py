"""Broken connections and restarted relays, with real clients; `make resume` prints goals and figures.

Cut: one of two people in a call loses its signalling socket five times, while both send each other 1,000 numbered reliable
messages and video. Every second cut is one that only the client notices. Restart: the relay is ended and started anew under
a call; and once it crashes. Moved: the address that a client's media comes from becomes another one, as behind a NAT that
forgets. Roam: the client leaves its network for another (tests/interop/roaming.py). The partner is the Python SDK, whose own
socket is left alone.

usage: python -m tests.interop.resume [NAME...] [--only cut|restart|moved|roam]      names as in clients/cast.py
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.interop.clients.cast import cast
from tests.interop.matrix import CONNECT_S, Check, until
from tests.interop.roaming import roam
from tests.sim.link import Impairment
from tests.support.cutter import Cutter, cutter
from tests.support.netns import is_possible
from tests.support.proxy import ProxyProcess, proxy_process
from tests.support.relay_process import RelayProcess, free_port, relay_process

NAMES = ("chromium-new", "chromium-old", "firefox-new", "python-new", "python-old")
PARTNER = "python-new"
MESSAGES, PER_S, CUTS = 1000, 50.0, 5
MAX_GAP_MS, MAX_BACK_S = 300.0, 3.0
# Browsers wait two seconds after a resume before they count as connected; a cut into that is another matter.
BETWEEN_CUTS_S = 4.0
ARRIVE_S = 20.0
RELAY_IP, PROXY_IP = "127.0.0.1", "127.0.0.2"
MOVED_S, MAX_MOVED_MS = 8.0, 6000.0


def numbers(seen: list[Any], prefix: str) -> list[int]:
    """Return the numbers of the messages that came, in order."""
    found = (re.fullmatch(re.escape(prefix) + r"(\d+)", item.detail) for item in seen if item.what == "data")
    return [int(match[1]) for match in found if match]


def judge_numbers(got: list[int], count: int) -> tuple[str, bool]:
    """Return what came of so many messages, in words and as a verdict."""
    missing, doubled = count - len(set(got) & set(range(count))), len(got) - len(set(got))
    in_order = got == sorted(got)
    return f"{missing} lost, {doubled} doubled, {'in order' if in_order else 'out of order'}", not missing and not doubled and in_order


class Call:
    """The client under test, called cut, and its partner, called other, in one room."""

    def __init__(self, client: Any, partner: Any, relay: RelayProcess, wire: Cutter) -> None:
        self.client, self.partner, self.relay, self.wire = client, partner, relay, wire

    async def begin(self) -> None:
        """Join and publish.   Errors: RuntimeError when no media comes."""
        room = f"room-{time.monotonic_ns()}"
        await self.partner.join(self.relay.ws_url, self.relay.token("other", room=room), room=room, identity="other")
        await self.client.join(f"ws://127.0.0.1:{self.wire.port}", self.relay.token("cut", room=room), room=room, identity="cut")
        for one in (self.partner, self.client):
            await one.publish(audio=True, video=True, width=320, height=180, fps=30)
        if not await until(self.both_see, CONNECT_S):
            raise RuntimeError(f"{self.client.name}: no video in {CONNECT_S} s")

    async def both_see(self, frames: int = 10) -> bool:
        seen = await asyncio.gather(self.client.state(), self.partner.state())
        return seen[0].of("other").frames_decoded > frames and seen[1].of("cut").frames_decoded > frames

    async def watch(self) -> None:
        await asyncio.gather(self.client.watch("other"), self.partner.watch("cut"))

    async def gaps_ms(self) -> tuple[float, float]:
        """The longest pauses of the picture: what the client sees of its partner, and the partner of it."""
        return tuple(await asyncio.gather(self.client.longest_gap_ms(), self.partner.longest_gap_ms()))

    async def end(self) -> None:
        await asyncio.gather(self.client.leave(), self.partner.leave(), return_exceptions=True)


@asynccontextmanager
async def call(client: Any, partner: Any, relay: RelayProcess) -> AsyncIterator[Call]:
    async with cutter(relay.port) as wire:
        made = Call(client, partner, relay, wire)
        await made.begin()
        try:
            yield made
        finally:
            await made.end()


async def cut(
    client: Any,
    partner: Any,
    relay: RelayProcess,
    *,
    count: int = MESSAGES,
    cuts: int = CUTS,
    between_s: float = BETWEEN_CUTS_S,
    arrive_s: float = ARRIVE_S,
) -> list[Check]:
    """Cut the client's socket so many times while messages and pictures go both ways."""
    async with call(client, partner, relay) as made:
        await made.watch()
        await asyncio.sleep(between_s)
        calm = await made.gaps_ms()
        # A browser that has not sent anything yet does not send again what it held back (livekit-client up to 2.23).
        await asyncio.gather(*(one.stream("first ", 1, 1) for one in (client, partner)))
        await asyncio.sleep(0.2)
        await asyncio.gather(*(one.stream("n:", count, PER_S) for one in (client, partner)))
        gaps = [0.0, 0.0]
        for number in range(cuts):
            await made.watch()
            await asyncio.sleep(between_s / 4)
            if not made.wire.cut(half=number % 2 == 1):
                raise RuntimeError(f"{client.name} had no connection to cut")
            await asyncio.sleep(between_s * 3 / 4)
            gaps = [max(pair) for pair in zip(gaps, await made.gaps_ms(), strict=True)]

        async def all_came() -> bool:
            seen = await asyncio.gather(client.state(), partner.state())
            return all(len(set(numbers(one.seen, "n:"))) == count for one in seen)

        await until(all_came, count / PER_S - cuts * between_s + arrive_s)
        mine, theirs = await asyncio.gather(client.state(), partner.state())
        sent = await asyncio.gather(client.streamed(), partner.streamed())
        stayed = not any(seen.what in ("left", "joined") and seen.identity == "cut" and seen.at_ms > first_data(theirs)
                         for seen in theirs.seen)  # fmt: skip
        problems = [said["problem"] for said in sent if said["problem"]]
        name = client.name
        came, is_whole = zip(*(judge_numbers(numbers(one.seen, "n:"), count) for one in (theirs, mine)), strict=True)
        return [
            Check(f"{name}: the same session after {made.wire.cuts} cuts", "yes" if stayed else "no: it joined anew", stayed),
            Check(f"{name}: {count} messages from it (goal: none lost or doubled)", came[0], is_whole[0]),
            Check(f"{name}: {count} messages to it (goal: none lost or doubled)", came[1], is_whole[1]),
            Check(f"{name}: sending failed", str(problems), not problems),
            *(
                Check(f"{name}: longest pause of the picture {where} (goal {MAX_GAP_MS:.0f} ms)",
                      f"{gap:.0f} ms, without cuts {before:.0f} ms", gap <= MAX_GAP_MS)
                for where, gap, before in (("it sees", gaps[0], calm[0]), ("seen of it", gaps[1], calm[1]))
            ),
        ]  # fmt: skip


def first_data(state: Any) -> float:
    return next((seen.at_ms for seen in state.seen if seen.what == "data"), float("inf"))


async def moved(client: Any, partner: Any, relay: RelayProcess, proxy: ProxyProcess) -> list[Check]:
    """Have the media of both come from other addresses, twice, and see how long their pictures stand still.

    Their clients notice nothing, so that the relay hears of it with their next check alone: every 2.5 s from libwebrtc, every
    5 s at most from others. A client that changes its network itself checks at once.
    """
    async with call(client, partner, relay) as made:
        gaps = [0.0, 0.0]
        for _ in range(2):
            await made.watch()
            await asyncio.sleep(0.5)
            proxy.move()
            await asyncio.sleep(MOVED_S)
            gaps = [max(pair) for pair in zip(gaps, await made.gaps_ms(), strict=True)]
        seen = [*(await client.state()).seen, *(await partner.state()).seen]
        stayed = not any(item.what in ("left", "reconnecting") for item in seen)
        return [
            Check(f"{client.name}: the same session after two changes of address", "yes" if stayed else "no", stayed),
            *(
                Check(f"{client.name}: longest pause of the picture {where} (goal {MAX_MOVED_MS / 1e3:.0f} s)", f"{gap:.0f} ms",
                      gap <= MAX_MOVED_MS)
                for where, gap in (("it sees", gaps[0]), ("seen of it", gaps[1]))
            ),
        ]  # fmt: skip


@asynccontextmanager
async def behind_proxy() -> AsyncIterator[tuple[RelayProcess, ProxyProcess]]:
    """A relay whose media comes through a proxy."""
    port = free_port()
    environ = {
        "VEIL_MEDIA_UDP_PORT": str(port),
        "VEIL_MEDIA_BIND_IPS": RELAY_IP,
        "VEIL_MEDIA_ADVERTISE_IPS": f"{RELAY_IP}={PROXY_IP}",
    }
    calm = Impairment(delay_s=0.01)
    async with (
        proxy_process((PROXY_IP, port), (RELAY_IP, port), seed=1, up=calm, down=calm) as proxy,
        relay_process(environ=environ) as relay,
    ):
        yield relay, proxy


async def restart(client: Any, partner: Any, relay: RelayProcess, *, crash: bool, is_held: bool) -> list[Check]:
    """Restart the relay under a call, and see when the client is back in it and sees its partner.

    Where nobody holds the port open, clients are refused until the next relay is there, and when they try again is chance.
    """
    what = ("crash" if crash else "restart") + (", port held open" if is_held else "")
    async with call(client, partner, relay):
        before = (await client.state()).seen
        frames: int | None = None
        at_ms = time.time() * 1000
        begun = time.monotonic()
        await relay.restart(crash=crash)
        away_s = time.monotonic() - begun

        async def is_back() -> bool:
            return any(seen.what == "back" for seen in (await client.state()).seen[len(before) :])

        async def sees() -> bool:
            # The relay that sent the old picture is gone, so one that moves is the new one, however far it is already.
            nonlocal frames
            last, frames = frames, (await client.state()).of("other").frames_decoded
            return last is not None and 0 < frames != last

        back = await until(is_back, CONNECT_S)
        seen = (await client.state()).seen[len(before) :]
        back_s = next((item.at_ms - at_ms for item in seen if item.what == "back"), float("inf")) / 1e3
        sees_again = back and await until(sees, CONNECT_S)
        sees_s = time.monotonic() - begun
        figure = f"{back_s:.2f} s, picture after {sees_s:.1f} s; the relay was away for {away_s:.2f} s"
        passed = sees_again and (not is_held or back_s < MAX_BACK_S)
        goal = f"goal {MAX_BACK_S:.0f} s" if is_held else "reported"
        return [Check(f"{client.name}: back after a {what} ({goal})", figure if sees_again else f"not back; {figure}", passed)]


async def run(names: list[str], only: str) -> list[Check]:
    checks: list[Check] = []

    def take(found: list[Check]) -> None:
        for check in found:
            print(f"{'ok  ' if check.passed else 'FAIL'} {check.what}: {check.figure}", flush=True)
        checks.extend(found)

    scenarios: list[tuple[str, Callable[..., Any]]] = [
        ("cut", cut),
        ("moved", moved),
        ("roam", roam),
        *(("restart", functools.partial(restart, crash=crash, is_held=is_held)) for is_held in (True, False) for crash in (False, True)),
    ]
    for name in names:
        for what, scenario in scenarios:
            if only in ("", what):
                # A partner of its own each time: two of one program are two of the cast.
                if what == "roam":
                    if is_possible():
                        take(await roam(name))
                    else:
                        print(f"skip {name} in another network: making network namespaces needs root", flush=True)
                    continue
                if what == "moved":
                    if name.startswith("firefox"):
                        # It sends nothing from one address of loopback to another.
                        continue
                    async with cast([name]) as clients, cast([PARTNER]) as partners, behind_proxy() as far:
                        take(await scenario(clients[name], partners[PARTNER], *far))
                    continue
                is_held = getattr(scenario, "keywords", {}).get("is_held", False)
                async with cast([name]) as clients, cast([PARTNER]) as partners, relay_process(holds_socket=is_held) as relay:
                    take(await scenario(clients[name], partners[PARTNER], relay))
    return checks


def main() -> None:
    parser = argparse.ArgumentParser(description="broken connections and restarted relays")
    parser.add_argument("names", nargs="*", default=list(NAMES), metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--only", choices=("cut", "restart", "moved", "roam"), default="")
    options = parser.parse_args()
    checks = asyncio.run(run(options.names, options.only))
    good = sum(check.passed for check in checks)
    print(f"{good} of {len(checks)} passed")
    sys.exit(0 if checks and good == len(checks) else 1)


if __name__ == "__main__":
    main()
