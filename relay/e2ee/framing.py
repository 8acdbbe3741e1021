"""SFrame inside encoded frames: what stays outside so that browsers' packetisers and depacketisers go on working.

VP8 keeps its first byte in front (its lowest bit tells keyframes to receivers without a Dependency Descriptor); it is
authenticated as the first byte of the metadata. AV1 gets one OBU of type 6 around all of it, behind an empty sequence header at
keyframes. VP9 and Opus need nothing. H264 would need NAL units and is not offered (E2EE.md section 1.3: what was measured).
"""

from relay.e2ee.errors import Malformed
from relay.e2ee.sframe import Opener, Sealer

CODECS = ("opus", "vp8", "vp9", "av1")
OBU_FRAME, OBU_SEQUENCE_HEADER = 6, 1
HAS_SIZE, HAS_EXTENSION = 0x02, 0x04
EMPTY_SEQUENCE_HEADER = bytes((OBU_SEQUENCE_HEADER << 3 | HAS_SIZE, 1, 0))
LEB128_MAX_BYTES = 8


def seal(sealer: Sealer, codec: str, frame: bytes, *, is_keyframe: bool = False, metadata: bytes = b"") -> bytes:
    """Return an encoded frame sealed. `is_keyframe` counts for AV1 alone. An empty frame stays empty (DTX).

    Errors: ValueError for a codec without a framing, KeyExhausted.
    """
    _check(codec)
    if not frame:
        return frame
    if codec == "vp8":
        return frame[:1] + sealer.seal(frame[1:], frame[:1] + metadata)
    sealed = sealer.seal(frame, metadata)
    if codec != "av1":
        return sealed
    head = EMPTY_SEQUENCE_HEADER if is_keyframe else b""
    return head + bytes((OBU_FRAME << 3 | HAS_SIZE,)) + write_leb128(len(sealed)) + sealed


def open_frame(opener: Opener, codec: str, frame: bytes, *, metadata: bytes = b"") -> bytes | None:
    """Return the encoded frame, or None when it came before.

    Errors: Malformed, UnknownKey, NotAuthentic; ValueError for a codec without a framing.
    """
    _check(codec)
    if not frame:
        return frame
    if codec == "vp8":
        plaintext = opener.open(frame[1:], frame[:1] + metadata)
        return None if plaintext is None else frame[:1] + plaintext
    return opener.open(find_obu_frame(frame) if codec == "av1" else frame, metadata)


def _check(codec: str) -> None:
    if codec not in CODECS:
        raise ValueError(f"SFrame is put into {', '.join(CODECS)}, not into {codec}")


def write_leb128(value: int) -> bytes:
    """Return a size as AV1 writes it (AV1 section 4.10.5)."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def find_obu_frame(data: bytes) -> bytes:
    """Return the payload of the first OBU of type 6; the last OBU may lack its size.   Errors: Malformed."""
    at = 0
    while at < len(data):
        head = data[at]
        at += 2 if head & HAS_EXTENSION else 1
        size = len(data) - at
        if head & HAS_SIZE:
            size = 0
            for position in range(LEB128_MAX_BYTES):
                if at >= len(data):
                    raise Malformed("an OBU's size is cut.")
                size |= (data[at] & 0x7F) << 7 * position
                at += 1
                if not data[at - 1] & 0x80:
                    break
            else:
                raise Malformed("an OBU's size is longer than 8 bytes.")
        if size < 0 or size > len(data) - at:
            raise Malformed("an OBU is cut.")
        if head >> 3 & 0x0F == OBU_FRAME:
            return data[at : at + size]
        at += size
    raise Malformed("no OBU holds a frame.")
