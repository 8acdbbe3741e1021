"""LiveKit's v1 URL over HTTP: what is refused with which status, and what the requests that came with a join may do."""

import asyncio
import base64
import re

import aiohttp
import pytest
from livekit.protocol import models, rtc

from relay.server import MAX_LINE_BYTES, Server
from relay.signaling.livekit import http as livekit_http
from relay.signaling.livekit import join_request
from tests.support.local_relay import token
from tests.unit.signaling.conftest import Signal
from tests.unit.signaling.test_hostile_join import MALFORMED, RECORDED, bomb, packed
from tests.unit.signaling.test_http import UPGRADE, at

Reason = rtc.RequestResponse.Reason
CHROMIUM = (RECORDED / "chromium_2_23_0.txt").read_text().strip()


async def ask(http: aiohttp.ClientSession, relay: Server, path: str, text: str | None, **claims) -> tuple[int, str]:
    """Return the status and the words for this join_request."""
    params = {"access_token": token(**claims)} | ({} if text is None else {"join_request": text})
    headers = {} if path.endswith("validate") else UPGRADE
    async with http.get(at(relay, path), params=params, headers=headers) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        return answer.status, await answer.text()


async def join(http: aiohttp.ClientSession, relay: Server, text: str, sub: str = "ana") -> Signal:
    """Join over v1."""
    params = {"access_token": token(sub=sub), "join_request": text}
    signal = Signal(await http.ws_connect(at(relay, "/rtc/v1"), params=params, max_msg_size=0))
    signal.join = (await signal.next()).join
    signal.sid = signal.join.participant.sid
    assert signal.sid and not signal.join.subscriber_primary
    return signal


async def metrics(http: aiohttp.ClientSession, relay: Server) -> str:
    async with http.get(at(relay, "/metrics")) as answer:
        return await answer.text()


@pytest.mark.parametrize("path", ["/rtc/v1", "/rtc/v1/validate", "//rtc/v1/", "/prefix/rtc/v1/validate"])
async def test_what_cannot_be_read_is_refused_with_a_status_and_counted(path: str, relay, http) -> None:
    assert await ask(http, relay, path, None) == (400, "The join_request is missing.")
    for name in ("nothing", "no base64", "half a stream", "a compression of tomorrow"):
        status, words = await ask(http, relay, path, MALFORMED[name][0])
        assert status == 400 and words.startswith("The join_request ") and words.endswith(".")
    assert await ask(http, relay, path, bomb()) == (413, "The join_request is too large.")
    text = await metrics(http, relay)
    assert 'veil_refused_total{reason="join_400"} 5.0' in text
    assert 'veil_refused_total{reason="join_413"} 1.0' in text


async def test_nothing_is_unfolded_for_strangers(relay, http, monkeypatch) -> None:
    unfolded: list[int] = []
    unwrapped = join_request._unwrapped

    def watched(message: rtc.WrappedJoinRequest) -> bytes:
        unfolded.append(len(message.join_request))
        return unwrapped(message)

    monkeypatch.setattr(join_request, "_unwrapped", watched)
    for path in ("/rtc/v1", "/rtc/v1/validate"):
        assert (await ask(http, relay, path, bomb(), secret="x" * 32))[0] == 401
    assert not unfolded
    assert (await ask(http, relay, "/rtc/v1", bomb()))[0] == 413
    assert unfolded, "the control"


async def test_the_largest_descriptions_fit_a_request_line(relay, http) -> None:
    sdp = join_request.read_join_request(CHROMIUM).publisher_offer.sdp
    head, *sections = re.split(r"(?=m=)", sdp)
    offer, number = head, 0
    while len(offer) < relay.config.limits.sdp_bytes - 10_000:
        # As different from each other as sections of a long call are.
        section = re.sub(r"a=mid:\d+", f"a=mid:{number}", sections[number % 6])
        offer += section + "".join(f"a=ssrc:{hash((number, n)) & 0xFFFFFFFF} cname:x\r\n" for n in range(3))
        number += 1
    message = rtc.JoinRequest(publisher_offer=rtc.SessionDescription(type="offer", sdp=offer))
    text = packed(message.SerializeToString())
    assert len(text) < MAX_LINE_BYTES * 3 // 4, "room for a token"
    assert await ask(http, relay, "/rtc/v1/validate", text) == (200, "success")


async def test_the_offer_in_a_join_is_answered_and_not_kept(relay, http, monkeypatch) -> None:
    read: list[join_request.Asked] = []

    def watched(request: rtc.JoinRequest) -> join_request.Asked:
        read.append(join_request.asked_by(request))
        return read[-1]

    monkeypatch.setattr(livekit_http, "asked_by", watched)
    ana = await join(http, relay, CHROMIUM)
    answer = await ana.until("answer")
    assert answer.id == 1 and answer.type == "answer"
    assert answer.sdp.count("\r\nm=") == 7
    assert len(read) == 1 and not read[0].first, "an offer may be a megabyte, and calls last for hours"
    await ana.socket.close()


async def test_the_older_url_takes_a_join_request_too(relay, http) -> None:
    # What livekit-client 2.16 sends when its app sets `singlePeerConnection`: standard base64, uncompressed.
    said = models.ClientInfo(sdk=models.ClientInfo.SDK.JS, protocol=16)
    settings = rtc.ConnectionSettings(auto_subscribe=True)
    inner = rtc.JoinRequest(client_info=said, connection_settings=settings).SerializeToString()
    text = base64.b64encode(rtc.WrappedJoinRequest(join_request=inner).SerializeToString()).decode()
    assert (await ask(http, relay, "/rtc/validate", text)) == (200, "success")
    assert (await ask(http, relay, "/rtc", MALFORMED["half a stream"][0]))[0] == 400
    params = {"access_token": token(), "join_request": text}
    socket = await http.ws_connect(at(relay, "/rtc"), params=params, max_msg_size=0)
    ana = Signal(socket)
    assert not (await ana.next()).join.subscriber_primary
    assert "offer" not in await ana.kinds_until_pong(), "the control: v0 has one here"
    await socket.close()


async def test_tracks_announced_with_a_join_have_the_limits_of_all(start, http) -> None:
    server = await start(publications_per_participant=3)
    tracks = [rtc.AddTrackRequest(cid=f"cid{n}", type=models.TrackType.AUDIO) for n in range(5)]
    tracks.append(rtc.AddTrackRequest(cid="x", type=models.TrackType.AUDIO, name="x" * 5000))
    ana = await join(http, server, packed(rtc.JoinRequest(add_track_requests=tracks).SerializeToString()))
    published, refused = [], []
    while len(published) + len(refused) < 6:
        response = await ana.next()
        if response.WhichOneof("message") == "track_published":
            published.append(response.track_published.cid)
        elif response.WhichOneof("message") == "request_response":
            refused.append(response.request_response.reason)
    assert published == ["cid0", "cid1", "cid2"]
    assert refused == [Reason.LIMIT_EXCEEDED, Reason.LIMIT_EXCEEDED, Reason.INVALID_REQUEST]
    await ana.socket.close()


async def test_an_offer_that_is_none_ends_no_session(start, http) -> None:
    server = await start(sdp_bytes=20_000)
    for sdp in ("nonsense", "v=0\r\n" * 10_000):
        offer = rtc.SessionDescription(type="offer", sdp=sdp)
        ana = await join(http, server, packed(rtc.JoinRequest(publisher_offer=offer).SerializeToString()))
        assert "answer" not in await ana.kinds_until_pong()
        await ana.send(offer=join_request.read_join_request(CHROMIUM).publisher_offer)
        assert (await ana.until("answer")).id == 1
        await ana.socket.close()
        await asyncio.sleep(0.05)
    assert 'veil_refused_total{reason="offer"} 2.0' in await metrics(http, server)


async def test_a_client_names_itself_only_with_the_right_to(relay, http) -> None:
    said = rtc.JoinRequest(metadata="mine", participant_attributes={"a": "b", "veil.e2ee_profile": "none"})
    for may in (False, True):
        params = {"access_token": token(video={"canUpdateOwnMetadata": may}, metadata="token's")}
        params["join_request"] = packed(said.SerializeToString())
        socket = await http.ws_connect(at(relay, "/rtc/v1"), params=params, max_msg_size=0)
        me = (await Signal(socket).next()).join.participant
        assert me.metadata == ("mine" if may else "token's")
        assert me.attributes.get("a", "") == ("b" if may else "")
        assert me.attributes["veil.e2ee_profile"] == "none"
        await socket.close()
        await asyncio.sleep(0.05)


async def test_who_says_nothing_of_reconnecting_joins_anew_and_nobody_resumes_what_is_gone(relay, http) -> None:
    text = packed(rtc.JoinRequest(reconnect=True, participant_sid="PA_gone").SerializeToString())
    socket = await http.ws_connect(
        at(relay, "/rtc/v1"), params={"access_token": token(), "join_request": text}, max_msg_size=0
    )
    leave = (await Signal(socket).next()).leave
    assert leave.reason == models.DisconnectReason.STATE_MISMATCH and leave.action == rtc.LeaveRequest.Action.RECONNECT
    await socket.close()
