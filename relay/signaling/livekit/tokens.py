"""What a LiveKit access token allows (LIVEKIT §1.3): who joins which room of which customer, with which rights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from relay.config import ApiKey
from relay.errors import Refused
from relay.policy.terms import Demands, read_demands, without_reserved
from relay.policy.tiers import RoomKey
from relay.rooms.permissions import Permission, Source
from relay.signaling.jwt_edge import read_claims, sign_claims
from relay.signaling.keyring import Keyring

# Names are shown, logged and sent to everybody in the room; LiveKit draws the line at 256 too.
MAX_NAME_CHARACTERS = 256
MAX_METADATA_CHARACTERS = 65_536
NOBODY_HIDDEN = "Nobody can be in a call unseen: this server refuses tokens and calls that ask to be hidden."
KINDS = {"standard": 0, "ingress": 1, "egress": 2, "sip": 3, "agent": 4}
SOURCES = {
    "camera": Source.CAMERA,
    "microphone": Source.MICROPHONE,
    "screen_share": Source.SCREEN_SHARE,
    "screen_share_audio": Source.SCREEN_SHARE_AUDIO,
}


@dataclass(frozen=True, slots=True)
class Grant:
    """A verified right to join."""

    room: RoomKey
    identity: str
    name: str
    metadata: str
    # Without the relay's own names, which are read into `demands`.
    attributes: tuple[tuple[str, str], ...]
    demands: Demands
    kind: int
    permission: Permission
    key: ApiKey
    claims: Mapping[str, Any]
    # When it was signed, as far as it says so; 0 else.
    issued_s: float


def read_grant(token: str, keys: Keyring) -> Grant:
    """Return what this token allows.

    Errors: Refused 401 (no, wrong or expired token, no roomJoin), 400 (empty or over-long names, attributes
    with the relay's names that are no demands), 403 (`hidden`).
    """
    key, claims = read_claims(token, keys)
    video = claims.get("video")
    if not isinstance(video, dict) or video.get("roomJoin") is not True:
        raise Refused(401, "The token does not allow joining a room.")
    identity = _text(claims, "sub", "identity", MAX_NAME_CHARACTERS)
    room = _text(video, "room", "room name", MAX_NAME_CHARACTERS)
    if not identity:
        raise Refused(400, "The token names no identity.")
    if not room:
        raise Refused(400, "The token names no room.")
    if video.get("hidden") or names_hidden(claims.get("roomConfig")):
        raise Refused(403, NOBODY_HIDDEN)
    attributes = _attributes(claims.get("attributes"))
    return Grant(
        room=RoomKey(key.customer, room),
        identity=identity,
        name=_text(claims, "name", "name", MAX_NAME_CHARACTERS),
        metadata=_text(claims, "metadata", "metadata", MAX_METADATA_CHARACTERS),
        attributes=without_reserved(attributes),
        demands=read_demands(attributes),
        kind=KINDS.get(str(claims.get("kind") or "standard").lower(), 0),
        permission=_permission(video),
        key=key,
        claims=claims,
        issued_s=_issued_s(claims),
    )


def names_hidden(value: object) -> bool:
    """True when anything in this JSON is said to be hidden."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, Mapping):
            # An attribute may have that name; its value is text.
            if item.get("hidden") is True:
                return True
            left.extend(item.values())
        elif isinstance(item, list):
            left.extend(item)
    return False


def with_permission(grant: Grant, permission: Permission) -> Grant:
    """Return a grant like this one with other rights, for the tokens that are made out of it."""
    rights = {
        "canSubscribe": permission.can_subscribe,
        "canPublish": permission.can_publish,
        "canPublishData": permission.can_publish_data,
        "canUpdateOwnMetadata": permission.can_update_metadata,
        "canPublishSources": [name for name, source in SOURCES.items() if source in permission.sources],
        "recorder": permission.recorder,
        "agent": permission.agent,
    }
    claims = {**grant.claims, "video": {**grant.claims["video"], **rights}}
    return replace(grant, permission=permission, claims=claims)


def _issued_s(claims: Mapping[str, Any]) -> float:
    """`iat` where a token has it; livekit-api writes `nbf` alone, at the moment of signing."""
    for name in ("iat", "nbf"):
        value = claims.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
    return 0


def refresh(grant: Grant, now_s: int, shortest_s: int = 600) -> str:
    """Return a token with the same rights that lives as long as the old one still would, ten minutes at least.

    A session outlives its token; the refreshed one lets it come back after a broken connection (LIVEKIT §1.4).
    """
    claims = {name: value for name, value in grant.claims.items() if name not in ("iss", "iat", "jti")}
    remaining_s = int(grant.claims["exp"]) - now_s
    claims["nbf"] = now_s
    claims["exp"] = now_s + max(remaining_s, shortest_s)
    return sign_claims(claims, grant.key)


def _permission(video: Mapping[str, Any]) -> Permission:
    """Absent rights to publish and subscribe mean yes; absent data means the same as publishing; absent others no."""
    can_publish = _right(video, "canPublish", True)
    named = video.get("canPublishSources") or ()
    if not isinstance(named, list | tuple) or not all(isinstance(name, str) for name in named):
        raise Refused(401, "The token's canPublishSources is not a list of names.")
    sources = frozenset(SOURCES[name.lower()] for name in named if name.lower() in SOURCES)
    return Permission(
        can_subscribe=_right(video, "canSubscribe", True),
        # A list that names only sources we do not know allows none, rather than all.
        can_publish=can_publish and (bool(sources) or not named),
        can_publish_data=_right(video, "canPublishData", can_publish),
        can_update_metadata=_right(video, "canUpdateOwnMetadata", False),
        sources=sources,
        recorder=_right(video, "recorder", False),
        agent=_right(video, "agent", False),
    )


def _right(video: Mapping[str, Any], name: str, default: bool) -> bool:
    value = video.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Refused(401, f"The token's {name} is neither true nor false.")
    return value


def _text(source: Mapping[str, Any], field: str, what: str, longest: int) -> str:
    value = source.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refused(400, f"The token's {what} is not text.")
    if len(value) > longest:
        raise Refused(400, f"The token's {what} is longer than {longest} characters.")
    return _sendable(value, what)


def _sendable(value: str, what: str) -> str:
    """Lone surrogates pass JSON but not protobuf; what cannot be sent to others must not get in."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(400, f"The token's {what} is not valid text.") from None
    return value


def _attributes(value: object) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise Refused(400, "The token's attributes are not a map of texts.")
    if sum(len(name) + len(item) for name, item in value.items()) > MAX_METADATA_CHARACTERS:
        raise Refused(400, f"The token's attributes are longer than {MAX_METADATA_CHARACTERS} characters.")
    return tuple((_sendable(name, "attributes"), _sendable(item, "attributes")) for name, item in value.items())
