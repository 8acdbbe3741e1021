"""What the server API does to media, against a publisher that heeds nothing of it."""

import asyncio
from pathlib import Path

import pytest
from livekit import api

from tests.interop.recorded.caller import Caller
from tests.interop.recorded.clips import record
from tests.support.tiers import SHOP, tiered_relay

pytestmark = [pytest.mark.interop, pytest.mark.timeout(60)]


@pytest.mark.parametrize("codec", ["opus", "vp8"])
async def test_nothing_of_a_muted_track_is_forwarded_though_its_publisher_goes_on(tmp_path: Path, codec: str) -> None:
    async with tiered_relay(tmp_path) as relay:
        def caller(identity: str, *codecs: str) -> Caller:
            return Caller(relay.process.ws_url, SHOP.token(identity, room="r"), publish=[record(codec) for codec in codecs])

        kind = "audio" if codec == "opus" else "video"
        async with (
            caller("ana", codec) as ana,
            caller("bo") as bo,
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
