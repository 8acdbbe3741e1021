"""Guests and customers who try to get around the terms of a call, its limits, or who they are."""

import asyncio
import dataclasses
import re
import time

import pytest
from livekit.protocol import models, rtc

from relay.policy.tiers import RoomKey
from relay.server import Server
from relay.signaling.data_rules import KEYS_BURST, KEYS_TOPIC, MESSAGES_BURST, MESSAGES_PER_S
from relay.signaling.livekit.data import RELIABLE
from relay.signaling.session import Session
from tests.support.local_relay import API_KEYS, OTHER_SECRET, PAID_SECRET, settings, token
from tests.unit.signaling.descriptions import CHROMIUM, recorded, without_sending

AUDIO, VIDEO = models.TrackType.AUDIO, models.TrackType.VIDEO
NONE, GCM, CUSTOM = models.Encryption.Type.NONE, models.Encryption.Type.GCM, models.Encryption.Type.CUSTOM
Reason = rtc.RequestResponse.Reason
PAID = {"secret": PAID_SECRET, "key": "pkey"}
SFRAME = {"veil.e2ee_profile": "shared-passphrase", "veil.frame_format": "sframe"}


def session_of(relay: Server, sid: str) -> Session:
    assert relay.conference is not None
    session = relay.conference.find_session(sid)
    assert session is not None
    return session


def more_microphones(offer: str, count: int) -> str:
    """Return the offer with so many more sections like that of its microphone."""
    head, *sections = re.split(r"(?m)^(?=m=)", offer)
    audio = next(section for section in sections if section.startswith("m=audio"))
    mid = re.search(r"(?m)^a=mid:(\S+)", audio)[1]
    further = []
    for number in range(count):
        copy = audio.replace(f"a=mid:{mid}\r\n", f"a=mid:x{number}\r\n")
        ssrcs = set(re.findall(r"(?m)^a=ssrc:(\d+)", copy))
        for ssrc in ssrcs:
            copy = copy.replace(f"a=ssrc:{ssrc} ", f"a=ssrc:{(int(ssrc) + 1 + number) % (1 << 32)} ")
        further.append(re.sub(r"(a=(?:msid:|ssrc:\d+ msid:)\S+ )(\S+)", rf"\g<1>\g<2>-{number}", copy))
    bundle = re.search(r"(?m)^a=group:BUNDLE[^\r]*", head)[0]
    head = head.replace(bundle, bundle + "".join(f" x{number}" for number in range(count)))
    return head + "".join(sections) + "".join(further)


async def offer(signal, sdp: str, number: int = 1) -> rtc.SessionDescription:
    await signal.send(offer=rtc.SessionDescription(type="offer", sdp=sdp, id=number))
    return await signal.until("answer")


async def test_sections_that_nobody_announced_do_not_pass_the_limit(start, connect) -> None:
    relay = await start(publications_per_participant=2)
    ana = await connect("ana", to=relay)
    await ana.publish(CHROMIUM["audio"], type=AUDIO)
    sdp = more_microphones(recorded("chromium_sendrecv"), 40)
    await offer(ana, sdp)
    publisher = session_of(relay, ana.sid).publisher
    assert len(publisher.carried) == 2 and publisher.carried_as(next(iter(session_of(relay, ana.sid).endpoint.publications)))
    # What is given back can be used again, and no more than that.
    await offer(ana, without_sending(sdp), 2)
    assert not publisher.carried
    await offer(ana, sdp, 3)
    assert len(publisher.carried) == 2


async def test_the_limit_of_tracks_holds_through_muting_unpublishing_and_publishing_again(start, connect) -> None:
    relay = await start(publications_per_participant=1)
    ana = await connect("ana", to=relay)
    sdp = recorded("chromium_sendrecv")
    for round_ in range(3):
        sid = (await ana.publish(CHROMIUM["audio"], type=AUDIO)).track.sid
        await offer(ana, sdp, 2 * round_ + 1)
        for muted in (True, False):
            await ana.send(mute=rtc.MuteTrackRequest(sid=sid, muted=muted))
        for cid, kind in ((CHROMIUM["audio"], AUDIO), (CHROMIUM["video"], VIDEO), ("else", AUDIO)):
            await ana.send(add_track=rtc.AddTrackRequest(cid=cid, type=kind))
            assert (await ana.until("request_response")).reason == Reason.LIMIT_EXCEEDED
        await offer(ana, without_sending(sdp), 2 * round_ + 2)


async def test_codecs_that_frames_of_the_call_cannot_carry_are_not_taken_behind_its_back(connect, relay: Server) -> None:
    """The section first, the announcement after it."""
    ana = await connect("ana", attributes=SFRAME, **PAID)
    answer = await offer(ana, recorded("chromium_sendrecv"))
    assert "VP8/90000" in answer.sdp and "H264/90000" not in answer.sdp
    await ana.publish(CHROMIUM["video"], type=VIDEO, encryption=CUSTOM)
    (publication,) = session_of(relay, ana.sid).endpoint.publications.values()
    assert publication.frames == "sframe"


@pytest.mark.parametrize("encryption", [NONE, GCM])
async def test_encryption_is_for_life_whatever_is_said_later(connect, relay: Server, encryption: int) -> None:
    ana = await connect("ana", attributes=SFRAME, **PAID)
    bo = await connect("bo", **PAID)
    sid = (await ana.publish(CHROMIUM["audio"], type=AUDIO, encryption=CUSTOM)).track.sid
    await offer(ana, recorded("chromium_sendrecv"))
    again = rtc.AddTrackRequest(cid=CHROMIUM["audio"], type=AUDIO, encryption=encryption)
    for request in ({"add_track": again}, {"add_track": rtc.AddTrackRequest(cid="c", sid=sid, type=AUDIO, encryption=encryption)}):
        await ana.send(**request)
        assert (await ana.until("request_response")).reason in (Reason.NOT_ALLOWED, Reason.INVALID_REQUEST)
    await ana.send(update_audio_track=rtc.UpdateLocalAudioTrack(track_sid=sid, features=[0, 1, 77]))
    await ana.send(update_video_track=rtc.UpdateLocalVideoTrack(track_sid=sid, width=1, height=1))
    await offer(ana, recorded("chromium_sendrecv"), 2)
    await ana.kinds_until_pong()
    update = await bo.until("update", lambda u: any(t.audio_features for p in u.participants for t in p.tracks))
    assert [t.encryption for p in update.participants for t in p.tracks] == [CUSTOM]


async def test_a_waiting_track_is_not_exchanged_for_one_of_another_kind(connect, relay: Server) -> None:
    ana = await connect("ana", **PAID)
    await ana.publish("c", type=VIDEO, encryption=GCM)
    again = await ana.publish("c", type=VIDEO, encryption=NONE)
    assert again.track.encryption == GCM and len(session_of(relay, ana.sid).endpoint.publications) == 1


async def test_keys_are_announced_for_own_tracks_alone_and_not_without_end(connect, relay: Server) -> None:
    ana, bo = await connect("ana", attributes=SFRAME, **PAID), await connect("bo", **PAID)
    sid = (await ana.publish("c", type=VIDEO, encryption=CUSTOM)).track.sid
    mine, theirs = session_of(relay, ana.sid), session_of(relay, bo.sid)

    def announce(session: Session, payload: bytes) -> None:
        user = models.UserPacket(topic=KEYS_TOPIC, payload=payload)
        session.listener.on_data(RELIABLE, models.DataPacket(user=user).SerializeToString())

    announcement = b'{"track_sid": "%s", "kids": [7, 7]}' % sid.encode()
    announce(theirs, announcement)
    assert mine.endpoint.publications[sid].key_ranges == []
    refusals = relay.conference.refusals
    assert refusals["keys_of_no_own_track"] == 1
    for _ in range(10 * KEYS_BURST):
        announce(mine, announcement)
    assert refusals["keys_rate"] >= 8 * KEYS_BURST
    assert len(mine.endpoint.publications[sid].key_ranges) <= 32


async def test_a_flood_of_small_messages_is_cut_to_a_rate_and_told_once(connect, relay: Server, monkeypatch) -> None:
    ana, bo = await connect("ana"), await connect("bo")
    mine, theirs = session_of(relay, ana.sid), session_of(relay, bo.sid)
    got, told = [], []
    monkeypatch.setattr(theirs, "send_data", lambda label, payload, origin=None: got.append(payload))
    monkeypatch.setattr(mine, "send_data", lambda label, payload, origin=None: told.append(payload))
    message = models.DataPacket(user=models.UserPacket(payload=b"x")).SerializeToString()
    begun = time.monotonic()
    for _ in range(3 * MESSAGES_BURST):
        mine.listener.on_data(RELIABLE, message)
    most = MESSAGES_BURST + MESSAGES_PER_S * (time.monotonic() - begun) + 1
    assert MESSAGES_BURST - 1 <= len(got) <= most
    assert relay.conference.refusals["data_rate"] == 3 * MESSAGES_BURST - len(got)
    (notice,) = told
    assert b"open tier a participant sends 1000 messages a second at most." in notice


async def test_who_rejoins_or_evicts_finds_the_terms_of_the_call(connect, relay: Server) -> None:
    ana = await connect("ana", attributes=SFRAME, **PAID)
    again = await connect("ana", attributes={"veil.min_tier": "paid"}, **PAID)
    assert (await ana.until("leave")).reason == models.DisconnectReason.DUPLICATE_IDENTITY
    assert again.join.participant.attributes["veil.frame_format"] == "sframe"
    await again.send(leave=rtc.LeaveRequest())
    async with asyncio.timeout(5):
        while relay.conference.counts().participants:
            await asyncio.sleep(0.01)
    # The room is kept for a while after the last one left, and its terms with it.
    late = await connect("bo", **PAID)
    assert late.join.participant.attributes["veil.frame_format"] == "sframe"


async def test_many_who_make_a_room_at_once_make_it_of_one_kind(connect, relay: Server, http) -> None:
    held = []

    async def join(number: int) -> str:
        attributes = SFRAME if number % 2 else {"veil.e2ee_profile": "none"}
        text = token(sub=f"p{number}", attributes=attributes)
        socket = await http.ws_connect(f"ws://127.0.0.1:{relay.http_port}/rtc", params={"access_token": text})
        held.append(socket)
        first = rtc.SignalResponse.FromString((await socket.receive(timeout=5)).data)
        return first.join.participant.attributes["veil.e2ee_profile"] if first.HasField("join") else "refused"

    joined = await asyncio.gather(*(join(number) for number in range(12)), return_exceptions=True)
    kinds = {kind for kind in joined if isinstance(kind, str)} - {"refused"}
    assert len(kinds) == 1 and sum(kind in kinds for kind in joined) == 6
    assert len(relay.conference.find(RoomKey("acme", "r")).sessions) == 6


@pytest.mark.parametrize("claims", [{"exp": float("inf")}, {"nbf": float("inf")}, {"exp": "x"}, {"exp": 10**400}])
async def test_claims_that_no_clock_reaches_are_refused_in_words(relay: Server, http, claims) -> None:
    url = f"http://127.0.0.1:{relay.http_port}/rtc/validate"
    async with http.get(url, headers={"Authorization": f"Bearer {token(**claims)}"}) as answer:
        assert answer.status == (200 if claims.get("exp") == 10**400 else 401) and await answer.text()


async def test_a_revoked_keys_sessions_end_and_those_under_way_do_not_begin(connect, relay: Server, http, monkeypatch) -> None:
    ana, eve = await connect("ana", **PAID), await connect("eve", key="bkey", secret=OTHER_SECRET)
    session = session_of(relay, eve.sid)
    prepare = relay.conference.prepare
    fewer = dataclasses.replace(settings(), keys=tuple(key for key in API_KEYS if key.key != "bkey"))

    async def slow(joining):
        made = await prepare(joining)
        assert relay.reload(lambda: fewer)
        return made

    monkeypatch.setattr(relay.conference, "prepare", slow)
    text = token(OTHER_SECRET, iss="bkey", sub="late")
    async with http.get(
        f"http://127.0.0.1:{relay.http_port}/rtc",
        params={"access_token": text},
        headers={"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "A" * 22 + "=="},
    ) as answer:
        assert answer.status == 401 and "taken back" in await answer.text()
    assert (await eve.until("leave")).reason == models.DisconnectReason.PARTICIPANT_REMOVED
    assert session.is_over and "leave" not in await ana.kinds_until_pong()
