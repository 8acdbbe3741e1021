"""The load test's bots in real calls through a real relay: among themselves, and with the Python SDK."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from loadtests import calls, joins
from loadtests.bot import Bot, JoinError, Track
from loadtests.fleet import Fleet
from loadtests.server import CpuMeter, Server
from relay.config import DEV_KEY, DEV_SECRET
from tests.interop.test_livekit_python import Start, start  # noqa: F401 - a fixture
from tests.support.relay_process import RelayProcess, relay_process

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(120)]

LAYERS = ((320, 180, 150_000), (640, 360, 500_000))


@pytest.fixture
async def relay() -> AsyncIterator[RelayProcess]:
    async with relay_process() as process:
        yield process


async def test_a_bot_and_the_python_sdk_get_each_others_frames(relay: RelayProcess, start: Start) -> None:  # noqa: F811
    ana = await start("ana")
    for kind in ("audio", "video"):
        await ana.do("publish", kind)
    async with Fleet(relay.ws_url) as fleet:
        bot = await Bot.join(fleet, relay.token("bot"), publish=[Track.audio()], data=True, expect_frames=False)
        await bot.until(lambda: bot.flowing == 2)
        # The SDK decodes Opus and waits for sound, so what it says came through whole.
        await ana.event("media", who="bot", kind="audio")
        bot.send(b"from the bot")
        await ana.event("data", who="bot", text="from the bot")
        await ana.do("data", "from the SDK")
        await bot.until(lambda: ("ana", b"from the SDK") in [(who, payload) for who, _, payload in bot.messages])
        # Three seconds of an SDK's sound and picture.
        before = {row["receiver"]: int(row["packets"]) for row in fleet.load.stats()["receivers"]}
        await asyncio.sleep(3)
        for row in fleet.load.stats()["receivers"]:
            got = int(row["packets"]) - before[row["receiver"]]
            assert got >= (30 if row["is_video"] else 120), (got, bool(row["is_video"]))
        assert await ana.do("subscribe", "bot", False) is None
        await bot.leave()
    await ana.event("left", who="bot")


async def test_bots_check_each_others_frames(relay: RelayProcess) -> None:
    async with Fleet(relay.ws_url) as fleet:
        tracks = [Track.audio(), Track.video(*LAYERS), Track.video((640, 360, 300_000), codec="av1")]
        bots = await asyncio.gather(
            *(Bot.join(fleet, relay.token(name), publish=tracks, data=True) for name in ("ana", "bo", "cy"))
        )
        for bot in bots:
            await bot.until(lambda bot=bot: bot.flowing == 6)
        fleet.load.reset_stats()
        await asyncio.sleep(3)
        receivers = fleet.load.stats()["receivers"]
        assert len(receivers) == 18
        for name in ("lost", "frames_corrupt", "frames_duplicate", "frames_missing"):
            assert receivers[name].sum() == 0, name
        audio = receivers[receivers["is_video"] == 0]
        assert (audio["frames_complete"] > 120).all() and (receivers["frames_complete"] > 60).all()
        for bot in bots:
            bot.send(bot.identity.encode() * 1000)
        for bot in bots:
            await bot.until(lambda bot=bot: len(bot.messages) == 2)
            assert {(who, payload) for who, _, payload in bot.messages} == {
                (who, who.encode() * 1000) for who in ("ana", "bo", "cy") if who != bot.identity
            }
        # Who leaves is heard of, and its tracks go.
        await bots[0].leave()
        await bots[1].until(lambda: len(bots[1].participants) == 1 and len(bots[1].receivers) == 3)
        await bots[1].leave()
        await bots[2].leave()
        assert len(fleet.load.stats()["endpoints"]) == 0


async def test_a_bot_without_data_channels_is_in_the_call(relay: RelayProcess) -> None:
    async with Fleet(relay.ws_url) as fleet:
        ana = await Bot.join(fleet, relay.token("ana"), publish=[Track.audio()])
        bo = await Bot.join(fleet, relay.token("bo"))
        await bo.until(lambda: bo.flowing == 1)
        with pytest.raises(JoinError):
            bo.send(b"no channel")
        await ana.leave()
        await bo.leave()


async def test_what_the_server_refuses_is_a_join_error_that_says_why(relay: RelayProcess) -> None:
    async with Fleet(relay.ws_url) as fleet:
        with pytest.raises(JoinError, match="no connection"):
            await Bot.join(fleet, relay.token("ana", roomJoin=False))
        with pytest.raises(JoinError, match="refused"):
            await Bot.join(fleet, relay.token("ana", canPublish=False), publish=[Track.audio()])
        bot = await Bot.join(fleet, relay.token("ana"), publish=[Track.audio()])
        again = await Bot.join(fleet, relay.token("ana"))
        with pytest.raises(JoinError, match="DUPLICATE_IDENTITY"):
            await bot.until(lambda: False)
        await bot.leave()
        await again.leave()
        assert not fleet.links


async def test_joins_are_counted_and_cost_is_told(relay: RelayProcess) -> None:
    server = Server(relay.ws_url, DEV_KEY, DEV_SECRET, relay.pid)
    outcome = await joins.run(server, joins.Plan(joins_per_s=8, seconds=2, stay_s=0.1, warm_up_rooms=1))
    report = outcome.report()
    assert (outcome.complete, dict(outcome.failures)) == (16, {}), report
    # Far above what it costs, far below nothing: the figure itself is a benchmark's.
    assert 0.5 < outcome.cpu_ms_per_join < 200 and len(outcome.complete_s) == 16
    wrong_key = Server(relay.ws_url, DEV_KEY, "x" * 40, relay.pid)
    refused = await joins.run(wrong_key, joins.Plan(joins_per_s=4, seconds=1, warm_up_rooms=0))
    assert refused.complete == 0 and sum(refused.failures.values()) == 4


async def test_a_call_is_judged(relay: RelayProcess) -> None:
    server = Server(relay.ws_url, DEV_KEY, DEV_SECRET, relay.pid)
    report = await calls.run(server, calls.Plan(publishers=2, subscribers=4, seconds=2))
    assert report["is_clean"] and report["receivers"] == 10, report
    assert report["silent_receivers"] == 0 and 350 < report["packets_per_s"] < 600, report


def test_the_meter_counts_a_process_that_works() -> None:
    import os
    import time

    meter = CpuMeter(os.getpid())
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert 80_000_000 < meter.total_ns() < 2_000_000_000
