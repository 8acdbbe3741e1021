"""Which bytes of an RTP payload the relay may look at, read a second time and on purpose without the relay's own parsers.

DESIGN section 5, "header view": the RTP-level descriptor (VP8: RFC 7741 section 4.2, VP9: RFC 9628 section 4.2, AV1: its
aggregation header byte, H264: NAL, FU and STAP-A headers of RFC 6184 section 5) and the first byte of a VP8 frame.
A payload that ends inside its descriptor is all descriptor. The "mark view" of a frame declared encrypted: its first 16
bytes; LiveKit: its last 14 bytes, of H264 its last 24 with emulation prevention; SFrame: its header (RFC 9605 section 4.3)
behind VP8's clear byte or in AV1's wrapper. Everything else is the sender's.
"""

from __future__ import annotations

Range = tuple[int, int]


def _number_bytes(payload: bytes, at: int) -> int:
    """Length of a picture id: two bytes if its first bit says so."""
    return 2 if payload[at : at + 1] >= b"\x80" else 1


def _vp8(payload: bytes) -> int:
    at = 1
    if payload[0] >> 7:
        flags = payload[1] if len(payload) > 1 else 0
        at = 2
        if flags & 0b1000_0000:
            at += _number_bytes(payload, at)
        if flags & 0b0100_0000:
            at += 1
        if flags & 0b0011_0000:
            at += 1
    return at


def _vp9(payload: bytes) -> int:
    i, p, layers, flexible, _, _, structure, _ = (payload[0] >> bit & 1 for bit in range(7, -1, -1))
    at = 1
    if i:
        at += _number_bytes(payload, at)
    if layers:
        at += 1 if flexible else 2
    if flexible and p:
        for _ in range(3):
            at += 1
            if at > len(payload) or payload[at - 1] & 1 == 0:
                break
    if structure and at < len(payload):
        first = payload[at]
        at += 1 + (4 * ((first >> 5) + 1) if first & 0x10 else 0)
        if first & 0x08 and at < len(payload):
            pictures, at = payload[at], at + 1
            for _ in range(pictures):
                if at >= len(payload):
                    break
                at += 1 + (payload[at] >> 2 & 3)
    return at


def descriptor_bytes(codec: str, payload: bytes) -> int:
    """How far the descriptor in front of a VP8 or VP9 payload goes; 0 for codecs that have none to rewrite."""
    if not payload or codec not in ("vp8", "vp9"):
        return 0
    return min(len(payload), (_vp8 if codec == "vp8" else _vp9)(payload))


def _h264(payload: bytes) -> list[Range]:
    kind = payload[0] & 31
    if kind in (28, 29):
        return [(0, 2)]
    found = [(0, 1)]
    if kind == 24:
        at = 1
        while at < len(payload):
            # Size and header of one aggregated unit.
            found.append((at, at + 3))
            at += 2 + int.from_bytes(payload[at : at + 2], "big")
            if found[-1][1] > at:
                break
    return found


def header_view(codec: str, payload: bytes) -> list[Range]:
    """The payload's bytes that may decide something, as ranges [from, to)."""
    if not payload:
        return []
    if codec == "vp8":
        end = descriptor_bytes(codec, payload)
        begins = payload[0] & 0b0001_0111 == 0b0001_0000  # S set, partition 0
        return [(0, end + begins)]
    if codec == "vp9":
        return [(0, descriptor_bytes(codec, payload))]
    if codec == "av1":
        return [(0, 1)]
    if codec == "h264":
        return _h264(payload)
    return []


def _sframe_end(codec: str, payload: bytes) -> int:
    """Where SFrame's header ends in a frame's first payload, counted from the payload's start."""
    at = descriptor_bytes(codec, payload)
    if codec == "vp8":
        at += 1
    elif codec == "av1":
        # The last OBU has no size of its own: those before it have.
        at = 1
        for _ in range((payload[0] >> 4 & 3) - 1):
            at += 1 + payload[at]
        at += 1
    kid, ctr = payload[at] >> 4, payload[at] & 15
    return at + 1 + sum(field - 7 for field in (kid, ctr) if field > 7)


def _mark_begins(codec: str, payload: bytes) -> int:
    """Where the frame's own bytes begin: H264's later fragments have two in front that are not."""
    if codec == "av1":
        return 1
    if codec == "h264":
        return 2 if len(payload) > 2 and payload[0] & 31 == 28 and payload[1] < 0x80 else 0
    return descriptor_bytes(codec, payload)


def mark_views(codec: str, frame_format: str, payloads: list[bytes]) -> list[list[Range]]:
    """The mark view of one frame by packet, whose payloads are given whole: as ranges [from, to) in each of them."""
    found: list[list[Range]] = [[] for _ in payloads]
    if frame_format == "clear":
        return found
    begins = [_mark_begins(codec, payload) for payload in payloads]
    left = 16
    for ranges, payload, begin in zip(found, payloads, begins, strict=True):
        if left > 0:
            ranges.append((begin, begin + left))
            left -= len(payload) - begin
    if frame_format == "sframe":
        found[0].append((begins[0], _sframe_end(codec, payloads[0])))
        return found
    left = 24 if codec == "h264" else 14
    for ranges, payload, begin in zip(reversed(found), reversed(payloads), reversed(begins), strict=True):
        if left > 0:
            ranges.append((max(begin, len(payload) - left), len(payload)))
            left -= len(payload) - begin
    return found


def replace_outside(payload: bytes, other: bytes, kept: list[Range]) -> bytes:
    """`other`'s bytes in place of the payload's, but for those that are kept."""
    out = bytearray(other)
    for begin, end in kept:
        out[begin:end] = payload[begin:end]
    return bytes(out[: len(payload)])
