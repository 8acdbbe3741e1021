"""Encrypted frames from before a change of the roster are sent to nobody who comes to them later."""

import pytest
from livekit.protocol import models, rtc

from relay.server import Server
from tests.support.local_relay import PAID_SECRET
from tests.unit.signaling.descriptions import CHROMIUM, recorded

AUDIO, VIDEO = models.TrackType.AUDIO, models.TrackType.VIDEO
PAID = {"secret": PAID_SECRET, "key": "pkey"}


def watched(relay: Server) -> list[int]:
    """The receivers whose caches are dropped from now on."""
    assert relay.conference is not None
    plane, dropped = relay.conference.plane, []
    drop = plane.drop_keyframe_cache

    def note(receiver: int) -> None:
        dropped.append(receiver)
        drop(receiver)

    plane.drop_keyframe_cache = note
    return dropped


async def publish(ana, encryption: int) -> None:
    await ana.publish(CHROMIUM["video"], type=VIDEO, encryption=encryption)
    await ana.publish(CHROMIUM["audio"], type=AUDIO, encryption=encryption)
    await ana.send(offer=rtc.SessionDescription(type="offer", sdp=recorded("chromium_sendrecv"), id=1))
    await ana.until("answer")
    await ana.kinds_until_pong()


@pytest.mark.parametrize("encrypted", [True, False])
async def test_who_comes_and_who_goes_drops_what_is_cached_of_encrypted_video(connect, relay: Server, encrypted: bool) -> None:
    kind = PAID if encrypted else {}
    ana = await connect("ana", **kind)
    dropped = watched(relay)
    await publish(ana, models.Encryption.Type.GCM if encrypted else models.Encryption.Type.NONE)
    assert dropped == []
    bo = await connect("bo", **kind)
    assert len(dropped) == (1 if encrypted else 0)
    await bo.send(leave=rtc.LeaveRequest(reason=models.DisconnectReason.CLIENT_INITIATED))
    await ana.until("update", lambda u: any(p.state == models.ParticipantInfo.State.DISCONNECTED for p in u.participants))
    assert dropped == dropped[:1] * (2 if encrypted else 0)
