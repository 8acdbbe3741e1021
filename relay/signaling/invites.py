"""Invite links: signed, expiring, for one room; a guest trades one for a token without seeing any secret.

An invite is no token: it has no `video` grant, so `/rtc` refuses it, and it is told apart by its `typ` claim, so a
token is refused here. It names no identity; everybody who holds the link gets one of their own.
"""

import re
from dataclasses import dataclass
from typing import Any

from relay.clock import wall_s
from relay.config import ApiKey
from relay.errors import Refused
from relay.ids import new_token
from relay.policy.terms import NO_DEMANDS, Demands, read_demands
from relay.policy.tiers import RoomKey
from relay.signaling.jwt_edge import read_claims, sign_claims
from relay.signaling.keyring import Keyring
from relay.signaling.livekit.tokens import MAX_NAME_CHARACTERS

TYPE = "veil-invite"
# Long enough for a meeting link sent the day before, short enough that a leaked one dies by itself.
DEFAULT_TTL_S = 7 * 24 * 3600
# What a guest's own token lives: a long working day. A session outlives it, only a rejoin needs it.
TOKEN_TTL_S = 12 * 3600
_RIGHTS = ("canPublish", "canSubscribe", "canPublishData")
_NOT_IN_IDENTITY = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Invite:
    """A verified invite."""

    room: RoomKey
    rights: dict[str, bool]
    key: ApiKey
    # Of the call that the link leads to; the first guest's token makes it so, the others' insist on it.
    demands: Demands = NO_DEMANDS


def mint(
    key: ApiKey,
    room: str,
    *,
    ttl_s: int = DEFAULT_TTL_S,
    now_s: int | None = None,
    can_publish: bool = True,
    can_subscribe: bool = True,
    can_publish_data: bool = True,
    demands: Demands = NO_DEMANDS,
) -> str:
    """Return an invite into that room of the key's customer.

    Errors: ValueError for an unusable room name or life, Refused for demands that nobody can meet.
    """
    if not room or len(room) > MAX_NAME_CHARACTERS:
        raise ValueError(f"a room name has 1 to {MAX_NAME_CHARACTERS} characters")
    if ttl_s <= 0:
        raise ValueError("an invite lives for a positive number of seconds")
    now_s = wall_s() if now_s is None else now_s
    claims = {
        "typ": TYPE,
        "room": room,
        "nbf": now_s,
        "exp": now_s + ttl_s,
        "jti": new_token(12),
        "canPublish": can_publish,
        "canSubscribe": can_subscribe,
        "canPublishData": can_publish_data,
    }
    if attributes := demands.attributes():
        read_demands(attributes.items(), "invite")
        claims["attributes"] = attributes
    return sign_claims(claims, key)


def link(origin: str, invite: str) -> str:
    """Return the address a guest opens. The invite is in the fragment, which browsers send to nobody."""
    return f"{origin}/#invite={invite}"


def read(invite: str, keys: Keyring) -> Invite:
    """Return what this invite opens.   Errors: Refused 401."""
    key, claims = read_claims(invite, keys, "invite")
    room = claims.get("room")
    if claims.get("typ") != TYPE or not isinstance(room, str) or not 0 < len(room) <= MAX_NAME_CHARACTERS:
        raise Refused(401, "This is not an invite.")
    attributes = claims.get("attributes") or {}
    if not isinstance(attributes, dict) or not all(isinstance(value, str) for value in attributes.values()):
        raise Refused(401, "This is not an invite.")
    # A right that the invite does not spell out is not given.
    rights = {right: claims.get(right) is True for right in _RIGHTS}
    return Invite(RoomKey(key.customer, room), rights, key, read_demands(attributes.items(), "invite"))


def admit(invite: Invite, name: object, asked: Demands = NO_DEMANDS) -> tuple[str, str]:
    """Return (token, identity) for a guest who calls himself `name` and asks for a call of that kind.

    Errors: Refused 400, 403 when the invite leads to a call of another kind.
    """
    shown = clean_name(name)
    identity = identity_of(shown)
    demands = both(invite.demands, asked)
    return join_token(invite.key, invite.room.name, identity, shown, invite.rights, demands), identity


def both(invited: Demands, asked: Demands) -> Demands:
    """Return what an invite and its guest demand together.   Errors: Refused 403 when they contradict each other."""
    said = invited.attributes()
    for attribute, value in asked.attributes().items():
        if said.setdefault(attribute, value) != value:
            raise Refused(403, f"The invite leads to a call whose {attribute} is {said[attribute]}, and not {value}.")
    return read_demands(said.items(), "invite")


def identity_of(name: str) -> str:
    """Return an identity nobody else has: readable in logs, unique by its end."""
    return f"{_NOT_IN_IDENTITY.sub('-', name.lower()).strip('-')[:32] or 'guest'}-{new_token(8)}"


def join_token(
    key: ApiKey, room: str, identity: str, name: str, rights: dict[str, bool], demands: Demands = NO_DEMANDS
) -> str:
    """Return an access token for one participant."""
    now_s = wall_s()
    video: dict[str, Any] = {"roomJoin": True, "room": room, **rights}
    claims = {"sub": identity, "name": name, "nbf": now_s, "exp": now_s + TOKEN_TTL_S, "video": video}
    attributes = demands.attributes()
    return sign_claims(claims | {"attributes": attributes} if attributes else claims, key)


def clean_name(name: object) -> str:
    """Return a name fit to be shown to others.   Errors: Refused 400."""
    if not isinstance(name, str):
        raise Refused(400, "A name is needed.")
    shown = " ".join("".join(character if character.isprintable() else " " for character in name).split())
    if not shown or len(shown) > 64:
        raise Refused(400, "A name has 1 to 64 characters.")
    return shown
