"""A room's decisions, as the intents it returns."""

import pytest

from relay.errors import Refused
from relay.policy.terms import Terms
from relay.policy.tiers import RoomKey, Tier
from relay.quality.allocator import Reason
from relay.quality.choice import BEST, Quality, Wanted
from relay.rooms.directory import Directory
from relay.rooms.endpoint import Description, Endpoint, LeaveReason, State
from relay.rooms.intents import (
    Announce,
    Attach,
    Depart,
    Detach,
    Forward,
    TellAllowed,
    TellFirstSubscriber,
    TellNotFound,
)
from relay.rooms.permissions import Audience, AudienceRule, Permission, Source
from relay.rooms.publication import Encryption, Publication
from relay.rooms.room import MAX_PENDING_PUBLICATIONS, Room


def of(intents, kind):
    return [intent for intent in intents if isinstance(intent, kind)]


def test_an_older_session_of_the_same_identity_leaves_when_a_new_one_joins(room, join, publish) -> None:
    old, other = join("ana"), join("bo")
    publish("ana", "cam")
    new = Endpoint("PA_ana2", Description("ana"), Permission(), 0)
    intents = room.join(new)
    assert of(intents, Depart) == [Depart(old, LeaveReason.DUPLICATE_IDENTITY)]
    assert of(intents, Detach) == [Detach(other.sid, "TR_ana_cam")]
    assert set(room.endpoints) == {"PA_ana2", "PA_bo"}
    assert room.by_identity("ana") is new
    assert old.state is State.DISCONNECTED and old.leave_reason is LeaveReason.DUPLICATE_IDENTITY
    # The old session's own end, when it comes, takes nobody out.
    assert room.leave(old.sid, LeaveReason.SIGNAL_CLOSE, 0) == []


def test_a_full_room_takes_nobody_but_those_who_are_in_it(room, join) -> None:
    for name in "abcde":
        join(name)
    with pytest.raises(Refused) as refused:
        join("f")
    assert refused.value.status == 403
    join("a", sid="PA_a2")
    assert len(room.endpoints) == 5


def test_a_joiner_is_attached_to_what_is_published_already(room, join, publish) -> None:
    join("ana")
    publish("ana", "cam")
    publish("ana", "late", bind=False)
    intents = room.join(Endpoint("PA_bo", Description("bo"), Permission(), 0))
    assert of(intents, Attach) == [Attach("PA_bo", "TR_ana_cam")]


def test_a_track_is_announced_before_anybody_is_attached_to_it(room, join, publish) -> None:
    for name in ("ana", "bo", "cy"):
        join(name)
    publication = publish("ana", "cam", bind=False)
    intents = room.bind(publication.sid, mime_type="video/VP8", mid="0", rids=("q", "h"))
    assert isinstance(intents[0], Announce) and intents[0].endpoint_sid == "PA_ana"
    assert {i.subscriber_sid for i in intents[1:]} == {"PA_bo", "PA_cy"}
    assert publication.rids == ("q", "h") and publication.encoding_count == 2


def test_pending_tracks_are_nobodys_business(room, join, publish) -> None:
    ana = join("ana")
    publish("ana", "cam", bind=False)
    assert ana.bound_publications() == [] and not ana.is_publisher
    assert room.set_muted("PA_ana", "TR_ana_cam", True) == []
    assert ana.publications["TR_ana_cam"].muted


@pytest.mark.parametrize(
    ("rights", "source", "allowed"),
    [
        ({}, Source.CAMERA, True),
        ({"can_publish": False}, Source.CAMERA, False),
        ({"sources": frozenset({Source.MICROPHONE})}, Source.CAMERA, False),
        ({"sources": frozenset({Source.MICROPHONE})}, Source.MICROPHONE, True),
        ({"can_publish": False, "sources": frozenset({Source.MICROPHONE})}, Source.MICROPHONE, False),
        # A source that is not said is not one that was allowed.
        ({"sources": frozenset({Source.MICROPHONE})}, Source.UNKNOWN, False),
    ],
)
def test_publishing_needs_the_right_for_the_source(room, join, rights, source, allowed) -> None:
    join("ana", **rights)
    publication = Publication("TR_1", "PA_ana", "cid", source is Source.CAMERA, source=source)
    if allowed:
        room.publish(publication)
        assert room.publication("TR_1") is publication
    else:
        with pytest.raises(Refused) as refused:
            room.publish(publication)
        assert refused.value.status == 403
        assert room.publication("TR_1") is None


def test_only_so_many_tracks_may_wait(room, join, publish) -> None:
    join("ana")
    for number in range(MAX_PENDING_PUBLICATIONS):
        publish("ana", str(number), bind=False)
    with pytest.raises(Refused) as refused:
        publish("ana", "one more", bind=False)
    assert refused.value.status == 429


def test_who_may_not_subscribe_is_never_attached(room, join, publish) -> None:
    join("ana")
    join("bo", can_subscribe=False)
    publish("ana", "cam")
    assert room.endpoints["PA_bo"].subscriptions == {}
    assert of(room.choose("PA_bo", ["TR_ana_cam"], True), Attach) == []


def test_without_auto_subscribe_only_what_is_asked_for_comes(room, join, publish) -> None:
    join("ana")
    join("bo", auto_subscribe=False)
    publish("ana", "cam")
    assert room.endpoints["PA_bo"].subscriptions == {}
    assert room.choose("PA_bo", ["TR_ana_cam"], True) == [Attach("PA_bo", "TR_ana_cam")]
    assert room.choose("PA_bo", ["TR_ana_cam"], True) == []
    assert room.choose("PA_bo", ["TR_ana_cam"], False) == [Detach("PA_bo", "TR_ana_cam")]


def test_nobody_subscribes_to_itself_or_to_nothing(room, join, publish) -> None:
    join("ana")
    publish("ana", "cam")
    assert room.choose("PA_ana", ["TR_ana_cam"], True) == []
    assert room.choose("PA_ana", ["TR_none"], True) == [TellNotFound("PA_ana", "TR_none")]
    assert room.choose("PA_ana", ["TR_none"], False) == []


def test_unpublishing_detaches_everybody_and_tells_the_rest(room, join, publish) -> None:
    ana = join("ana")
    join("bo")
    publish("ana", "cam")
    version = ana.version
    intents = room.unpublish("TR_ana_cam")
    assert intents == [Detach("PA_bo", "TR_ana_cam"), Announce("PA_ana")]
    assert ana.version > version and not ana.is_publisher
    assert room.unpublish("TR_ana_cam") == []


def test_versions_only_grow(room, join, publish) -> None:
    ana = join("ana", can_update_metadata=True)
    seen = [ana.version]
    for change in (
        lambda: room.activate("PA_ana"),
        lambda: publish("ana", "cam"),
        lambda: room.set_muted("PA_ana", "TR_ana_cam", True),
        lambda: room.describe_track("PA_ana", "TR_ana_cam", size=(1, 2)),
        lambda: room.update_description("PA_ana", name="Ana", metadata="", attributes=()),
        lambda: room.unpublish("TR_ana_cam"),
        lambda: room.leave("PA_ana", LeaveReason.CLIENT_INITIATED, 5),
    ):
        change()
        seen.append(ana.version)
    assert seen == sorted(set(seen))


def test_muting_somebody_elses_track_changes_nothing(room, join, publish) -> None:
    join("ana")
    join("bo")
    publication = publish("ana", "cam")
    assert room.set_muted("PA_bo", "TR_ana_cam", True) == []
    assert not publication.muted


def test_metadata_needs_the_right_and_is_told_to_its_owner_too(room, join) -> None:
    join("ana")
    bo = join("bo", can_update_metadata=True)
    with pytest.raises(Refused):
        room.update_description("PA_ana", name="x", metadata="", attributes=())
    intents = room.update_description("PA_bo", name="", metadata="m", attributes=(("a", "1"), ("b", "2")))
    assert intents == [Announce("PA_bo", to_itself=True)]
    room.update_description("PA_bo", name="Bo", metadata="", attributes=(("a", ""),))
    assert (bo.description.name, bo.description.metadata) == ("Bo", "m")
    assert bo.description.attributes == (("b", "2"),)


def test_a_publisher_chooses_its_audience(room, join, publish) -> None:
    join("ana")
    join("bo")
    join("cy")
    publish("ana", "cam")
    only_bo = Audience(False, (AudienceRule(identity="bo", all_tracks=True),))
    assert room.set_audience("PA_ana", only_bo) == [
        TellAllowed("PA_cy", "PA_ana", "TR_ana_cam", False),
        Detach("PA_cy", "TR_ana_cam"),
    ]
    # Asking for it does not help, and a new track is not shown either.
    assert room.choose("PA_cy", ["TR_ana_cam"], True) == []
    publish("ana", "screen")
    assert set(room.endpoints["PA_cy"].subscriptions) == set()
    by_track = Audience(False, (AudienceRule(participant_sid="PA_cy", track_sids=frozenset({"TR_ana_cam"})),))
    intents = room.set_audience("PA_ana", by_track)
    assert Attach("PA_cy", "TR_ana_cam") in intents and Detach("PA_bo", "TR_ana_cam") in intents
    assert Attach("PA_cy", "TR_ana_screen") not in intents


def test_forwarding_begins_when_the_client_has_accepted(room, join, publish) -> None:
    join("ana")
    join("bo")
    publish("ana", "cam", rids=("q", "h", "f"))
    assert room.attached("PA_bo", "TR_ana_cam", 0) == [
        Forward("PA_bo", "TR_ana_cam", 0),
        TellFirstSubscriber("PA_ana", "TR_ana_cam"),
    ]
    join("cy")
    assert of(room.attached("PA_cy", "TR_ana_cam", 0), TellFirstSubscriber) == []
    intents = room.encoding_changed("TR_ana_cam", 2, True, 1)
    assert {(i.subscriber_sid, i.encoding) for i in intents} == {("PA_bo", 2), ("PA_cy", 2)}


def test_settings_may_come_before_the_subscription(room, join, publish) -> None:
    join("ana")
    join("bo", auto_subscribe=False)
    publish("ana", "cam", rids=("q", "h", "f"))
    for encoding in range(3):
        room.encoding_changed("TR_ana_cam", encoding, True, 0)
    room.set_wanted("PA_bo", ["TR_ana_cam"], Wanted(quality=Quality.LOW), 0)
    room.choose("PA_bo", ["TR_ana_cam"], True)
    assert of(room.attached("PA_bo", "TR_ana_cam", 0), Forward) == [Forward("PA_bo", "TR_ana_cam", 0)]
    assert room.set_wanted("PA_bo", ["TR_ana_cam"], Wanted(width=640, height=360), 0) == [
        Forward("PA_bo", "TR_ana_cam", 1)
    ]
    assert room.set_wanted("PA_bo", ["TR_ana_cam"], Wanted(disabled=True), 0) == [Forward("PA_bo", "TR_ana_cam", None)]


def test_who_shows_what_it_needs_begins_with_the_least(room, join, publish) -> None:
    join("ana")
    join("bo").default_wanted = Wanted(quality=Quality.LOW)
    publish("ana", "cam", rids=("q", "h", "f"))
    for encoding in range(3):
        room.encoding_changed("TR_ana_cam", encoding, True, 0)
    room.attached("PA_bo", "TR_ana_cam", 0)
    assert room.endpoints["PA_bo"].subscriptions["TR_ana_cam"].encoding == 0
    assert room.set_wanted("PA_bo", ["TR_ana_cam"], BEST, 0) == [Forward("PA_bo", "TR_ana_cam", 2)]


def test_what_is_off_stage_is_forwarded_to_nobody_and_says_so(room, join, publish) -> None:
    join("ana")
    join("bo")
    publish("ana", "cam", rids=("q", "h", "f"))
    room.encoding_changed("TR_ana_cam", 2, True, 0)
    room.attached("PA_bo", "TR_ana_cam", 0)
    subscription = room.endpoints["PA_bo"].subscriptions["TR_ana_cam"]
    assert room.limit_of(subscription) is Reason.NONE and room.wanted_of("TR_ana_cam") is Quality.HIGH
    assert room.set_stage("TR_ana_cam", False, 0) == [Forward("PA_bo", "TR_ana_cam", None)]
    assert room.limit_of(subscription) is Reason.POLICY and room.wanted_of("TR_ana_cam") is Quality.OFF
    assert not room.is_on_stage("TR_ana_cam")
    # Asking for it does not help.
    assert room.set_wanted("PA_bo", ["TR_ana_cam"], Wanted(width=1280, height=720), 0) == []
    assert room.set_stage("TR_ana_cam", True, 0) == [Forward("PA_bo", "TR_ana_cam", 2)]


def test_the_reason_for_an_encoding_is_the_one_that_stands_in_the_way(room, join, publish) -> None:
    join("ana")
    join("bo")
    publish("ana", "cam", rids=("q", "h", "f"))
    room.encoding_changed("TR_ana_cam", 0, True, 0)
    room.attached("PA_bo", "TR_ana_cam", 0)
    subscription = room.endpoints["PA_bo"].subscriptions["TR_ana_cam"]
    assert room.limit_of(subscription) is Reason.PUBLISHER
    room.set_wanted("PA_bo", ["TR_ana_cam"], Wanted(quality=Quality.LOW), 0)
    assert room.limit_of(subscription) is Reason.REQUESTED
    room.set_wanted("PA_bo", ["TR_ana_cam"], Wanted(disabled=True), 0)
    assert room.limit_of(subscription) is Reason.REQUESTED
    room.mute_from_outside("PA_ana", "TR_ana_cam", True, 0)
    assert room.limit_of(subscription) is Reason.PUBLISHER


def test_nobody_wants_what_nobody_may_see(room, join, publish) -> None:
    join("ana")
    join("bo")
    publish("ana", "cam", rids=("q", "h", "f"))
    assert room.wanted_of("TR_ana_cam") is Quality.HIGH
    room.set_audience("PA_ana", Audience(False))
    assert room.wanted_of("TR_ana_cam") is Quality.OFF


def test_audio_is_forwarded_whatever_is_active(room, join, publish) -> None:
    join("ana")
    join("bo")
    publish("ana", "mic", is_video=False)
    assert of(room.attached("PA_bo", "TR_ana_mic", 0), Forward) == [Forward("PA_bo", "TR_ana_mic", 0)]


def test_data_goes_to_those_named_else_to_all_and_never_back(room, join) -> None:
    for name in ("ana", "bo", "cy"):
        join(name)

    def to(*arguments):
        return {endpoint.identity for endpoint in room.data_recipients("PA_ana", *arguments)}

    assert to((), ()) == {"bo", "cy"}
    assert to(("bo", "nobody", "ana"), ()) == {"bo"}
    assert to((), ("PA_cy", "PA_ana")) == {"cy"}
    assert to(("nobody",), ()) == set()


def test_who_may_not_send_data_reaches_nobody(room, join) -> None:
    join("ana", can_publish_data=False)
    join("bo")
    assert room.data_recipients("PA_ana", (), ()) == []
    assert room.data_recipients("PA_unknown", (), ()) == []


def test_leaving_takes_everything_along(room, join, publish) -> None:
    ana, _ = join("ana"), join("bo")
    publish("ana", "cam")
    publish("bo", "cam")
    intents = room.leave("PA_ana", LeaveReason.CLIENT_INITIATED, 7)
    assert set(of(intents, Detach)) == {Detach("PA_ana", "TR_bo_cam"), Detach("PA_bo", "TR_ana_cam")}
    assert of(intents, Depart) == [Depart(ana, LeaveReason.CLIENT_INITIATED)]
    assert room.publication("TR_ana_cam") is None and room.subscriptions_of("TR_bo_cam") == []
    assert room.emptied_ns is None
    room.leave("PA_bo", LeaveReason.CLIENT_INITIATED, 9)
    assert room.emptied_ns == 9


@pytest.mark.parametrize("terms", [Terms(Tier("open", "allowed"), "shared-passphrase", "livekit_gcm")])
def test_encryption_is_what_was_announced(room, join, publish) -> None:
    join("ana")
    assert publish("ana", "cam", encryption=Encryption.GCM).encryption is Encryption.GCM


def make_room(customer: str, name: str) -> Room:
    return Room(RoomKey(customer, name), "RM_x", Terms(Tier(), "none", "livekit_gcm"), 0, 0, b"t")


def test_rooms_of_one_name_are_apart_by_customer() -> None:
    directory = Directory(2, 300, 20)
    directory.add(make_room("acme", "r"))
    directory.add(make_room("other", "r"))
    assert directory.find(RoomKey("acme", "r")) is not directory.find(RoomKey("other", "r"))
    assert directory.find(RoomKey("third", "r")) is None


def test_a_customer_has_only_so_many_rooms() -> None:
    directory = Directory(1, 300, 20)
    directory.add(make_room("acme", "a"))
    with pytest.raises(Refused):
        directory.add(make_room("acme", "b"))
    directory.add(make_room("other", "b"))


def test_empty_rooms_are_kept_for_a_while_and_then_forgotten() -> None:
    directory = Directory(1, 300, 20)
    left, fresh = make_room("acme", "left"), make_room("other", "fresh")
    directory.add(left)
    directory.add(fresh)
    left.join(Endpoint("PA_1", Description("a"), Permission(), 0))
    assert directory.expire(10**15) == [fresh]
    left.leave("PA_1", LeaveReason.CLIENT_INITIATED, 10**9)
    assert directory.expire(20 * 10**9) == []
    assert directory.expire(21 * 10**9) == [left]
    # Its customer has a place again.
    directory.add(make_room("acme", "next"))


@pytest.mark.parametrize("terms", [Terms(Tier("paid", "required"), "shared-passphrase", "livekit_gcm")])
def test_a_track_against_the_tier_is_refused_and_forgotten(room, join, publish) -> None:
    join("ana")
    with pytest.raises(Refused) as refused:
        publish("ana", "cam")
    assert refused.value.status == 403 and "paid tier" in refused.value.sentence
    assert room.publication("TR_ana_cam") is None
    publish("ana", "sealed", encryption=Encryption.GCM)
    assert room.publication("TR_ana_sealed") is not None


def test_the_rooms_terms_are_shown_with_everybody_in_it(room, join) -> None:
    assert dict(join("ana").room_attributes) == {"veil.tier": "open", "veil.e2ee_profile": "none"}


@pytest.mark.parametrize(
    "name", ["veil.tier", "veil.e2ee_profile", "veil.anything", "Veil.tier", "veil.", " veil.tier", "ve\u00adil.tier",
             "\uff56eil.tier", "veil\uff0etier", "\u200bveil.tier", "v\u0301eil.tier", "VEIL\t.TIER"]
)  # fmt: skip
@pytest.mark.parametrize("value", ["paid", ""])
def test_nobody_changes_or_removes_what_is_the_servers(room, join, name: str, value: str) -> None:
    ana = join("ana", can_update_metadata=True)
    with pytest.raises(Refused) as refused:
        room.update_description(ana.sid, name="", metadata="", attributes=[("mood", "fine"), (name, value)])
    assert refused.value.status == 403 and "veil." in refused.value.sentence
    assert ana.description.attributes == (), "nothing of a refused request is done"


def test_other_names_that_hold_the_word_are_anybodys(room, join) -> None:
    ana = join("ana", can_update_metadata=True)
    given = [("veil", "1"), ("veiled.x", "2"), ("my.veil.tier", "3"), ("veil_tier", "4")]
    room.update_description(ana.sid, name="", metadata="", attributes=given)
    assert list(ana.description.attributes) == given


def test_a_full_room_and_too_many_tracks_name_the_tier(room, join, publish) -> None:
    room.max_participants = room.max_publications = 1
    join("ana")
    with pytest.raises(Refused) as refused:
        join("bo")
    assert refused.value.status == 403 and "open tier have 1 participant" in refused.value.sentence
    publish("ana", "cam")
    with pytest.raises(Refused) as refused:
        publish("ana", "mic", is_video=False)
    assert refused.value.status == 429 and "open tier a participant publishes 1 track" in refused.value.sentence


@pytest.mark.parametrize("terms", [Terms(Tier("paid", "required"), "shared-passphrase", "sframe")])
def test_key_ids_are_kept_for_a_participants_own_track_until_it_is_bound(room, join, publish) -> None:
    join("ana")
    join("bo")
    track = publish("ana", "cam", encryption=Encryption.CUSTOM, bind=False)
    assert room.announce_keys("PA_bo", track.sid, 0, 9) is None and track.key_ranges == []
    assert room.announce_keys("PA_ana", "TR_none", 0, 9) is None
    for first in range(40):
        assert room.announce_keys("PA_ana", track.sid, first, first) is track
    assert track.key_ranges == [(first, first) for first in range(8, 40)], "the newest 32"
