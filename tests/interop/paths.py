"""Calls over the only path there is, in network namespaces: `make paths` (root) prints goals and figures.

blocked     no UDP passes: the call comes up over ICE-TCP           control: the same with the port off
turn        only a TURN server is reachable, over UDP or over TCP   control: the same without a TURN server
interfaces  Firefox has two; the one that carries its media and its signalling goes down, and the other carries on. Firefox checks
            the pair it chose and no other, so the way over is an ICE restart: livekit-client's, when its socket breaks

The browsers, and this program a second time, run in the host `client`; the relay in `relay`. Signalling goes over a socket of
the client's loopback that is handed to the relay, so that it is no part of what is measured.

usage: python -m tests.interop.paths [--only NAME]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.interop.clients.cast import NEW_JS, cast
from tests.interop.clients.livekit_js import LiveKitJs, bundle_site
from tests.interop.clients.livekit_python import livekit_python
from tests.interop.matrix import Check, leave_all, until
from tests.support.browsers import firefox
from tests.support.cutter import Cutter, cutter
from tests.support.netns import Network, is_possible
from tests.support.relay_process import RelayProcess, relay_process

ROOT = Path(__file__).resolve().parents[2]
RELAY_IP, TURN_IP = "10.9.0.1", "10.1.0.1"
TURN_SECRET = "shared by coturn and the relay"
GOAL_S = 5.0
MOVE_GOAL_S = 10.0
FRAMES = 5
# Firefox tells of the default route's address alone unless the page may use camera or microphone.
ALL_ADDRESSES = {"permissions.default.microphone": 1, "permissions.default.camera": 1, "media.peerconnection.ice.loopback": False}
NO_UDP = """
table ip blocked {
  chain in { type filter hook input priority 0; ip protocol udp drop; }
  chain out { type filter hook output priority 0; ip protocol udp drop; }
}
"""


# --- networks, made from outside ------------------------------------------------------------------------------------


def direct(net: Network) -> None:
    """client -- relay, where the relay has an address of its own behind the cable."""
    net.link("client", "10.1.0.2/24", "relay", "10.1.0.1/24")
    net.run("relay", "ip", "address", "add", f"{RELAY_IP}/32", "dev", "lo")
    net.run("client", "ip", "route", "add", "default", "via", "10.1.0.1")


def blocked(net: Network) -> None:
    direct(net)
    net.run("relay", "nft", "-f", "-", text=NO_UDP)


def behind_turn(net: Network) -> None:
    """client -- turn -- relay; `turn` forwards nothing by itself."""
    net.link("client", "10.1.0.2/24", "turn", f"{TURN_IP}/24")
    net.link("turn", "10.9.0.2/24", "relay", f"{RELAY_IP}/24")
    net.run("client", "ip", "route", "add", "default", "via", TURN_IP)
    net.run("relay", "ip", "route", "add", "default", "via", "10.9.0.2")


def two_ways(net: Network) -> None:
    """client == relay over two cables, each address going out over its own; partner -- relay."""
    for number in (1, 2):
        net.link("client", f"10.{number}.0.2/24", "relay", f"10.{number}.0.1/24")
        table = str(100 + number)
        net.run("client", "ip", "rule", "add", "from", f"10.{number}.0.2", "lookup", table)
        net.run("client", "ip", "route", "add", "default", "via", f"10.{number}.0.1", "table", table)
        # Where its cable is gone, an address reaches nothing: the other cable is not its own.
        net.run("client", "ip", "route", "add", "unreachable", "default", "metric", "9999", "table", table)
    net.link("partner", "10.3.0.2/24", "relay", "10.3.0.1/24")
    net.run("relay", "ip", "address", "add", f"{RELAY_IP}/32", "dev", "lo")
    net.run("client", "ip", "route", "add", "default", "via", "10.2.0.1", "metric", "20")
    net.run("client", "ip", "route", "add", "default", "via", "10.1.0.1", "metric", "10")
    net.run("partner", "ip", "route", "add", "default", "via", "10.3.0.1")


# --- calls, made inside the client's host ---------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def relay_in(net: Network, **settings: str) -> AsyncIterator[RelayProcess]:
    environ = {"VEIL_MEDIA_BIND_IPS": RELAY_IP, "VEIL_LOG_LEVEL": "info", **settings}
    async with relay_process(environ=environ, holds_socket=True, inside=net.command("relay")) as relay:
        yield relay


@contextlib.asynccontextmanager
async def coturn_in(net: Network) -> AsyncIterator[None]:
    program = shutil.which("turnserver")
    assert program is not None, "coturn is not installed: scripts/system-packages.sh test"
    process = await asyncio.create_subprocess_exec(
        *net.command("turn"), program, "-n", "--listening-ip", TURN_IP, "--relay-ip", "10.9.0.2", "--listening-port", "3478",
        "--use-auth-secret", "--static-auth-secret", TURN_SECRET, "--realm", "test", "--no-cli", "--no-tls", "--no-dtls",
        "--pidfile", "/dev/null", "--log-file", "stdout",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def comes_up(relay: RelayProcess, waiting: Any, joining: Any, within_s: float) -> float | None:
    """One is in the call and publishes, the other joins and publishes: seconds until both see pictures; None: never."""
    room = f"room-{time.monotonic_ns()}"

    async def see(frames: int) -> bool:
        seen = await asyncio.gather(waiting.state(), joining.state())
        return seen[0].of("two").frames_decoded >= frames and seen[1].of("one").frames_decoded >= frames

    async def call() -> float | None:
        await waiting.join(relay.ws_url, relay.token("one", room=room), room=room, identity="one")
        await waiting.publish(audio=True, video=True, width=320, height=180)
        began = time.monotonic()
        await joining.join(relay.ws_url, relay.token("two", room=room), room=room, identity="two")
        await joining.publish(audio=True, video=True, width=320, height=180)
        return time.monotonic() - began if await until(lambda: see(FRAMES), within_s) else None

    try:
        return await asyncio.wait_for(call(), within_s * 2 + 10)
    except Exception as error:
        print(f"     (no call: {type(error).__name__}: {str(error)[:120]})", flush=True)
        return None
    finally:
        await leave_all([waiting, joining])


async def pairs(relay: RelayProcess, what: str, names: list[tuple[str, str]], *, is_control: bool = False) -> list[Check]:
    checks = []
    for one, two in names:
        async with cast([one]) as ones, cast([two]) as twos:
            took = await comes_up(relay, ones[one], twos[two], GOAL_S if is_control else 20.0)
        figure = "no call" if took is None else f"{took:.2f} s"
        passed = (took is None) if is_control else (took is not None and took < GOAL_S)
        goal = "control: no call" if is_control else f"goal {GOAL_S:.0f} s"
        checks.append(Check(f"{what}, {two} joins {one} ({goal})", figure, passed))
    return checks


async def call_blocked(net: Network) -> list[Check]:
    names = [("chromium-new", "firefox-new"), ("firefox-new", "chromium-new"), ("chromium-new", "python-new")]
    async with relay_in(net) as relay:
        checks = await pairs(relay, "UDP blocked", names)
    async with relay_in(net, VEIL_MEDIA_TCP_PORT="0") as relay:
        return checks + await pairs(relay, "UDP blocked, no ICE-TCP", [("firefox-new", "chromium-new")], is_control=True)


async def call_turn(net: Network) -> list[Check]:
    checks = []
    names = [("chromium-new", "firefox-new"), ("firefox-new", "chromium-new")]
    async with coturn_in(net):
        for transport in ("udp", "tcp"):
            url = f"turn:{TURN_IP}:3478?transport={transport}"
            async with relay_in(net, VEIL_TURN_URLS=url, VEIL_TURN_SECRET=TURN_SECRET) as relay:
                checks += await pairs(relay, f"only coturn over {transport.upper()}", names)
        async with relay_in(net) as relay:
            return checks + await pairs(relay, "only coturn, not told of it", names[1:], is_control=True)


def interfaces() -> dict[str, str]:
    """Name of each interface to a relay by its network number (this process's host)."""
    said = subprocess.run(["ip", "-o", "-4", "address"], capture_output=True, text=True, check=True).stdout
    return {match[2]: match[1] for match in re.finditer(r"\d+: (\S+)\s+inet 10\.(\d)\.0\.2/", said)}


def bytes_over(name: str) -> int:
    folder = Path("/sys/class/net", name, "statistics")
    return int((folder / "rx_bytes").read_text()) + int((folder / "tx_bytes").read_text())


async def busiest(seconds: float = 1.0) -> tuple[str, int]:
    """The interface that carried most in this time, and how much of 100 it had."""
    found = interfaces().values()
    before = {name: bytes_over(name) for name in found}
    await asyncio.sleep(seconds)
    grown = {name: bytes_over(name) - before[name] for name in found}
    best = max(grown, key=lambda name: grown[name])
    return best, 100 * grown[best] // max(1, sum(grown.values()))


@contextlib.asynccontextmanager
async def partner_in(net: Network, relay: RelayProcess) -> AsyncIterator[tuple[Any, str]]:
    """The Python SDK in the partner's host, and the address of the relay's signalling there."""

    listener = net.listener("partner")
    wire = Cutter(relay.port)
    server = await asyncio.start_server(wire.accept, sock=listener)
    with tempfile.TemporaryDirectory(prefix="veil-partner-") as folder:
        python = Path(folder, "python")
        python.write_text(f'#!/bin/sh\nexec {shlex.join(net.command("partner", sys.executable))} "$@"\n')
        python.chmod(0o755)
        async with livekit_python(python, version("livekit")) as partner:
            try:
                yield partner, f"ws://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.close()
                wire.close()


async def call_interfaces(net: Network) -> list[Check]:
    checks: list[Check] = []
    async with (
        relay_in(net) as relay,
        bundle_site(NEW_JS) as site,
        firefox(preferences=ALL_ADDRESSES) as page,
        partner_in(net, relay) as (partner, partner_url),
        cutter(relay.port) as wire,
    ):
        await page.goto(site)
        fox = LiveKitJs("firefox-new", page)
        await partner.join(partner_url, relay.token("other", room="r"), room="r", identity="other")
        await fox.join(f"ws://127.0.0.1:{wire.port}", relay.token("fox", room="r"), room="r", identity="fox")
        for one in (partner, fox):
            await one.publish(audio=True, video=True, width=320, height=180, fps=30)

        async def both_see(more_than: tuple[int, int] = (10, 10)) -> bool:
            counts = await frames()
            return counts[0] > more_than[0] and counts[1] > more_than[1]

        async def frames() -> tuple[int, int]:
            seen = await asyncio.gather(fox.state(), partner.state())
            return seen[0].of("other").frames_decoded, seen[1].of("fox").frames_decoded

        try:
            assert await until(both_see, 20), "no call before anything went down"
            await asyncio.sleep(3)
            used, share = await busiest()
            checks.append(Check("two interfaces, Firefox: one carries its media", f"{share} % of the bytes", share > 90))
            await asyncio.gather(fox.watch("other"), partner.watch("fox"))
            subprocess.run(["ip", "link", "set", used, "down"], check=True)
            began = time.monotonic()
            # What was under way may still be shown.
            await asyncio.sleep(1)
            # The socket would have gone over that interface too.
            wire.cut()
            before = await frames()
            went_on = await until(lambda: both_see((before[0] + 30, before[1] + 30)), 30)
            took = time.monotonic() - began
            gaps = await asyncio.gather(fox.longest_gap_ms(), partner.longest_gap_ms())
            figure = f"{took:.1f} s; longest pauses {gaps[0] / 1e3:.1f} s seen by it, {gaps[1] / 1e3:.1f} s seen of it"
            passed = went_on and max(gaps) < MOVE_GOAL_S * 1e3
            checks.append(Check(f"two interfaces, Firefox: pictures both ways again (goal {MOVE_GOAL_S:.0f} s)", figure, passed))
            other, share = await busiest()
            checks.append(Check("two interfaces, Firefox: over the other one", f"{share} % of the bytes", other != used and share > 90))
            stayed = not any(seen.what in ("left", "joined") and seen.identity == "fox" for seen in (await partner.state()).seen[1:])
            checks.append(Check("two interfaces, Firefox: the same session", "yes" if stayed else "no: it joined anew", stayed))
        finally:
            await leave_all([fox, partner])
    return checks


SCENARIOS: dict[str, tuple[Callable[[Network], None], Callable[[Network], Awaitable[list[Check]]]]] = {
    "blocked": (blocked, call_blocked),
    "turn": (behind_turn, call_turn),
    "interfaces": (two_ways, call_interfaces),
}


def outside(name: str) -> bool:
    """Make the network of one scenario and run it there; say whether all of it held."""
    with Network() as net:
        SCENARIOS[name][0](net)
        command = net.command("client", sys.executable, "-m", "tests.interop.paths", "--inside", name, "--prefix", net.prefix)
        return subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}).returncode == 0


def inside(name: str, prefix: str) -> bool:
    checks = asyncio.run(SCENARIOS[name][1](Network(prefix)))
    for check in checks:
        print(f"{'ok  ' if check.passed else 'FAIL'} {check.what}: {check.figure}", flush=True)
    return all(check.passed for check in checks)


def main() -> None:
    parser = argparse.ArgumentParser(description="calls over the only path there is")
    parser.add_argument("--only", choices=tuple(SCENARIOS), default="")
    parser.add_argument("--inside", choices=tuple(SCENARIOS), help=argparse.SUPPRESS)
    parser.add_argument("--prefix", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        sys.exit(0 if inside(options.inside, options.prefix) else 1)
    if not is_possible():
        sys.exit("Network namespaces need root.")
    results = [outside(name) for name in SCENARIOS if options.only in ("", name)]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
