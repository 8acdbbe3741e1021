"""Encoded frames into RTP payloads, as browsers cut them: for tests of what the relay makes of payloads.

Spec: RFC 7741 (VP8), RFC 9628 (VP9), RFC 6184 (H264), RTP Payload Format For AV1. Packets of a frame are equally long, as
libwebrtc makes them, OBUs lose their sizes, and H264's parameter sets go into one aggregate.
"""

from __future__ import annotations

LIMIT_BYTES = 1100


def cut(data: bytes, limit: int = LIMIT_BYTES) -> list[bytes]:
    """Equal parts of at most `limit` bytes."""
    count = max(1, -(-len(data) // limit))
    base, longer = divmod(len(data), count)
    out, at = [], 0
    for i in range(count):
        size = base + (i >= count - longer)
        out.append(data[at : at + size])
        at += size
    return out


def vp8(frame: bytes, limit: int = LIMIT_BYTES) -> list[bytes]:
    return [bytes([0x10 if i == 0 else 0]) + part for i, part in enumerate(cut(frame, limit))]


def vp9(frame: bytes, limit: int = LIMIT_BYTES, *, keyframe: bool = False) -> list[bytes]:
    parts = cut(frame, limit)
    first = 0x80 | (0 if keyframe else 0x40)
    return [
        bytes([first | (0x08 if i == 0 else 0) | (0x04 if i == len(parts) - 1 else 0), 0x05]) + part
        for i, part in enumerate(parts)
    ]


def leb128(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def obus(unit: bytes) -> list[bytes]:
    """The OBUs of a temporal unit without delimiters and sizes."""
    out, at = [], 0
    while at < len(unit):
        head = unit[at]
        begin = at + (2 if head & 4 else 1)
        size = shift = 0
        while head & 2:
            byte = unit[begin]
            begin += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        end = begin + size if head & 2 else len(unit)
        if head >> 3 & 15 != 2:
            out.append(bytes([head & ~2]) + unit[at + 1 : at + (2 if head & 4 else 1)] + unit[begin:end])
        at = end
    return out


def av1(unit: bytes, limit: int = LIMIT_BYTES, *, keyframe: bool = False) -> list[bytes]:
    """All OBUs of a unit, those of one packet counted by W where there are up to three."""
    packets: list[tuple[list[bytes], bool, bool]] = []
    elements: list[bytes] = []
    room, goes_on = limit, False
    for obu in obus(unit):
        rest = obu
        while rest:
            if room < 8 or len(elements) == 3:
                packets.append((elements, goes_on, False))
                elements, room, goes_on = [], limit, False
            part, rest = rest[:room], rest[room:]
            elements.append(part)
            room -= len(part) + 2
            if rest:
                packets.append((elements, goes_on, True))
                elements, room, goes_on = [], limit, True
    if elements:
        packets.append((elements, goes_on, False))
    out = []
    for i, (parts, continued, unfinished) in enumerate(packets):
        head = (0x80 if continued else 0) | (0x40 if unfinished else 0) | len(parts) << 4
        head |= 0x08 if keyframe and i == 0 else 0
        body = b"".join(leb128(len(p)) + p for p in parts[:-1]) + parts[-1]
        out.append(bytes([head]) + body)
    return out


def nal_units(frame: bytes) -> list[bytes]:
    """NAL units of an Annex B frame; what stands before a start code's 00 00 01 ends the unit, but for its fourth byte."""
    starts = []
    at = frame.find(b"\0\0\1")
    while at >= 0:
        starts.append(at)
        at = frame.find(b"\0\0\1", at + 3)
    ends = [s - 1 if s and frame[s - 1] == 0 else s for s in starts[1:]] + [len(frame)]
    units = [frame[s + 3 : e] for s, e in zip(starts, ends, strict=True)]
    return [unit for unit in units if unit]


def h264(frame: bytes, limit: int = LIMIT_BYTES) -> list[bytes]:
    out, small = [], []
    for nal in nal_units(frame):
        if len(nal) < 100 and nal[0] & 31 >= 6:
            small.append(nal)
            continue
        if small:
            out.append(aggregate(small))
            small = []
        out += [nal] if len(nal) <= limit else fragments(nal, limit)
    return out + ([aggregate(small)] if small else [])


def aggregate(nals: list[bytes]) -> bytes:
    if len(nals) == 1:
        return nals[0]
    return bytes([0x78]) + b"".join(len(n).to_bytes(2, "big") + n for n in nals)


def fragments(nal: bytes, limit: int) -> list[bytes]:
    parts = cut(nal[1:], limit)
    return [
        bytes([nal[0] & 0xE0 | 28, nal[0] & 31 | (0x80 if i == 0 else 0x40 if i == len(parts) - 1 else 0)]) + part
        for i, part in enumerate(parts)
    ]


def payloads(codec: str, frame: bytes, limit: int = LIMIT_BYTES, *, keyframe: bool = False) -> list[bytes]:
    """The payloads of one frame; audio is one."""
    if codec == "vp8":
        return vp8(frame, limit)
    if codec == "vp9":
        return vp9(frame, limit, keyframe=keyframe)
    if codec == "av1":
        return av1(frame, limit, keyframe=keyframe)
    return h264(frame, limit) if codec == "h264" else [frame]
