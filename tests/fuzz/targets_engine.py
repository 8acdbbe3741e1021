"""Fuzz targets of the whole engine: peers with keys that ask for and send repairs of anything, in any order and at any time."""

import struct

from tests.support.engine import MID, PUBLISHER, RID, RRID, SUBSCRIBER, VP8, Bench, rtp, vp8_payload
from tests.support.peer import header_bytes

MEDIA_SSRC, REPAIR_SSRC, SSRC, RTX_SSRC = 1, 2, 0x88, 0x89
RTPFB, NACK = 205, 1
STEP = struct.Struct("!BHBB")
MOST_STEPS = 300


class _Repairs:
    """A publisher and a subscriber of one video, whose every step is five bytes: what, a number, a length, flags."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.bench.ok("add_receiver", 1, 11, True, "1", VP8, ("q", "h", "f"))
        self.bench.ok("add_egress", 2, 21, 11, SSRC, RTX_SSRC, "6", VP8, "cname", 0)
        self.sent = 65_500
        self.rtx_sent = 100
        self.held: list[bytes] = []
        self.media(0, 0, 1)

    def _originate(self, packet: bytes, *, is_held: int) -> None:
        # Protected in order, as a sender does, and on its way in any.
        protected = self.bench.publisher.protect(packet)
        if is_held:
            self.held.append(protected)
        else:
            self.bench.receive(protected, PUBLISHER)

    def media(self, number: int, length: int, flags: int) -> None:
        """The next packet but so many; flags: 1 key, 2 held back, 4 not the end of its frame."""
        self.sent += 1 + number % 64
        extensions = {MID: b"1", RID: b"q"}
        body = vp8_payload(bool(flags & 1), self.sent & 0x7FFF) + bytes(length)
        packet = rtp(
            MEDIA_SSRC, self.sent, ts=3000 * self.sent, marker=not flags & 4, extensions=extensions, payload=body
        )
        self._originate(packet, is_held=flags & 2)

    def repair(self, number: int, length: int, flags: int) -> None:
        """A repair of any number, or (4) of one near the last; flags: 1 of a keyframe, 2 held back, 8 too short to be
        one, 16 with padding, 32 without a name, 64 of another payload type."""
        self.rtx_sent += 1 + flags % 3
        seq = self.sent - number % 512 if flags & 4 else number
        payload = struct.pack("!H", seq & 0xFFFF) + vp8_payload(bool(flags & 1), seq & 0x7FFF) + bytes(length)
        if flags & 8:
            payload = payload[: length % 8]
        packet = bytearray(rtp(
            REPAIR_SSRC, self.rtx_sent, pt=96 if flags & 64 else 97, ts=3000 * seq & 0xFFFFFFFF, marker=True,
            extensions=None if flags & 32 else {MID: b"1", RRID: b"q"}, payload=payload))  # fmt: skip
        if flags & 16:
            packet[0] |= 0x20
            packet += bytes([length])
        self._originate(bytes(packet), is_held=flags & 2)

    def deliver(self, number: int, length: int, flags: int) -> None:
        """What was held back arrives after all, any of it."""
        if self.held:
            self.bench.receive(self.held.pop(number % len(self.held)), PUBLISHER)

    def ask(self, number: int, length: int, flags: int) -> None:
        """A NACK from the subscriber (or, 8, the publisher): flags & 7 items and one, of any numbers or (16) near the last."""
        numbers = [
            struct.unpack_from("!H", p, 2)[0] for p in self.bench.subscriber.rtp if p[8:12] == struct.pack("!I", SSRC)
        ]
        first = numbers[-1] - number % 64 if flags & 16 and numbers else number
        items = b"".join(
            struct.pack("!HH", first + 17 * k & 0xFFFF, length * 257 >> k & 0xFFFF) for k in range((flags & 7) + 1)
        )
        ssrc = (SSRC, RTX_SSRC, MEDIA_SSRC, number)[flags >> 6]
        packet = struct.pack("!BBHII", 0x80 | NACK, RTPFB, 2 + len(items) // 4, 0x4242, ssrc) + items
        peer, address = (self.bench.publisher, PUBLISHER) if flags & 8 else (self.bench.subscriber, SUBSCRIBER)
        self.bench.receive(peer.protect_rtcp(packet), address)

    def wait(self, number: int, length: int, flags: int) -> None:
        """Up to 255 ms pass."""
        self.bench.advance(length)

    def switch(self, number: int, length: int, flags: int) -> None:
        """The subscriber is given another encoding, or none."""
        self.bench.ok("select_encoding", 21, None if flags & 1 else number % 3)

    def check(self) -> tuple[int, int]:
        """What the subscriber got: no number twice, and repairs that are what was sent at first."""
        bench = self.bench
        assert bench.subscriber.refused == bench.publisher.refused == 0 and not bench.other
        bodies: dict[int, bytes] = {}
        repairs: list[int] = []
        for packet in bench.subscriber.rtp:
            seq, ssrc = struct.unpack_from("!H", packet, 2)[0], struct.unpack_from("!I", packet, 8)[0]
            body = packet[header_bytes(packet) :]
            if ssrc == SSRC:
                assert seq not in bodies
                bodies[seq] = body
            else:
                assert ssrc == RTX_SSRC and seq not in repairs
                repairs.append(seq)
                assert bodies[struct.unpack_from("!H", body)[0]] == body[2:]
        for transport in (1, 2):
            bench.ok("remove_transport", transport)
        assert bench.engine.slots_used == 0
        return len(bodies), len(repairs)


STEPS = (_Repairs.media, _Repairs.media, _Repairs.repair, _Repairs.repair, _Repairs.ask, _Repairs.deliver, _Repairs.wait,
         _Repairs.switch)  # fmt: skip
MEDIA, REPAIR, ASK, DELIVER, WAIT, SWITCH = 0, 2, 4, 5, 6, 7


def seeds_repairs() -> list[bytes]:
    """A call without loss, a publisher's loss that is repaired, a subscriber's that is, and a late original."""
    plain = b"".join(STEP.pack(MEDIA, 0, 20, k == 5) for k in range(20))
    hole = STEP.pack(MEDIA, 1, 20, 0) + STEP.pack(REPAIR, 1, 20, 4)
    asked = STEP.pack(ASK, 5, 255, 16) + STEP.pack(WAIT, 0, 60, 0)
    late = (
        STEP.pack(MEDIA, 0, 20, 2)
        + STEP.pack(MEDIA, 0, 20, 0)
        + STEP.pack(REPAIR, 1, 20, 4)
        + STEP.pack(DELIVER, 0, 0, 0)
    )
    return [
        plain,
        plain + hole * 3,
        plain + asked * 4,
        plain + late + asked,
        plain + STEP.pack(SWITCH, 1, 0, 0) + late + asked,
    ]


def fuzz_repairs(data: bytes) -> tuple[int, int]:
    """Repairs and requests for them with any number and length."""
    call = _Repairs()
    for at in range(0, min(len(data), STEP.size * MOST_STEPS) - STEP.size + 1, STEP.size):
        what, number, length, flags = STEP.unpack_from(data, at)
        STEPS[what % len(STEPS)](call, number, length, flags)
    return call.check()
