"""Tokens as an app's server mints them: a LiveKit JWT for one identity and one room."""

import time
from typing import Any

import jwt


def mint(key: str, secret: str, identity: str, room: str, *, ttl_s: int = 3600, **grants: Any) -> str:
    """Return a token that may publish and subscribe; grants go over that, such as canPublish=False."""
    now = int(time.time())
    video = {"room": room, "roomJoin": True, "canPublish": True, "canSubscribe": True, "canPublishData": True} | grants
    claims = {"iss": key, "sub": identity, "name": identity, "nbf": now - 5, "exp": now + ttl_s, "video": video}
    return jwt.encode(claims, secret, algorithm="HS256")
