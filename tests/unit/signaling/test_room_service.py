"""The server API, called by livekit-api as it is, at a relay with strict outboxes."""

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from livekit import api
from livekit.api.room_service import RoomService
from livekit.protocol import models, rtc
from livekit.protocol import room as room_api

from relay.config_rooms import Rooms
from relay.policy.tiers import RoomKey
from relay.server import Server
from relay.signaling.livekit import twirp
from tests.support.local_relay import OTHER_SECRET, PAID_SECRET, SECRET, settings, token
from tests.unit.signaling.descriptions import CHROMIUM, recorded

AUDIO = models.TrackType.AUDIO
Reason = models.DisconnectReason
PAID = {"secret": PAID_SECRET, "key": "pkey"}
ADMIN = {"roomAdmin": True, "roomCreate": True, "roomList": True, "room": "r"}


@pytest.fixture
async def service() -> AsyncIterator[Callable[..., RoomService]]:
    """livekit-api's client: `service(relay)`; `key` and `secret` are those of `acme` unless told otherwise."""
    opened: list[api.LiveKitAPI] = []

    def of(server: Server, key: str = "akey", secret: str = SECRET) -> RoomService:
        opened.append(api.LiveKitAPI(f"http://127.0.0.1:{server.http_port}", key, secret))
        return opened[-1].room

    yield of
    for one in opened:
        await one.aclose()


async def refusal(call) -> tuple[str, int, str]:
    """Return (code, status, sentence) of a call that is refused."""
    with pytest.raises(api.TwirpError) as refused:
        await call
    return refused.value.code, refused.value.status, refused.value.message


async def post(server: Server, method: str, body: bytes | dict, *, kind: str = "application/json", **changes) -> tuple[int, dict]:
    """Call without livekit-api; `changes` are of the token."""
    text = changes.pop("text", None) or token(changes.pop("secret", SECRET), video=changes.pop("video", ADMIN), **changes)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {text}", "Content-Type": kind}
    url = f"http://127.0.0.1:{server.http_port}/twirp/livekit.RoomService/{method}"
    async with aiohttp.ClientSession() as http, http.post(url, data=raw, headers=headers) as answer:
        return answer.status, await answer.json()


async def published(signal) -> str:
    """Publish a microphone as far as signalling goes; return its sid."""
    sid = (await signal.publish(CHROMIUM["audio"], type=AUDIO, source=models.TrackSource.MICROPHONE)).track.sid
    await signal.send(offer=rtc.SessionDescription(type="offer", sdp=recorded("chromium_sendrecv"), id=1))
    await signal.until("answer")
    return sid


async def test_rooms_are_made_listed_changed_and_deleted(relay: Server, connect, service) -> None:
    rooms = service(relay)
    made = await rooms.create_room(
        api.CreateRoomRequest(name="r", empty_timeout=600, departure_timeout=40, max_participants=2, metadata="first")
    )
    assert made.sid.startswith("RM_") and made.creation_time > 0
    assert (made.empty_timeout, made.departure_timeout, made.max_participants, made.metadata) == (600, 40, 2, "first")
    again = await rooms.create_room(api.CreateRoomRequest(name="r"))
    assert again == made
    await rooms.create_room(api.CreateRoomRequest(name="s", empty_timeout=10**9, max_participants=10**9))
    listed = {room.name: room for room in (await rooms.list_rooms(api.ListRoomsRequest())).rooms}
    assert listed.keys() == {"r", "s"} and listed["s"].empty_timeout == 86_400 and listed["s"].max_participants == 200
    assert [room.name for room in (await rooms.list_rooms(api.ListRoomsRequest(names=["s", "t"]))).rooms] == ["s"]
    ana = await connect("ana")
    assert (ana.join.room.sid, ana.join.room.metadata) == (made.sid, "first")
    changed = await rooms.update_room_metadata(api.UpdateRoomMetadataRequest(room="r", metadata="second"))
    assert changed.metadata == "second"
    assert (await ana.until("room_update", lambda u: u.room.metadata == "second")).room.sid == made.sid
    await rooms.delete_room(api.DeleteRoomRequest(room="r"))
    assert (await ana.until("leave")).reason == Reason.ROOM_DELETED
    assert not relay.conference.counts().participants
    assert [room.name for room in (await rooms.list_rooms(api.ListRoomsRequest())).rooms] == ["s"]
    assert await refusal(rooms.delete_room(api.DeleteRoomRequest(room="r"))) == ("not_found", 404, "The requested room does not exist.")
    assert (await connect("ana")).join.room.sid != made.sid


async def test_an_empty_room_is_kept_as_long_as_its_creator_wants(relay: Server, connect, service) -> None:
    rooms, directory = service(relay), relay.conference._directory
    await rooms.create_room(api.CreateRoomRequest(name="r", empty_timeout=600, departure_timeout=40))
    room = relay.conference.find(RoomKey("acme", "r")).room
    assert not directory._is_due(room, room.created_ns + 599 * 10**9) and directory._is_due(room, room.created_ns + 600 * 10**9)
    ana = await connect("ana")
    await ana.send(leave=rtc.LeaveRequest())
    async with asyncio.timeout(5):
        while room.endpoints:
            await asyncio.sleep(0.01)
    assert not directory._is_due(room, room.emptied_ns + 39 * 10**9) and directory._is_due(room, room.emptied_ns + 40 * 10**9)
    # One that nobody said anything about goes by the settings.
    await connect("bo", room="else")
    assert relay.conference.find(RoomKey("acme", "else")).room.departed_s == relay.config.limits.departed_room_s


async def test_a_room_made_for_two_takes_two(relay: Server, connect, service, http) -> None:
    await service(relay).create_room(api.CreateRoomRequest(name="r", max_participants=2))
    held = [await connect(name) for name in ("ana", "bo")]
    url = f"http://127.0.0.1:{relay.http_port}/rtc/validate"
    async with http.get(url, params={"access_token": token(sub="cy")}) as answer:
        assert (answer.status, await answer.text()) == (403, "The room is full: it was made for 2 participants at most.")
    assert held


async def test_the_customers_tier_bounds_what_a_creator_wishes(relay: Server, service, http) -> None:
    """Terms in tags, bound for the room's life; who joins finds them, who contradicts them does not get in."""
    rooms = service(relay)
    tags = {"veil.e2ee_profile": "shared-passphrase", "veil.frame_format": "sframe"}
    await rooms.create_room(api.CreateRoomRequest(name="r", tags=tags))
    assert relay.conference.find(RoomKey("acme", "r")).room.terms.frames == "sframe"
    code, status, words = await refusal(rooms.create_room(api.CreateRoomRequest(name="r", tags={"veil.e2ee_profile": "none"})))
    assert (code, status) == ("permission_denied", 403) and "since it began" in words
    assert relay.conference.find(RoomKey("acme", "r")).room.terms.frames == "sframe"
    # A demand that is not met leaves no room behind.
    other = service(relay, "bkey", OTHER_SECRET)
    for wrong in (tags, {"veil.min_tier": "paid"}, {"veil.min_tier": "nonesuch"}):
        assert (await refusal(other.create_room(api.CreateRoomRequest(name="r", tags=wrong))))[1] == 403
    for wrong in ({"veil.profile": "x"}, {"veil.e2ee_profile": "x"}, {"Veil.locked": "true"}, {"veil.locked": "yes"}):
        assert (await refusal(other.create_room(api.CreateRoomRequest(name="r", tags=wrong))))[:2] == ("invalid_argument", 400)
    assert relay.conference.find(RoomKey("other", "r")) is None
    # The same by the creating token's attributes.
    status, _ = await post(relay, "CreateRoom", {"name": "q"}, attributes={"veil.e2ee_profile": "shared-passphrase"})
    assert status == 200 and relay.conference.find(RoomKey("acme", "q")).room.terms.is_encrypted
    status, body = await post(relay, "CreateRoom", {"name": "t", "tags": tags}, attributes={"veil.e2ee_profile": "none"})
    assert status == 403 and "the request shared-passphrase" in body["msg"] and relay.conference.find(RoomKey("acme", "t")) is None


async def test_another_customers_key_sees_and_changes_nothing(relay: Server, connect, service) -> None:
    """Every call, with every grant, for a room of the same name."""
    ana = await connect("ana")
    sid = await published(ana)
    foreign = service(relay, "bkey", OTHER_SECRET)
    assert not (await foreign.list_rooms(api.ListRoomsRequest())).rooms
    assert not (await foreign.list_participants(api.ListParticipantsRequest(room="r"))).participants
    who = api.RoomParticipantIdentity(room="r", identity="ana")
    for call in (
        lambda: foreign.get_participant(who),
        lambda: foreign.remove_participant(api.RoomParticipantIdentity(room="r", identity="ana", revoke_token_ts=1 << 40)),
        lambda: foreign.mute_published_track(api.MuteRoomTrackRequest(room="r", identity="ana", track_sid=sid, muted=True)),
        lambda: foreign.update_participant(api.UpdateParticipantRequest(room="r", identity="ana", name="x")),
        lambda: foreign.update_subscriptions(api.UpdateSubscriptionsRequest(room="r", identity="ana", track_sids=[sid])),
        lambda: foreign.send_data(api.SendDataRequest(room="r", data=b"x")),
        lambda: foreign.update_room_metadata(api.UpdateRoomMetadataRequest(room="r", metadata="x")),
        lambda: foreign.delete_room(api.DeleteRoomRequest(room="r")),
    ):
        assert (await refusal(call()))[:2] == ("not_found", 404)
    # A room of that name is a room of their own.
    mine = relay.conference.find(RoomKey("acme", "r"))
    made = await foreign.create_room(api.CreateRoomRequest(name="r", metadata="theirs", tags={"veil.locked": "true"}))
    assert made.sid != mine.room.sid and not mine.room.metadata
    await foreign.delete_room(api.DeleteRoomRequest(room="r"))
    assert await ana.kinds_until_pong() in ([], ["update"], ["track_published"]) and mine.sessions
    # The control: the same calls by the room's own customer.
    assert (await service(relay).get_participant(who)).identity == "ana"
    await connect("bo")


@pytest.mark.parametrize(
    ("method", "body", "lacking"),
    [
        ("CreateRoom", {"name": "r"}, "roomCreate"),
        ("DeleteRoom", {"room": "r"}, "roomCreate"),
        ("ListRooms", {}, "roomList"),
        ("ListParticipants", {"room": "r"}, "roomAdmin"),
        ("GetParticipant", {"room": "r", "identity": "ana"}, "roomAdmin"),
        ("RemoveParticipant", {"room": "r", "identity": "ana"}, "roomAdmin"),
        ("MutePublishedTrack", {"room": "r", "identity": "ana"}, "roomAdmin"),
        ("UpdateParticipant", {"room": "r", "identity": "ana"}, "roomAdmin"),
        ("UpdateSubscriptions", {"room": "r", "identity": "ana"}, "roomAdmin"),
        ("SendData", {"room": "r"}, "roomAdmin"),
        ("UpdateRoomMetadata", {"room": "r"}, "roomAdmin"),
    ],
)
async def test_each_call_needs_its_grant_in_its_room(relay: Server, connect, method: str, body: dict, lacking: str) -> None:
    ana = await connect("ana")
    everything_else = {**ADMIN, lacking: False}
    refused = [await post(relay, method, body, video=everything_else), await post(relay, method, body, video={**ADMIN, lacking: "true"})]
    if lacking == "roomAdmin":
        refused.append(await post(relay, method, body, video={**ADMIN, "room": "s"}))
    refused += [await post(relay, method, body, text="x"), await post(relay, method, body, secret=OTHER_SECRET)]
    refused.append(await post(relay, method, body, exp=int(time.time()) - 3600))
    assert [(status, answer["code"]) for status, answer in refused] == [(401, "unauthenticated")] * len(refused)
    assert "leave" not in await ana.kinds_until_pong()
    status, _ = await post(relay, method, body)
    assert status in (200, 404)


async def test_participants_are_listed_described_and_removed(relay: Server, connect, service) -> None:
    rooms = service(relay)
    ana, bo = await connect("ana"), await connect("bo")
    sid = await published(ana)
    found = (await rooms.list_participants(api.ListParticipantsRequest(room="r"))).participants
    assert {one.identity: [track.sid for track in one.tracks] for one in found} == {"ana": [sid], "bo": []}
    one = await rooms.get_participant(api.RoomParticipantIdentity(room="r", identity="ana"))
    assert one.sid == ana.sid and one.attributes["veil.tier"] == "open"
    await rooms.remove_participant(api.RoomParticipantIdentity(room="r", identity="ana"))
    leave = await ana.until("leave")
    assert (leave.reason, leave.action) == (Reason.PARTICIPANT_REMOVED, rtc.LeaveRequest.Action.DISCONNECT)
    left = await bo.until("update", lambda u: any(p.state == models.ParticipantInfo.State.DISCONNECTED for p in u.participants))
    assert left.participants[0].disconnect_reason == Reason.PARTICIPANT_REMOVED
    for call in (rooms.get_participant, rooms.remove_participant):
        assert (await refusal(call(api.RoomParticipantIdentity(room="r", identity="ana"))))[:2] == ("not_found", 404)
    # A kick is no ban.
    await connect("ana")


async def joins(server: Server, http, **claims) -> tuple[int, str]:
    async with http.get(f"http://127.0.0.1:{server.http_port}/rtc/validate", params={"access_token": token(**claims)}) as answer:
        return answer.status, await answer.text()


async def test_who_is_banned_stays_out_until_the_room_ends(relay: Server, connect, service, http) -> None:
    rooms, now = service(relay), int(time.time())
    ana, bo = await connect("ana"), await connect("bo")
    await rooms.remove_participant(api.RoomParticipantIdentity(room="r", identity="ana", revoke_token_ts=now + 5))
    assert (await ana.until("leave")).reason == Reason.PARTICIPANT_REMOVED
    removed = (403, "You were removed from this call and cannot join it again.")
    assert await joins(relay, http) == removed
    # Neither an older token nor one that does not say its age; a newer one is the app's word that all is well again.
    assert await joins(relay, http, nbf=now - 60) == await joins(relay, http, without=("nbf",)) == removed
    assert await joins(relay, http, nbf=now + 6) == (200, "success")
    # For good; who is not there yet, too. Others come as they like.
    await rooms.remove_participant(api.RoomParticipantIdentity(room="r", identity="cy", revoke_token_ts=1 << 40))
    assert await joins(relay, http, sub="cy", nbf=now + 6) == removed
    assert (await joins(relay, http, sub="dee"))[0] == (await joins(relay, http, sub="cy", video={"room": "s"}))[0] == 200
    await rooms.delete_room(api.DeleteRoomRequest(room="r"))
    assert (await joins(relay, http, sub="cy"))[0] == 200
    assert (await bo.until("leave")).reason == Reason.ROOM_DELETED


async def test_a_locked_room_lets_nobody_in_but_who_was_in_it(relay: Server, connect, service, http) -> None:
    rooms = service(relay)
    ana, bo = await connect("ana"), await connect("bo")
    await rooms.create_room(api.CreateRoomRequest(name="r", tags={"veil.locked": "true"}))
    locked = (403, "This call is locked: nobody else can join it now.")
    assert await joins(relay, http, sub="cy") == locked
    again = await connect("bo")
    assert (await bo.until("leave")).reason == Reason.DUPLICATE_IDENTITY
    await rooms.remove_participant(api.RoomParticipantIdentity(room="r", identity="bo"))
    assert (await again.until("leave")).reason == Reason.PARTICIPANT_REMOVED
    assert await joins(relay, http, sub="bo") == locked
    await rooms.create_room(api.CreateRoomRequest(name="r"))
    assert await joins(relay, http, sub="bo") == locked
    await rooms.create_room(api.CreateRoomRequest(name="r", tags={"veil.locked": "false"}))
    assert (await joins(relay, http, sub="cy"))[0] == 200
    assert ana.sid


async def test_muting_tells_the_publisher_and_the_room(relay: Server, connect, service) -> None:
    rooms = service(relay)
    ana, bo = await connect("ana"), await connect("bo")
    sid = await published(ana)
    hall = relay.conference.find(RoomKey("acme", "r"))
    publication = hall.room.publication(sid)
    mute = api.MuteRoomTrackRequest(room="r", identity="ana", track_sid=sid, muted=True)
    assert (await rooms.mute_published_track(mute)).track.muted
    told = await ana.until("mute")
    assert (told.sid, told.muted) == (sid, True)
    await bo.until("update", lambda u: any(track.muted for p in u.participants for track in p.tracks))
    assert publication.is_silenced and not hall.room.hears(bo.sid, "PA_nobody")
    unmute = api.MuteRoomTrackRequest(room="r", identity="ana", track_sid=sid, muted=False)
    code, status, words = await refusal(rooms.mute_published_track(unmute))
    assert (code, status) == ("failed_precondition", 412) and "enable_remote_unmute" in words and publication.is_silenced
    # Who was muted says again that it speaks; everybody sees that it does.
    await ana.send(mute=rtc.MuteTrackRequest(sid=sid, muted=False))
    await bo.until("update", lambda u: any(not track.muted for p in u.participants for track in p.tracks))
    assert not publication.is_silenced
    # Of one's own tracks alone.
    mute = api.MuteRoomTrackRequest(room="r", identity="bo", track_sid=sid, muted=True)
    assert (await refusal(rooms.mute_published_track(mute)))[1] == 404


async def test_unmuting_from_outside_is_for_who_allows_it(connect, service) -> None:
    server = Server(dataclasses.replace(settings(), rooms=Rooms(enable_remote_unmute=True)), strict=True)
    await server.start()
    try:
        ana = await connect("ana", to=server)
        sid = await published(ana)
        for muted in (True, False):
            request = api.MuteRoomTrackRequest(room="r", identity="ana", track_sid=sid, muted=muted)
            assert (await service(server).mute_published_track(request)).track.muted is muted
            assert (await ana.until("mute")).muted is muted
        assert not server.conference.find(RoomKey("acme", "r")).room.publication(sid).is_silenced
    finally:
        await server.stop()


async def test_a_participant_is_described_and_given_other_rights(relay: Server, connect, service) -> None:
    rooms = service(relay)
    ana, bo = await connect("ana"), await connect("bo", canSubscribe=False)
    sid = await published(ana)
    described = await rooms.update_participant(
        api.UpdateParticipantRequest(room="r", identity="ana", name="Ana B.", metadata="m", attributes={"seat": "7"})
    )
    assert (described.name, described.metadata, described.attributes["seat"]) == ("Ana B.", "m", "7")
    await ana.until("update", lambda u: any(p.sid == ana.sid and p.metadata == "m" for p in u.participants))
    rights = models.ParticipantPermission(can_subscribe=True, can_publish_data=False, can_publish=False)
    changed = await rooms.update_participant(api.UpdateParticipantRequest(room="r", identity="ana", permission=rights))
    assert changed.permission == rights and not changed.tracks and changed.name == "Ana B."
    assert (await ana.until("track_unpublished")).track_sid == sid
    # The token to come back with says the same.
    refreshed = await ana.until("refresh_token")
    video = api.TokenVerifier("akey", SECRET).verify(refreshed).video
    assert (video.can_publish, video.can_publish_data, video.can_subscribe, video.room) == (False, False, True, "r")
    await ana.send(add_track=rtc.AddTrackRequest(cid="c", type=AUDIO))
    assert (await ana.until("request_response")).reason == rtc.RequestResponse.Reason.NOT_ALLOWED
    hall = relay.conference.find(RoomKey("acme", "r"))
    assert not hall.room.data_recipients(ana.sid, (), ())
    # Sources one by one; what is published from another goes.
    rights = models.ParticipantPermission(can_subscribe=True, can_publish=True, can_publish_sources=[models.TrackSource.MICROPHONE])
    await rooms.update_participant(api.UpdateParticipantRequest(room="r", identity="ana", permission=rights))
    assert (await ana.publish("m", type=AUDIO, source=models.TrackSource.MICROPHONE)).track.sid
    await ana.send(add_track=rtc.AddTrackRequest(cid="c", type=models.TrackType.VIDEO, source=models.TrackSource.CAMERA))
    assert (await ana.until("request_response")).reason == rtc.RequestResponse.Reason.NOT_ALLOWED
    # Who could not subscribe when it joined can now.
    rights = models.ParticipantPermission(can_subscribe=True, can_publish=True, can_publish_data=True)
    await rooms.update_participant(api.UpdateParticipantRequest(room="r", identity="bo", permission=rights))
    assert (await bo.until("offer")).sdp


async def test_nobody_is_hidden_through_any_door(relay: Server, connect, service, http) -> None:
    await connect("ana")
    rights = models.ParticipantPermission(can_subscribe=True, hidden=True)
    refused = await refusal(
        service(relay).update_participant(api.UpdateParticipantRequest(room="r", identity="ana", name="x", permission=rights))
    )
    assert refused[:2] == ("permission_denied", 403) and "unseen" in refused[2]
    hidden = {**ADMIN, "hidden": True}
    for method, body, changes in (
        ("UpdateParticipant", {"room": "r", "identity": "ana", "permission": {"hidden": True}}, {}),
        ("CreateRoom", {"name": "s", "hidden": True}, {}),
        ("CreateRoom", {"name": "s", "agents": [{"agentName": "a", "permission": {"hidden": True}}]}, {}),
        ("CreateRoom", {"name": "s"}, {"video": hidden}),
        ("ListRooms", {}, {"video": hidden}),
        ("CreateRoom", {"name": "s"}, {"roomConfig": {"agents": [{"hidden": True}]}}),
    ):
        status, answer = await post(relay, method, body, **changes)
        assert (status, answer["code"]) == (403, "permission_denied") and "unseen" in answer["msg"], method
    assert (await joins(relay, http, roomConfig={"x": [{"hidden": True}]}))[0] == 403
    # The word alone is none of it.
    body = {"room": "r", "identity": "ana", "attributes": {"hidden": "true"}, "permission": {"hidden": False, "canPublish": True}}
    assert (await post(relay, "UpdateParticipant", body))[0] == 200
    assert relay.conference.find(RoomKey("acme", "s")) is None
    assert (await service(relay).get_participant(api.RoomParticipantIdentity(room="r", identity="ana"))).name == "ana"


async def test_nobody_writes_the_relays_own_attributes(relay: Server, connect, service) -> None:
    await connect("ana")
    for name in ("veil.tier", "VEIL.x", "ve\u0131l.tier", "\u200bveil.tier"):
        request = api.UpdateParticipantRequest(room="r", identity="ana", name="x", attributes={name: "paid"})
        assert (await refusal(service(relay).update_participant(request)))[:2] == ("permission_denied", 403)
    one = await service(relay).get_participant(api.RoomParticipantIdentity(room="r", identity="ana"))
    assert (one.name, one.attributes["veil.tier"]) == ("ana", "open")


async def test_data_reaches_whom_it_names_and_no_encrypted_call(relay: Server, connect, service, monkeypatch) -> None:
    ana, bo = await connect("ana"), await connect("bo")
    sent: list[tuple[str, str, models.DataPacket]] = []
    for signal in (ana, bo):
        session = relay.conference.find_session(signal.sid)

        def note(label: str, raw: bytes, who: str = session.endpoint.identity) -> None:
            sent.append((who, label, models.DataPacket.FromString(raw)))

        monkeypatch.setattr(session, "send_data", note)
    rooms, kinds = service(relay), models.DataPacket.Kind
    await rooms.send_data(api.SendDataRequest(room="r", data=b"all", kind=kinds.RELIABLE, topic="t"))
    await rooms.send_data(api.SendDataRequest(room="r", data=b"bo", kind=kinds.LOSSY, destination_identities=["bo", "cy"]))
    await rooms.send_data(api.SendDataRequest(room="r", data=b"ana", destination_sids=[ana.sid]))
    assert [(who, label, p.user.payload) for who, label, p in sent] == [
        ("ana", "_reliable", b"all"), ("bo", "_reliable", b"all"), ("bo", "_lossy", b"bo"), ("ana", "_reliable", b"ana"),
    ]  # fmt: skip
    packet = sent[0][2]
    assert packet.user.topic == "t" and len(packet.user.nonce) == 16 and not (packet.participant_sid or packet.participant_identity)
    assert (await refusal(rooms.send_data(api.SendDataRequest(room="r", data=b"x", topic="veil.notice"))))[:2] == ("permission_denied", 403)
    assert (await refusal(rooms.send_data(api.SendDataRequest(room="r", data=bytes(65_536)))))[:2] == ("invalid_argument", 400)
    cy = await connect("cy", **PAID)
    monkeypatch.setattr(relay.conference.find_session(cy.sid), "send_data", lambda *_: sent.append(("cy", "", None)))
    code, status, words = await refusal(service(relay, "pkey", PAID_SECRET).send_data(api.SendDataRequest(room="r", data=b"x")))
    assert (code, status) == ("permission_denied", 403) and "the paid tier is end-to-end encrypted" in words
    assert len(sent) == 4


async def test_subscriptions_are_changed_from_outside(relay: Server, connect, service) -> None:
    rooms = service(relay)
    ana, bo = await connect("ana"), await connect("bo")
    sid = await published(ana)
    endpoint = relay.conference.find(RoomKey("acme", "r")).room.endpoints[bo.sid]
    assert sid in endpoint.subscriptions
    request = api.UpdateSubscriptionsRequest(room="r", identity="bo", track_sids=[sid, "TR_nonesuch"])
    await rooms.update_subscriptions(request)
    assert sid not in endpoint.subscriptions and "subscription_response" not in await bo.kinds_until_pong()
    tracks = models.ParticipantTracks(participant_sid=ana.sid, track_sids=[sid])
    await rooms.update_subscriptions(
        api.UpdateSubscriptionsRequest(room="r", identity="bo", subscribe=True, participant_tracks=[tracks])
    )
    assert sid in endpoint.subscriptions
    # A publisher's consent stands above it.
    await ana.send(subscription_permission=rtc.SubscriptionPermission(all_participants=False))
    await ana.kinds_until_pong()
    await rooms.update_subscriptions(api.UpdateSubscriptionsRequest(room="r", identity="bo", subscribe=True, track_sids=[sid]))
    assert sid not in endpoint.subscriptions


async def test_what_is_not_there_says_so(relay: Server, service) -> None:
    rooms = service(relay)
    forward = api.ForwardParticipantRequest(room="r", identity="ana", destination_room="s")
    assert (await refusal(rooms.forward_participant(forward)))[:2] == ("unimplemented", 501)
    move = api.MoveParticipantRequest(room="r", identity="ana", destination_room="s")
    assert (await refusal(rooms.move_participant(move)))[:2] == ("unimplemented", 501)
    for wishes in ({"egress": room_api.RoomEgress()}, {"replay_enabled": True}, {"agents": [{}]}):
        assert (await refusal(rooms.create_room(api.CreateRoomRequest(name="s", **wishes))))[:2] == ("unimplemented", 501)
    assert (await refusal(rooms.create_room(api.CreateRoomRequest())))[:2] == ("invalid_argument", 400)
    assert relay.conference.find(RoomKey("acme", "s")) is None
    status, answer = await post(relay, "Nonesuch", {})
    assert (status, answer["code"]) == (404, "bad_route")


async def test_bodies_are_json_too_bounded_and_read_for_nobody_without_a_token(relay: Server, connect, http) -> None:
    status, made = await post(relay, "CreateRoom", {"name": "r", "emptyTimeout": 9, "unknown": [1]})
    assert status == 200 and made["empty_timeout"] == 9 and made["num_participants"] == 0 and made["metadata"] == ""
    raw = api.CreateRoomRequest(name="r").SerializeToString()
    for body, kind, expected in (
        (b"{", "application/json", (400, "malformed")),
        (b"[" * 10_000, "application/json", (400, "malformed")),
        (b'{"x":' * 5000 + b"1" + b"}" * 5000, "application/json", (400, "malformed")),
        (b'{"name": "\\ud800"}', "application/json", (400, "malformed")),
        (b"\xff\xff", "application/json", (400, "malformed")),
        (b"\x08", "application/protobuf", (400, "malformed")),
        (raw, "text/plain", (404, "bad_route")),
        (bytes(twirp.MAX_BODY_BYTES + 1), "application/protobuf", (400, "invalid_argument")),
        (api.CreateRoomRequest(name="n" * 257).SerializeToString(), "application/protobuf", (400, "invalid_argument")),
        (api.CreateRoomRequest(name="r", metadata="m" * 65_537).SerializeToString(), "application/protobuf", (400, "invalid_argument")),
    ):
        status, answer = await post(relay, "CreateRoom", body, kind=kind)
        assert (status, answer["code"]) == expected, body[:20]

    async def endless():
        while True:
            yield bytes(65_536)
            await asyncio.sleep(0)

    url = f"http://127.0.0.1:{relay.http_port}/twirp/livekit.RoomService/CreateRoom"
    headers = {"Content-Type": "application/protobuf"}
    with_token = {**headers, "Authorization": f"Bearer {token(video=ADMIN)}"}
    for sent, expected in ((headers, 401), (with_token, 400)):
        try:
            async with http.post(url, data=endless(), headers=sent, timeout=aiohttp.ClientTimeout(5)) as answer:
                assert answer.status == expected
        except aiohttp.ClientConnectionError:
            # The relay closed while its client still wrote.
            pass
    assert relay.conference.refusals[f"api_{401}"] == 1


async def test_one_keys_calls_have_a_rate(relay: Server, service, monkeypatch) -> None:
    monkeypatch.setattr(twirp, "CALLS_BURST", 3)
    monkeypatch.setattr(twirp, "CALLS_PER_S", 1)
    rooms = service(relay)
    for _ in range(3):
        await rooms.list_rooms(api.ListRoomsRequest())
    assert (await refusal(rooms.list_rooms(api.ListRoomsRequest())))[:2] == ("resource_exhausted", 429)
    await service(relay, "bkey", OTHER_SECRET).list_rooms(api.ListRoomsRequest())
