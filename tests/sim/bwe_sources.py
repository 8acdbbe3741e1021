"""What is sent in the bandwidth plans: sound, video at any rate that is asked for, video in three encodings of their own rates.

Frames swing around their mean as an encoder's do, keyframes are several times as large, and a sender spreads its packets.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from tests.sim.source import one_byte_extensions
from tests.support.engine import MID, RID
from tests.support.peer import MediaPeer

MS = 1_000_000
FRAME_NS = 33_333_333
# With headers, extensions and authentication tag, IP and UDP: what a packet costs beside its payload.
PACKET_OVERHEAD = 12 + 12 + 16 + 28
PAYLOAD_BYTES = 1_100
KEYFRAME_TIMES = 4
SPREAD_NS = 10 * MS
SOUND_NS = 20 * MS
SOUND_BYTES = 80
SOUND_BPS = (SOUND_BYTES + PACKET_OVERHEAD) * 8 * 50
KEY, DELTA = bytes([0x10]) + bytes(PAYLOAD_BYTES), bytes([0x11]) + bytes(PAYLOAD_BYTES)


@dataclass
class Encoding:
    """One rid. bps: on the wire, on average."""

    rid: str
    ssrc: int
    bps: float
    seq: int
    picture_id: int = 0
    keyframe_wanted: bool = True


class Sound:
    """Opus at a fixed rate."""

    def __init__(self, rng: random.Random, peer: MediaPeer, mid: str) -> None:
        self.peer, self.ssrc, self.seq = peer, rng.getrandbits(32), rng.randrange(1 << 15)
        self.block = one_byte_extensions({MID: mid.encode()})
        self.due_ns = 0
        self.sent = 0

    def packets(self, now_ns: int) -> list[bytes]:
        if now_ns < self.due_ns:
            return []
        self.due_ns = now_ns + SOUND_NS
        self.seq, self.sent = self.seq + 1, self.sent + 1
        head = struct.pack("!BBHII", 0x90, 111, self.seq & 0xFFFF, now_ns * 48 // MS & 0xFFFFFFFF, self.ssrc)
        return [self.peer.protect(head + self.block + bytes(SOUND_BYTES))]


class Video:
    """VP8-shaped frames of one or more encodings, 30 a second."""

    def __init__(self, rng: random.Random, peer: MediaPeer, mid: str, bps: tuple[float, ...]) -> None:
        self.rng, self.peer, self.mid = rng, peer, mid
        self.encodings = [
            Encoding(rid, rng.getrandbits(32), rate, rng.randrange(1 << 15))
            for rid, rate in zip("qhf", bps, strict=False)
        ]
        self.due_ns = 0
        self.waiting: list[tuple[int, bytes]] = []

    def by_ssrc(self, ssrc: int) -> Encoding | None:
        return next((e for e in self.encodings if e.ssrc == ssrc), None)

    def _frame(self, encoding: Encoding, now_ns: int) -> list[bytes]:
        key, encoding.keyframe_wanted = encoding.keyframe_wanted, False
        wanted = encoding.bps * FRAME_NS / 8e9 * min(max(self.rng.gauss(1.0, 0.15), 0.5), 1.6)
        if key:
            wanted *= KEYFRAME_TIMES
        count = max(1, round(wanted / (PAYLOAD_BYTES + PACKET_OVERHEAD)))
        # The descriptor counts as payload.
        each = min(max(20, int(wanted / count) - PACKET_OVERHEAD), PAYLOAD_BYTES)
        block = one_byte_extensions({MID: self.mid.encode(), RID: encoding.rid.encode()})
        ts = now_ns * 90 // MS & 0xFFFFFFFF
        packets = []
        for index in range(count):
            marker = 0x80 if index == count - 1 else 0
            head = struct.pack("!BBHII", 0x90, marker | 96, encoding.seq & 0xFFFF, ts, encoding.ssrc)
            descriptor = struct.pack("!BBH", 0x90 if index == 0 else 0x80, 0x80, 0x8000 | encoding.picture_id)
            encoding.seq += 1
            packets.append(self.peer.protect(head + block + descriptor + (KEY if key else DELTA)[: each - 4]))
        encoding.picture_id = encoding.picture_id + 1 & 0x7FFF
        return packets

    def packets(self, now_ns: int) -> list[bytes]:
        """What leaves at this instant."""
        if not self.due_ns:
            self.due_ns = now_ns + self.rng.randrange(FRAME_NS)
        if now_ns >= self.due_ns:
            self.due_ns += FRAME_NS
            for encoding in self.encodings:
                frame = self._frame(encoding, now_ns)
                self.waiting += [(now_ns + SPREAD_NS * i // len(frame), packet) for i, packet in enumerate(frame)]
            self.waiting.sort(key=lambda item: item[0])
        out = 0
        while out < len(self.waiting) and self.waiting[out][0] <= now_ns:
            out += 1
        packets = [packet for _, packet in self.waiting[:out]]
        del self.waiting[:out]
        return packets
