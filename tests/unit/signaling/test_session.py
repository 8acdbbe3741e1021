"""A LiveKit session as its client sees it on the WebSocket, against a real relay without media."""

import asyncio
import time

import aiohttp
import pytest
from google.protobuf import json_format
from livekit.protocol import models, rtc

from relay.server import Server
from tests.support.local_relay import OTHER_SECRET, token
from tests.unit.signaling.descriptions import CHROMIUM, answer_to, recorded, without_sending

P = models.ParticipantInfo
AUDIO, VIDEO = models.TrackType.AUDIO, models.TrackType.VIDEO


def offer(sdp: str, number: int = 1) -> dict:
    return {"offer": rtc.SessionDescription(type="offer", sdp=sdp, id=number)}


async def accept(signal, ours: rtc.SessionDescription, number: int | None = None) -> None:
    sdp = answer_to(ours.sdp)
    await signal.send(answer=rtc.SessionDescription(type="answer", sdp=sdp, id=ours.id if number is None else number))


def about(identity: str):
    """Return whether an update speaks of that participant."""
    return lambda update: any(info.identity == identity for info in update.participants)


def entry(update: rtc.ParticipantUpdate, identity: str) -> P:
    return next(info for info in reversed(update.participants) if info.identity == identity)


async def test_the_first_frame_has_everything_clients_depend_on(connect) -> None:
    join = (await connect("ana")).join
    assert join.room.sid.startswith("RM_") and join.room.name == "r" and join.room.num_participants == 1
    assert join.participant.sid.startswith("PA_") and join.participant.identity == "ana"
    assert join.participant.state == P.State.JOINED and join.participant.version > 0
    assert join.server_info.version and join.server_version and join.server_info.protocol == 17
    assert (join.ping_interval, join.ping_timeout) == (3, 7)
    assert len(join.sif_trailer) >= 12
    assert join.subscriber_primary and join.fast_publish
    mimes = [codec.mime for codec in join.enabled_publish_codecs]
    assert mimes[:2] == ["video/VP8", "video/H264"] and "audio/opus" in mimes


async def test_the_offer_follows_with_data_channels_first(connect) -> None:
    signal = await connect("ana")
    description = await signal.until("offer")
    assert description.id == 1 and description.type == "offer" and not description.mid_to_track_id
    assert description.sdp.count("m=") == 1 and "m=application 9 UDP/DTLS/SCTP" in description.sdp.replace(
        description.sdp.split("m=application ")[1].split(" ")[0], "9", 1
    )
    assert "a=ice-lite" in description.sdp and "a=candidate:" in description.sdp


async def test_who_may_not_subscribe_has_no_subscriber_transport(connect) -> None:
    signal = await connect("ana", canSubscribe=False)
    assert not signal.join.subscriber_primary
    assert "offer" not in await signal.kinds_until_pong()


async def test_who_may_not_publish_is_not_made_to_negotiate(connect) -> None:
    assert not (await connect("ana", canPublish=False)).join.fast_publish


async def test_others_are_told_of_a_join_and_a_leave(connect) -> None:
    ana = await connect("ana")
    bo = await connect("bo")
    assert [info.identity for info in bo.join.other_participants] == ["ana"]
    joined = entry(await ana.until("update", about("bo")), "bo")
    assert (joined.sid, joined.state, joined.name) == (bo.sid, P.State.JOINED, "bo")
    await bo.send(leave=rtc.LeaveRequest(reason=models.DisconnectReason.CLIENT_INITIATED))
    left = entry(await ana.until("update", about("bo")), "bo")
    assert (left.sid, left.state) == (bo.sid, P.State.DISCONNECTED)
    assert left.disconnect_reason == models.DisconnectReason.CLIENT_INITIATED
    assert left.version > joined.version
    room = await ana.until("room_update")
    assert room.room.num_participants == 1


async def test_rooms_of_customers_are_apart(connect) -> None:
    ana = await connect("ana")
    bo = await connect("bo", secret=OTHER_SECRET, key="bkey")
    assert bo.join.room.name == ana.join.room.name and bo.join.room.sid != ana.join.room.sid
    assert bo.join.room.sid and not bo.join.other_participants
    assert bo.join.sif_trailer != ana.join.sif_trailer
    assert "update" not in await ana.kinds_until_pong()


async def test_a_second_session_of_an_identity_takes_the_place_of_the_first(connect) -> None:
    old = await connect("ana")
    bo = await connect("bo")
    new = await connect("ana")
    leave = await old.until("leave")
    assert leave.action == rtc.LeaveRequest.Action.DISCONNECT and not leave.can_reconnect
    assert leave.reason == models.DisconnectReason.DUPLICATE_IDENTITY
    assert (await old.socket.receive(timeout=5)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    assert [info.identity for info in new.join.other_participants] == ["bo"]
    update = await bo.until("update", lambda update: any(info.sid == new.sid for info in update.participants))
    states = [(info.sid, info.state) for info in update.participants if info.identity == "ana"]
    # The departure comes first: clients know people by identity.
    assert states == [(old.sid, P.State.DISCONNECTED), (new.sid, P.State.JOINED)]


async def test_pings_are_answered_in_milliseconds(connect) -> None:
    signal = await connect("ana")
    before = time.time_ns() // 1_000_000
    await signal.send(ping=123)
    await signal.send(ping_req=rtc.Ping(timestamp=456, rtt=1))
    assert before <= await signal.until("pong") <= before + 5000
    pong = await signal.until("pong_resp")
    assert pong.last_ping_timestamp == 456 and before <= pong.timestamp <= before + 5000


async def test_a_token_for_the_next_join_comes_with_the_session(connect, relay, http) -> None:
    signal = await connect("ana")
    refreshed = await signal.until("refresh_token")
    async with http.get(
        f"http://127.0.0.1:{relay.http_port}/rtc/validate", params={"access_token": refreshed}
    ) as answer:
        assert answer.status == 200


async def test_a_track_against_the_tier_is_refused_with_its_sentence(connect) -> None:
    signal = await connect("ana", secret=OTHER_SECRET, key="bkey")
    request = rtc.AddTrackRequest(cid="c", type=VIDEO, encryption=models.Encryption.Type.GCM)
    await signal.send(add_track=request)
    refusal = await signal.until("request_response")
    assert refusal.reason == rtc.RequestResponse.NOT_ALLOWED and "free tier" in refusal.message
    assert refusal.add_track.cid == "c"


async def test_announced_tracks_get_their_sid_at_once_and_unchanged(connect) -> None:
    signal = await connect("ana")
    layers = [models.VideoLayer(quality=q, width=320 << q, height=180 << q) for q in range(3)]
    published = await signal.publish(
        "my-cid",
        type=VIDEO,
        name="cam",
        source=models.TrackSource.CAMERA,
        width=1280,
        height=720,
        layers=layers,
        disable_red=True,
    )
    track = published.track
    assert published.cid == "my-cid" and track.sid.startswith("TR_")
    assert (track.name, track.type, track.source, track.stream) == ("cam", VIDEO, models.TrackSource.CAMERA, "camera")
    assert (track.width, track.height, track.simulcast, len(track.layers)) == (1280, 720, True, 3)
    assert track.encryption == models.Encryption.Type.NONE and track.disable_red
    assert [codec.cid for codec in track.codecs] == ["my-cid"]
    # The same announcement again is the same track.
    assert (await signal.publish("my-cid", type=VIDEO)).track.sid == track.sid


@pytest.mark.parametrize(
    ("grants", "source"),
    [
        ({"canPublish": False}, models.TrackSource.CAMERA),
        ({"canPublishSources": ["microphone"]}, models.TrackSource.CAMERA),
        ({"canPublishSources": ["screen_share"]}, models.TrackSource.UNKNOWN),
    ],
)
async def test_publishing_without_the_right_is_answered_not_ignored(connect, grants: dict, source: int) -> None:
    signal = await connect("ana", **grants)
    request = rtc.AddTrackRequest(cid="c", type=VIDEO, source=source)
    await signal.send(add_track=request)
    answer = await signal.until("request_response")
    assert answer.reason == rtc.RequestResponse.Reason.NOT_ALLOWED
    assert answer.add_track == request and answer.message


async def test_announcements_are_bounded(connect) -> None:
    signal = await connect("ana")
    for number in range(20):
        await signal.publish(str(number), type=AUDIO)
    await signal.send(add_track=rtc.AddTrackRequest(cid="more", type=AUDIO))
    assert (await signal.until("request_response")).reason == rtc.RequestResponse.Reason.LIMIT_EXCEEDED


@pytest.mark.parametrize(
    "request_",
    [
        rtc.AddTrackRequest(cid="", type=AUDIO),
        rtc.AddTrackRequest(cid="c", type=models.TrackType.DATA),
        rtc.AddTrackRequest(cid="c", type=AUDIO, sid="TR_x"),
        rtc.AddTrackRequest(cid="c" * 2000, type=AUDIO),
    ],
)
async def test_announcements_that_make_no_sense_are_answered(connect, request_) -> None:
    signal = await connect("ana")
    await signal.send(add_track=request_)
    assert (await signal.until("request_response")).reason == rtc.RequestResponse.Reason.INVALID_REQUEST


async def test_data_tracks_are_declined_in_words(connect) -> None:
    signal = await connect("ana")
    request = rtc.PublishDataTrackRequest(pub_handle=3, name="telemetry")
    await signal.send(publish_data_track_request=request)
    answer = await signal.until("request_response")
    assert answer.reason == rtc.RequestResponse.Reason.NOT_ALLOWED and answer.publish_data_track == request


async def test_offers_are_answered_with_their_own_number(connect) -> None:
    signal = await connect("ana")
    for number in (1, 2, 0):
        await signal.send(**offer(recorded("chromium_data_only"), number))
        answer = await signal.until("answer")
        assert (answer.type, answer.id) == ("answer", number)
        assert "a=setup:passive" in answer.sdp and "a=ice-lite" in answer.sdp


@pytest.mark.parametrize("sdp", ["", "garbage", "v=0\r\n", "x" * 300_000])
async def test_offers_that_cannot_be_read_get_no_answer_and_harm_nothing(connect, sdp: str) -> None:
    signal = await connect("ana")
    await signal.send(**offer(sdp))
    assert "answer" not in await signal.kinds_until_pong()
    await signal.send(**offer(recorded("chromium_data_only"), 2))
    assert (await signal.until("answer")).id == 2


@pytest.mark.parametrize("vector", ["chromium_sendrecv", "firefox_sendrecv"])
@pytest.mark.parametrize("announce_first", [True, False])
async def test_a_track_is_in_the_roster_before_it_is_offered(connect, vector: str, announce_first: bool) -> None:
    ana, bo = await connect("ana"), await connect("bo")
    await accept(bo, await bo.until("offer"))
    sids = {}

    async def announce() -> None:
        # Firefox's SDP names no cid, so there the kind decides.
        for kind in (VIDEO, AUDIO):
            name = "video" if kind == VIDEO else "audio"
            sids[name] = (await ana.publish(CHROMIUM[name], type=kind)).track.sid

    if announce_first:
        await announce()
    await ana.send(**offer(recorded(vector)))
    assert (await ana.until("answer")).id == 1
    if not announce_first:
        await announce()
    # The outbox would raise on an offer that overtook the roster; here the content is looked at.
    tracks: dict[str, models.TrackInfo] = {}
    ours = None
    while ours is None or len(ours.mid_to_track_id) < 2:
        response = await bo.next()
        kind = response.WhichOneof("message")
        if kind == "update":
            tracks = {track.sid: track for track in entry(response.update, "ana").tracks}
        elif kind == "offer":
            ours = response.offer
            assert set(ours.mid_to_track_id.values()) <= set(tracks)
            await accept(bo, ours, number=0)
    assert set(ours.mid_to_track_id.values()) == set(sids.values())
    assert tracks[sids["video"]].mime_type == "video/VP8" and tracks[sids["audio"]].mime_type == "audio/opus"
    assert {tracks[sids["audio"]].mid, tracks[sids["video"]].mid} == {"0", "1"}
    for sid in sids.values():
        assert f"a=msid:{ana.sid}|{sid} {sid}\r\n" in ours.sdp


@pytest.mark.parametrize(("announced", "offered"), [(True, False), (False, True), (False, False)])
async def test_stereo_reaches_the_subscriber(connect, announced: bool, offered: bool) -> None:
    ana, bo = await connect("ana"), await connect("bo")
    await accept(bo, await bo.until("offer"))
    await ana.publish(CHROMIUM["audio"], type=AUDIO, stereo=announced)
    sdp = recorded("chromium_sendrecv")
    await ana.send(**offer(sdp.replace("useinbandfec=1", "useinbandfec=1;sprop-stereo=1") if offered else sdp))
    answer = (await ana.until("answer")).sdp
    ours = (await bo.until("offer", lambda o: o.mid_to_track_id)).sdp
    is_stereo = announced or offered
    assert (";stereo=1" in answer) == is_stereo
    assert (";stereo=1;sprop-stereo=1\r\n" in ours) == is_stereo == ("stereo" in ours)


async def test_a_track_whose_section_stops_sending_is_unpublished(connect) -> None:
    ana, bo = await connect("ana"), await connect("bo")
    await accept(bo, await bo.until("offer"))
    await ana.publish(CHROMIUM["audio"], type=AUDIO)
    await ana.send(**offer(recorded("chromium_sendrecv")))
    ours = await bo.until("offer", lambda o: o.mid_to_track_id)
    await accept(bo, ours)
    await ana.send(**offer(without_sending(recorded("chromium_sendrecv")), 2))
    assert (await ana.until("answer", lambda a: a.id == 2)).id == 2
    # In either order: clients go by the roster, the section may follow when it likes.
    is_gone = is_inactive = False
    while not (is_gone and is_inactive):
        response = await bo.next()
        if response.WhichOneof("message") == "offer":
            is_inactive = not response.offer.mid_to_track_id
        elif response.WhichOneof("message") == "update":
            is_gone = not entry(response.update, "ana").tracks and not entry(response.update, "ana").is_publisher


async def test_only_one_offer_is_outstanding(connect) -> None:
    ana, bo = await connect("ana"), await connect("bo")
    first = await bo.until("offer")
    await ana.publish(CHROMIUM["audio"], type=AUDIO)
    await ana.send(**offer(recorded("chromium_sendrecv")))
    await bo.until("update", lambda u: about("ana")(u) and entry(u, "ana").tracks)
    assert "offer" not in await bo.kinds_until_pong()
    # A number that is neither ours nor 0 answers nothing.
    await accept(bo, first, number=77)
    assert "offer" not in await bo.kinds_until_pong()
    await accept(bo, first)
    assert (await bo.until("offer")).id == 2


async def test_without_auto_subscribe_tracks_are_offered_on_request(connect) -> None:
    ana = await connect("ana")
    bo = await connect("bo", query="&auto_subscribe=0")
    await accept(bo, await bo.until("offer"))
    sid = (await ana.publish(CHROMIUM["audio"], type=AUDIO)).track.sid
    await ana.send(**offer(recorded("chromium_sendrecv")))
    await bo.until("update", lambda u: about("ana")(u) and entry(u, "ana").tracks)
    assert "offer" not in await bo.kinds_until_pong()
    tracks = models.ParticipantTracks(participant_sid=ana.sid, track_sids=[sid])
    await bo.send(subscription=rtc.UpdateSubscription(participant_tracks=[tracks], subscribe=True))
    assert list((await bo.until("offer")).mid_to_track_id.values()) == [sid]
    await bo.send(subscription=rtc.UpdateSubscription(track_sids=["TR_none", "garbage"], subscribe=True))
    failed = await bo.until("subscription_response")
    assert (failed.track_sid, failed.err) == ("TR_none", models.SubscriptionError.SE_TRACK_NOTFOUND)
    assert "subscription_response" not in await bo.kinds_until_pong()


async def test_muting_is_told_to_others_and_not_back(connect) -> None:
    ana, bo = await connect("ana"), await connect("bo")
    sid = (await ana.publish(CHROMIUM["audio"], type=AUDIO)).track.sid
    await ana.send(**offer(recorded("chromium_sendrecv")))
    await bo.until("update", lambda u: about("ana")(u) and entry(u, "ana").tracks)
    await ana.kinds_until_pong()
    await ana.send(mute=rtc.MuteTrackRequest(sid=sid, muted=True))
    update = await bo.until("update", lambda u: about("ana")(u) and entry(u, "ana").tracks[0].muted)
    assert entry(update, "ana").tracks[0].sid == sid
    assert "update" not in await ana.kinds_until_pong()


async def test_a_publisher_that_withdraws_its_consent(connect) -> None:
    ana, bo = await connect("ana"), await connect("bo")
    await accept(bo, await bo.until("offer"))
    sid = (await ana.publish(CHROMIUM["audio"], type=AUDIO)).track.sid
    await ana.send(**offer(recorded("chromium_sendrecv")))
    await accept(bo, await bo.until("offer", lambda o: o.mid_to_track_id))
    await ana.send(subscription_permission=rtc.SubscriptionPermission(all_participants=False))
    told = await bo.until("subscription_permission_update")
    assert (told.participant_sid, told.track_sid, told.allowed) == (ana.sid, sid, False)
    assert not (await bo.until("offer")).mid_to_track_id
    await ana.send(subscription_permission=rtc.SubscriptionPermission(all_participants=True))
    assert (await bo.until("subscription_permission_update")).allowed


async def test_own_metadata_needs_the_right(connect) -> None:
    ana = await connect("ana")
    request = rtc.UpdateParticipantMetadata(metadata="m", name="Ana", request_id=9, attributes={"a": "1"})
    await ana.send(update_metadata=request)
    refused = await ana.until("request_response")
    assert (refused.request_id, refused.reason) == (9, rtc.RequestResponse.Reason.NOT_ALLOWED)
    bo = await connect("bo", canUpdateOwnMetadata=True)
    await bo.send(update_metadata=request)
    granted = await bo.until("request_response")
    assert (granted.request_id, granted.reason) == (9, rtc.RequestResponse.Reason.OK)
    for who in (ana, bo):
        changed = entry(await who.until("update", lambda u: about("bo")(u) and entry(u, "bo").metadata == "m"), "bo")
        assert (changed.name, changed.attributes["a"]) == ("Ana", "1")


async def test_what_others_read_about_a_client_is_what_it_said(connect) -> None:
    caps = "&client_protocol=2&capabilities=CAP_PACKET_TRAILER,CAP_NEW_THING,CAP_COMPRESSION_DEFLATE_RAW"
    info = (await connect("ana", query=caps)).join.participant
    names = models.ClientInfo.Capability.Name
    assert info.client_protocol == 2
    assert [names(number) for number in info.capabilities] == ["CAP_PACKET_TRAILER", "CAP_COMPRESSION_DEFLATE_RAW"]


@pytest.mark.parametrize(
    "request_",
    [
        {"simulate": rtc.SimulateScenario(speaker_update=3)},
        {"sync_state": rtc.SyncState(track_sids_disabled=["x"])},
        {"update_layers": rtc.UpdateVideoLayers(track_sid="TR_x")},
        {"update_audio_track": rtc.UpdateLocalAudioTrack(track_sid="TR_x", features=[0])},
        {"update_video_track": rtc.UpdateLocalVideoTrack(track_sid="TR_x", width=1)},
        {"update_data_subscription": rtc.UpdateDataSubscription()},
        {"unpublish_data_track_request": rtc.UnpublishDataTrackRequest(pub_handle=1)},
        {"track_setting": rtc.UpdateTrackSettings(track_sids=["TR_x"], width=3)},
        {"mute": rtc.MuteTrackRequest(sid="TR_x", muted=True)},
        {"trickle": rtc.TrickleRequest(candidateInit="nonsense", target=1)},
        {"answer": rtc.SessionDescription(type="answer", sdp="", id=44)},
        {},
    ],
)
async def test_what_means_nothing_here_is_accepted(connect, request_: dict) -> None:
    signal = await connect("ana")
    await signal.send(**request_)
    # A message of a protocol that does not exist yet: field 99.
    await signal.socket.send_bytes(b"\x9a\x06\x03abc")
    assert "leave" not in await signal.kinds_until_pong()


async def test_garbage_is_borne_for_a_while(connect) -> None:
    signal = await connect("ana")
    for _ in range(5):
        await signal.socket.send_bytes(b"\xff\xff\xff")
    await signal.kinds_until_pong()
    for _ in range(20):
        await signal.socket.send_bytes(b"\xff\xff\xff")
    assert (await signal.until("leave")).reason == models.DisconnectReason.STATE_MISMATCH


async def test_compression_is_declined(relay, http) -> None:
    # A bomb of zeros is small on the wire and large in memory; without compression there is none.
    url = f"ws://127.0.0.1:{relay.http_port}/rtc?access_token={token()}"
    async with http.ws_connect(url, compress=15) as socket:
        assert socket.compress == 0


async def test_frames_are_bounded(connect) -> None:
    signal = await connect("ana")
    await signal.socket.send_bytes(b"\x00" * (2_097_152 + 1))
    while (message := await signal.socket.receive(timeout=5)).type is aiohttp.WSMsgType.BINARY:
        pass
    assert message.type is aiohttp.WSMsgType.CLOSE and message.data == 1009


async def test_text_is_answered_in_text(connect, relay, http) -> None:
    url = f"ws://127.0.0.1:{relay.http_port}/rtc?veil_json=1&access_token={token(sub='json')}"
    async with http.ws_connect(url) as socket:
        first = await socket.receive(timeout=5)
        assert first.type is aiohttp.WSMsgType.TEXT
        assert json_format.Parse(first.data, rtc.SignalResponse()).join.participant.identity == "json"
        await socket.send_str('{"pingReq": {"timestamp": "5"}, "unknownThing": 1}')
        while "pongResp" not in (text := (await socket.receive(timeout=5)).data):
            pass
        assert '"lastPingTimestamp": "5"' in text
        await socket.send_str("{")
        await socket.send_str('{"ping": "1"}')
        while "pong" not in (await socket.receive(timeout=5)).data:
            pass
    binary = await connect("binary")
    await binary.socket.send_str('{"ping": "1"}')
    while (await binary.socket.receive(timeout=5)).type is not aiohttp.WSMsgType.TEXT:
        pass


async def test_a_socket_that_vanishes_before_media_came_takes_its_participant_along(connect) -> None:
    ana, bo = await connect("ana"), await connect("bo")
    await ana.until("update", about("bo"))
    bo.socket._response.connection.transport.abort()
    left = entry(await ana.until("update", about("bo")), "bo")
    assert left.state == P.State.DISCONNECTED
    assert left.disconnect_reason == models.DisconnectReason.SIGNAL_CLOSE


async def test_a_client_that_does_not_read_is_cut_off(connect) -> None:
    ana, bo = await connect("ana"), await connect("bo")
    await ana.until("update", about("bo"))
    # Each of these is echoed; what neither the socket nor the queue can hold ends the connection, not the server.
    request = rtc.SignalRequest(publish_data_track_request=rtc.PublishDataTrackRequest(name="x" * 1_000_000))
    frame = request.SerializeToString()
    with pytest.raises(ConnectionError):
        for _ in range(100):
            await bo.socket.send_bytes(frame)
    left = entry(await ana.until("update", about("bo")), "bo")
    assert left.state == P.State.DISCONNECTED


async def test_who_never_connects_media_is_removed(start, connect) -> None:
    server = await start(join_timeout_s=1)
    signal = await connect("ana", to=server)
    leave = await signal.until("leave")
    assert leave.reason == models.DisconnectReason.CONNECTION_TIMEOUT


async def test_many_changes_are_few_updates(connect) -> None:
    ana, bo = await connect("ana"), await connect("bo")
    sid = (await ana.publish(CHROMIUM["audio"], type=AUDIO)).track.sid
    await ana.send(**offer(recorded("chromium_sendrecv")))
    await bo.until("update", lambda u: about("ana")(u) and entry(u, "ana").tracks)
    started = time.monotonic()
    for number in range(100):
        await ana.send(mute=rtc.MuteTrackRequest(sid=sid, muted=number % 2 == 0))
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    updates = (await bo.kinds_until_pong()).count("update")
    assert 2 <= updates <= 4 * (time.monotonic() - started) + 1


async def test_a_server_that_stops_says_so_and_is_gone_in_two_seconds(start, connect) -> None:
    server: Server = await start()
    signals = [await connect(name, to=server) for name in ("ana", "bo")]
    started = time.monotonic()
    await server.stop()
    assert time.monotonic() - started < 2
    for signal in signals:
        leave = await signal.until("leave")
        # It is started again, or another one is.
        assert leave.action == rtc.LeaveRequest.Action.RECONNECT
        assert leave.reason == models.DisconnectReason.SERVER_SHUTDOWN


async def test_no_secret_is_in_the_log(connect, capfd) -> None:
    from relay import log

    log.configure("debug", "json")
    signal = await connect("ana")
    await signal.publish(CHROMIUM["audio"], type=AUDIO)
    await signal.send(**offer(recorded("chromium_sendrecv")))
    answer = await signal.until("answer")
    await signal.send(**offer("v=0\r\na=ice-pwd:verysecretverysecretvery\r\n", 2))
    await signal.kinds_until_pong()
    written = capfd.readouterr()
    logged = written.err + written.out
    assert "participant joined" in logged
    password = answer.sdp.split("a=ice-pwd:")[1].split("\r\n")[0]
    assert password not in logged and "verysecret" not in logged and "eyJ" not in logged
