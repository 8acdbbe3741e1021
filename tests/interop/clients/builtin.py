"""The built-in page, used as a person uses it: fields filled, buttons pressed, tiles looked at."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.interop.clients.base import Sent, State, read_state
from tests.support.browsers import Page, chromium, firefox

HOOK = Path(__file__).resolve().parents[1] / "page" / "hook.js"
JOIN_S = 20.0


class BuiltIn:
    """One tab."""

    # It sends what the camera gives, as a person's browser does.
    chooses_size = False

    def __init__(self, name: str, page: Page) -> None:
        self.name = name
        self.page = page

    async def join(
        self,
        url: str,
        _token: str,
        *,
        room: str,
        identity: str,
        passphrase: str = "",
        link_key: str = "",
        video: dict[str, Any] | None = None,
    ) -> str:
        """`link_key` as it stands in an invite link. `video` is what the camera gives and the browser sends instead of what
        the page chooses, in the words of hook.js."""
        await self.page.goto("about:blank")
        await self.page.goto(url.replace("ws://", "http://") + "/" + (f"#room={room}&key={link_key}" if link_key else ""))
        await self.page.evaluate("(video) => { watch.video = video; }", video)
        await self._until("document.body.dataset.screen === 'lobby' && !document.getElementById('join-form').hidden")
        for source in ("lobby-microphone", "lobby-camera"):
            await self._until(f"document.getElementById('{source}').getAttribute('aria-busy') !== 'true'")
            await self._press(source, wanted=False)
        fill = "(id, text) => { document.getElementById(id).value = text; }"
        await self.page.evaluate(fill, "join-name", identity)
        await self.page.evaluate(fill, "join-room", room)
        await self.page.evaluate(fill, "join-passphrase", passphrase)
        await self.page.evaluate("() => { document.getElementById('join-button').click(); }")
        await self._until("document.body.dataset.screen === 'call' && document.getElementById('banner').hidden")
        return await self.page.evaluate("() => watch.me")

    async def publish(self, *, audio: bool, video: bool, width: int = 640, height: int = 360, fps: int = 15) -> None:
        if audio:
            await self._press("call-microphone", wanted=True)
        if video:
            await self._press("call-camera", wanted=True)

    async def send_data(self, text: str) -> None:
        await self._until(
            "watch.channels._lossy?.readyState === 'open' && watch.channels._reliable?.readyState === 'open'"
        )
        await self.page.evaluate("async (t) => { await watch.sendData(t); }", text)

    async def mute(self, muted: bool) -> float:
        at = await self.page.evaluate("() => Date.now()")
        await self._press("call-microphone", wanted=not muted)
        return at

    async def sent(self) -> list[Sent]:
        return [Sent(**encoding) for encoding in await self.page.evaluate("() => watch.sent()")]

    async def audio_packets_sent(self) -> int:
        return await self.page.evaluate("() => watch.audioPacketsSent()")

    async def state(self) -> State:
        return read_state(await self.page.evaluate("() => watch.state()"))

    async def want_quality(self, identity: str, quality: str) -> None:
        raise RuntimeError("the built-in page asks for the size its tiles have")

    async def leave(self) -> float:
        at = await self.page.evaluate("() => Date.now()")
        await self.page.evaluate("() => { document.getElementById('call-leave').click(); }")
        return at

    async def _press(self, button: str, *, wanted: bool) -> None:
        """Press a switch until it is as wanted."""
        press = (
            "(id, wanted) => { const b = document.getElementById(id);"
            " if ((b.getAttribute('aria-pressed') === 'true') !== wanted) b.click(); }"
        )
        await self.page.evaluate(press, button, wanted)
        await self._until(
            f"document.getElementById('{button}').getAttribute('aria-pressed') === '{str(wanted).lower()}'"
        )

    async def _until(self, condition: str) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + JOIN_S
        while not await self.page.evaluate(f"() => Boolean({condition})"):
            if loop.time() > deadline:
                said = await self.page.evaluate("() => document.body.innerText.slice(0, 300)")
                raise RuntimeError(f"the built-in page never came to {condition}; it says: {said!r}")
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def built_in(browser: str = "chromium") -> AsyncIterator[BuiltIn]:
    """Open a browser ("chromium" or "firefox") for the built-in page."""
    start = {"chromium": chromium, "firefox": firefox}[browser]
    async with start() as page:
        await page.run_first(HOOK.read_text())
        yield BuiltIn(f"built-in page in {browser}", page)
