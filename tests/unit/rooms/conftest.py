"""Rooms and people for tests of pure policy."""

from collections.abc import Callable

import pytest

from relay.policy.terms import Terms
from relay.policy.tiers import RoomKey, Tier
from relay.rooms.endpoint import Description, Endpoint
from relay.rooms.permissions import Permission
from relay.rooms.publication import Layer, Publication
from relay.rooms.room import Room

OPEN = Tier("open", "allowed")


@pytest.fixture
def terms() -> Terms:
    """Of the room; a test may give other ones."""
    return Terms(OPEN, "none", "livekit_gcm")


@pytest.fixture
def room(terms: Terms) -> Room:
    return Room(RoomKey("acme", "standup"), "RM_1", terms, 1_000, 0, b"trailer", max_participants=5)


@pytest.fixture
def join(room: Room) -> Callable[..., Endpoint]:
    """Join the room: `join("ana")` is participant PA_ana."""

    def join_as(identity: str, *, sid: str = "", auto_subscribe: bool = True, **rights: object) -> Endpoint:
        endpoint = Endpoint(
            sid or f"PA_{identity}", Description(identity), Permission(**rights), 1_000, auto_subscribe=auto_subscribe
        )
        room.join(endpoint)
        return endpoint

    return join_as


@pytest.fixture
def publish(room: Room) -> Callable[..., Publication]:
    """Publish a bound track: `publish("ana", "cam")` is TR_ana_cam."""

    def publish_as(
        identity: str, name: str, *, is_video: bool = True, bind: bool = True, rids=(), **fields
    ) -> Publication:
        layers = tuple(Layer(q, 320 << q, 180 << q) for q in range(len(rids)))
        publication = Publication(
            f"TR_{identity}_{name}", f"PA_{identity}", f"cid-{name}", is_video, layers=layers, **fields
        )
        room.publish(publication)
        if bind:
            room.bind(publication.sid, mime_type="video/VP8" if is_video else "audio/opus", mid="1", rids=rids)
        return publication

    return publish_as
