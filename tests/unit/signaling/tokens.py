"""Tokens as apps make them, for tests."""

import time
from typing import Any

import jwt

from relay.config import ApiKey
from relay.signaling.keyring import Keyring

SECRET = "0123456789abcdef0123456789abcdef"
OTHER_SECRET = "fedcba9876543210fedcba9876543210"
KEYS = Keyring([ApiKey("akey", SECRET, "acme"), ApiKey("bkey", OTHER_SECRET, "other")])


def token(secret: str = SECRET, algorithm: str = "HS256", *, without: tuple[str, ...] = (), **changes: Any) -> str:
    """Return a token that may join room `r` as `ana`; `video` replaces grants one by one."""
    now = int(time.time())
    video = {"roomJoin": True, "room": "r", **changes.pop("video", {})}
    claims = {"iss": "akey", "sub": "ana", "name": "Ana", "nbf": now, "exp": now + 600, "video": video, **changes}
    return jwt.encode({k: v for k, v in claims.items() if k not in without}, secret, algorithm=algorithm)
