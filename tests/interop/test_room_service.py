"""What the server API does to media, against a publisher that heeds nothing of it."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web
from livekit import api
from livekit.protocol import webhook

from tests.interop.recorded.caller import Caller
from tests.interop.recorded.clips import record
from tests.support.tiers import CLINIC, CLUB, SHOP, TIERS, TieredRelay, settings, tiered_relay

pytestmark = [pytest.mark.interop, pytest.mark.long, pytest.mark.timeout(60)]


def caller(relay: TieredRelay, identity: str, *codecs: str) -> Caller:
    return Caller(relay.process.ws_url, SHOP.token(identity, room="r"), publish=[record(codec) for codec in codecs])


@pytest.mark.parametrize("codec", ["opus", "vp8"])
async def test_nothing_of_a_muted_track_is_forwarded_though_its_publisher_goes_on(tmp_path: Path, codec: str) -> None:
    async with tiered_relay(tmp_path) as relay:
        kind = "audio" if codec == "opus" else "video"
        async with (
            caller(relay, "ana", codec) as ana,
            caller(relay, "bo") as bo,
            api.LiveKitAPI(relay.process.origin, SHOP.key.key, SHOP.key.secret) as server,
        ):
            await bo.until(lambda: bo.received("ana", kind).frames > 10)
            everybody = (await server.room.list_participants(api.ListParticipantsRequest(room="r"))).participants
            (sid,) = [track.sid for one in everybody for track in one.tracks]
            mute = api.MuteRoomTrackRequest(room="r", identity="ana", track_sid=sid, muted=True)
            await server.room.mute_published_track(mute)
            # What was on its way arrives yet.
            await asyncio.sleep(0.3)
            heard, sent = bo.received("ana", kind).frames, ana.sent()[0].frames
            await asyncio.sleep(1.5)
            assert ana.sent()[0].frames > sent + 15
            assert bo.received("ana", kind).frames <= heard + 1


async def test_a_customers_server_is_told_of_a_call_with_media(tmp_path: Path) -> None:
    told: list[webhook.WebhookEvent] = []
    receiver = api.WebhookReceiver(api.TokenVerifier(SHOP.key.key, SHOP.key.secret))

    async def take(request: web.Request) -> web.Response:
        told.append(receiver.receive((await request.read()).decode(), request.headers["Authorization"]))
        return web.Response()

    served = web.Application()
    served.router.add_post("/hook", take)
    runner = web.AppRunner(served, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        more = f'{TIERS}[[webhooks]]\napi_key = "{SHOP.key.key}"\nurls = ["{url}"]\n'
        async with tiered_relay(tmp_path, settings(SHOP, CLUB, CLINIC, more=more)) as relay:
            async with caller(relay, "ana", "opus") as ana:
                await ana.until(lambda: len(told) == 3)
            async with asyncio.timeout(10):
                while len(told) < 5:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert "webhook " in relay.process.log_text() and "host=127.0.0.1" in relay.process.log_text()
    finally:
        await runner.cleanup()
    assert [event.event for event in told] == [
        "room_started", "participant_joined", "track_published", "track_unpublished", "participant_left", "room_finished",
    ]  # fmt: skip
    assert told[2].track.mime_type == "audio/opus" and told[4].participant.identity == "ana"
