"""Random commands, packets and time against one engine: nothing crashes, nothing is kept, no SRTP index is used twice.

What the peers receive is decrypted by contexts of their own, so that a reused or wrong number shows as a refused packet.
The debug twin aborts on what the release build only counts.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

import pytest

from relaycore.port import EventKind
from relaycore.sansio import SansIoEngine
from tests.support.engine import MID, MS, RID, RRID, TWCC, URIS, rtp, vp8_payload
from tests.support.peer import MediaPeer

STEPS = 3_000
MAX_TRANSPORTS = 8
CODECS = ((96, "vp8", 90_000, 97), (98, "vp9", 90_000, None), (102, "h264", 90_000, None), (111, "opus", 48_000, None))
RIDS = ("q", "h", "f")


@dataclass
class Sender:
    """One SSRC of a publisher; its numbers run on like a browser's, with jumps."""

    ssrc: int
    mid: str
    rid: str | None
    payload_type: int
    seq: int
    ts: int
    picture_id: int


@dataclass
class Party:
    transport: int
    peer: MediaPeer
    addresses: list[tuple[str, int]]
    has_keys: bool = False
    senders: list[Sender] = field(default_factory=list)
    receivers: list[int] = field(default_factory=list)
    egresses: dict[int, int] = field(default_factory=dict)
    sent: list[bytes] = field(default_factory=list)


class Chaos:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.engine = SansIoEngine(seed=seed, slots=self.rng.choice([40, 300, 4096]))
        self.now_ns = self.rng.choice([1, 10**9, 10**15])
        self.parties: list[Party] = []
        self.mids: dict[int, tuple[Party, str, tuple[str, ...], bool]] = {}
        self.next_id = 1
        self.outgoing_ssrc = 0x1000
        self.waiting: set[int] = set()
        self.codes: list[int] = []
        self.received = self.strangers = 0
        self.peer_of: dict[int, MediaPeer] = {}
        self.peers: list[MediaPeer] = []

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id

    def submit(self, name: str, *arguments) -> None:
        self.waiting.add(getattr(self.engine, name)(*arguments))

    def take(self) -> None:
        """Poll, which must end, and let whoever it is meant for decrypt every packet."""
        for datagram, _ in self.engine.poll(self.now_ns):
            if datagram[0] < 128:
                continue
            if 192 <= datagram[1] <= 223:
                # Parties share addresses and the SSRC is random: one of them, present or just removed, must have the key.
                self.strangers += not any(isinstance(p.incoming.unprotect_rtcp(datagram), bytes) for p in self.peers)
            else:
                peer = self.peer_of[struct.unpack_from("!I", datagram, 8)[0]]
                assert peer.receive(datagram) is not None
                self.received += 1
        assert self.engine.next_ns is None or self.engine.next_ns > self.now_ns
        for event in self.engine.take_events(10_000):
            if event[0] == EventKind.ACK:
                self.waiting.discard(event[1])
                self.codes.append(event[2])

    # --- commands ---

    def add_transport(self) -> None:
        if len(self.parties) >= MAX_TRANSPORTS:
            return
        peer = MediaPeer(self.rng, self.rng.choice([1, 7, 8]))
        # Few ports in all, so that parties meet on each other's addresses.
        addresses = [("192.0.2.1", 1000 + self.rng.randrange(20)) for _ in range(self.rng.randint(1, 3))]
        party = Party(self.new_id(), peer, addresses)
        self.submit("add_transport", party.transport, peer.ufrag, peer.password)
        if self.rng.random() < 0.9:
            party.has_keys = True
            self.peers.append(peer)
            self.submit("set_srtp", party.transport, *peer.relay_keys().values())
            self.submit("set_extensions", party.transport, URIS)
        self.parties.append(party)

    def remove_transport(self) -> None:
        if self.parties and self.rng.random() < 0.2:
            party = self.parties.pop(self.rng.randrange(len(self.parties)))
            self.submit("remove_transport", party.transport)
            self.forget([r for r, entry in self.mids.items() if entry[0] is party])

    def forget(self, receivers: list[int]) -> None:
        for receiver in receivers:
            owner = self.mids.pop(receiver)[0]
            owner.receivers.remove(receiver)
            for party in self.parties:
                party.egresses = {e: r for e, r in party.egresses.items() if r != receiver}

    def restart_ice(self) -> None:
        if self.parties and self.rng.random() < 0.3:
            party = self.rng.choice(self.parties)
            party.peer.ufrag, party.peer.password = f"r{self.new_id():08x}", f"p{self.rng.getrandbits(112):028x}"
            self.submit("set_ice", party.transport, party.peer.ufrag, party.peer.password)

    def add_receiver(self) -> None:
        if not self.parties:
            return
        party = self.rng.choice(self.parties)
        receiver, mid = self.new_id(), str(self.rng.randrange(4))
        rids = self.rng.choice([(), RIDS, RIDS[:2]])
        is_video = bool(rids) or self.rng.random() < 0.7
        codecs = CODECS[:3] if is_video else CODECS[3:]
        ssrcs = tuple(s.ssrc for s in party.senders if s.mid == mid)[:2] if self.rng.random() < 0.3 else ()
        if len(party.receivers) < 10:
            self.submit("add_receiver", party.transport, receiver, is_video, mid, codecs, rids, ssrcs)
            party.receivers.append(receiver)
            self.mids[receiver] = party, mid, rids, is_video

    def remove_receiver(self) -> None:
        if self.mids and self.rng.random() < 0.3:
            receiver = self.rng.choice(list(self.mids))
            self.submit("remove_receiver", receiver)
            self.forget([receiver])

    def add_egress(self) -> None:
        if self.mids and len(self.parties) > 1:
            receiver, party = self.rng.choice(list(self.mids)), self.rng.choice(self.parties)
            rids = self.mids[receiver][2]
            egress, encoding = self.new_id(), self.rng.choice([None, 0, len(rids) - 1 if rids else 0])
            ssrc = self.outgoing_ssrc = self.outgoing_ssrc + 1
            used = [ssrc for ssrc, peer in self.peer_of.items() if peer is party.peer]
            if used and self.rng.random() < 0.1:
                # One that the transport had before, which must be refused.
                ssrc = self.rng.choice(used)
            self.peer_of[ssrc] = party.peer
            codecs = self.rng.sample(CODECS, self.rng.choice([1, 4, 4, 4]))
            self.submit("add_egress", party.transport, egress, receiver, ssrc, None, "m", codecs, "c", encoding)
            party.egresses[egress] = receiver

    def change_egress(self) -> None:
        owners = [p for p in self.parties if p.egresses]
        if owners:
            party = self.rng.choice(owners)
            egress = self.rng.choice(list(party.egresses))
            if self.rng.random() < 0.15:
                del party.egresses[egress]
                self.submit("remove_egress", egress)
            else:
                self.submit("select_encoding", egress, self.rng.choice([None, 0, 0, 1, 2, 3]))

    def ask(self) -> None:
        what = self.rng.randrange(4)
        if what == 0 and self.mids:
            self.submit("request_keyframe", self.rng.choice(list(self.mids)), self.rng.randrange(4))
        elif what == 1:
            self.submit("request_snapshot", self.rng.randrange(4), self.rng.randrange(4), self.rng.randrange(4))
            self.take()
            self.engine.snapshot()
        elif what == 2 and self.parties:
            self.submit("send_dtls", self.rng.choice(self.parties).transport, b"\x16" + self.rng.randbytes(self.rng.randint(0, 1599)))

    # --- datagrams ---

    def deliver(self, datagram: bytes, address: tuple[str, int]) -> None:
        try:
            self.engine.receive(datagram, address, self.now_ns)
        except MemoryError:
            # The slab is full until the next poll, as it may be; the sockets would drop the datagram.
            self.take()

    def check(self) -> None:
        if self.parties:
            party = self.rng.choice(self.parties)
            self.deliver(party.peer.check(use_candidate=self.rng.random() < 0.8, priority=self.rng.choice([1, 5, 2**31])),
                         self.rng.choice(party.addresses))

    def new_sender(self, party: Party) -> Sender:
        mid, rid = str(self.rng.randrange(4)), self.rng.choice([None, *RIDS])
        payload_type = self.rng.choice([96, 97, 98, 102, 111, 126])
        if party.receivers and self.rng.random() < 0.95:
            # One that a receiver expects, so that something is forwarded.
            _, mid, rids, is_video = self.mids[self.rng.choice(party.receivers)]
            rid = self.rng.choice(rids) if rids else None
            payload_type = 96 if is_video else 111
        sender = Sender(self.rng.getrandbits(32), mid, rid, payload_type,
                        self.rng.choice([0, 65_530, self.rng.randrange(65_536)]), self.rng.getrandbits(32), self.rng.randrange(1 << 15))
        party.senders.append(sender)
        return sender

    def media(self) -> None:
        speakers = [p for p in self.parties if p.has_keys]
        if not speakers:
            return
        party = self.rng.choice(speakers)
        if len(party.senders) < 4 or self.rng.random() < 0.1:
            self.new_sender(party)
        sender = self.rng.choice(party.senders[-6:])
        address = self.rng.choice(party.addresses)
        if self.rng.random() < 0.3:
            self.deliver(party.peer.check(), address)
        for _ in range(self.rng.choice([1, 3, 30])):
            self.media_packet(party, sender, address)

    def media_packet(self, party: Party, sender: Sender, address: tuple[str, int]) -> None:
        jump = self.rng.random()
        sender.seq += 1 if jump < 0.9 else self.rng.choice([2, 5, 511, 512, 513, 1024, 5_000])
        sender.ts += self.rng.choice([0, 3_000, 2**31, 2**32 - 5]) if jump > 0.8 else 0
        sender.picture_id += self.rng.choice([0, 1])
        extensions = {}
        if self.rng.random() < 0.8:
            extensions[MID] = sender.mid.encode()
        if sender.rid and self.rng.random() < 0.8:
            extensions[RRID if sender.payload_type == 97 else RID] = sender.rid.encode()
        if self.rng.random() < 0.5:
            extensions[TWCC] = struct.pack("!H", self.rng.randrange(65_536) if jump > 0.99 else sender.seq & 0xFFFF)
        kind = self.rng.random()
        if kind < 0.1:
            payload = b""
        elif kind < 0.2:
            payload = self.rng.randbytes(self.rng.choice([1, 2, 3, 40, 1_400, 1_540]))
        else:
            payload = vp8_payload(self.rng.random() < 0.4, sender.picture_id & 0x7FFF)
        packet = rtp(sender.ssrc, sender.seq, pt=sender.payload_type, ts=sender.ts & 0xFFFFFFFF, marker=kind > 0.5,
                     extensions=extensions, payload=payload)
        if self.rng.random() < 0.05:
            packet = bytes([packet[0] | 0x20]) + packet[1:] + self.rng.choice([b"\1", b"\0\0\0\4", b"\xff", b""])
        datagram = party.peer.protect(packet)
        party.sent = [*party.sent[-20:], datagram]
        fate = self.rng.random()
        if fate < 0.85:
            self.deliver(datagram, address)
        elif fate < 0.95:
            # Late, twice, from elsewhere.
            self.deliver(self.rng.choice(party.sent), address)
            self.deliver(self.rng.choice(party.sent), self.rng.choice(self.rng.choice(self.parties).addresses))

    def control(self) -> None:
        speakers = [p for p in self.parties if p.has_keys]
        if not speakers:
            return
        party = self.rng.choice(speakers)
        own = self.rng.choice(party.senders).ssrc if party.senders else 5
        theirs = self.rng.randint(0x1000, self.outgoing_ssrc + 1)
        ntp = self.rng.choice([0, 2**64 - 1, self.rng.getrandbits(64), self.now_ns << 32 // 10**9 & 2**64 - 1])
        parts = [
            struct.pack("!BBHIQIII", 0x80, 200, 6, own, ntp, self.rng.getrandbits(32), 1, 1),
            struct.pack("!BBHIIIIIII", 0x81, 201, 7, own, theirs, self.rng.getrandbits(32), 1, 1, self.rng.getrandbits(32), 1),
            struct.pack("!BBHII", 0x81, 206, 2, own, theirs),
            struct.pack("!BBHIIIBxxx", 0x84, 206, 4, own, 0, theirs, 1),
            struct.pack("!BBHI", 0x81, 203, 1, own),
            bytes([0x81, self.rng.randint(192, 223)]) + self.rng.randbytes(self.rng.choice([6, 10, 30])),
        ]
        compound = b"".join(self.rng.choices(parts, k=self.rng.randint(1, 4)))
        self.deliver(party.peer.protect_rtcp(compound + bytes(-len(compound) % 4)), self.rng.choice(party.addresses))

    def garbage(self) -> None:
        if not self.parties:
            return
        party = self.rng.choice(self.parties)
        pool = [*party.sent[-3:], party.peer.check(), b"\x16\xfe\xfd" + self.rng.randbytes(40), self.rng.randbytes(60)]
        datagram = bytearray(self.rng.choice(pool))
        for _ in range(self.rng.randint(0, 3)):
            datagram[self.rng.randrange(len(datagram))] = self.rng.randrange(256)
        self.deliver(bytes(datagram[: self.rng.randint(0, len(datagram))]), self.rng.choice(party.addresses))

    def time(self) -> None:
        self.now_ns += self.rng.choice([0, 1, MS, 20 * MS, 50 * MS, 500 * MS, 1_000 * MS, 6_000 * MS])
        if self.rng.random() < 0.01:
            self.now_ns += self.rng.choice([31, 61, 3_600, 10**6]) * 1_000 * MS
        if self.rng.random() < 0.3:
            for party in self.parties:
                self.deliver(party.peer.check(priority=1), party.addresses[0])

    def step(self) -> None:
        action = self.rng.choices(
            [self.add_transport, self.remove_transport, self.restart_ice, self.add_receiver, self.remove_receiver, self.add_egress,
             self.change_egress, self.ask, self.check, self.media, self.control, self.garbage, self.time, self.take],
            [3, 1, 1, 4, 2, 8, 10, 2, 12, 40, 10, 6, 12, 25],
        )[0]
        action()
        if self.rng.random() < 0.02 or len(self.waiting) > 500:
            self.take()

    def end(self) -> dict:
        """Remove everything and return the last snapshot."""
        self.take()
        for party in self.parties:
            self.submit("remove_transport", party.transport)
        self.take()
        self.submit("request_snapshot")
        self.take()
        return self.engine.snapshot()


@pytest.mark.parametrize("seed", range(8))
def test_chaos_leaves_nothing_behind(seed):
    chaos = Chaos(seed)
    for _ in range(STEPS):
        chaos.step()
    snapshot = chaos.end()
    assert chaos.waiting == set()
    assert chaos.engine.slots_used == 0
    assert snapshot["slots_used"] == 0
    assert not any(snapshot["found"])
    assert snapshot["errors"]["E_INDEX_REUSED"] == 0
    assert snapshot["counters"]["rtp_forwarded"] > 300
    assert chaos.received > 300
    assert chaos.strangers == 0
    assert chaos.engine.next_ns is None
