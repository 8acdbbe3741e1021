"""What a person reads when a call refuses something, in an ordinary app on unmodified livekit-client.

livekit-client rejects `connect` with what a server says to `/rtc/validate`, if the status is 401 or 403. It has no such way
for a refused track: `publishTrack` waits ten seconds for an answer that it understands (RTCEngine.addTrack looks at
`track_published` alone) and rejects with words of its own. So the sentence comes as a data message, at once.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.interop.clients.cast import NEW_JS
from tests.interop.clients.livekit_js import bundle_site
from tests.support.browsers import ChromiumPage, chromium
from tests.support.tiers import CLINIC, CLUB, SHOP, TIERS, settings, tiered_relay

pytestmark = [pytest.mark.interop, pytest.mark.browser, pytest.mark.slow]

SCREENSHOT = Path(__file__).resolve().parents[2] / "build" / "screenshots" / "refusals.png"
LIMITS = TIERS + "participants_per_room = 1\n[tiers.free]\npublications_per_participant = 1\n"
SAID_S = 15.0
PASSPHRASE = "correct horse"


class App:
    """The page of tests/interop/page/refusals.html."""

    def __init__(self, page: ChromiumPage, url: str) -> None:
        self.page = page
        self._url = url

    async def join(self, name: str, title: str, token: str, **options: str) -> None:
        await self.page.evaluate("(...a) => app.join(...a)", name, title, self._url, token, options)

    async def turn_on(self, name: str, source: str) -> None:
        await self.page.evaluate("(...a) => { app.turnOn(...a); }", name, source)

    async def say(self, name: str, text: str) -> None:
        await self.page.evaluate("(...a) => { app.say(...a); }", name, text)

    async def told(self, name: str, *words: str, source: str = "veil.notice", within_s: float = SAID_S) -> float:
        """Wait for a sentence with these words from there; return when it came (ms)."""
        async with asyncio.timeout(within_s):
            while True:
                said = await self.page.evaluate("(n) => app.said(n)", name)
                for line in said:
                    if line["from"] == source and all(word in line["text"] for word in words):
                        assert source == "microphone" or line["text"].endswith("."), line
                        return line["at_ms"]
                await asyncio.sleep(0.05)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with (
        tiered_relay(tmp_path, settings(SHOP, CLUB, CLINIC, more=LIMITS)) as relay,
        bundle_site(NEW_JS, "refusals.html") as site,
        chromium() as page,
    ):
        await page.goto(site)
        yield App(page, relay.process.ws_url)
        await page.evaluate("() => app.leave()")


@pytest.mark.timeout(90)
async def test_every_refusal_reaches_the_person_in_a_sentence_that_names_the_tier(app: App) -> None:
    await app.join("weak", "The token demands the paid tier, the call is free", SHOP.token("a", attributes={"veil.min_tier": "paid"}))
    await app.told("weak", "free tier", "weaker than the paid tier", source="connect")
    await app.join("first", "The first one in a call for one", CLUB.token("a"))
    await app.join("full", "The second one in a call for one", CLUB.token("b"))
    await app.told("full", "The room is full", "calls of the mixed tier have 1 participant at most", source="connect")

    await app.join("clear", "Without encryption in a paid call", CLINIC.token("a"))
    await app.turn_on("clear", "camera")
    await app.told("clear", "Calls of the paid tier are end-to-end encrypted", "turn encryption on")
    await app.say("clear", "hello")
    await app.told("clear", "paid tier", "messages in the clear are not sent")

    await app.join("sealed", "With encryption in a free call", SHOP.token("b"), passphrase=PASSPHRASE)
    await app.turn_on("sealed", "microphone")
    await app.told("sealed", "Calls of the free tier are not end-to-end encrypted", "turn encryption off")

    await app.join("many", "Two tracks where one is allowed", SHOP.token("c"))
    await app.turn_on("many", "microphone")
    await app.told("many", "microphone is on", source="app")
    await app.turn_on("many", "camera")
    await app.told("many", "In calls of the free tier a participant publishes 1 track at most")

    await app.join("broken", "Its encryption is broken: frames go out as they are", CLINIC.token("b", room="other"),
                   passphrase=PASSPHRASE, worker="broken")  # fmt: skip
    await app.turn_on("broken", "camera")
    await app.told("broken", "paid tier is end-to-end encrypted", "your video was stopped")
    await app.told("broken", "camera is off", source="app")
    SCREENSHOT.parent.mkdir(parents=True, exist_ok=True)
    await app.page.playwright.screenshot(path=SCREENSHOT, full_page=True)


@pytest.mark.long
async def test_the_sentence_is_there_before_the_promise_ends(app: App) -> None:
    """Should a newer livekit-client hand the server's words to the promise, this test says so by failing."""
    await app.join("clear", "Without encryption in a paid call", CLINIC.token("a"))
    await app.turn_on("clear", "microphone")
    told_ms = await app.told("clear", "turn encryption on")
    rejected_ms = await app.told("clear", "publication of local track timed out", source="microphone", within_s=20)
    assert 8_000 < rejected_ms - told_ms < 12_000
