"""livekit-client in a real browser, on a page of ours that is served beside the pinned bundle."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.interop.clients.base import Sent, State, read_state
from tests.support.browsers import chromium, firefox

ROOT = Path(__file__).resolve().parents[3]
BUNDLES = ROOT / "build" / "clients"
PAGE = ROOT / "tests" / "interop" / "page"


class LiveKitJs:
    """One tab."""

    chooses_size = True

    def __init__(self, name: str, page: Any) -> None:
        self.name = name
        self.page = page

    async def join(self, url: str, token: str, *, room: str, identity: str, passphrase: str = "") -> str:
        await self.page.evaluate("async (...a) => { await client.join(...a); }", url, token, passphrase)
        return identity

    async def publish(
        self,
        *,
        audio: bool,
        video: bool,
        width: int = 640,
        height: int = 360,
        fps: int = 15,
        options: dict[str, Any] | None = None,
    ) -> None:
        """`options` as client.js takes them."""
        call = "async (...a) => { await client.publish(...a); }"
        await self.page.evaluate(call, audio, video, width, height, fps, options or {})

    async def send_data(self, text: str) -> None:
        await self.page.evaluate("async (t) => { await client.sendData(t); }", text)

    async def mute(self, muted: bool) -> float:
        return await self.page.evaluate("(m) => client.mute(m)", muted)

    async def sent(self) -> list[Sent]:
        return [Sent(**encoding) for encoding in await self.page.evaluate("() => client.sent()")]

    async def audio_packets_sent(self) -> int:
        return await self.page.evaluate("() => client.audioPacketsSent()")

    async def state(self) -> State:
        return read_state(await self.page.evaluate("() => client.state()"))

    async def want_quality(self, identity: str, quality: str) -> None:
        await self.page.evaluate("(i, q) => { client.wantQuality(i, q); }", identity, quality)

    async def stream(self, prefix: str, count: int, per_s: float) -> None:
        await self.page.evaluate("(...a) => { client.stream(...a); }", prefix, count, per_s)

    async def streamed(self) -> dict[str, Any]:
        return await self.page.evaluate("() => client.streamed()")

    async def watch(self, identity: str) -> None:
        await self.page.evaluate("(i) => { client.watch(i); }", identity)

    async def longest_gap_ms(self) -> float:
        return await self.page.evaluate("() => client.longestGap()")

    async def leave(self) -> float:
        return await self.page.evaluate("() => client.leave()")


@contextlib.asynccontextmanager
async def bundle_site(version: str, page: str = "client.html") -> AsyncIterator[str]:
    """Serve the page with one version of livekit-client on loopback."""
    bundle = BUNDLES / version
    if not (bundle / "livekit-client.umd.js").exists():
        raise RuntimeError(f"{bundle} is not there: run scripts/fetch-clients.sh")
    app = web.Application()
    app.router.add_static("/bundle/", bundle)
    app.router.add_static("/page/", PAGE)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/page/{page}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def livekit_js(browser: str, version: str) -> AsyncIterator[LiveKitJs]:
    """Open a browser ("chromium" or "firefox") with livekit-client of this version."""
    start = {"chromium": chromium, "firefox": firefox}[browser]
    async with bundle_site(version) as url, start() as page:
        await page.goto(url)
        yield LiveKitJs(f"{browser} {version}", page)
