"""The newest Python SDK against a running relay: what its users rely on, beyond a plain call.

Every bot is a process of its own, because the native SDK aborts its process on a message it does not like; that no
bot ever did is checked at the end of each test.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.relay_process import RelayProcess, relay_process

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(180)]

BOT = Path(__file__).with_name("sdk_bot.py")
WAIT_S = 20.0
SPREAD = ("-m", "tests.support.spread_relay", "serve", "--dev")
DUPLICATE_IDENTITY = 2


class Bot:
    """One SDK process and everything it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self.noise: list[str] = []
        self._news = asyncio.Condition()
        self._was_killed = False
        self._readers = [asyncio.create_task(self._read()), asyncio.create_task(self._read_noise())]

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            async with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()

    async def _read_noise(self) -> None:
        assert self.process.stderr is not None
        while line := (await self.process.stderr.readline()).decode(errors="replace"):
            self.noise.append(line)

    async def event(self, name: str, **details: Any) -> dict[str, Any]:
        """Return the first event of that name with these details, waiting for it."""

        def find() -> dict[str, Any] | None:
            wanted = {"event": name, **details}.items()
            return next((event for event in self.events if wanted <= event.items()), None)

        async with self._news:
            try:
                await asyncio.wait_for(self._news.wait_for(find), WAIT_S)
            except TimeoutError:
                raise AssertionError(f"no {name} {details}; had {self.events}\n{''.join(self.noise[-20:])}") from None
            found = find()
            assert found is not None
            return found

    async def do(self, command: str, *arguments: Any) -> Any:
        """Have it do something and return the result."""
        count = len(self.events)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([command, *arguments]).encode() + b"\n")
        async with self._news:
            answer: list[dict[str, Any]] = []

            def answered() -> bool:
                answer[:] = [
                    e for e in self.events[count:] if e["event"] in ("done", "failed") and e["what"] == command
                ]
                return bool(answer)

            await asyncio.wait_for(self._news.wait_for(answered), WAIT_S)
        if answer[0]["event"] == "failed":
            raise RuntimeError(answer[0]["why"])
        return answer[0]["result"]

    def heard(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == name]

    async def leave(self) -> int:
        """End its input and return its exit code."""
        assert self.process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self.process.stdin.close()
        try:
            code = await asyncio.wait_for(self.process.wait(), 10)
        except TimeoutError:
            self.process.kill()
            code = await self.process.wait()
        await asyncio.gather(*self._readers)
        return 0 if self._was_killed else code

    async def kill(self) -> None:
        """End it as a crash does: no goodbye on any socket."""
        self._was_killed = True
        self.process.kill()
        await self.process.wait()


Start = Callable[..., Awaitable[Bot]]


@pytest.fixture(params=["one worker", pytest.param("two workers", marks=pytest.mark.long)])
async def relay(request: pytest.FixtureRequest) -> AsyncIterator[RelayProcess]:
    """A relay; with two workers every second transport is on the other one, so that most streams cross."""
    options: dict[str, Any] = {}
    if request.param == "two workers":
        options = {"command": SPREAD, "environ": {"VEIL_MEDIA_WORKERS": "2"}}
    async with relay_process(**options) as process:
        yield process


@pytest.fixture
async def start(relay: RelayProcess) -> AsyncIterator[Start]:
    """Start a bot: `ana = await start("ana")`; the rest are grants."""
    bots: list[Bot] = []

    async def start_as(identity: str, *, passphrase: str = "", joins: bool = True, **grants: Any) -> Bot:
        attributes = {"veil.e2ee_profile": "shared-passphrase"} if passphrase else {}
        text = relay.token(identity, attributes=attributes, **grants)
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(BOT), relay.ws_url, text, *([passphrase] * bool(passphrase)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        bot = Bot(process)
        bots.append(bot)
        if joins:
            await bot.event("connected")
        return bot

    yield start_as
    codes = [await bot.leave() for bot in bots]
    assert all(code == 0 for code in codes), (codes, [bot.noise[-10:] for bot in bots])


@pytest.mark.parametrize("passphrase", ["", "correct horse"])
async def test_audio_video_and_data_both_ways(start: Start, passphrase: str) -> None:
    bots = {name: await start(name, passphrase=passphrase) for name in ("ana", "bo")}
    for me, other in (("ana", "bo"), ("bo", "ana")):
        for kind in ("audio", "video"):
            sid = await bots[me].do("publish", kind)
            announced = await bots[other].event("announced", sid=sid)
            assert announced["who"] == me and bool(announced["encryption"]) == bool(passphrase)
            await bots[me].do("wait_for_subscriber", kind)
    for me, other in (("ana", "bo"), ("bo", "ana")):
        await bots[me].do("data", f"reliable from {me}")
        await bots[me].do("data", f"lossy from {me}", [], False)
        for what in ("reliable", "lossy"):
            assert (await bots[other].event("data", text=f"{what} from {me}"))["who"] == me
        for kind in ("audio", "video"):
            await bots[other].event("media", who=me, kind=kind)


async def test_data_reaches_those_it_names_and_never_its_sender(start: Start) -> None:
    ana, bo, cy = [await start(name) for name in ("ana", "bo", "cy")]
    await ana.do("data", "for bo", ["bo"])
    await ana.do("data", "for all")
    for bot in (bo, cy):
        await bot.event("data", text="for all", who="ana")
    assert [event["text"] for event in bo.heard("data")] == ["for bo", "for all"]
    assert [event["text"] for event in cy.heard("data")] == ["for all"]
    assert ana.heard("data") == []


async def test_reliable_data_keeps_its_order(start: Start) -> None:
    ana, bo = await start("ana"), await start("bo")
    for number in range(200):
        await ana.do("data", f"{number} " + "x" * 5000)
    await bo.event("data", text="199 " + "x" * 5000)
    assert [int(event["text"].split()[0]) for event in bo.heard("data")] == list(range(200))


async def test_mute_unpublish_and_unsubscribe(start: Start) -> None:
    ana, bo = await start("ana"), await start("bo")
    sid = await ana.do("publish", "audio")
    await bo.event("media", who="ana", kind="audio")
    for bot in (ana, bo):
        await bot.event("speakers", who=["ana"])
    await ana.do("mute", "audio")
    await bo.event("muted", who="ana", sid=sid)
    for bot in (ana, bo):
        await bot.event("speakers", who=[])
    await ana.do("unpublish", "audio")
    await bo.event("withdrawn", who="ana", sid=sid)
    # A section of the same client is used again for a new track.
    again = await ana.do("publish", "audio")
    assert again != sid
    await bo.event("media", who="ana", kind="audio", sid=again)
    await bo.do("subscribe", "ana", False)
    await bo.do("subscribe", "ana", True)


async def test_publishing_without_the_right_is_an_error_and_not_an_abort(start: Start) -> None:
    ana = await start("ana", canPublish=False, canPublishData=True)
    bo = await start("bo")
    with pytest.raises(RuntimeError, match="PublishTrackError"):
        await ana.do("publish", "audio")
    await ana.do("data", "still here")
    await bo.event("data", text="still here", who="ana")


async def test_who_may_not_subscribe_hears_nothing_and_may_speak(start: Start) -> None:
    ana = await start("ana", canSubscribe=False)
    bo = await start("bo")
    await bo.do("publish", "audio")
    await ana.do("publish", "audio")
    await bo.event("media", who="ana", kind="audio")
    assert ana.heard("media") == []


async def test_metadata_of_ones_own(start: Start) -> None:
    ana, bo = await start("ana", canUpdateOwnMetadata=True), await start("bo")
    await ana.do("metadata", "hand raised")
    await bo.event("metadata", who="ana", text="hand raised")
    await ana.event("metadata", who="ana", text="hand raised")


async def test_a_second_device_of_an_identity_ends_the_first(start: Start) -> None:
    first, bo = await start("ana"), await start("bo")
    second = await start("ana")
    assert (await first.event("disconnected"))["reason"] == DUPLICATE_IDENTITY
    await bo.event("left", who="ana")
    await bo.event("joined", who="ana")
    await second.do("data", "from the second")
    await bo.event("data", text="from the second", who="ana")


@pytest.mark.parametrize(
    ("grants", "words"), [({"hidden": True}, "unseen"), ({"roomJoin": False}, "joining"), ({"room": ""}, "room")]
)
async def test_a_refused_join_is_an_error_with_the_reason(start: Start, grants: dict, words: str) -> None:
    bot = await start("ana", joins=False, **grants)
    assert words in (await bot.event("refused"))["why"]


async def test_a_crashed_client_that_comes_back_leaves_no_ghost(start: Start) -> None:
    ana, bo = await start("ana"), await start("bo")
    await bo.do("publish", "audio")
    await ana.event("media", who="bo", kind="audio")
    # A new start of a crashed app comes back under its identity; its ghost leaves at once.
    await bo.kill()
    again = await start("bo")
    await ana.event("left", who="bo")
    assert (await again.event("connected"))["others"] == ["ana"]


async def test_a_server_that_stops_asks_its_clients_back_and_ends_in_time(relay: RelayProcess, start: Start) -> None:
    bots = [await start(name) for name in ("ana", "bo")]
    await bots[0].do("publish", "video")
    await bots[1].event("media", kind="video")
    started = time.monotonic()
    assert await relay.stop() == 0
    assert time.monotonic() - started < 3
    for bot in bots:
        await bot.event("reconnecting")
        # It tries for a minute.
        await bot.kill()
