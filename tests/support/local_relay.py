"""A relay for one test: settings on free ports of loopback, the keys of two customers, tokens as apps make them."""

import dataclasses
import time
from typing import Any

import jwt

from relay.config import ApiKey, Config, Customer, Tier, load
from relay.signaling.keyring import Keyring

SECRET = "0123456789abcdef0123456789abcdef"
OTHER_SECRET = "fedcba9876543210fedcba9876543210"
PAID_SECRET = "paid-secret-0123456789abcdef0123"
API_KEYS = (
    ApiKey("akey", SECRET, "acme"),
    ApiKey("bkey", OTHER_SECRET, "other"),
    ApiKey("pkey", PAID_SECRET, "payer"),
)
KEYS = Keyring(API_KEYS)


def token(secret: str = SECRET, algorithm: str = "HS256", *, without: tuple[str, ...] = (), **changes: Any) -> str:
    """Return a token that may join room `r` as `ana`; `video` replaces grants one by one."""
    now = int(time.time())
    video = {"roomJoin": True, "room": "r", **changes.pop("video", {})}
    claims = {"iss": "akey", "sub": "ana", "name": "Ana", "nbf": now, "exp": now + 600, "video": video, **changes}
    return jwt.encode({k: v for k, v in claims.items() if k not in without}, secret, algorithm=algorithm)


def settings(**limits: int) -> Config:
    """Return settings for a relay on free ports of loopback: `acme` may encrypt its calls, `other` is of the free tier and
    may not, `payer` has to."""
    config = load(
        None,
        environ={},
        overrides={
            "server.bind_ip": ("127.0.0.1", "a test"),
            "server.http_port": (0, "a test"),
            "media.udp_port": (0, "a test"),
            "media.tcp_port": (0, "a test"),
            "media.bind_ips": (("127.0.0.1",), "a test"),
        },
        dev=True,
    )
    return dataclasses.replace(
        config,
        keys=API_KEYS,
        customers=(Customer("acme", "open"), Customer("payer", "paid")),
        tiers={**config.tiers, "open": Tier("allowed")},
        limits=dataclasses.replace(config.limits, **limits),
    )
