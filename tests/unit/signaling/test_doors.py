"""Tiers at the door of a real relay: who gets in, what everybody reads, what a client cannot make of it."""

import base64
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from livekit.protocol import models, rtc

from relay.policy.terms import Demands
from relay.policy.tiers import RoomKey
from relay.signaling import invites
from relay.signaling.conference import Conference
from tests.support.local_relay import KEYS, OTHER_SECRET, PAID_SECRET, SECRET, token

AUDIO, VIDEO = models.TrackType.AUDIO, models.TrackType.VIDEO
NONE, GCM, CUSTOM = models.Encryption.Type.NONE, models.Encryption.Type.GCM, models.Encryption.Type.CUSTOM
Reason = rtc.RequestResponse.Reason
FREE, PAID = {"secret": OTHER_SECRET, "key": "bkey"}, {"secret": PAID_SECRET, "key": "pkey"}
SHARED = {"veil.e2ee_profile": "shared-passphrase"}
SFRAME = {"veil.e2ee_profile": "shared-passphrase", "veil.frame_format": "sframe"}


def about(identity: str):
    return lambda update: any(info.identity == identity for info in update.participants)


def terms_of(info: models.ParticipantInfo) -> dict[str, str]:
    return {name: value for name, value in info.attributes.items() if name.startswith("veil.")}


async def refused(http, server, **changes: Any) -> tuple[int, str]:
    """Return what validate and the join both answer to such a token."""
    text = token(changes.pop("secret", SECRET), **changes)
    async with http.get(f"http://127.0.0.1:{server.http_port}/rtc/validate", params={"access_token": text}) as answer:
        said = answer.status, await answer.text()
    with pytest.raises(aiohttp.WSServerHandshakeError) as handshake:
        await http.ws_connect(f"ws://127.0.0.1:{server.http_port}/rtc", params={"access_token": text})
    assert handshake.value.status == said[0]
    return said


@pytest.mark.parametrize(
    ("who", "attributes", "shown"),
    [
        (FREE, {}, {"veil.tier": "free", "veil.e2ee_profile": "none"}),
        (PAID, {}, {"veil.tier": "paid", "veil.e2ee_profile": "shared-passphrase", "veil.frame_format": "livekit_gcm"}),
        (PAID, SFRAME, {"veil.tier": "paid", **SFRAME}),
        ({}, {}, {"veil.tier": "open", "veil.e2ee_profile": "none"}),
        ({}, SHARED, {"veil.tier": "open", **SHARED, "veil.frame_format": "livekit_gcm"}),
    ],
)
async def test_everybody_reads_the_terms_and_guests_inherit_them(connect, who, attributes, shown) -> None:
    ana = await connect("ana", attributes={**attributes, "team": "red"}, **who)
    assert terms_of(ana.join.participant) == shown and ana.join.participant.attributes["team"] == "red"
    bo = await connect("bo", **who)
    assert terms_of(bo.join.participant) == terms_of(bo.join.other_participants[0]) == shown
    update = await ana.until("update", about("bo"))
    assert terms_of(update.participants[-1]) == shown


@pytest.mark.parametrize(
    ("who", "attributes", "status", "words"),
    [
        ({}, {"veil.min_tier": "paid"}, 403, "weaker than the paid tier"),
        ({}, {"veil.min_tier": "platinum"}, 403, "'platinum'"),
        ({}, {"veil.min_tier": ""}, 400, "veil.min_tier"),
        ({}, {"Veil.Min_Tier": "paid"}, 400, "are the server's"),
        ({}, {"veil.tier": "paid"}, 400, "are the server's"),
        ({}, {"veil.e2ee_profile": "NONE"}, 400, "veil.e2ee_profile"),
        ({}, {"veil.frame_format": "sframe"}, 403, "open tier"),
        ({"iss": "bkey", "secret": OTHER_SECRET}, SHARED, 403, "free tier"),
        ({"iss": "bkey", "secret": OTHER_SECRET}, {"veil.min_tier": "paid"}, 403, "free tier"),
        ({"iss": "pkey", "secret": PAID_SECRET}, {"veil.e2ee_profile": "none"}, 403, "paid tier"),
    ],
)
async def test_what_a_token_cannot_have_is_said_before_it_is_in_and_makes_no_room(
    relay, http, who, attributes, status, words
) -> None:
    said = await refused(http, relay, attributes=attributes, **who)
    assert said[0] == status and words in said[1] and said[1].endswith(".")
    assert relay.conference.counts().rooms == 0


async def test_the_terms_of_an_open_room_are_final(connect, relay, http) -> None:
    await connect("ana", attributes=SHARED)
    for attributes in ({"veil.e2ee_profile": "none"}, SFRAME, {"veil.e2ee_profile": "group"}, {"veil.frame_format": "sframe"}):
        status, sentence = await refused(http, relay, sub="bo", attributes=attributes)
        assert status == 403 and "open tier" in sentence and "since it began" in sentence
    bo = await connect("bo", attributes={**SHARED, "veil.frame_format": "livekit_gcm", "veil.min_tier": "open"})
    assert len(bo.join.other_participants) == 1


@pytest.mark.parametrize("when", ["transports are made", "the answer is written"])
async def test_a_demand_is_checked_again_when_the_room_appeared_meanwhile(connect, relay, http, monkeypatch, when) -> None:
    # There was no room at the door; who comes second learns what it became, in words as long as there is a status to say.
    owner, name = (Conference, "prepare") if when == "transports are made" else (web.WebSocketResponse, "prepare")
    original, seen = getattr(owner, name), []

    async def slow(self, about):
        if not seen:
            seen.append(await original(self, about))
            await connect("ana", attributes=SHARED)
            return seen[0]
        return await original(self, about)

    monkeypatch.setattr(owner, name, slow)
    joining = http.ws_connect(
        f"ws://127.0.0.1:{relay.http_port}/rtc", params={"access_token": token(sub="bo", attributes=SFRAME)}
    )
    if when == "transports are made":
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await joining
        assert refused.value.status == 403
    else:
        first = rtc.SignalResponse.FromString((await (await joining).receive(timeout=5)).data)
        assert first.leave.reason == models.DisconnectReason.JOIN_FAILURE and not first.leave.can_reconnect
    assert len(relay.conference.find(RoomKey("acme", "r")).sessions) == 1


@pytest.mark.parametrize(
    ("who", "attributes", "encryption", "words"),
    [
        (FREE, {}, GCM, "Calls of the free tier are not end-to-end encrypted"),
        (FREE, {}, CUSTOM, "free tier"),
        (FREE, {}, 77, "free tier"),
        (PAID, {}, NONE, "Calls of the paid tier are end-to-end encrypted: turn encryption on"),
        (PAID, {}, CUSTOM, "paid tier is encrypted in the format livekit_gcm"),
        (PAID, SFRAME, GCM, "paid tier is encrypted in the format sframe"),
        ({}, {}, GCM, "This call of the open tier is not end-to-end encrypted"),
        ({}, SHARED, NONE, "This call of the open tier is end-to-end encrypted"),
    ],
)
async def test_a_track_of_the_wrong_kind_is_refused_in_words(connect, who, attributes, encryption, words) -> None:
    ana = await connect("ana", attributes=attributes, **who)
    await ana.send(add_track=rtc.AddTrackRequest(cid="c", type=VIDEO, encryption=encryption))
    refusal = await ana.until("request_response")
    assert refusal.reason == Reason.NOT_ALLOWED and words in refusal.message


@pytest.mark.parametrize(("attributes", "encryption"), [({}, GCM), (SFRAME, CUSTOM)])
async def test_a_track_of_the_rooms_kind_is_taken(connect, attributes, encryption) -> None:
    ana = await connect("ana", attributes=attributes, **PAID)
    assert (await ana.publish(type=VIDEO, encryption=encryption)).track.encryption == encryption


@pytest.mark.parametrize("name", ["veil.tier", "Veil.tier", "veil.\u200btier", "\uff56eil.tier", "veil.future"])
async def test_a_client_cannot_write_what_is_the_servers(connect, name) -> None:
    ana = await connect("ana", canUpdateOwnMetadata=True)
    bo = await connect("bo")
    request = rtc.UpdateParticipantMetadata(request_id=4, metadata="m", attributes={name: "paid", "a": "1"})
    await ana.send(update_metadata=request)
    refusal = await ana.until("request_response")
    assert refusal.reason == Reason.NOT_ALLOWED and "veil." in refusal.message
    assert "update" not in await bo.kinds_until_pong()
    await ana.send(update_metadata=rtc.UpdateParticipantMetadata(request_id=5, attributes={"veil.tier": ""}))
    assert (await ana.until("request_response")).reason == Reason.NOT_ALLOWED


async def test_a_client_cannot_bring_what_is_the_servers(connect) -> None:
    said = {"veil.tier": "paid", "Veil.tier": "paid", "veil.min_tier": "paid", "\uff56eil.x": "1", "a": "1"}
    query = "&attributes=" + base64.urlsafe_b64encode(json.dumps(said).encode()).decode()
    ana = await connect("ana", query=query, canUpdateOwnMetadata=True)
    assert dict(ana.join.participant.attributes) == {"veil.tier": "open", "veil.e2ee_profile": "none", "a": "1"}


async def test_another_customers_token_is_in_another_room_of_the_same_name(connect, relay, http) -> None:
    """It sees nobody, meets nobody, replaces nobody, fixes no terms, fills no place and administers nothing."""
    spy = await connect("ana", **FREE)
    ana = await connect("ana", attributes=SFRAME)
    assert terms_of(ana.join.participant)["veil.e2ee_profile"] == "shared-passphrase"
    assert not ana.join.other_participants and ana.join.room.num_participants == 1
    await ana.publish(type=VIDEO, encryption=CUSTOM)
    again = await connect("spy", **FREE)
    assert [info.identity for info in again.join.other_participants] == ["ana"]
    assert again.join.other_participants[0].sid == spy.sid != ana.sid
    await again.send(subscription=rtc.UpdateSubscription(track_sids=["TR_x"], subscribe=True))
    assert not {"update", "leave"} & set(await ana.kinds_until_pong())
    # The right name of a key with another's secret, and the server API.
    status, _ = await refused(http, relay, secret=OTHER_SECRET, sub="spy")
    assert status == 401
    for method in ("CreateRoom", "ListRooms", "DeleteRoom", "ListParticipants", "RemoveParticipant", "UpdateParticipant"):
        url = f"http://127.0.0.1:{relay.http_port}/twirp/livekit.RoomService/{method}"
        grants = {"roomAdmin": True, "roomCreate": True, "roomList": True}
        text = token(OTHER_SECRET, iss="bkey", video=grants)
        async with http.post(url, json={"room": "r"}, headers={"Authorization": f"Bearer {text}"}) as answer:
            assert answer.status in (200, 400, 404) and ana.sid not in await answer.text()
    assert "leave" not in await ana.kinds_until_pong()


async def test_a_tier_bounds_its_calls_and_says_so(start, connect, http, monkeypatch) -> None:
    import dataclasses

    from tests.unit.signaling import conftest

    made = conftest.settings

    def tight(**limits):
        config = made(**limits)
        free = dataclasses.replace(config.tiers["free"], participants_per_room=1, publications_per_participant=1)
        return dataclasses.replace(config, tiers={**config.tiers, "free": free})

    monkeypatch.setattr(conftest, "settings", tight)
    server = await start()
    ana = await connect("ana", to=server, **FREE)
    status, sentence = await refused(http, server, sub="bo", iss="bkey", secret=OTHER_SECRET)
    assert status == 403 and "calls of the free tier have 1 participant at most" in sentence
    await ana.publish("one", type=AUDIO)
    await ana.send(add_track=rtc.AddTrackRequest(cid="two", type=VIDEO))
    refusal = await ana.until("request_response")
    assert refusal.reason == Reason.LIMIT_EXCEEDED and "free tier" in refusal.message
    await connect("cy", to=server)
    await connect("dee", to=server)


@pytest.mark.parametrize("demands", [Demands(), Demands(None, "shared-passphrase", "sframe"), Demands("open", "none", None)])
async def test_an_invite_leads_to_a_call_of_its_kind(relay, http, demands) -> None:
    invite = invites.mint(KEYS.find("akey"), "planning", ttl_s=60, demands=demands)
    shown = []
    for name in ("Ana", "Bo"):
        async with http.post(
            f"http://127.0.0.1:{relay.http_port}/client/join", json={"invite": invite, "name": name}
        ) as answer:
            body = await answer.json()
            assert answer.status == 200, body
        socket = await http.ws_connect(
            f"ws://127.0.0.1:{relay.http_port}/rtc", params={"access_token": body["token"], "veil_json": "1"}
        )
        shown.append((await socket.receive_json(timeout=5))["join"]["participant"]["attributes"])
    assert shown[0] == shown[1] and shown[0]["veil.e2ee_profile"] == (demands.e2ee_profile or "none")
    assert shown[0].get("veil.frame_format") == demands.frame_format


@pytest.mark.parametrize("key", ["akey", "bkey", "pkey"])
async def test_a_plain_invite_works_in_every_tier(relay, http, key) -> None:
    invite = invites.mint(KEYS.find(key), "planning", ttl_s=60)
    url = f"http://127.0.0.1:{relay.http_port}"
    async with http.post(f"{url}/client/join", json={"invite": invite, "name": "Ana"}) as answer:
        body = await answer.json()
    async with http.get(f"{url}/rtc/validate", params={"access_token": body["token"]}) as answer:
        assert answer.status == 200


async def test_a_development_join_chooses_the_kind_of_its_room(relay, http) -> None:
    url = f"http://127.0.0.1:{relay.http_port}"

    async def ask(**body: Any) -> tuple[int, dict]:
        async with http.post(f"{url}/client/dev-join", json={"name": "Ana", **body}) as answer:
            return answer.status, await answer.json()

    status, body = await ask(room="secret", e2ee_profile="shared-passphrase", frame_format="sframe")
    assert status == 200
    socket = await http.ws_connect(f"{url}/rtc", params={"access_token": body["token"], "veil_json": "1"})
    shown = (await socket.receive_json(timeout=5))["join"]["participant"]["attributes"]
    assert (shown["veil.e2ee_profile"], shown["veil.frame_format"]) == ("shared-passphrase", "sframe")
    for wrong in ({"e2ee_profile": "some"}, {"frame_format": ""}, {"e2ee_profile": 1}):
        status, body = await ask(room="secret", **wrong)
        assert status == 400 and body["error"].endswith(".")
