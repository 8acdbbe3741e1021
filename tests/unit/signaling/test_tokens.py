"""What an access token opens, and the status and sentence of each refusal."""

import base64
import json
import time

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit import api

from relay.errors import Refused
from relay.policy.tiers import RoomKey
from relay.rooms.permissions import Permission, Source
from relay.signaling.livekit.tokens import read_grant, refresh
from tests.support.local_relay import KEYS, OTHER_SECRET, SECRET, token


def test_a_token_of_livekit_api_is_read_whole() -> None:
    text = (
        api.AccessToken("akey", SECRET)
        .with_identity("ana")
        .with_name("Ana")
        .with_metadata("m")
        .with_attributes({"a": "1"})
        .with_kind("agent")
        .with_grants(
            api.VideoGrants(room_join=True, room="r", can_publish_sources=["camera"], can_update_own_metadata=True)
        )
        .to_jwt()
    )
    grant = read_grant(text, KEYS)
    assert grant.room == RoomKey("acme", "r")
    assert (grant.identity, grant.name, grant.metadata, grant.attributes) == ("ana", "Ana", "m", (("a", "1"),))
    assert grant.kind == 4
    assert grant.permission == Permission(can_update_metadata=True, sources=frozenset({Source.CAMERA}))


def test_the_key_names_the_customer() -> None:
    assert read_grant(token(OTHER_SECRET, iss="bkey"), KEYS).room == RoomKey("other", "r")


def unsigned(**changes) -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    return f"{head}.{token(**changes).split('.')[1]}."


def refusals() -> dict[str, tuple[str, int, str]]:
    """Return token, status and words by name, made now: a token of when tests were collected can expire before its turn."""
    now_s = int(time.time())
    return {
        "no token": ("", 401, "needed"),
        "not a token": ("abc", 401, "cannot be read"),
        "three empty parts": ("..", 401, "cannot be read"),
        "no algorithm": (unsigned(), 401, "cannot be read"),
        "another algorithm": (token(SECRET * 2, "HS512"), 401, "cannot be read"),
        "wrong secret": (token("x" * 32), 401, "not signed"),
        "another customer's secret": (token(OTHER_SECRET), 401, "not signed"),
        "unknown key": (token(iss="nobody"), 401, "does not know"),
        "key that is no text": (token(without=("iss",)), 401, "does not know"),
        "expired": (token(exp=now_s - 61), 401, "expired"),
        "not valid yet": (token(nbf=now_s + 36_000), 401, "not valid yet"),
        "without an end": (token(without=("exp",)), 401, "'exp'"),
        "no grants": (token(without=("video",)), 401, "joining"),
        "roomJoin is false": (token(video={"roomJoin": False}), 401, "joining"),
        "roomJoin is a word": (token(video={"roomJoin": "true"}), 401, "joining"),
        "no identity": (token(without=("sub",)), 400, "identity"),
        "empty identity": (token(sub=""), 400, "identity"),
        "endless identity": (token(sub="x" * 257), 400, "256"),
        "empty room": (token(video={"room": ""}), 400, "room"),
        "no room": (token(video={"room": None}), 400, "room"),
        "room that is a number": (token(video={"room": 3}), 400, "not text"),
        "identity that protobuf cannot carry": (token(sub="\ud800"), 400, "valid text"),
        "endless name": (token(name="x" * 257), 400, "256"),
        "attributes that are a list": (token(attributes=["a"]), 400, "attributes"),
        "attributes that are numbers": (token(attributes={"a": 1}), 400, "attributes"),
        "hidden": (token(video={"hidden": True}), 403, "unseen"),
        "right that is no truth value": (token(video={"canPublish": "no"}), 401, "canPublish"),
        "sources that are a word": (token(video={"canPublishSources": "camera"}), 401, "canPublishSources"),
        "longer than any URL": ("a." * 10_000, 401, "longer"),
    }


REFUSALS = tuple(refusals())


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_have_a_status_and_a_sentence(name: str) -> None:
    text, status, words = refusals()[name]
    with pytest.raises(Refused) as refused:
        read_grant(text, KEYS)
    assert refused.value.status == status
    assert words in refused.value.sentence
    assert SECRET not in refused.value.sentence
    assert len(text) < 9 or text[-20:] not in refused.value.sentence


@pytest.mark.parametrize("late_s", [0, 59])
def test_clocks_may_differ_by_a_minute(late_s: int) -> None:
    assert read_grant(token(exp=int(time.time()) - late_s), KEYS).identity == "ana"
    assert read_grant(token(nbf=int(time.time()) + late_s), KEYS).identity == "ana"


@pytest.mark.parametrize(
    ("video", "expected"),
    [
        ({}, Permission()),
        ({"canPublish": False}, Permission(can_publish=False, can_publish_data=False)),
        ({"canPublish": False, "canPublishData": True}, Permission(can_publish=False, can_publish_data=True)),
        ({"canPublishData": False}, Permission(can_publish_data=False)),
        ({"canSubscribe": False}, Permission(can_subscribe=False)),
        ({"canSubscribe": None, "canPublish": None}, Permission()),
        ({"canPublishSources": []}, Permission()),
        ({"canPublishSources": ["Microphone"]}, Permission(sources=frozenset({Source.MICROPHONE}))),
        # Sources we do not know allow nothing; they must not turn into "all".
        ({"canPublishSources": ["hologram"]}, Permission(can_publish=False)),
        ({"recorder": True}, Permission(recorder=True)),
    ],
)
def test_absent_rights_have_livekits_meaning(video: dict, expected: Permission) -> None:
    assert read_grant(token(video=video), KEYS).permission == expected


def test_a_refreshed_token_opens_the_same_and_lives_on() -> None:
    grant = read_grant(token(exp=int(time.time()) + 5, attributes={"a": "1"}), KEYS)
    now_s = int(time.time())
    again = read_grant(refresh(grant, now_s), KEYS)
    assert (again.room, again.identity, again.permission, again.attributes) == (
        grant.room,
        grant.identity,
        grant.permission,
        grant.attributes,
    )
    assert again.claims["exp"] == now_s + 600
    long = read_grant(token(exp=now_s + 5000), KEYS)
    assert read_grant(refresh(long, now_s), KEYS).claims["exp"] == now_s + 5000


@given(st.text(max_size=200))
def test_any_text_is_refused_with_401(text: str) -> None:
    with pytest.raises(Refused) as refused:
        read_grant(text, KEYS)
    assert refused.value.status == 401


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = ("sub", "name", "metadata", "attributes", "kind", "video", "exp", "nbf", "iat", "aud", "jti")


@given(
    st.dictionaries(st.sampled_from(names), json_values),
    st.dictionaries(st.sampled_from(("room", "canPublish", "canPublishSources", "hidden")), json_values),
)
def test_signed_nonsense_is_refused_or_understood(claims: dict, video: dict) -> None:
    now = int(time.time())
    body = {"sub": "a", "exp": now + 60, "video": {"roomJoin": True, "room": "r", **video}, **claims, "iss": "akey"}
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")
    payload = base64.urlsafe_b64encode(json.dumps(body).encode()).rstrip(b"=")
    signature = jwt.algorithms.HMACAlgorithm("SHA256").sign(head + b"." + payload, SECRET.encode())
    text = b".".join((head, payload, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()
    try:
        grant = read_grant(text, KEYS)
    except Refused as refused:
        assert refused.status in (400, 401, 403)
    else:
        assert grant.identity and grant.room.name
        assert not body["video"].get("hidden")
