"""The built-in page in Firefox, in a call with the same page in Chromium under a link key (SFrame).

A third participant has the key too and opens every frame that the relay forwards to it, so that a single clear one would show.
"""

import base64
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.interop.clients.builtin import BuiltIn, built_in
from tests.interop.matrix import CONNECT_S, leave_all, until
from tests.interop.recorded.caller import Caller
from tests.interop.recorded.formats import LinkKey
from tests.support.relay_process import RelayProcess, relay_process

pytestmark = [pytest.mark.interop, pytest.mark.browser, pytest.mark.long, pytest.mark.timeout(180)]

ROOM = "fox"
KEY = bytes(range(32))
LINK_KEY = base64.urlsafe_b64encode(KEY).rstrip(b"=").decode()
FRAMES, PACKETS = 60, 100

SHOWN = """() => ({
  chip: document.getElementById("call-security-text").textContent,
  notices: document.getElementById("notices").textContent,
  locks: Object.fromEntries([...document.querySelectorAll("#stage li[data-identity]")].map((t) => [t.dataset.identity, t.dataset.lock])),
})"""

# A browser that takes a transform and leaves it out: what Chromium does with one that comes too late.
NO_TRANSFORM = "Object.defineProperty(RTCRtpSender.prototype, 'transform', {get: () => null, set() {}});"
# The self-test counts once a second.
PROVEN_S = 5.0


@contextlib.asynccontextmanager
async def call(relay: RelayProcess, *, broken: bool = False) -> AsyncIterator[tuple[BuiltIn, str, BuiltIn, str, Caller]]:
    """Chromium and Firefox with the identities they got, and the third one. `broken`: Firefox seals nothing."""
    token = relay.token("witness", room=ROOM, attributes=LinkKey.attributes)
    async with (
        Caller(relay.ws_url, token, LinkKey(KEY)) as witness,
        built_in("chromium") as chromium,
        built_in("firefox") as firefox,
    ):
        if broken:
            await firefox.page.run_first(NO_TRANSFORM)
        try:
            who = []
            for page, name in ((chromium, "Ada"), (firefox, "Fox")):
                who.append(await page.join(relay.ws_url, "", room=ROOM, identity=name, link_key=LINK_KEY))
                await page.publish(audio=True, video=True)
            yield chromium, who[0], firefox, who[1], witness
        finally:
            await leave_all([chromium, firefox])


async def stops(relay: RelayProcess) -> float:
    """How many publications the relay stopped because their frames were not encrypted."""
    async with aiohttp.ClientSession() as http, http.get(f"{relay.origin}/metrics") as answer:
        lines = [line for line in (await answer.text()).splitlines() if line.startswith('veil_refused_total{reason="stopped_')]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


async def has_all(page: BuiltIn, other: str) -> bool:
    got = (await page.state()).of(other)
    return got.frames_decoded >= FRAMES and got.audio_packets >= PACKETS and got.audio_energy > 0


async def got_enough(witness: Caller, identity: str, kind: str, least: int) -> bool:
    return witness.received(identity, kind).frames >= least


async def test_firefox_and_chromium_call_each_other_and_only_sealed_frames_leave_either() -> None:
    async with relay_process() as relay, call(relay) as (chromium, ada, firefox, fox, witness):
        for page, other in ((chromium, fox), (firefox, ada)):
            assert await until(lambda: has_all(page, other), CONNECT_S), (page.name, (await page.state()).of(other))  # noqa: B023
        for page in (chromium, firefox):

            async def is_proven() -> bool:
                shown = await page.page.evaluate(SHOWN)  # noqa: B023
                return (shown["chip"], shown["locks"][ada], shown["locks"][fox]) == ("Encrypted", "locked", "locked")

            # One's own tile has its lock, and the chip its word, when the self-test saw as many frames sealed as encoded.
            assert await until(is_proven, PROVEN_S), (page.name, await page.page.evaluate(SHOWN))
            assert (await page.page.evaluate(SHOWN))["notices"] == "", page.name
        for identity in (ada, fox):
            for kind, least in (("video", FRAMES), ("audio", PACKETS)):
                assert await until(lambda: got_enough(witness, identity, kind, least), PROVEN_S), (identity, kind)  # noqa: B023
                assert not witness.received(identity, kind).failures, (identity, kind)
        assert await stops(relay) == 0


async def test_a_firefox_that_seals_nothing_is_stopped_and_says_so() -> None:
    async with relay_process() as relay, call(relay, broken=True) as (chromium, ada, firefox, fox, witness):

        async def is_told() -> bool:
            shown = await firefox.page.evaluate(SHOWN)
            assert shown["chip"] != "Encrypted" and not shown["locks"].get(fox), shown
            return shown["chip"] == "Encryption failed"

        assert await until(is_told, CONNECT_S)
        # What others send opens there as before.
        assert await until(lambda: has_all(firefox, ada), CONNECT_S)
        assert await is_told()
        assert await stops(relay) == 2
        assert (await chromium.state()).of(fox).frames_decoded == 0
        found = [counts for identity, _, counts in witness.everything() if identity == fox]
        # Few of its frames reached the third one before the relay was sure, of each encoding some; none opened.
        assert all(counts.opened == 0 and sum(counts.failures.values()) < 20 for counts in found), found
