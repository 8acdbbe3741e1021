"""A person at the built-in page: what they see and click, in Chromium.

    async with relay_process() as relay, guest(relay.origin, "Ada", room="r1") as ada:
        await ada.join()
        await ada.sees("Bo")

Everything is read off the page as a person would, but for sound, which is measured.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from tests.support.browsers import chromium

# Two browsers that encode simulcast on two cores take their time.
PATIENCE_S = 25.0

TILES = """() => [...document.querySelectorAll("#call:not([hidden]) .tile")].map((tile) => {
  const video = tile.querySelector("video");
  const box = tile.getBoundingClientRect();
  return {
    name: tile.querySelector(".tile-name").textContent,
    isLocal: tile.classList.contains("is-local"),
    isScreen: tile.classList.contains("is-screen"),
    isMuted: !tile.querySelector(".tile-muted").hidden,
    hasVideo: tile.classList.contains("has-video"),
    lock: tile.dataset.lock ?? "",
    said: tile.querySelector(".tile-seal:not([hidden])")?.textContent ?? "",
    paused: tile.querySelector(".tile-paused:not([hidden])")?.textContent ?? "",
    initials: tile.querySelector(".avatar").textContent,
    isAvatarShown: getComputedStyle(tile.querySelector(".avatar")).visibility === "visible",
    frames: video.getVideoPlaybackQuality().totalVideoFrames,
    width: video.videoWidth,
    box: {x: box.x, y: box.y, width: box.width, height: box.height},
  };
})"""

# The loudest moment of what plays within half a second; fake microphones beep once a second.
LOUDNESS = """async () => {
  const context = new AudioContext();
  let loudest = 0;
  const analysers = [...document.querySelectorAll("#sounds audio")].filter((a) => a.srcObject && !a.paused).map((audio) => {
    const analyser = context.createAnalyser();
    context.createMediaStreamSource(audio.srcObject).connect(analyser);
    return analyser;
  });
  const samples = new Float32Array(2048);
  for (let tick = 0; tick < 60; tick++) {
    await new Promise((done) => setTimeout(done, 20));
    for (const analyser of analysers) {
      analyser.getFloatTimeDomainData(samples);
      loudest = Math.max(loudest, ...samples.map(Math.abs));
    }
  }
  await context.close();
  return loudest;
}"""


class Guest:
    """One page with one person in front of it."""

    def __init__(self, page: Any, name: str) -> None:
        self.chromium = page
        self.page = page.playwright
        self.name = name
        self.sent: list[str] = []  # signalling frames, newest last
        self.page.on("websocket", lambda socket: socket.on("framesent", lambda frame: self.sent.append(str(frame))))

    async def open(self, address: str) -> None:
        await self.page.goto(address)
        await self.page.wait_for_selector("body:not([data-screen=loading])")

    async def join(self, *, media: bool = True) -> None:
        """Type the name, wait for the devices, join, and wait until media is connected."""
        if media:
            await self.page.wait_for_selector("#preview.has-video")
            await self.page.wait_for_selector("#meter:not([hidden])")
        await self.page.fill("#join-name", self.name)
        await self.page.click("#join-button")
        await self.connected()

    async def connected(self) -> None:
        await self.page.wait_for_selector("#call:not([hidden])", timeout=PATIENCE_S * 1000)
        await self.page.wait_for_selector("#banner", state="hidden", timeout=PATIENCE_S * 1000)

    async def tiles(self) -> list[dict[str, Any]]:
        return await self.chromium.evaluate(TILES)

    async def tile(self, name: str) -> dict[str, Any] | None:
        return next((tile for tile in await self.tiles() if tile["name"] == name), None)

    async def sees(self, name: str) -> None:
        """Return once the person's video moves here."""
        before = await until(lambda: self.tile(name), f"{self.name} has a tile of {name}")

        async def moved() -> bool:
            tile = await self.tile(name)
            return bool(tile and tile["hasVideo"] and tile["width"] and tile["frames"] > before["frames"] + 5)

        await until(moved, f"{self.name} sees {name} move")

    async def sees_locked(self, name: str) -> None:
        """Return once the person's video was shown here for a second, with a lock."""

        async def holds() -> bool:
            tile = await self.tile(name)
            return bool(tile and tile["lock"] == "locked" and tile["frames"] > 30)

        await until(holds, f"{self.name} sees {name} with a lock")

    async def hears_something(self) -> bool:
        return await self.chromium.evaluate(LOUDNESS) > 0.01

    async def text(self, selector: str) -> str:
        return (await self.page.inner_text(selector)).strip()

    async def press(self, selector: str) -> float:
        """Click and return the moment of it, of the monotonic clock."""
        now = time.monotonic()
        await self.page.click(selector)
        return now

    def sent_of(self, kind: str) -> list[str]:
        return [frame for frame in self.sent if frame.startswith(f'{{"{kind}":')]


async def until(check: Callable[[], Awaitable[Any]], what: str, within_s: float = PATIENCE_S) -> Any:
    """Return the first true result of `check`.   Errors: AssertionError saying what did not come about."""
    deadline = time.monotonic() + within_s
    while True:
        result = await check()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def guest(
    origin: str, name: str, *, room: str = "", fragment: str = "", flags: Sequence[str] = (), script: str = ""
) -> AsyncIterator[Guest]:
    """Open the page in a browser of its own; `script` runs in it before ours."""
    async with chromium(flags=flags) as page:
        person = Guest(page, name)
        if script:
            await person.page.add_init_script(script)
        await person.open(f"{origin}/#{fragment or f'room={room}'}")
        yield person
        loud = [line for line in page.console if "Content Security Policy" in line or "Uncaught" in line]
        assert not loud, loud
