"""The data channel establishment protocol as bytes.

Spec: RFC 8832 §5 (messages), RFC 8831 §8 (payload protocol identifiers). No state; see `datachannel`.

     0                   1                   2                   3
    | type = 0x03   | channel type  |           priority            |
    |                     reliability parameter                     |
    |         label length          |        protocol length        |
    |  label …                      |  protocol …
"""

import struct
from dataclasses import dataclass

PPID_DCEP = 50
PPID_TEXT = 51
PPID_BINARY = 53
PPID_TEXT_EMPTY = 56
PPID_BINARY_EMPTY = 57

TYPE_ACK = 0x02
TYPE_OPEN = 0x03

UNORDERED = 0x80
RELIABLE, LIMITED_RETRANSMITS, LIMITED_LIFETIME = 0x00, 0x01, 0x02

MAX_NAME_BYTES = 1024
"""For label and protocol each. The wire allows 65,535; no application names a channel with a page of text."""

_OPEN = struct.Struct("!BBHIHH")

ACK = bytes([TYPE_ACK])


@dataclass(frozen=True, slots=True)
class Open:
    """A DATA_CHANNEL_OPEN message (RFC 8832 §5.1)."""

    label: str
    protocol: str = ""
    ordered: bool = True
    max_retransmits: int | None = None
    max_lifetime_ms: int | None = None

    def write(self) -> bytes:
        """Return the message.   Errors: ValueError for a name above MAX_NAME_BYTES or two limits at once."""
        label, protocol = self.label.encode(), self.protocol.encode()
        if max(len(label), len(protocol)) > MAX_NAME_BYTES:
            raise ValueError(f"a channel's label and protocol are at most {MAX_NAME_BYTES} bytes each")
        if self.max_retransmits is not None and self.max_lifetime_ms is not None:
            raise ValueError("a channel is limited by retransmissions or by time, not by both")
        kind, limit = RELIABLE, 0
        if self.max_retransmits is not None:
            kind, limit = LIMITED_RETRANSMITS, self.max_retransmits
        elif self.max_lifetime_ms is not None:
            kind, limit = LIMITED_LIFETIME, self.max_lifetime_ms
        if not 0 <= limit <= 0xFFFF_FFFF:
            raise ValueError("a channel's limit is a number of 32 bits")
        kind |= 0 if self.ordered else UNORDERED
        return _OPEN.pack(TYPE_OPEN, kind, 0, limit, len(label), len(protocol)) + label + protocol


def parse_open(data: bytes) -> Open | None:
    """Return the message, or None if it is not one that may open a channel (any bytes are accepted as input)."""
    if len(data) < _OPEN.size:
        return None
    message_type, kind, _priority, limit, label_bytes, protocol_bytes = _OPEN.unpack_from(data)
    if (
        message_type != TYPE_OPEN
        or kind & ~UNORDERED not in (RELIABLE, LIMITED_RETRANSMITS, LIMITED_LIFETIME)
        or max(label_bytes, protocol_bytes) > MAX_NAME_BYTES
        or len(data) != _OPEN.size + label_bytes + protocol_bytes
    ):
        return None
    try:
        label = data[_OPEN.size : _OPEN.size + label_bytes].decode()
        protocol = data[_OPEN.size + label_bytes :].decode()
    except UnicodeDecodeError:
        return None
    reliability = kind & ~UNORDERED
    return Open(
        label=label,
        protocol=protocol,
        ordered=not kind & UNORDERED,
        max_retransmits=limit if reliability == LIMITED_RETRANSMITS else None,
        max_lifetime_ms=limit if reliability == LIMITED_LIFETIME else None,
    )
