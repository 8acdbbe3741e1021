"""A simulcast publisher on virtual time: VP8-shaped RTP whose payload says where it came from."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass

STAMP = struct.Struct("!BIHHd")  # encoding, frame, index, count, capture time in s
FIRST_BYTES = 16  # of the VP8 frame, before the stamp: the header view may read the first one


@dataclass(frozen=True)
class Stamp:
    encoding: int
    frame: int
    index: int
    count: int
    capture_s: float

    def pack(self) -> bytes:
        return STAMP.pack(self.encoding, self.frame, self.index, self.count, self.capture_s)

    @classmethod
    def unpack(cls, data: bytes) -> Stamp:
        return cls(*STAMP.unpack(data))


@dataclass
class Encoding:
    """One rid: its SSRC, numbers and timestamp scale are its own, as in libwebrtc."""

    index: int
    rid: str
    ssrc: int
    seq: int
    ts_offset: int
    picture_id: int
    packets_per_frame: int
    keyframe_wanted: bool = True
    frame: int = 0
    packets: int = 0
    octets: int = 0


def one_byte_extensions(elements: dict[int, bytes]) -> bytes:
    body = b"".join(bytes([(number << 4) | (len(value) - 1)]) + value for number, value in elements.items())
    body += bytes(-len(body) % 4)
    return struct.pack("!HH", 0xBEDE, len(body) // 4) + body


class Publisher:
    """Makes the packets of every encoding for each capture instant."""

    def __init__(self, rng: random.Random, *, rids: tuple[str, ...] = ("q", "h", "f"), mid: str = "0", mid_id: int = 1,
                 rid_id: int = 2, payload_type: int = 96, start_seq: int | None = None) -> None:
        self.rng, self.mid, self.mid_id, self.rid_id, self.payload_type = rng, mid, mid_id, rid_id, payload_type
        self.tl0 = rng.randrange(256)
        self.encodings = [
            Encoding(i, rid, rng.getrandbits(32), rng.randrange(1 << 15) if start_seq is None else start_seq,
                     rng.getrandbits(32), rng.randrange(1 << 15), 1 + 2 * i)
            for i, rid in enumerate(rids)
        ]

    def by_ssrc(self, ssrc: int) -> Encoding | None:
        return next((e for e in self.encodings if e.ssrc == ssrc), None)

    def rtp_ts(self, encoding: Encoding, capture_s: float) -> int:
        return (round(capture_s * 90_000) + encoding.ts_offset) & 0xFFFFFFFF

    def frame(self, encoding: Encoding, capture_s: float) -> Iterator[bytes]:
        """Yield the RTP packets of the next frame of one encoding."""
        key, encoding.keyframe_wanted = encoding.keyframe_wanted, False
        count = encoding.packets_per_frame * (3 if key else 1)
        for index in range(count):
            descriptor = bytes([0x90 if index == 0 else 0x80, 0x80]) + struct.pack("!H", 0x8000 | encoding.picture_id)
            first = bytes([0x10 if key else 0x11]) + bytes(FIRST_BYTES - 1)
            payload = descriptor + first + Stamp(encoding.index, encoding.frame, index, count, capture_s).pack()
            payload += bytes(self.rng.randrange(0, 60))
            extension = one_byte_extensions({self.mid_id: self.mid.encode(), self.rid_id: encoding.rid.encode()})
            marker = 0x80 if index == count - 1 else 0
            header = struct.pack("!BBHII", 0x90, marker | self.payload_type, encoding.seq & 0xFFFF,
                                 self.rtp_ts(encoding, capture_s), encoding.ssrc)
            encoding.seq += 1
            encoding.packets += 1
            encoding.octets += len(payload)
            yield header + extension + payload
        encoding.frame += 1
        encoding.picture_id = (encoding.picture_id + 1) & 0x7FFF

    def padding(self, encoding: Encoding, capture_s: float) -> bytes:
        """A padding-only packet, as libwebrtc probes with."""
        extension = one_byte_extensions({self.mid_id: self.mid.encode(), self.rid_id: encoding.rid.encode()})
        header = struct.pack("!BBHII", 0xB0, self.payload_type, encoding.seq & 0xFFFF, self.rtp_ts(encoding, capture_s),
                             encoding.ssrc)
        encoding.seq += 1
        return header + extension + bytes(99) + bytes([100])

    def sender_report(self, encoding: Encoding, now_s: float) -> bytes:
        ntp = round((now_s + 3_900_000_000) * 2**32)
        return struct.pack("!BBHIQIII", 0x80, 200, 6, encoding.ssrc, ntp, self.rtp_ts(encoding, now_s), encoding.packets,
                           encoding.octets & 0xFFFFFFFF)


def read_payload(payload: bytes) -> tuple[Stamp, int | None]:
    """Return the stamp and the 15-bit picture id of a VP8-shaped payload."""
    picture_id = struct.unpack_from("!H", payload, 2)[0] & 0x7FFF
    return Stamp.unpack(payload[4 + FIRST_BYTES : 4 + FIRST_BYTES + STAMP.size]), picture_id
