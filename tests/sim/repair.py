"""The simulation with repair at every joint: the publisher answers NACKs by RTX, the subscribers ask for what they miss."""

from __future__ import annotations

import struct
from collections import OrderedDict
from dataclasses import dataclass, field

from tests.sim.link import Impairment
from tests.sim.relay import MS, URIS, VP8, Simulation, Subscriber
from tests.sim.source import one_byte_extensions, read_payload
from tests.support.peer import header_bytes

RRID_URI, RRID = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id", 3
RTX_PAYLOAD_TYPE = 97
RTX_SSRC_AWAY = 0x4000_0000
KEPT_PACKETS = 2_000
RETRY_NS, TRIES, AGE_NS = 60 * MS, 10, 900 * MS


@dataclass
class Asking:
    """What one subscriber has asked for: number -> (times, last time, first time)."""

    highest: int | None = None
    missing: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    repaired: int = 0


class RepairSimulation(Simulation):
    """`answers` False = a publisher without RTX, `asks` False = subscribers without NACK: the controls."""

    def __init__(self, seed: int, *, answers: bool = True, asks: bool = True, **options) -> None:
        self.answers, self.asks = answers, asks
        self.sent: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self.rtx_seq: dict[int, int] = {}
        self.asking: dict[int, Asking] = {}
        self.down_link = options.pop("downstream", Impairment())
        super().__init__(seed, downstream=self.down_link, **options)

    def _connect(self, engine, transport, peer, address) -> None:
        super()._connect(engine, transport, peer, address)
        self.command(engine, "set_extensions", transport, {**URIS, RRID_URI: RRID})

    def _subscribe(self, engine, subscriber: Subscriber) -> None:
        rtx = subscriber.ssrc + RTX_SSRC_AWAY
        self.command(engine, "add_egress", subscriber.transport, subscriber.egress, 10, subscriber.ssrc, rtx, "7", VP8, "c", 0)
        self.asking[subscriber.ssrc] = Asking()

    # --- the publisher's side ---

    def _uplink(self, packet: bytes) -> None:
        seq, ssrc = struct.unpack_from("!2xH4xI", packet)
        self.sent[ssrc, seq] = packet
        if len(self.sent) > KEPT_PACKETS:
            self.sent.popitem(last=False)
        super()._uplink(packet)

    def _retransmit(self, ssrc: int, seq: int) -> None:
        packet = self.sent.get((ssrc, seq))
        encoding = self.publisher.by_ssrc(ssrc)
        if packet is None or encoding is None or packet[0] & 0x20:
            return
        number = self.rtx_seq[ssrc] = (self.rtx_seq.get(ssrc, 20_000) + 1) & 0xFFFF
        extension = one_byte_extensions({1: b"0", RRID: encoding.rid.encode()})
        head = bytes([0x90, packet[1] & 0x80 | RTX_PAYLOAD_TYPE]) + struct.pack("!H", number) + packet[4:8]
        body = struct.pack("!IH", (ssrc + RTX_SSRC_AWAY) & 0xFFFFFFFF, seq)
        repair = head + body[:4] + extension + body[4:] + packet[header_bytes(packet):]
        self.uplink.send(self.peer.protect(repair), self.now_ns)

    def _heed_keyframe_requests(self) -> None:
        for compound in self.peer.rtcp if self.answers else ():
            at = 0
            while at + 12 <= len(compound):
                kind, words = compound[at + 1], struct.unpack_from("!H", compound, at + 2)[0]
                if kind == 205 and compound[at] & 31 == 1:
                    ssrc = struct.unpack_from("!I", compound, at + 8)[0]
                    for first, mask in struct.iter_unpack("!HH", compound[at + 12 : at + 4 * (words + 1)]):
                        for seq in [first, *(first + k + 1 & 0xFFFF for k in range(16) if mask >> k & 1)]:
                            self._retransmit(ssrc, seq)
                at += 4 * (words + 1)
        super()._heed_keyframe_requests()

    # --- the subscribers' side ---

    def _judge(self, subscriber: Subscriber, datagram: bytes) -> None:
        plain = subscriber.peer.receive(datagram)
        if plain is None:
            return
        kind, seq, rtp_ts, ssrc = struct.unpack_from("!xBHII", plain)
        asking = self.asking[subscriber.ssrc]
        payload = plain[header_bytes(plain):]
        if plain[0] & 0x20:
            payload = payload[: -plain[-1]]
        if ssrc == subscriber.ssrc + RTX_SSRC_AWAY:
            assert kind & 0x7F == RTX_PAYLOAD_TYPE
            seq, payload = struct.unpack_from("!H", payload)[0], payload[2:]
        else:
            assert (kind & 0x7F, ssrc) == (96, subscriber.ssrc)
        ext = seq if asking.highest is None else asking.highest + ((seq - asking.highest + 0x8000) & 0xFFFF) - 0x8000
        if asking.highest is not None and ext > asking.highest:
            asking.missing.update({n: (0, 0, self.now_ns) for n in range(asking.highest + 1, ext)})
        asking.highest = ext if asking.highest is None else max(asking.highest, ext)
        was_missing = asking.missing.pop(ext, None) is not None
        if not payload:
            subscriber.oracle.add_padding(seq)
            return
        stamp, picture_id = read_payload(payload)
        if ssrc != subscriber.ssrc:
            # A repair may come although its original does, too; it must say the same.
            if subscriber.oracle.says(seq, rtp_ts, bool(kind & 0x80), stamp, picture_id):
                return
            assert was_missing, "a repair that nobody asked for"
            asking.repaired += 1
        elif not was_missing and ext < asking.highest and subscriber.oracle.says(seq, rtp_ts, bool(kind & 0x80), stamp, picture_id):
            return
        subscriber.oracle.add(seq, rtp_ts, bool(kind & 0x80), stamp, picture_id)

    def _ask(self, subscriber: Subscriber) -> None:
        asking = self.asking[subscriber.ssrc]
        wanted = []
        for number, (times, last, first) in list(asking.missing.items()):
            if times >= TRIES or self.now_ns - first > AGE_NS:
                del asking.missing[number]
            elif times == 0 or self.now_ns - last > RETRY_NS:
                asking.missing[number] = times + 1, self.now_ns, first
                wanted.append(number & 0xFFFF)
        if wanted:
            items = b"".join(struct.pack("!HH", number, 0) for number in wanted[:200])
            packet = struct.pack("!BBHII", 0x81, 205, 2 + len(items) // 4, 1, subscriber.ssrc) + items
            subscriber.engine.receive(subscriber.peer.protect_rtcp(packet), subscriber.address, self.now_ns)

    def _step(self) -> None:
        super()._step()
        if self.asks and self.now_ns // MS % 5 == 0:
            for subscriber in self.subscribers:
                self._ask(subscriber)
