"""A session that goes on over another WebSocket, against a real relay without media: the first frames and their order, what
was missed, what a client says it has, and who may not do it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import jwt
import pytest
from livekit.protocol import models, rtc

from relay.rooms.endpoint import LeaveReason
from relay.server import Server
from relay.signaling import conference, session
from relay.signaling.session import Session
from tests.support.local_relay import OTHER_SECRET, SECRET, token
from tests.unit.signaling.conftest import Signal
from tests.unit.signaling.descriptions import CHROMIUM, answer_to, recorded

P = models.ParticipantInfo
AUDIO, VIDEO = models.TrackType.AUDIO, models.TrackType.VIDEO
Resume = Callable[..., Awaitable[Signal]]


@pytest.fixture
async def resume(http: aiohttp.ClientSession, relay: Server) -> AsyncIterator[Resume]:
    """Open a WebSocket that resumes: `ana = await resume("ana", sid)`; the first frame is in `signal.first`."""
    held: list[Signal] = []

    async def resume_as(
        identity: str, sid: str, *, to: Server | None = None, text: str = "", secret: str = SECRET, key: str = "akey", **video: Any
    ) -> Signal:
        text = text or token(secret, iss=key, sub=identity, name=identity, video=video)
        url = f"ws://127.0.0.1:{(to or relay).http_port}/rtc?protocol=17&reconnect=1&sid={sid}"
        signal = Signal(await http.ws_connect(url, headers={"Authorization": f"Bearer {text}"}, max_msg_size=0))
        held.append(signal)
        signal.first, signal.sid = await signal.next(), sid
        return signal

    yield resume_as
    for signal in held:
        signal.socket._response.close()


def session_of(relay: Server, sid: str) -> Session:
    found = relay.conference.find_session(sid)
    assert found is not None
    return found


def connected(relay: Server, sid: str) -> Session:
    """Have a session believe that its media flows, as its transport would tell it."""
    found = session_of(relay, sid)
    driver = found.subscriber.driver
    driver.on_ice_connected(("127.0.0.1", 9))
    found.on_connected(driver)
    return found


async def lost(relay: Server, signal: Signal) -> Session:
    """Cut a connected participant off, and return once the relay knows."""
    found = connected(relay, signal.sid)
    signal.socket._response.connection.transport.abort()
    for _ in range(200):
        if found._signal_deadline is not None:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("the relay did not notice")


def everybody(update: rtc.ParticipantUpdate) -> dict[str, int]:
    return {info.sid: info.state for info in update.participants}


def is_turned_away(first: rtc.SignalResponse) -> bool:
    """True when the client is told to join anew."""
    leave = first.leave
    return (leave.action, leave.reason) == (rtc.LeaveRequest.Action.RECONNECT, models.DisconnectReason.STATE_MISMATCH)


# What a client reads.


async def test_the_first_frames_are_those_clients_wait_for_in_their_order(connect, relay, resume) -> None:
    ana, bo = await connect("ana"), await connect("bo")
    await lost(relay, ana)
    again = await resume("ana", ana.sid)
    reconnect = again.first.reconnect
    assert again.first.WhichOneof("message") == "reconnect"
    assert reconnect.server_info.version and reconnect.server_info.protocol == 17 and reconnect.last_message_seq == 0
    update = await again.next()
    assert everybody(update.update) == {ana.sid: P.State.ACTIVE, bo.sid: P.State.JOINED}
    room = await again.next()
    assert room.room_update.room.sid == ana.join.room.sid and room.room_update.room.num_participants == 2
    assert (await again.next()).refresh_token
    assert (await again.next()).WhichOneof("message") == "offer"


async def test_others_see_nothing_of_it(connect, relay, resume) -> None:
    ana, bo = await connect("ana"), await connect("bo")
    await lost(relay, ana)
    await bo.kinds_until_pong()
    again = await resume("ana", ana.sid)
    await again.until("offer")
    assert "update" not in await bo.kinds_until_pong()
    assert relay.conference.counts().participants == 2


async def test_a_connection_that_looks_alive_is_closed_when_another_takes_its_place(connect, relay, resume) -> None:
    ana = await connect("ana")
    session_before = connected(relay, ana.sid)
    again = await resume("ana", ana.sid)
    assert again.first.WhichOneof("message") == "reconnect"
    while (message := await ana.socket.receive(timeout=5)).type is aiohttp.WSMsgType.BINARY:
        assert rtc.SignalResponse.FromString(message.data).WhichOneof("message") != "leave"
    assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE)
    await asyncio.sleep(0.05)
    # The end of the old one is not the end of the new one.
    assert session_of(relay, ana.sid) is session_before and session_before._signal_deadline is None
    assert "pong" not in await again.kinds_until_pong()


async def test_the_offer_restarts_ice_once_for_each_answer(connect, relay, resume) -> None:
    ana = await connect("ana")
    first = await ana.until("offer")
    await ana.send(answer=rtc.SessionDescription(type="answer", sdp=answer_to(first.sdp), id=first.id))
    await ana.kinds_until_pong()
    await lost(relay, ana)
    second = await (again := await resume("ana", ana.sid)).until("offer")
    # It was not answered: the client may have these credentials or none of both, and the first are the only others it knows.
    third = await (again := await resume("ana", ana.sid)).until("offer")
    await again.send(answer=rtc.SessionDescription(type="answer", sdp=answer_to(third.sdp), id=third.id))
    await again.kinds_until_pong()
    fourth = await (again := await resume("ana", ana.sid)).until("offer")
    names = [line for one in (first, second, third, fourth) for line in one.sdp.split("\r\n") if line.startswith("a=ice-ufrag")]
    assert names[0] != names[1] == names[2] != names[3]
    assert [one.id for one in (first, second, third, fourth)] == [1, 2, 3, 4]


async def test_a_restart_that_the_client_asks_for_is_answered_with_other_credentials(connect) -> None:
    ana = await connect("ana")
    ours = []
    sdp = recorded("chromium_sendrecv")
    ufrag = next(line for line in sdp.split("\r\n") if line.startswith("a=ice-ufrag:"))
    for number, theirs in enumerate((sdp, sdp, sdp.replace(ufrag, "a=ice-ufrag:Wxyz")), 1):
        await ana.send(offer=rtc.SessionDescription(type="offer", sdp=theirs, id=number))
        answer = await ana.until("answer")
        ours.append(next(line for line in answer.sdp.split("\r\n") if line.startswith("a=ice-ufrag")))
    assert ours[0] == ours[1] != ours[2]


async def test_who_came_and_left_meanwhile_is_told(connect, relay, resume) -> None:
    ana, bo, cy = [await connect(name) for name in ("ana", "bo", "cy")]
    await lost(relay, ana)
    await bo.send(leave=rtc.LeaveRequest())
    di = await connect("di")
    cy_again = await connect("cy")
    again = await resume("ana", ana.sid)
    update = (await again.until("update")).participants
    states = [(info.sid, info.state) for info in update]
    assert {(bo.sid, P.State.DISCONNECTED), (cy.sid, P.State.DISCONNECTED), (di.sid, P.State.JOINED)} <= set(states)
    # Browsers go by identity: of two stays of one person the end of the first comes first.
    assert states.index((cy.sid, P.State.DISCONNECTED)) < states.index((cy_again.sid, P.State.JOINED))
    assert all(info.version for info in update)


async def test_the_end_of_a_stay_is_not_told_over_a_later_one_that_is_known(connect, relay, resume) -> None:
    ana, _ = await connect("ana"), await connect("bo")
    bo_again = await connect("bo")
    await ana.until("update", lambda update: bo_again.sid in everybody(update))
    await lost(relay, ana)
    again = await resume("ana", ana.sid)
    assert set(everybody(await again.until("update"))) == {ana.sid, bo_again.sid}


async def test_a_departure_written_to_a_dead_connection_is_told_again(connect, relay, resume) -> None:
    ana, bo = await connect("ana"), await connect("bo")
    connected(relay, ana.sid)
    await bo.send(leave=rtc.LeaveRequest())
    # The relay wrote it, and for all it knows nobody read it.
    await ana.until("update", lambda update: everybody(update).get(bo.sid) == P.State.DISCONNECTED)
    again = await resume("ana", ana.sid)
    assert everybody(await again.until("update"))[bo.sid] == P.State.DISCONNECTED


async def test_answers_and_orders_of_the_absence_are_told(connect, relay, resume) -> None:
    ana = await connect("ana")
    published = [(await ana.publish(CHROMIUM[kind], type=number)).track.sid for kind, number in (("audio", AUDIO), ("video", VIDEO))]
    pending = (await ana.publish("later", type=AUDIO)).track.sid
    await ana.send(offer=rtc.SessionDescription(type="offer", sdp=recorded("chromium_sendrecv"), id=1))
    await ana.until("answer")
    found = await lost(relay, ana)
    room = found.hall.room
    found.hall.carry_out(room.mute_from_outside(ana.sid, published[0], True, 1))
    found.listener.on_unpublished(published[1])
    again = await resume("ana", ana.sid)
    heard = {kind: [] for kind in ("mute", "track_unpublished", "track_published")}
    while (frame := await again.next()).WhichOneof("message") != "offer":
        if (kind := frame.WhichOneof("message")) in heard:
            heard[kind].append(getattr(frame, kind))
    assert {(told.sid, told.muted) for told in heard["mute"]} == {(published[0], True)}
    assert [told.track_sid for told in heard["track_unpublished"]] == [published[1]]
    # Its answer may have been lost; asked for again it has the same sid.
    assert [told.track.sid for told in heard["track_published"]] == [pending]


async def test_who_missed_more_than_is_kept_joins_anew(connect, relay, resume) -> None:
    ana = await connect("ana")
    found = await lost(relay, ana)
    for number in range(300):
        found.listener.on_unpublished(f"TR_{number}")
    assert is_turned_away((await resume("ana", ana.sid)).first)


async def test_the_token_that_came_with_the_session_outlives_the_first_one(connect, relay, http, resume) -> None:
    ending = token(sub="ana", exp=int(time.time()) + 5)
    url = f"ws://127.0.0.1:{relay.http_port}/rtc?protocol=17&access_token={ending}"
    ana = Signal(await http.ws_connect(url))
    sid = (await ana.next()).join.participant.sid
    refreshed = await ana.until("refresh_token")
    connected(relay, sid)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await resume("ana", sid, text=token(sub="ana", exp=int(time.time()) - 65))
    assert refused.value.status == 401
    assert jwt.decode(refreshed, SECRET, algorithms=["HS256"])["exp"] - time.time() > 500
    again = await resume("ana", sid, text=refreshed)
    assert again.first.WhichOneof("message") == "reconnect"
    assert jwt.decode(await again.until("refresh_token"), SECRET, algorithms=["HS256"])["exp"] - time.time() > 500


async def test_rights_taken_back_do_not_return_with_an_older_token(connect, relay, resume) -> None:
    ana = await connect("ana", canPublish=True)
    found = await lost(relay, ana)
    room = found.hall.room
    found.hall.carry_out(room.set_permission(ana.sid, room.endpoints[ana.sid].permission.__class__(can_publish=False)))
    again = await resume("ana", ana.sid, canPublish=True)
    refreshed = jwt.decode(await again.until("refresh_token"), SECRET, algorithms=["HS256"])
    assert refreshed["video"]["canPublish"] is False
    await again.send(add_track=rtc.AddTrackRequest(cid="c", type=AUDIO))
    assert (await again.until("request_response")).reason == rtc.RequestResponse.NOT_ALLOWED


# What a client says.


async def synced(resume: Resume, ana: Signal, **state: Any) -> Signal:
    again = await resume("ana", ana.sid)
    await again.send(sync_state=rtc.SyncState(**state))
    return again


async def test_a_track_of_its_own_that_is_not_known_makes_a_client_join_anew(connect, relay, resume) -> None:
    ana = await connect("ana")
    known = (await ana.publish(CHROMIUM["audio"], type=AUDIO)).track
    connected(relay, ana.sid)
    again = await synced(resume, ana, publish_tracks=[rtc.TrackPublishedResponse(cid="c", track=known)])
    assert "leave" not in await again.kinds_until_pong()
    unknown = models.TrackInfo(sid="TR_unknown")
    await again.send(sync_state=rtc.SyncState(publish_tracks=[rtc.TrackPublishedResponse(cid="c", track=unknown)]))
    assert is_turned_away(rtc.SignalResponse(leave=await again.until("leave")))


async def test_a_track_that_was_taken_back_is_ended_and_not_the_session(connect, relay, resume) -> None:
    ana = await connect("ana")
    known = (await ana.publish(CHROMIUM["audio"], type=AUDIO)).track
    found = connected(relay, ana.sid)
    found.hall.carry_out(found.hall.room.unpublish(known.sid))
    found.listener.on_unpublished(known.sid)
    again = await synced(resume, ana, publish_tracks=[rtc.TrackPublishedResponse(cid="c", track=known)])
    assert (await again.until("track_unpublished")).track_sid == known.sid
    assert "leave" not in await again.kinds_until_pong()


@pytest.mark.parametrize("auto", [True, False])
async def test_subscriptions_become_what_the_client_says(connect, relay, resume, auto) -> None:
    bo = await connect("bo")
    sids = [(await bo.publish(CHROMIUM[kind], type=number)).track.sid for kind, number in (("audio", AUDIO), ("video", VIDEO))]
    await bo.send(offer=rtc.SessionDescription(type="offer", sdp=recorded("chromium_sendrecv"), id=1))
    await bo.until("answer")
    ana = await connect("ana", query=f"&auto_subscribe={int(auto)}")
    found = connected(relay, ana.sid)
    listed = rtc.UpdateSubscription(track_sids=[sids[0], "TR_that_ended"], subscribe=not auto)
    again = await synced(resume, ana, subscription=listed)
    assert "subscription_response" not in await again.kinds_until_pong()
    assert set(found.endpoint.subscriptions) == ({sids[1]} if auto else {sids[0]})
    # A later list without it: what undid the choice was never heard.
    await again.send(sync_state=rtc.SyncState(subscription=rtc.UpdateSubscription(track_sids=[sids[1]], subscribe=not auto)))
    await again.kinds_until_pong()
    assert set(found.endpoint.subscriptions) == ({sids[0]} if auto else {sids[1]})


async def test_tracks_that_the_client_has_switched_off_are_not_forwarded(connect, relay, resume) -> None:
    bo = await connect("bo")
    sid = (await bo.publish(CHROMIUM["audio"], type=AUDIO)).track.sid
    ana = await connect("ana")
    found = connected(relay, ana.sid)
    again = await synced(resume, ana, track_sids_disabled=[sid])
    await again.kinds_until_pong()
    await bo.send(offer=rtc.SessionDescription(type="offer", sdp=recorded("chromium_sendrecv"), id=1))
    await again.until("update", lambda update: any(info.tracks for info in update.participants))
    assert found.endpoint.subscriptions[sid].wanted.disabled


async def test_what_a_dead_connection_still_says_is_not_heard(connect, relay, resume) -> None:
    ana = await connect("ana", canUpdateOwnMetadata=True)
    found = connected(relay, ana.sid)
    former = found.listener.outbox
    await resume("ana", ana.sid)
    late = rtc.SignalRequest(update_metadata=rtc.UpdateParticipantMetadata(metadata="late"))
    await found.listener.on_frame(late.SerializeToString(), former)
    assert found.endpoint.description.metadata == ""


# Reliable messages, by number.


def packet(number: int, text: str = "") -> bytes:
    user = models.UserPacket(payload=(text or str(number)).encode())
    return models.DataPacket(sequence=number, user=user).SerializeToString()


async def test_numbered_messages_pass_once_and_the_last_number_is_told(connect, relay, resume, monkeypatch) -> None:
    ana, bo = await connect("ana"), await connect("bo")
    found, other = connected(relay, ana.sid), session_of(relay, bo.sid)
    got: list[bytes] = []
    take = lambda label, data, origin=None: got.append(models.DataPacket.FromString(data).user.payload)  # noqa: E731
    monkeypatch.setattr(other, "send_data", take)
    for number in (1, 2, 3, 2, 3, 4, 1, 9):
        found.listener.on_data("_reliable", packet(number))
    assert got == [b"1", b"2", b"3", b"4", b"9"]
    assert relay._refusals["data_repeated"] == 3
    # Lossy ones have no order to keep, and what has no number cannot be known again.
    for label, number in (("_lossy", 1), ("_lossy", 1), ("_reliable", 0), ("_reliable", 0)):
        found.listener.on_data(label, packet(number, "more"))
    assert got[5:] == [b"more"] * 4
    assert (await resume("ana", ana.sid)).first.reconnect.last_message_seq == 9


async def test_numbers_are_of_one_stay(connect, relay) -> None:
    ana = await connect("ana")
    session_of(relay, ana.sid).listener.on_data("_reliable", packet(7))
    again = await connect("ana")
    found = connected(relay, again.sid)
    found.listener.on_data("_reliable", packet(1))
    assert "data_repeated" not in relay._refusals


# How long, and who.


async def test_without_signalling_a_participant_has_so_long(connect, relay, monkeypatch) -> None:
    monkeypatch.setattr(session, "SIGNAL_LOST_S", 0.2)
    ana, bo = await connect("ana"), await connect("bo")
    found = await lost(relay, ana)
    gone = await bo.until("update", lambda update: everybody(update).get(ana.sid) == P.State.DISCONNECTED)
    assert gone.participants[0].disconnect_reason == models.DisconnectReason.SIGNAL_CLOSE and found.is_over


async def test_who_is_back_stays(connect, relay, resume, monkeypatch) -> None:
    monkeypatch.setattr(session, "SIGNAL_LOST_S", 0.3)
    ana = await connect("ana")
    await lost(relay, ana)
    again = await resume("ana", ana.sid)
    await asyncio.sleep(0.5)
    assert "leave" not in await again.kinds_until_pong()


async def test_a_session_that_is_not_there_is_answered_with_a_rejoin(connect, relay, resume) -> None:
    for sid in ("PA_unknown", "", "x" * 500):
        signal = await resume("ana", sid)
        assert is_turned_away(signal.first)
        assert (await signal.socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
    assert relay._refusals["resume"] == 3


TAKEOVERS = {
    "another identity of the room": {"identity": "eve"},
    "another room": {"identity": "ana", "room": "other"},
    "another customer, same names": {"identity": "ana", "secret": OTHER_SECRET, "key": "bkey"},
}


@pytest.mark.parametrize("who", TAKEOVERS)
async def test_nobody_takes_over_another_ones_session(connect, relay, resume, who) -> None:
    ana = await connect("ana")
    connected(relay, ana.sid)
    # The other rooms exist, and somebody is in them.
    thief = dict(TAKEOVERS[who])
    identity = thief.pop("identity")
    await connect(f"{identity} herself", **thief)
    signal = await resume(identity, ana.sid, **thief)
    assert is_turned_away(signal.first)
    assert (await signal.socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
    # Its own client has noticed nothing.
    assert "leave" not in await ana.kinds_until_pong()


async def test_mutant_without_the_look_at_the_identity_a_session_is_taken_over(connect, relay, resume, monkeypatch) -> None:
    careful = conference.Conference.find_own
    monkeypatch.setattr(
        conference.Conference,
        "find_own",
        lambda self, room, identity, sid: self._halls[room].sessions.get(sid) or careful(self, room, identity, sid),
    )
    ana = await connect("ana")
    connected(relay, ana.sid)
    assert not is_turned_away((await resume("eve", ana.sid)).first)


async def test_a_key_that_was_taken_back_resumes_nothing(connect, relay, resume) -> None:
    ana = await connect("ana")
    connected(relay, ana.sid)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await resume("ana", ana.sid, secret="another secret of thirty-two bytes")
    assert refused.value.status == 401
    assert "leave" not in await ana.kinds_until_pong()


@pytest.mark.parametrize("reason", [LeaveReason.PARTICIPANT_REMOVED, LeaveReason.DUPLICATE_IDENTITY])
async def test_who_was_put_out_while_away_is_told_why_and_not_to_come_back(connect, relay, resume, reason) -> None:
    ana, _ = await connect("ana"), await connect("bo")
    found = await lost(relay, ana)
    if reason is LeaveReason.DUPLICATE_IDENTITY:
        await connect("ana")
    else:
        found.end(reason)
    leave = (await resume("ana", ana.sid)).first.leave
    assert (leave.action, leave.reason) == (rtc.LeaveRequest.Action.DISCONNECT, reason)
    # To anybody else it is a session like any other that is not there.
    assert is_turned_away((await resume("bo", ana.sid)).first)


async def test_who_may_not_come_again_cannot_resume_either(connect, relay, resume) -> None:
    ana, _ = await connect("ana"), await connect("bo")
    found = await lost(relay, ana)
    found.hall.room.revoke("ana", int(time.time()) + 5)
    found.end(LeaveReason.PARTICIPANT_REMOVED)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await resume("ana", ana.sid)
    assert refused.value.status == 403


async def test_a_flood_of_resumes_is_cut_to_a_rate(connect, relay, resume) -> None:
    ana = await connect("ana")
    connected(relay, ana.sid)
    refused, taken = 0, []
    for _ in range(30):
        try:
            signal = await resume("ana", ana.sid)
        except aiohttp.WSServerHandshakeError as error:
            assert error.status == 429
            refused += 1
        else:
            assert signal.first.WhichOneof("message") == "reconnect"
            taken.append(signal)
    assert refused >= 15 and relay._refusals["join_429"] == refused
    # None of those that were replaced is left.
    await asyncio.sleep(0.1)
    assert not session_of(relay, ana.sid).listener.outbox.is_finished
    assert sum(not signal.socket._reader.is_eof() and signal.socket._response.connection is not None for signal in taken) == 1
