"""The built-in page over thin paths: what nobody looks at is not sent, and what does not fit is said to be paused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.sim.link import Impairment
from tests.support.proxy import ProxyProcess, proxy_process
from tests.support.relay_process import free_port, relay_process
from tests.support.web_guest import Guest, guest, until

pytestmark = [pytest.mark.browser, pytest.mark.long, pytest.mark.timeout(120)]

RELAY_IP, PROXY_IP = "127.0.0.1", "127.0.0.2"
WIDE = Impairment(delay_s=0.01)
# Sound alone fits.
NARROW = replace(WIDE, rate_bps=80_000, queue_bytes=3_000)

KEEP_CONNECTIONS = """{
  const Peer = RTCPeerConnection;
  window.connections = [];
  window.RTCPeerConnection = class extends Peer { constructor(...a) { super(...a); connections.push(this); } };
}"""
ACTIVE = """() => connections.flatMap((connection) => connection.getSenders())
  .filter(({track}) => track?.kind === "video")[0].getParameters().encodings.map(({active}) => active)"""
SENT = """async () => {
  const bytes = {};
  for (const connection of connections) {
    (await connection.getStats()).forEach(({type, rid, bytesSent}) => { if (type === "outbound-rtp" && rid) bytes[rid] = bytesSent; });
  }
  return bytes;
}"""


async def test_encodings_that_nobody_looks_at_rest_until_somebody_does() -> None:
    async with (
        relay_process() as relay,
        guest(relay.origin, "Ada", room="r", script=KEEP_CONNECTIONS) as ada,
        guest(relay.origin, "Bo", room="r") as bo,
    ):
        await bo.page.set_viewport_size({"width": 340, "height": 500})
        await ada.join()
        await bo.join()
        await bo.sees("Ada")

        async def active() -> list[bool]:
            return await ada.page.evaluate(ACTIVE)

        async def sends_the_smallest_alone() -> bool:
            return await active() == [True, False, False]

        async def sends_more() -> bool:
            return (await active())[:2] == [True, True]

        assert await active() == [True, True, True]
        await until(sends_the_smallest_alone, "the smallest alone is sent to a small window")
        await asyncio.sleep(0.5)
        before = await ada.page.evaluate(SENT)
        await asyncio.sleep(1)
        after = await ada.page.evaluate(SENT)
        assert after["q"] > before["q"]
        assert after["h"] == before["h"] and after["f"] == before["f"]
        await bo.page.set_viewport_size({"width": 1280, "height": 800})
        await until(sends_more, "a larger window has more sent at once", within_s=2)

        async def is_sharper() -> bool:
            return (await bo.tile("Ada") or {})["width"] >= 640

        await until(is_sharper, "Bo sees it")


@contextlib.asynccontextmanager
async def call_over_a_path() -> AsyncIterator[tuple[ProxyProcess, Guest, Guest]]:
    """Ada and Bo, both of whose media comes over a path that can be made narrow."""
    port = free_port()
    environ = {
        "VEIL_MEDIA_UDP_PORT": str(port),
        "VEIL_MEDIA_TCP_PORT": "0",
        "VEIL_MEDIA_BIND_IPS": RELAY_IP,
        "VEIL_MEDIA_ADVERTISE_IPS": f"{RELAY_IP}={PROXY_IP}",
    }
    async with (
        proxy_process((PROXY_IP, port), (RELAY_IP, port), seed=1, up=WIDE, down=WIDE) as path,
        relay_process(environ=environ) as relay,
        guest(relay.origin, "Ada", room="r") as ada,
        guest(relay.origin, "Bo", room="r") as bo,
    ):
        await ada.join()
        await bo.join()
        await asyncio.gather(ada.sees("Bo"), bo.sees("Ada"))
        yield path, ada, bo


async def test_a_video_that_does_not_fit_is_said_to_be_paused_until_it_does() -> None:
    async with call_over_a_path() as (path, ada, _):
        assert (await ada.tile("Bo") or {})["paused"] == ""
        path.impair(WIDE, NARROW)

        async def says() -> str:
            return (await ada.tile("Bo") or {}).get("paused", "")

        words = await until(says, "Ada is told that Bo's video is paused")
        assert words == "Paused: your connection is too slow for this video"
        path.impair(WIDE, WIDE)

        async def is_silent() -> bool:
            return not await says()

        await until(is_silent, "the words go when the video comes")
        await ada.sees("Bo")
