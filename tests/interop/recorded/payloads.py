"""Encoded frames into RTP payloads and back, for VP8, VP9, AV1, H264 and Opus.

RFC 7741 (VP8), RFC 9628 (VP9, one layer when sending), the AV1 RTP specification §4 to §5, RFC 6184 (H264, packetization mode
1), RFC 7587 (Opus). A frame may be sealed: nothing here looks behind what a packetiser must see.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from relay.e2ee.framing import HAS_EXTENSION, HAS_SIZE, OBU_FRAME, write_leb128
from tests.support.depdesc_writer import Descriptor, Structure, Template, write_depdesc

MTU_BYTES = 1100
OBU_TEMPORAL_DELIMITER = 2
NAL_STAP_A, NAL_FU_A = 24, 28


class Packetiser:
    """One stream's frames. Gives (payload, Dependency Descriptor) for each packet; the last one gets the marker."""

    def __init__(self, codec: str, width: int = 0, height: int = 0) -> None:
        self._codec = codec
        self._size = (width, height)
        self._frames = 0

    def packets(self, frame: bytes, is_keyframe: bool) -> list[tuple[bytes, bytes]]:
        payloads = getattr(self, f"_{self._codec}")(frame, is_keyframe)
        last = len(payloads) - 1
        described = [(payload, self._descriptor(n == 0, n == last, is_keyframe)) for n, payload in enumerate(payloads)]
        self._frames += 1
        return described

    def _descriptor(self, starts: bool, ends: bool, is_keyframe: bool) -> bytes:
        """One layer: a keyframe, or what refers to the frame before."""
        if self._codec == "opus":
            return b""
        both = [Template(dtis=(2,), fdiffs=fdiffs, chains=(len(fdiffs),)) for fdiffs in ((), (1,))]
        structure = Structure(both, protected_by=(0,), resolutions=(self._size,)) if is_keyframe and starts else None
        return write_depdesc(Descriptor(0 if is_keyframe else 1, self._frames & 0xFFFF, starts, ends, structure))

    @staticmethod
    def _opus(frame: bytes, _is_keyframe: bool) -> list[bytes]:
        return [frame]

    def _vp8(self, frame: bytes, _is_keyframe: bool) -> list[bytes]:
        picture_id = (self._frames & 0x7FFF | 0x8000).to_bytes(2, "big")
        return [bytes((0x80 | (0x10 if n == 0 else 0), 0x80)) + picture_id + part for n, part in enumerate(_cut(frame))]

    def _vp9(self, frame: bytes, is_keyframe: bool) -> list[bytes]:
        """Not flexible, layer 0 of 1, every picture refers to the one before."""
        picture_id = (self._frames & 0x7FFF | 0x8000).to_bytes(2, "big")
        layer = bytes((0, self._frames & 0xFF))
        parts = _cut(frame)
        found = []
        for n, part in enumerate(parts):
            has_structure = is_keyframe and n == 0
            flags = 0x80 | 0x20 | (0 if is_keyframe else 0x40) | (0x08 if n == 0 else 0) | (0x04 if n == len(parts) - 1 else 0)
            head = bytes((flags | (0x02 if has_structure else 0),)) + picture_id + layer
            if has_structure:
                # One spatial layer, its size, a group of one picture with one reference.
                head += bytes((0x18,)) + b"".join(side.to_bytes(2, "big") for side in self._size) + bytes((1, 0x04, 1))
            found.append(head + part)
        return found

    @staticmethod
    def _av1(frame: bytes, is_keyframe: bool) -> list[bytes]:
        elements = [bytes((head & ~HAS_SIZE & 0xFF,)) + rest for head, rest in obus(frame) if head >> 3 & 15 != OBU_TEMPORAL_DELIMITER]
        packets: list[list[bytes]] = [[]]
        continues = [False]
        room = MTU_BYTES
        for element in elements:
            while element:
                if room < 16:
                    packets.append([])
                    continues.append(False)
                    room = MTU_BYTES
                part, element = element[: room - 4], element[room - 4 :]
                packets[-1].append(part)
                room -= len(part) + 4
                if element:
                    packets.append([])
                    continues.append(True)
                    room = MTU_BYTES
        found = []
        for n, parts in enumerate(packets):
            goes_on = n + 1 < len(packets) and continues[n + 1]
            count = len(parts) if len(parts) <= 3 else 0
            starts_sequence = is_keyframe and n == 0
            head = (0x80 if continues[n] else 0) | (0x40 if goes_on else 0) | count << 4 | (0x08 if starts_sequence else 0)
            sized = [part if count == place + 1 else write_leb128(len(part)) + part for place, part in enumerate(parts)]
            found.append(bytes((head,)) + b"".join(sized))
        return found

    @staticmethod
    def _h264(frame: bytes, _is_keyframe: bool) -> list[bytes]:
        found = []
        for nal in nal_units(frame):
            if len(nal) <= MTU_BYTES:
                found.append(nal)
                continue
            parts = _cut(nal[1:])
            for n, part in enumerate(parts):
                ends = (0x80 if n == 0 else 0) | (0x40 if n == len(parts) - 1 else 0)
                found.append(bytes((nal[0] & 0xE0 | NAL_FU_A, ends | nal[0] & 0x1F)) + part)
        return found


def _cut(data: bytes) -> list[bytes]:
    return [data[at : at + MTU_BYTES] for at in range(0, len(data), MTU_BYTES)]


def obus(data: bytes) -> Iterable[tuple[int, bytes]]:
    """Yield (first byte, extension byte and payload) of every OBU; the last may lack its size."""
    at = 0
    while at < len(data):
        head, begin = data[at], at + 1
        at = begin + (1 if head & HAS_EXTENSION else 0)
        end = len(data)
        extension = data[begin:at]
        if head & HAS_SIZE:
            size, at = _leb128(data, at)
            end = at + size
        yield head, extension + data[at:end]
        at = end


def sealed_obu_frames(unit: bytes) -> list[bytes]:
    """Split a temporal unit into what was sealed frame by frame: each part ends with an OBU of type 6."""
    parts, held = [], b""
    for head, rest in obus(unit):
        held += _sized_obu(bytes((head & ~HAS_SIZE & 0xFF,)) + rest)
        if head >> 3 & 15 == OBU_FRAME:
            parts.append(held)
            held = b""
    return parts


def _sized_obu(element: bytes) -> bytes:
    begin = 2 if element[0] & HAS_EXTENSION else 1
    return bytes((element[0] | HAS_SIZE,)) + element[1:begin] + write_leb128(len(element) - begin) + element[begin:]


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 0x80:
            return value, at


def nal_units(frame: bytes) -> list[bytes]:
    """Return the NAL units of an Annex B byte stream."""
    return [nal for nal in re.split(rb"\x00?\x00\x00\x01", frame) if nal]


# --- the other way ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """What one packet holds: bytes of the frame, and whether a frame (of one layer) begins or ends here."""

    data: bytes
    begins: bool = False
    ends: bool = False


def take_vp8(payload: bytes) -> Part:
    flags, at = payload[0], 1
    if flags & 0x80:
        extension, at = payload[1], 2
        if extension & 0x80:
            at += 2 if payload[at] & 0x80 else 1
        at += bool(extension & 0x40) + bool(extension & 0x30)
    return Part(payload[at:], begins=flags & 0x17 == 0x10)


def take_vp9(payload: bytes) -> Part:
    flags, at = payload[0], 1
    if flags & 0x80:
        at += 2 if payload[at] & 0x80 else 1
    if flags & 0x20:
        at += 1 if flags & 0x10 else 2
    if flags & 0x10 and flags & 0x40:
        while payload[at] & 1:
            at += 1
        at += 1
    if flags & 0x02:
        head = payload[at]
        at += 1
        if head & 0x10:
            at += 4 * ((head >> 5) + 1)
        if head & 0x08:
            pictures = payload[at]
            at += 1
            for _ in range(pictures):
                at += 1 + (payload[at] >> 2 & 3)
    return Part(payload[at:], begins=bool(flags & 0x08), ends=bool(flags & 0x04))


def take_h264(payload: bytes) -> Part:
    """Start codes have four bytes, as libwebrtc's depacketiser writes them."""
    kind = payload[0] & 0x1F
    if kind == NAL_FU_A:
        head = b"\0\0\0\1" + bytes((payload[0] & 0xE0 | payload[1] & 0x1F,)) if payload[1] & 0x80 else b""
        return Part(head + payload[2:])
    if kind != NAL_STAP_A:
        return Part(b"\0\0\0\1" + payload)
    data, at = b"", 1
    while at + 2 <= len(payload):
        size = int.from_bytes(payload[at : at + 2], "big")
        data += b"\0\0\0\1" + payload[at + 2 : at + 2 + size]
        at += 2 + size
    return Part(data)


def av1_unit(payloads: list[bytes]) -> bytes:
    """Return the temporal unit of these packets, every OBU with its size."""
    elements: list[bytes] = []
    for payload in payloads:
        continues, count, at, taken = bool(payload[0] & 0x80), payload[0] >> 4 & 3, 1, 0
        while at < len(payload):
            taken += 1
            size = len(payload) - at
            if taken != count:
                size, at = _leb128(payload, at)
            part = payload[at : at + size]
            at += size
            if continues and taken == 1 and elements:
                elements[-1] += part
            else:
                elements.append(part)
    return b"".join(_sized_obu(element) for element in elements if element)


def assemble(codec: str, payloads: list[bytes]) -> list[bytes]:
    """Return the frames, one for each layer, of the packets of one timestamp in their order."""
    if codec == "opus":
        return payloads
    if codec == "av1":
        return [av1_unit(payloads)]
    parts = [{"vp8": take_vp8, "vp9": take_vp9, "h264": take_h264}[codec](payload) for payload in payloads]
    if codec != "vp9":
        return [b"".join(part.data for part in parts)]
    frames: list[bytes] = []
    for part in parts:
        if part.begins or not frames:
            frames.append(b"")
        frames[-1] += part.data
    return frames
