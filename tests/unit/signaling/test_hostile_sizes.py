"""One participant can neither fill the relay's memory nor make what the others are sent too large to be sent."""

import time

import pytest
from livekit.protocol import models, rtc

from relay.policy.tiers import RoomKey
from relay.rooms.endpoint import Endpoint
from relay.rooms.permissions import Audience, AudienceRule
from relay.server import Server
from relay.signaling.channels import DataPipe
from relay.signaling.livekit.outbox import Outbox

AUDIO, VIDEO = models.TrackType.AUDIO, models.TrackType.VIDEO
LARGE = "x" * 1_500_000
Reason = rtc.RequestResponse.Reason


def endpoint_of(relay: Server, sid: str) -> Endpoint:
    assert relay.conference is not None
    hall = relay.conference.find(RoomKey("acme", "r"))
    assert hall is not None
    return hall.room.endpoints[sid]


@pytest.mark.parametrize(
    "fields",
    [
        {"simulcast_codecs": [models_codec]}
        for models_codec in (
            rtc.SimulcastCodec(codec="vp8", cid=LARGE),
            rtc.SimulcastCodec(codec=LARGE, cid="cid"),
            rtc.SimulcastCodec(codec="vp8", cid="cid", layers=[models.VideoLayer(rid=LARGE)]),
        )
    ]
    + [{"layers": [models.VideoLayer(rid=LARGE)]}],
)
async def test_a_track_with_names_of_megabytes_is_not_published(connect, relay: Server, fields: dict) -> None:
    ana = await connect("ana")
    await ana.send(add_track=rtc.AddTrackRequest(cid="cid", type=VIDEO, **fields))
    assert (await ana.until("request_response")).reason == Reason.INVALID_REQUEST
    assert not endpoint_of(relay, ana.sid).publications


async def test_attributes_do_not_add_up_beyond_the_limit_of_one_request(connect, relay: Server) -> None:
    ana = await connect("ana", canUpdateOwnMetadata=True)
    reasons = []
    for number in range(4):
        attributes = {f"name{number}": "x" * 30_000}
        await ana.send(update_metadata=rtc.UpdateParticipantMetadata(request_id=number + 1, attributes=attributes))
        reasons.append((await ana.until("request_response")).reason)
    assert reasons == [Reason.OK, Reason.OK, Reason.LIMIT_EXCEEDED, Reason.LIMIT_EXCEEDED]
    held = endpoint_of(relay, ana.sid).description.attributes
    assert [name for name, _ in held] == ["name0", "name1"]
    # What makes it smaller is always taken.
    await ana.send(update_metadata=rtc.UpdateParticipantMetadata(request_id=9, attributes={"name0": ""}))
    assert (await ana.until("request_response")).reason == Reason.OK


async def test_a_name_that_is_no_sid_is_not_remembered(connect, relay: Server) -> None:
    ana = await connect("ana")
    settings = rtc.UpdateTrackSettings(track_sids=[LARGE, "TR_soon"], disabled=True)
    await ana.send(track_setting=settings)
    await ana.kinds_until_pong()
    assert list(endpoint_of(relay, ana.sid).wanted) == ["TR_soon"]


def test_a_thousand_rules_cost_no_more_than_one() -> None:
    rules = tuple(AudienceRule(identity=f"guest{n}", track_sids=frozenset({"TR_1"})) for n in range(1000))
    repeated = tuple(AudienceRule(identity="bo", track_sids=frozenset({f"TR_{n}"})) for n in range(1000))
    audience = Audience(False, rules + repeated)
    before = time.process_time()
    # A room of 200 in which one publishes 20 tracks, asked about twice.
    for asked in range(200 * 20 * 2):
        assert not audience.allows("PA_x", "bo" if asked % 2 else "cy", "TR_absent")
    assert time.process_time() - before < 0.2
    assert audience.allows("PA_x", "bo", "TR_999") and audience.allows("PA_x", "guest7", "TR_1")


def test_rules_of_a_sid_and_of_an_identity_stay_apart() -> None:
    audience = Audience(
        False,
        (
            AudienceRule(participant_sid="PA_1", identity="bo", all_tracks=True),
            AudienceRule(identity="cy", track_sids=frozenset({"TR_1"})),
            AudienceRule(identity="cy", track_sids=frozenset({"TR_2"})),
            AudienceRule(all_tracks=True),
        ),
    )
    assert audience.allows("PA_1", "ana", "TR_9")
    assert not audience.allows("PA_2", "bo", "TR_9")
    assert audience.allows("PA_3", "cy", "TR_1") and audience.allows("PA_3", "cy", "TR_2")
    assert not audience.allows("PA_3", "cy", "TR_3")
    assert not audience.allows("PA_3", "", "TR_1")


def test_labels_of_closed_channels_are_forgotten() -> None:
    class Nowhere:
        def send(self, channel: int, data: bytes) -> bool:
            return True

    pipe = DataPipe(lambda: None, reliable_label="_reliable")
    driver = Nowhere()
    for number in range(100):
        pipe.opened(driver, number, f"label {number}", preferred=False)
        pipe.closed(driver, number)
    assert pipe.labels == frozenset()


def test_the_roster_of_a_large_room_is_sent_however_large_it_is() -> None:
    overflows: list[int] = []
    outbox = Outbox(protocol=17, strict=True, max_queued_bytes=10_000, on_overflow=lambda: overflows.append(1))
    me = models.ParticipantInfo(sid="PA_1", identity="ana", version=1)
    others = [models.ParticipantInfo(sid=f"PA_{n}", identity="x", version=1, metadata="x" * 1000) for n in range(2, 40)]
    assert outbox.put(
        rtc.SignalResponse(
            join=rtc.JoinResponse(
                room=models.Room(sid="RM_1"),
                participant=me,
                other_participants=others,
                server_info=models.ServerInfo(version="1"),
                ping_interval=5,
                ping_timeout=15,
                sif_trailer=b"1",
            )
        )
    )
    assert outbox.put(rtc.SignalResponse(pong=1))
    # A second one on top is a client that does not read.
    for _ in range(2):
        outbox.put(rtc.SignalResponse(update=rtc.ParticipantUpdate(participants=others)))
    assert overflows == [1]


def test_who_has_left_is_forgotten_by_the_outbox() -> None:
    outbox = Outbox(protocol=17, strict=True)
    outbox.put(rtc.SignalResponse(reconnect=rtc.ReconnectResponse()))
    for number in range(50):
        for state in (models.ParticipantInfo.State.ACTIVE, models.ParticipantInfo.State.DISCONNECTED):
            info = models.ParticipantInfo(sid=f"PA_{number}", identity="x", version=1, state=state)
            assert outbox.put(rtc.SignalResponse(update=rtc.ParticipantUpdate(participants=[info])))
    assert outbox.known_participants == 0


async def test_who_asks_for_much_is_read_slowly_and_the_others_as_ever(connect, relay: Server) -> None:
    """A list of a thousand tracks is five milliseconds of the loop that all calls share."""
    ana, bo = await connect("ana"), await connect("bo")
    listed = rtc.UpdateTrackSettings(track_sids=[f"TR_{number:012}" for number in range(1024)], width=640, height=360)
    handled = []
    session = relay.conference.find_session(ana.sid)
    session.listener._requests._handlers["track_setting"] = handled.append
    for _ in range(400):
        await ana.send(track_setting=listed)
    begun = time.monotonic()
    while time.monotonic() - begun < 0.5:
        asked = time.monotonic()
        await bo.send(ping_req=rtc.Ping(timestamp=1))
        await bo.until("pong_resp")
        assert time.monotonic() - asked < 0.25
    # What its burst allows, and some.
    assert 60 < len(handled) < 120
    assert relay.conference.refusals["signal_pace"] > 0
