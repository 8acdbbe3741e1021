"""Whom the first packet of an ICE-TCP connection is for: the local ufrag in a STUN binding request.

Only that; whether the request is genuine is for the data plane to see, which has the password.
Spec: RFC 8489 §5, §14 (attributes), RFC 8445 §7.2.2 (USERNAME is the receiver's ufrag, a colon, the sender's).
"""

import struct

HEADER_BYTES = 20
MAGIC_COOKIE = 0x2112A442
BINDING_REQUEST = 0x0001
USERNAME = 0x0006
# The longest a browser sends is under 200 bytes; a request is never as long as a media packet.
MAX_REQUEST_BYTES = 1200


def local_ufrag(packet: bytes) -> str | None:
    """Return the ufrag of ours that a binding request names; None for anything else."""
    if not HEADER_BYTES <= len(packet) <= MAX_REQUEST_BYTES:
        return None
    kind, length, cookie = struct.unpack_from("!HHI", packet)
    if kind != BINDING_REQUEST or cookie != MAGIC_COOKIE or length != len(packet) - HEADER_BYTES:
        return None
    at = HEADER_BYTES
    while at + 4 <= len(packet):
        attribute, size = struct.unpack_from("!HH", packet, at)
        value = packet[at + 4 : at + 4 + size]
        if len(value) != size:
            return None
        if attribute == USERNAME:
            ours, colon, _ = value.partition(b":")
            return ours.decode() if colon and ours.isascii() else None
        at += 4 + (size + 3) // 4 * 4
    return None
