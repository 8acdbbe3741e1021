"""A `SansIoEngine` with a publisher and a subscriber connected, for tests that choose every packet."""

from __future__ import annotations

import random
import struct

from relaycore.port import EventKind
from relaycore.sansio import SansIoEngine
from tests.sim.source import one_byte_extensions
from tests.support.peer import MediaPeer

MS = 1_000_000
PUBLISHER, SUBSCRIBER = ("192.0.2.1", 40_000), ("192.0.2.2", 41_000)
OPUS = ((111, "opus", 48_000, None),)
VP8 = ((96, "vp8", 90_000, 97),)
MID, RID, RRID, TWCC, LEVEL = 1, 2, 3, 4, 5
URIS = {
    "urn:ietf:params:rtp-hdrext:sdes:mid": MID,
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id": RID,
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id": RRID,
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01": TWCC,
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level": LEVEL,
}


def rtp(ssrc: int, seq: int, *, pt: int = 96, ts: int = 0, marker: bool = False, extensions: dict[int, bytes] | None = None,
        payload: bytes = b"") -> bytes:
    """One plain RTP packet."""
    block = one_byte_extensions(extensions) if extensions else b""
    head = struct.pack("!BBHII", 0x90 if block else 0x80, pt | (0x80 if marker else 0), seq & 0xFFFF, ts, ssrc)
    return head + block + payload


def vp8_payload(key: bool, picture_id: int = 1) -> bytes:
    """A whole VP8 frame in one packet: descriptor with a 15-bit picture id, then the frame's first bytes."""
    return bytes([0x90, 0x80]) + struct.pack("!H", 0x8000 | picture_id) + bytes([0x10 if key else 0x11]) + bytes(40)


def rtcp_packets(compounds: list[bytes]) -> list[tuple[int, int, bytes]]:
    """Split compounds into (type, count, body)."""
    found = []
    for compound in compounds:
        at = 0
        while at < len(compound):
            count, kind, words = compound[at] & 31, compound[at + 1], struct.unpack_from("!H", compound, at + 2)[0]
            found.append((kind, count, compound[at + 4 : at + 4 * (words + 1)]))
            at += 4 * (words + 1)
    return found


class Bench:
    """Two transports with keys and ICE: 1 publishes from PUBLISHER (at most `bits_per_s`), 2 receives at SUBSCRIBER."""

    def __init__(self, seed: int = 1, *, connect: bool = True, bits_per_s: int = 0, **options: int) -> None:
        self.rng = random.Random(seed)
        self.engine = SansIoEngine(seed=seed, slots=512, **options)
        self.now_ns = 10_000 * MS
        self.publisher, self.subscriber = MediaPeer(self.rng), MediaPeer(self.rng)
        self.events: list[tuple] = []
        self.other: list[tuple[bytes, tuple[str, int]]] = []
        for transport, peer, address in ((1, self.publisher, PUBLISHER), (2, self.subscriber, SUBSCRIBER)):
            self.ok("add_transport", transport, peer.ufrag, peer.password, bits_per_s if transport == 1 else 0)
            self.ok("set_srtp", transport, *peer.relay_keys().values())
            self.ok("set_extensions", transport, URIS)
            if connect:
                self.receive(peer.check(), address)
        self.events.clear()

    def command(self, name: str, *arguments) -> int:
        """Submit a command; return the acknowledgement's code."""
        number = getattr(self.engine, name)(*arguments)
        self.poll()
        return next(e[2] for e in self.events if e[0] == EventKind.ACK and e[1] == number)

    def ok(self, name: str, *arguments) -> None:
        code = self.command(name, *arguments)
        assert code >= 0, f"{name}: {code}"

    def receive(self, datagram: bytes, address: tuple[str, int] = PUBLISHER) -> None:
        self.engine.receive(datagram, address, self.now_ns)
        self.poll()

    def poll(self) -> None:
        for datagram, address in self.engine.poll(self.now_ns):
            if address == PUBLISHER:
                self.publisher.receive(datagram)
            elif address == SUBSCRIBER:
                self.subscriber.receive(datagram)
            else:
                self.other.append((datagram, address))
        self.events += self.engine.take_events(10_000)

    def advance(self, milliseconds: float, *, checks: bool = True) -> None:
        """Let time pass in steps of 5 ms; both ends keep checking once a second."""
        end = self.now_ns + int(milliseconds * MS)
        while self.now_ns < end:
            before = self.now_ns
            self.now_ns = min(end, self.now_ns + 5 * MS)
            if checks and before // (1000 * MS) != self.now_ns // (1000 * MS):
                self.receive(self.publisher.check(), PUBLISHER)
                self.receive(self.subscriber.check(), SUBSCRIBER)
            self.poll()

    def publish(self, packet: bytes) -> None:
        self.receive(self.publisher.protect(packet), PUBLISHER)

    def audio(self) -> None:
        """A publication of Opus (receiver 10, SSRC 7) with one subscription (egress 20, SSRC 0x77)."""
        self.ok("add_receiver", 1, 10, False, "0", OPUS, (), (7,))
        self.ok("add_egress", 2, 20, 10, 0x77, None, "5", OPUS, "cname", 0)

    def video(self, *, encoding: int | None = 0) -> None:
        """A simulcast publication of VP8 (receiver 11, rids q h f) with one subscription (egress 21, SSRC 0x88)."""
        self.ok("add_receiver", 1, 11, True, "1", VP8, ("q", "h", "f"))
        self.ok("add_egress", 2, 21, 11, 0x88, None, "6", VP8, "cname", encoding)

    def taken(self, kind: EventKind) -> list[tuple]:
        """Events of one kind so far."""
        return [e for e in self.events if e[0] == kind]

    def snapshot(self) -> dict:
        self.ok("request_snapshot")
        return self.engine.snapshot()
