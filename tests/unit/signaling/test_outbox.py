"""Every strictness rule of LIVEKIT §6, each as a message that would hurt a client and does not get out."""

import json

import pytest
from google.protobuf import json_format
from livekit.protocol import models, rtc

from relay.signaling.livekit.outbox import Frame, Outbox, OutboxViolation

R = rtc.SignalResponse
P = models.ParticipantInfo


def person(sid: str = "PA_1", version: int = 1, tracks: tuple[str, ...] = (), **fields) -> P:
    return P(
        sid=sid,
        identity=fields.pop("identity", "i-" + sid),
        version=version,
        tracks=[models.TrackInfo(sid=track) for track in tracks],
        **fields,
    )


def join(**changes) -> R:
    response = rtc.JoinResponse(
        room=models.Room(sid="RM_1", name="r"),
        participant=person("PA_me"),
        other_participants=[person("PA_1", tracks=("TR_1",))],
        server_info=models.ServerInfo(version="1.13.0"),
        ping_interval=5,
        ping_timeout=15,
        sif_trailer=b"x",
    )
    for name, value in changes.items():
        response.ClearField(name)
        if isinstance(value, int):
            setattr(response, name, value)
        elif isinstance(value, list):
            getattr(response, name).extend(value)
        elif isinstance(value, bytes):
            setattr(response, name, value)
        elif value is not None:
            getattr(response, name).CopyFrom(value)
    return R(join=response)


def opened(**options) -> Outbox:
    outbox = Outbox(protocol=17, strict=True, **options)
    outbox.put(join())
    assert outbox.take()
    return outbox


def sdp(kind: str, text: str = "v=0\r\na=x\r\n", number: int = 1, **tracks: str) -> R:
    description = rtc.SessionDescription(type=kind, sdp=text, id=number, mid_to_track_id=tracks)
    return R(**{kind: description})


def trickle(init: object) -> R:
    return R(trickle=rtc.TrickleRequest(candidateInit=init if isinstance(init, str) else json.dumps(init)))


WRONG_FIRST = {
    "no participant": join(participant=None),
    "no room": join(room=None),
    "participant sid": join(participant=person("XX_1")),
    "empty participant sid": join(participant=person("PA_")),
    "no identity": join(participant=person("PA_me", identity="")),
    "room sid": join(room=models.Room(sid="x")),
    "no server version": join(server_info=models.ServerInfo()),
    "ping_interval 0": join(ping_interval=0),
    "negative ping_interval": join(ping_interval=-1),
    "ping_timeout 0": join(ping_timeout=0),
    "ping_timeout below the interval": join(ping_timeout=4),
    "no sif_trailer": join(sif_trailer=b""),
    "the joiner among the others": join(other_participants=[person("PA_me")]),
    "another without PA_": join(other_participants=[person("1")]),
    "a track without TR_": join(other_participants=[person("PA_1", tracks=("XX_1",))]),
    "version 0": join(other_participants=[person("PA_1", version=0)]),
    "somebody hidden": join(other_participants=[person(permission=models.ParticipantPermission(hidden=True))]),
    "something before join": R(update=rtc.ParticipantUpdate(participants=[person()])),
    "an offer before join": sdp("offer"),
    "a pong before join": R(pong=5),
    "nothing": R(),
}


@pytest.mark.parametrize("name", WRONG_FIRST)
def test_what_may_not_come_first(name: str) -> None:
    with pytest.raises(OutboxViolation):
        Outbox(protocol=17, strict=True).put(WRONG_FIRST[name])


@pytest.mark.parametrize(
    "first",
    [join(), R(reconnect=rtc.ReconnectResponse()), R(leave=rtc.LeaveRequest(action=2, can_reconnect=True))],
)
def test_what_may_come_first(first: R) -> None:
    outbox = Outbox(protocol=17, strict=True)
    assert outbox.put(first)
    assert outbox.take() == first.SerializeToString()


WRONG_LATER = {
    "a second join": join(),
    "an empty message": R(),
    "an update of nobody": R(update=rtc.ParticipantUpdate()),
    "an update without PA_": R(update=rtc.ParticipantUpdate(participants=[person("XX_1")])),
    "a track without TR_": R(update=rtc.ParticipantUpdate(participants=[person("PA_9", tracks=("x",))])),
    "a falling version": R(update=rtc.ParticipantUpdate(participants=[person("PA_1", version=0)])),
    "an answer of type offer": R(answer=rtc.SessionDescription(type="offer", sdp="v=0\r\n", id=1)),
    "an answer without SDP": sdp("answer", ""),
    "an answer of garbage": sdp("answer", "garbage"),
    "an offer without an id": sdp("offer", number=0),
    "a stream id without PA_": sdp("offer", "v=0\r\na=msid:XXPA_1|TR_1 TR_1\r\n"),
    "an offer for an unknown track": sdp("offer", **{"1": "TR_unknown"}),
    "an offer that maps no track": sdp("offer", **{"1": "x"}),
    "trickle of garbage": trickle("{"),
    "trickle of a list": trickle([]),
    "trickle without candidate": trickle({"sdpMid": "", "sdpMLineIndex": 0}),
    "trickle without sdpMid": trickle({"candidate": "c", "sdpMLineIndex": 0}),
    "trickle whose sdpMid is null": trickle({"candidate": "c", "sdpMid": None, "sdpMLineIndex": 0}),
    "trickle without sdpMLineIndex": trickle({"candidate": "c", "sdpMid": ""}),
    "trickle whose index is true": trickle({"candidate": "c", "sdpMid": "", "sdpMLineIndex": True}),
    "track_published without track": R(track_published=rtc.TrackPublishedResponse(cid="c")),
    "track_published without TR_": R(
        track_published=rtc.TrackPublishedResponse(cid="c", track=models.TrackInfo(sid="XX_1"))
    ),
    "track_published without cid": R(track_published=rtc.TrackPublishedResponse(track=models.TrackInfo(sid="TR_1"))),
    "room_update without room": R(room_update=rtc.RoomUpdate()),
    "room_update without RM_": R(room_update=rtc.RoomUpdate(room=models.Room(sid="x"))),
    "quality left at its default": R(
        connection_quality=rtc.ConnectionQualityUpdate(updates=[rtc.ConnectionQualityInfo(participant_sid="PA_1")])
    ),
    "quality of nobody": R(connection_quality=rtc.ConnectionQualityUpdate()),
    "a speaker without PA_": R(speakers_changed=rtc.SpeakersChanged(speakers=[models.SpeakerInfo(sid="x")])),
    "mute without TR_": R(mute=rtc.MuteTrackRequest(sid="x")),
    "track_unpublished without TR_": R(track_unpublished=rtc.TrackUnpublishedResponse(track_sid="")),
    "track_subscribed without TR_": R(track_subscribed=rtc.TrackSubscribed(track_sid="x")),
    "subscription_response without TR_": R(subscription_response=rtc.SubscriptionResponse(track_sid="x")),
    "a permission of nobody": R(
        subscription_permission_update=rtc.SubscriptionPermissionUpdate(participant_sid="x", track_sid="TR_1")
    ),
    "qualities without codecs": R(subscribed_quality_update=rtc.SubscribedQualityUpdate(track_sid="TR_1")),
    "qualities of a codec in capitals": R(
        subscribed_quality_update=rtc.SubscribedQualityUpdate(
            track_sid="TR_1", subscribed_codecs=[rtc.SubscribedCodec(codec="VP8", qualities=[rtc.SubscribedQuality()] * 3)]
        )
    ),
    "one quality of a codec": R(
        subscribed_quality_update=rtc.SubscribedQualityUpdate(
            track_sid="TR_1", subscribed_codecs=[rtc.SubscribedCodec(codec="vp8", qualities=[rtc.SubscribedQuality()])]
        )
    ),
    "the state of no stream": R(stream_state_update=rtc.StreamStateUpdate()),
    "the state of a stream without TR_": R(
        stream_state_update=rtc.StreamStateUpdate(stream_states=[rtc.StreamStateInfo(participant_sid="PA_1", track_sid="x")])
    ),
    "the state of nobody's stream": R(
        stream_state_update=rtc.StreamStateUpdate(stream_states=[rtc.StreamStateInfo(participant_sid="x", track_sid="TR_1")])
    ),
    "a leave that contradicts itself": R(leave=rtc.LeaveRequest(action=2, can_reconnect=False)),
    "a pong in nanoseconds": R(pong_resp=rtc.Pong(timestamp=10**18)),
    "an old pong in nanoseconds": R(pong=10**18),
    "a pong at zero": R(pong_resp=rtc.Pong()),
    "an empty refresh_token": R(refresh_token=""),
    "what only other servers send": R(room_moved=rtc.RoomMovedResponse()),
}


@pytest.mark.parametrize("name", WRONG_LATER)
def test_what_may_never_be_sent(name: str) -> None:
    outbox = opened()
    with pytest.raises(OutboxViolation):
        outbox.put(WRONG_LATER[name])
    assert outbox.take() is None


@pytest.mark.parametrize("name", WRONG_LATER)
def test_in_production_it_is_dropped_and_the_connection_lives(name: str) -> None:
    outbox = opened()
    outbox.strict = False
    assert not outbox.put(WRONG_LATER[name])
    assert outbox.take() is None
    assert outbox.put(R(pong=5)) and outbox.take()


def test_good_messages_pass() -> None:
    outbox = opened()
    for message in (
        R(update=rtc.ParticipantUpdate(participants=[person("PA_1", 2, ("TR_1", "TR_2"))])),
        sdp("offer", "v=0\r\na=msid:PA_1|TR_2 TR_2\r\n", **{"1": "TR_2"}),
        sdp("answer", number=0),
        trickle({"candidate": "c", "sdpMid": "", "sdpMLineIndex": 0}),
        R(track_published=rtc.TrackPublishedResponse(cid="c", track=models.TrackInfo(sid="TR_9"))),
        R(room_update=rtc.RoomUpdate(room=models.Room(sid="RM_1"))),
        R(pong=1),
        R(pong_resp=rtc.Pong(timestamp=1)),
        R(track_subscribed=rtc.TrackSubscribed(track_sid="TR_9")),
        R(request_response=rtc.RequestResponse()),
        R(leave=rtc.LeaveRequest()),
    ):
        assert outbox.put(message), message
        assert outbox.take() == message.SerializeToString()


def test_a_version_may_stay_but_not_fall() -> None:
    outbox = opened()
    for version in (2, 2, 5):
        assert outbox.put(R(update=rtc.ParticipantUpdate(participants=[person("PA_1", version)])))
    with pytest.raises(OutboxViolation, match="falls from 5 to 4"):
        outbox.put(R(update=rtc.ParticipantUpdate(participants=[person("PA_1", 4)])))


def test_a_track_that_left_the_roster_cannot_be_offered() -> None:
    outbox = opened()
    outbox.put(R(update=rtc.ParticipantUpdate(participants=[person("PA_1", 2)])))
    with pytest.raises(OutboxViolation, match="before any roster"):
        outbox.put(sdp("offer", **{"1": "TR_1"}))


def test_a_participant_that_left_takes_its_tracks_along() -> None:
    outbox = opened()
    gone = person("PA_1", 2, ("TR_1",), state=P.State.DISCONNECTED)
    outbox.put(R(update=rtc.ParticipantUpdate(participants=[gone])))
    with pytest.raises(OutboxViolation, match="before any roster"):
        outbox.put(sdp("offer", **{"1": "TR_1"}))


def test_nothing_follows_leave() -> None:
    outbox = opened()
    outbox.put(R(leave=rtc.LeaveRequest()))
    with pytest.raises(OutboxViolation, match="after leave"):
        outbox.put(R(pong=1))


def test_messages_a_client_is_too_old_for_are_left_out() -> None:
    outbox = Outbox(protocol=9, strict=True)
    outbox.put(join())
    outbox.take()
    assert not outbox.put(R(track_subscribed=rtc.TrackSubscribed(track_sid="TR_1")))
    assert outbox.take() is None


def test_a_slow_client_is_given_up_once() -> None:
    given_up = []
    outbox = opened(max_queued_bytes=10_000, on_overflow=lambda: given_up.append(1))
    big = R(update=rtc.ParticipantUpdate(participants=[person("PA_1", 2, metadata="x" * 4000)]))
    outbox.queued_bytes = 0
    assert outbox.put(big) and outbox.put(big)
    assert not given_up
    assert not outbox.put(big)
    assert not outbox.put(big)
    assert given_up == [1]
    assert outbox.take() is None


def test_what_is_being_written_counts_until_it_is_written() -> None:
    outbox = opened(max_queued_bytes=10_000)
    before = outbox.queued_bytes
    outbox.put(R(pong=5))
    item = outbox.take()
    assert item is not None and outbox.queued_bytes == before + len(item)
    outbox.written(item)
    assert outbox.queued_bytes == before


def test_text_connections_get_protobuf_json_on_one_line() -> None:
    outbox = Outbox(protocol=17, is_text=True, strict=True)
    outbox.put(join())
    text = outbox.take()
    assert isinstance(text, str) and "\n" not in text
    assert json_format.Parse(text, R()) == join()
    assert json.loads(text)["join"]["participant"]["sid"] == "PA_me"


def test_a_shared_frame_is_serialised_once() -> None:
    frame = Frame(R(update=rtc.ParticipantUpdate(participants=[person("PA_1", 7)])))
    boxes = [opened() for _ in range(3)]
    for outbox in boxes:
        outbox.put(frame)
    items = [outbox.take() for outbox in boxes]
    assert items[0] is items[1] is items[2]
