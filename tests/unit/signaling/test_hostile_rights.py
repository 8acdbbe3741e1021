"""What a token does not give, and answers no browser would write."""

import asyncio
import contextlib
import dataclasses

import pytest
from livekit.protocol import models, rtc

from relay.policy.tiers import RoomKey
from relay.server import Server
from relay.signaling.hall import Hall
from tests.support.local_relay import settings
from tests.unit.signaling.descriptions import CHROMIUM, answer_to, recorded

AUDIO, VIDEO = models.TrackType.AUDIO, models.TrackType.VIDEO
S = models.TrackSource
Reason = rtc.RequestResponse.Reason


def hall_of(relay: Server) -> Hall:
    assert relay.conference is not None
    hall = relay.conference.find(RoomKey("acme", "r"))
    assert hall is not None
    return hall


@pytest.mark.parametrize(
    ("allowed", "kind", "source"),
    [
        ("microphone", VIDEO, S.MICROPHONE),
        ("screen_share_audio", VIDEO, S.SCREEN_SHARE_AUDIO),
        ("camera", AUDIO, S.CAMERA),
    ],
)
async def test_a_picture_does_not_pass_as_a_microphone(connect, allowed: str, kind: int, source: int) -> None:
    ana = await connect("ana", canPublishSources=[allowed])
    await ana.send(add_track=rtc.AddTrackRequest(cid="cid", type=kind, source=source))
    assert (await ana.until("request_response")).reason == Reason.NOT_ALLOWED


async def test_a_payload_type_that_cannot_be_sent_fails_one_track_and_no_negotiation(connect, relay: Server) -> None:
    ana, bo = await connect("ana"), await connect("bo")
    await bo.send(answer=rtc.SessionDescription(type="answer", sdp=answer_to((await bo.until("offer")).sdp), id=1))
    session = hall_of(relay).sessions[bo.sid]
    await bo.kinds_until_pong()
    session.subscriber.driver.is_connected = True
    await ana.publish(CHROMIUM["audio"], type=AUDIO)
    await ana.publish(CHROMIUM["video"], type=VIDEO)
    await ana.send(offer=rtc.SessionDescription(type="offer", sdp=recorded("chromium_sendrecv"), id=1))
    ours = await bo.until("offer", lambda offer: len(offer.mid_to_track_id) == 2)
    # Where RTP and RTCP share a port, 64 to 95 are RTCP's (RFC 5761 section 4).
    audio = next(line for line in ours.sdp.split("\r\n") if line.startswith("m=audio"))
    number = next(line.split(":")[1].split(" ")[0] for line in ours.sdp.split("\r\n") if line.endswith(" opus/48000/2"))
    theirs = answer_to(ours.sdp).replace(audio, audio.replace(f" {number}", " 70"))
    for name in ("rtpmap", "fmtp", "rtcp-fb"):
        theirs = theirs.replace(f"a={name}:{number} ", f"a={name}:70 ")
    await bo.send(answer=rtc.SessionDescription(type="answer", sdp=theirs, id=ours.id))
    failed = await bo.until("subscription_response")
    assert failed.err == models.SubscriptionError.SE_CODEC_UNSUPPORTED
    assert not session.is_over


async def test_a_transport_that_is_closed_stays_gone_when_ice_comes_back(connect, relay: Server) -> None:
    ana = await connect("ana")
    session = hall_of(relay).sessions[ana.sid]
    driver = session.subscriber.driver
    driver.on_ice_connected(("127.0.0.1", 9))
    driver.on_ice_dead()
    session.on_closed(driver, "the handshake timed out")
    driver.on_ice_connected(("127.0.0.1", 9))
    assert session._grace is not None


async def test_bytes_that_are_no_text_are_no_metrics_token() -> None:
    config = settings()
    server = Server(dataclasses.replace(config, server=dataclasses.replace(config.server, metrics_token="t")))
    await server.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(server.stop)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
        stack.callback(writer.close)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n")
        assert (await reader.readline()).split(b" ")[1] == b"403"
