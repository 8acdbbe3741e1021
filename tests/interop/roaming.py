"""A client leaves one network for another in the middle of a call, as a phone that walks out of its Wi-Fi; part of `make resume`.

wifi 10.20.0.2 ┐
               ├ client ── street ── relay 10.10.0.2, and its partner        the client's two links are never up together
lte  10.30.0.2 ┘

`roam` sets up the hosts and runs this module inside the client's; it prints one JSON line.

usage: python -m tests.interop.roaming NAME RELAY-NAMESPACE WIFI LTE      names as in clients/cast.py, of interfaces
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from relay.cli import mint_token
from relay.config import ApiKey
from tests.interop.clients.cast import cast
from tests.interop.clients.livekit_python import livekit_python
from tests.interop.matrix import Check, until
from tests.support.netns import Network

ROOT = Path(__file__).resolve().parents[2]
RELAY_IP = "10.10.0.2"
KEY, SECRET = "roamkey", "a-secret-of-the-roaming-test-with-bytes"
LINKS = {"wifi": "10.20.0", "lte": "10.30.0"}
CONFIG = f"""
[server]
bind_ip = "{RELAY_IP}"
[media]
bind_ips = ["{RELAY_IP}"]
[[customers]]
name = "acme"
tier = "free"
[[keys]]
key = "{KEY}"
secret = "{SECRET}"
customer = "acme"
"""
SETTLE_S, ROAM_S = 3.0, 25.0
MAX_PAUSE_MS = 6000.0
NO_NETWORK_S = 0.5


def token(identity: str) -> str:
    video = {"room": "roam", "roomJoin": True, "canPublish": True, "canSubscribe": True, "canPublishData": True}
    return mint_token(ApiKey(KEY, SECRET), identity, video, 3600, name=identity)


async def roam(name: str) -> list[Check]:
    """Set up the networks, run the call, and judge it. Needs root."""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with Network() as net, tempfile.TemporaryDirectory(prefix="veil-roam-") as folder:
        net.link("relay", f"{RELAY_IP}/24", "street", "10.10.0.1/24")
        ends = {link: net.link("client", f"{prefix}.2/24", "street", f"{prefix}.1/24") for link, prefix in LINKS.items()}
        net.run("relay", "ip", "route", "add", "default", "via", "10.10.0.1")
        net.run("street", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        net.run("client", "ip", "link", "set", ends["lte"], "down")
        net.run("client", "ip", "route", "add", "default", "via", "10.20.0.1")
        config = Path(folder, "veil.toml")
        config.write_text(CONFIG)
        log = Path(folder, "relay.log").open("w+")
        relay = subprocess.Popen(
            net.command("relay", sys.executable, "-m", "relay", "serve", "--config", str(config)),
            cwd=ROOT, env=environ, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            caller = await asyncio.create_subprocess_exec(
                *net.command("client", sys.executable, "-m", "tests.interop.roaming", name, net.name("relay"), ends["wifi"], ends["lte"]),
                cwd=ROOT, env=environ, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            said, _ = await asyncio.wait_for(caller.communicate(), 120)
        finally:
            relay.terminate()
            await asyncio.to_thread(relay.wait, 10)
        if caller.returncode:
            log.seek(0)
            raise RuntimeError(f"{name}: the call failed; the relay's last words:\n{log.read()[-2000:]}")
    found = json.loads(said.splitlines()[-1])
    # Native clients look for networks by themselves. A browser here is not told by its system: its call stands still until it
    # misses an answer to its ping (`limits.ping_timeout_s`, 7 s), and restarts ICE with the resume.
    is_native = name.startswith("python")
    goal = f"goal {MAX_PAUSE_MS / 1e3:.0f} s" if is_native else "reported"
    return [
        Check(f"{name}: the same session in another network", "yes" if found["stayed"] else "no", found["stayed"]),
        Check(f"{name}: signalling is back in the other network", f"after {found['back_s']:.0f} s", found["back_s"] < ROAM_S),
        *(
            Check(f"{name}: longest pause of the picture {where} ({goal})", f"{found[gap]:.0f} ms",
                  not is_native or found[gap] <= MAX_PAUSE_MS)
            for gap, where in (("sees_ms", "it sees"), ("seen_ms", "seen of it"))
        ),
    ]  # fmt: skip


def switch(wifi: str, lte: str) -> None:
    """Leave one network for the other; for a moment there is none, and programs are told so."""
    subprocess.run(["ip", "address", "flush", "dev", wifi], check=True)
    subprocess.run(["ip", "link", "set", wifi, "down"], check=True)
    time.sleep(NO_NETWORK_S)
    subprocess.run(["ip", "link", "set", lte, "up"], check=True)
    subprocess.run(["ip", "route", "replace", "default", "via", "10.30.0.1"], check=True)


def partner_in(namespace: str) -> Any:
    return livekit_python(Path(sys.executable), version("livekit"), inside=("ip", "netns", "exec", namespace))


async def inside(name: str, relay_namespace: str, wifi: str, lte: str) -> dict[str, Any]:
    """Call the partner, change the network, and return what both saw of each other."""
    url = f"ws://{RELAY_IP}:7880"
    async with cast([name]) as clients, partner_in(relay_namespace) as partner:
        client = clients[name]
        await until_open(RELAY_IP, 7880)
        await partner.join(url, token("other"), room="roam", identity="other")
        await client.join(url, token("cut"), room="roam", identity="cut")
        for one in (partner, client):
            await one.publish(audio=True, video=True, width=320, height=180, fps=30)

        async def both_see() -> bool:
            seen = await asyncio.gather(client.state(), partner.state())
            return seen[0].of("other").frames_decoded > 30 and seen[1].of("cut").frames_decoded > 30

        if not await until(both_see, 30):
            raise SystemExit("no picture before the change")
        await asyncio.gather(client.watch("other"), partner.watch("cut"))
        await asyncio.sleep(SETTLE_S)
        at_ms = time.time() * 1000
        await asyncio.to_thread(switch, wifi, lte)
        begun = len((await client.state()).seen)

        async def is_back() -> bool:
            return any(item.what == "back" for item in (await client.state()).seen[begun:])

        await until(is_back, ROAM_S)
        mine, theirs = await asyncio.gather(client.state(), partner.state())
        back_ms = next((item.at_ms for item in mine.seen[begun:] if item.what == "back"), float("inf"))
        stayed = not any(item.what in ("left", "joined") and item.at_ms > at_ms for item in theirs.seen)
        gaps = await asyncio.gather(client.longest_gap_ms(), partner.longest_gap_ms())
        return {"sees_ms": gaps[0], "seen_ms": gaps[1], "stayed": stayed, "back_s": min(999.0, (back_ms - at_ms) / 1e3)}


async def until_open(ip: str, port: int) -> None:
    """Return once something listens there."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection(ip, port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return


if __name__ == "__main__":
    print(json.dumps(asyncio.run(inside(*sys.argv[1:]))), flush=True)
