"""What a LiveKit client says about itself, and how it is read out of the query of its v0 URL (LIVEKIT §1.2)."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass

from livekit.protocol import models

# What every client of the last years announces at least; one that says nothing is taken for such a client.
DEFAULT_PROTOCOL = 16
MAX_ATTRIBUTES_CHARACTERS = 65_536


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """One client's wishes and abilities."""

    protocol: int
    sdk: str
    version: str
    client_protocol: int
    capabilities: tuple[int, ...]
    auto_subscribe: bool
    adaptive_stream: bool
    reconnect: bool
    participant_sid: str
    attributes: tuple[tuple[str, str], ...]
    wants_json: bool
    metadata: str = ""
    # It has one connection for both directions, for which it offers.
    is_single: bool = False


def read_client_info(query: Mapping[str, str]) -> ClientInfo:
    """Return what the query says; what cannot be read is left at its default, as LiveKit servers do."""
    names = models.ClientInfo.Capability.DESCRIPTOR.values_by_name
    capabilities = [names[name].number for name in query.get("capabilities", "").split(",")[:64] if name in names]
    return ClientInfo(
        protocol=_number(query.get("protocol"), DEFAULT_PROTOCOL),
        sdk=query.get("sdk", "")[:32],
        version=query.get("version", "")[:32],
        client_protocol=_number(query.get("client_protocol"), 0),
        capabilities=tuple(dict.fromkeys(capabilities)),
        auto_subscribe=_is_true(query.get("auto_subscribe", "1")),
        adaptive_stream=_is_true(query.get("adaptive_stream", "")),
        reconnect=_is_true(query.get("reconnect", "")),
        participant_sid=query.get("sid", "")[:64],
        attributes=_attributes(query.get("attributes", "")),
        wants_json=_is_true(query.get("veil_json", "")),
    )


def _is_true(value: str) -> bool:
    return value.lower() in ("1", "true")


def _number(value: str | None, default: int) -> int:
    if value is None or not value.isascii() or not value.isdigit() or len(value) > 9:
        return default
    return int(value)


def _attributes(value: str) -> tuple[tuple[str, str], ...]:
    if not value or len(value) > MAX_ATTRIBUTES_CHARACTERS:
        return ()
    try:
        decoded = json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return ()
    if not isinstance(decoded, dict):
        return ()
    return tuple((k, v) for k, v in decoded.items() if isinstance(v, str) and _is_text(k) and _is_text(v))


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
