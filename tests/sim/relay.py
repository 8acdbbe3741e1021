"""The real engine on virtual time between one publisher and its subscribers, with a seeded link each way.

With more than one worker the publisher is on the first and the subscribers on all in turn, so that streams cross the rings.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

from relaycore.exchange import WorkerExchange
from relaycore.sansio import SansIoEngine
from tests.sim.link import Impairment, Link
from tests.sim.oracle import Oracle
from tests.sim.source import Publisher, read_payload
from tests.support.peer import MediaPeer, header_bytes

MS = 1_000_000
CLEAN = Impairment()
URIS = {"urn:ietf:params:rtp-hdrext:sdes:mid": 1, "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id": 2}
VP8 = ((96, "vp8", 90_000, 97),)


@dataclass
class Subscriber:
    transport: int
    egress: int
    ssrc: int
    peer: MediaPeer
    link: Link
    address: tuple[str, int]
    engine: SansIoEngine
    oracle: Oracle = field(default_factory=Oracle)


class Simulation:
    """`run` advances virtual time; everything else happens between two steps of 1 ms."""

    def __init__(self, seed: int, *, subscribers: int = 2, profile: int = 0x0007, upstream: Impairment = CLEAN,
                 downstream: Impairment = CLEAN, start_seq: int | None = None, padding_share: float = 0.0,
                 workers: int = 1, ring_bytes: int = 1 << 21) -> None:
        self.rng = random.Random(seed)
        self.exchange = WorkerExchange(workers, ring_bytes)
        self.engines = [SansIoEngine(seed=seed + i, exchange=self.exchange, index=i) for i in range(workers)]
        self.engine = self.engines[0]
        self.now_ns = 1_000 * MS
        self.padding_share = padding_share
        self.subscribers: list[Subscriber] = []
        self.publisher = Publisher(self.rng, start_seq=start_seq)
        self.peer = MediaPeer(self.rng, profile)
        self.uplink = Link(self.rng, upstream)
        self.address = ("192.0.2.1", 40_000)
        self.frame_due_ns = self.report_due_ns = self.check_due_ns = self.now_ns
        self._connect(self.engine, 1, self.peer, self.address)
        self.command(self.engine, "add_receiver", 1, 10, True, "0", VP8, ("q", "h", "f"))
        for i in range(1, min(workers, subscribers)):
            self.mirror(i)
        for i in range(subscribers):
            peer, address = MediaPeer(self.rng, profile), ("192.0.2.2", 41_000 + i)
            engine = self.engines[i % workers]
            self._connect(engine, 100 + i, peer, address)
            subscriber = Subscriber(100 + i, 1000 + i, 0x1000_0000 + i, peer, Link(self.rng, downstream), address, engine)
            self._subscribe(engine, subscriber)
            self.subscribers.append(subscriber)

    def _subscribe(self, engine: SansIoEngine, subscriber: Subscriber) -> None:
        self.command(engine, "add_egress", subscriber.transport, subscriber.egress, 10, subscriber.ssrc, None, "7", VP8, "c", 0)

    def command(self, engine: SansIoEngine, name: str, *arguments) -> None:
        """Submit one command and insist on its success."""
        number = getattr(engine, name)(*arguments)
        self._deliver()
        code = next(event[2] for event in engine.take_events(10_000) if event[0] == 1 and event[1] == number)
        assert code >= 0, f"{name}: {code}"

    def _connect(self, engine: SansIoEngine, transport: int, peer: MediaPeer, address: tuple[str, int]) -> None:
        self.command(engine, "add_transport", transport, peer.ufrag, peer.password)
        self.command(engine, "set_srtp", transport, *peer.relay_keys().values())
        self.command(engine, "set_extensions", transport, URIS)
        engine.receive(peer.check(), address, self.now_ns)

    def counters(self, engine: SansIoEngine) -> dict[str, int]:
        self.command(engine, "request_snapshot")
        return engine.snapshot()["counters"]

    def mirror(self, worker: int) -> None:
        """Let another worker have subscribers of the publication."""
        self.command(self.engines[worker], "add_mirror", 10, 0, True, 3)
        self.command(self.engine, "add_export", 10, worker)

    def unmirror(self, worker: int) -> None:
        """Take the mirror away with its subscriptions, while packets are under way."""
        self.command(self.engines[worker], "remove_receiver", 10)
        self.command(self.engine, "remove_export", 10, worker)

    def select(self, subscriber: Subscriber, encoding: int | None) -> None:
        self.command(subscriber.engine, "select_encoding", subscriber.egress, encoding)

    def _deliver(self) -> None:
        """Take what the engines send and put it on the subscribers' links, or to the publisher at once."""
        while True:
            for engine in self.engines:
                for datagram, address in engine.poll(self.now_ns):
                    self._send(datagram, address)
            if not any(engine.has_mail for engine in self.engines):
                return

    def _send(self, datagram: bytes, address: tuple[str, int]) -> None:
        if address == self.address:
            self.peer.receive(datagram)
        for subscriber in self.subscribers:
            if subscriber.address == address:
                subscriber.link.send(datagram, self.now_ns)

    def _publish(self) -> None:
        capture_s = self.now_ns / 1e9
        for encoding in self.publisher.encodings:
            for packet in self.publisher.frame(encoding, capture_s):
                self._uplink(packet)
            if self.rng.random() < self.padding_share:
                self._uplink(self.publisher.padding(encoding, capture_s))

    def _uplink(self, packet: bytes) -> None:
        self.uplink.send(self.peer.protect(packet), self.now_ns)

    def _heed_keyframe_requests(self) -> None:
        for compound in self.peer.rtcp:
            at = 0
            while at + 12 <= len(compound):
                kind, words = compound[at + 1], struct.unpack_from("!H", compound, at + 2)[0]
                if kind == 206 and compound[at] & 31 == 1:
                    encoding = self.publisher.by_ssrc(struct.unpack_from("!I", compound, at + 8)[0])
                    assert encoding is not None, "a PLI for an SSRC that the publisher does not send"
                    encoding.keyframe_wanted = True
                at += 4 * (words + 1)
        self.peer.rtcp.clear()

    def _step(self) -> None:
        if self.now_ns >= self.check_due_ns:
            self.check_due_ns += 2_000 * MS
            self.engine.receive(self.peer.check(), self.address, self.now_ns)
            for subscriber in self.subscribers:
                subscriber.engine.receive(subscriber.peer.check(), subscriber.address, self.now_ns)
        if self.now_ns >= self.frame_due_ns:
            self.frame_due_ns += 33 * MS
            self._publish()
        if self.now_ns >= self.report_due_ns:
            self.report_due_ns += 700 * MS
            for encoding in self.publisher.encodings:
                self.uplink.send(self.peer.protect_rtcp(self.publisher.sender_report(encoding, self.now_ns / 1e9)), self.now_ns)
        for datagram in self.uplink.take_due(self.now_ns):
            self.engine.receive(datagram, self.address, self.now_ns)
        self._deliver()
        self._heed_keyframe_requests()
        for subscriber in self.subscribers:
            for datagram in subscriber.link.take_due(self.now_ns):
                self._judge(subscriber, datagram)

    def _judge(self, subscriber: Subscriber, datagram: bytes) -> None:
        plain = subscriber.peer.receive(datagram)
        if plain is None:
            return
        payload_type, seq, rtp_ts, ssrc = struct.unpack_from("!xBHII", plain)
        assert (payload_type & 0x7F, ssrc) == (96, subscriber.ssrc)
        stamp, picture_id = read_payload(plain[header_bytes(plain):])
        subscriber.oracle.add(seq, rtp_ts, bool(payload_type & 0x80), stamp, picture_id)

    def run(self, seconds: float) -> None:
        end = self.now_ns + int(seconds * 1e9)
        while self.now_ns < end:
            self._step()
            self.now_ns += MS
        for engine in self.engines:
            engine.take_events(10_000)
