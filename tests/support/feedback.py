"""An independent reader of transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1)."""

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Feedback:
    sender_ssrc: int
    media_ssrc: int
    base: int
    count: int
    feedback_count: int
    arrivals: tuple[tuple[int, int], ...]
    """(number modulo 2^16, arrival in ticks of 250 us modulo 2^32), in the order of numbers."""

    @property
    def lost(self) -> set[int]:
        return {(self.base + i) & 0xFFFF for i in range(self.count)} - {number for number, _ in self.arrivals}


def _statuses(chunk: int) -> list[int]:
    if chunk >> 15 == 0:
        return [chunk >> 13] * (chunk & 0x1FFF)
    if chunk >> 14 == 2:
        return [(chunk >> (13 - i)) & 1 for i in range(14)]
    return [(chunk >> (12 - 2 * i)) & 3 for i in range(7)]


def read_feedback(packet: bytes) -> Feedback:
    """Read one packet; ValueError on any byte that the draft does not allow, also behind the last delta."""
    first, kind, words = struct.unpack_from("!BBH", packet)
    if first & 0xDF != 0x8F or kind != 205 or len(packet) != 4 * (words + 1):
        raise ValueError("no transport-wide feedback")
    end = len(packet)
    if first & 0x20:
        padding = packet[-1]
        if not 1 <= padding <= 3 or any(packet[end - padding : end - 1]):
            raise ValueError("padding")
        end -= padding
    sender_ssrc, media_ssrc, base, count, word = struct.unpack_from("!IIHHI", packet, 4)
    at = 20
    statuses: list[int] = []
    while len(statuses) < count:
        if at + 2 > end:
            raise ValueError("chunks end early")
        more = _statuses(struct.unpack_from("!H", packet, at)[0])
        if not more:
            raise ValueError("run of no packets")
        statuses += more
        at += 2
    if any(statuses[count:]):
        raise ValueError("a status behind the count")
    ticks = (word >> 8) * 256
    arrivals = []
    for i, status in enumerate(statuses[:count]):
        if status == 0:
            continue
        if status == 3:
            raise ValueError("reserved status")
        if at + status > end:
            raise ValueError("deltas end early")
        ticks += packet[at] if status == 1 else struct.unpack_from("!h", packet, at)[0]
        at += status
        arrivals.append(((base + i) & 0xFFFF, ticks & 0xFFFFFFFF))
    if at != end:
        raise ValueError("bytes behind the last delta")
    return Feedback(sender_ssrc, media_ssrc, base, count, word & 0xFF, tuple(arrivals))
