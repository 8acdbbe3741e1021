"""A publisher's lossy path: every frame is delivered, or a keyframe was asked for."""

from __future__ import annotations

import struct

import pytest

from tests.sim.link import Impairment
from tests.sim.relay import MS, URIS, Simulation
from tests.sim.source import one_byte_extensions
from tests.support.engine import rtcp_packets
from tests.support.peer import header_bytes

MID, RRID = 1, 3
NACK, PLI = (205, 1), (206, 1)


class Repaired(Simulation):
    """The publisher keeps what it sent and answers `answers` of the requests for each packet; requests get lost too."""

    def __init__(self, seed: int, *, answers: int = 100, request_loss: float = 0.1, **options) -> None:
        self.sent: dict[tuple[int, int], bytes] = {}
        self.frames: dict[tuple[int, int], tuple[int, int]] = {}
        self.answered: dict[tuple[int, int], int] = {}
        self.asked_ns: list[int] = []
        self.rtx_seq: dict[int, int] = {}
        self.answers, self.request_loss = answers, request_loss
        super().__init__(seed, subscribers=1, **options)

    def _connect(self, engine, transport, peer, address) -> None:
        super()._connect(engine, transport, peer, address)
        self.command(engine, "set_extensions", transport, {**URIS, "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id": RRID})

    def _publish(self) -> None:
        capture_s = self.now_ns / 1e9
        encoding = self.publisher.encodings[0]
        packets = list(self.publisher.frame(encoding, capture_s))
        self.frames[encoding.index, encoding.frame - 1] = self.now_ns, len(packets)
        for packet in packets:
            seq, ssrc = struct.unpack_from("!H", packet, 2)[0], struct.unpack_from("!I", packet, 8)[0]
            self.sent[ssrc, seq] = packet
            self.uplink.send(self.peer.protect(packet), self.now_ns)

    def _retransmit(self, ssrc: int, seq: int) -> None:
        if self.answered.get((ssrc, seq), 0) >= self.answers:
            return
        self.answered[ssrc, seq] = self.answered.get((ssrc, seq), 0) + 1
        original = self.sent[ssrc, seq]
        number = self.rtx_seq[ssrc] = self.rtx_seq.get(ssrc, 100) + 1
        head = struct.pack("!BBHII", 0x90, 97 | (original[1] & 0x80), number & 0xFFFF, *struct.unpack_from("!I", original, 4),
                           ssrc ^ 0x5555)
        extensions = one_byte_extensions({MID: b"0", RRID: b"q"})
        packet = head + extensions + struct.pack("!H", seq) + original[header_bytes(original):]
        self.uplink.send(self.peer.protect(packet), self.now_ns)

    def _heed_keyframe_requests(self) -> None:
        heard, self.peer.rtcp[:] = list(self.peer.rtcp), []
        for compound in heard:
            if any((kind, count) == PLI for kind, count, _ in rtcp_packets([compound])):
                self.asked_ns.append(self.now_ns)
            if self.rng.random() < self.request_loss:
                continue
            self.peer.rtcp.append(compound)
            for kind, count, body in rtcp_packets([compound]):
                if (kind, count) == NACK:
                    ssrc = struct.unpack_from("!I", body, 4)[0]
                    for pid, mask in struct.iter_unpack("!HH", body[8:]):
                        for seq in [pid, *(pid + k + 1 & 0xFFFF for k in range(16) if mask >> k & 1)]:
                            self._retransmit(ssrc, seq)
        super()._heed_keyframe_requests()

    def incomplete(self) -> list[int]:
        """When the frames were sent that the subscriber did not get whole, from its first one on, but for the last second."""
        got: dict[tuple[int, int], int] = {}
        for packet in self.subscribers[0].oracle.packets.values():
            got[packet.stamp.encoding, packet.stamp.frame] = got.get((packet.stamp.encoding, packet.stamp.frame), 0) + 1
        first = min(frame for _, frame in got)
        return [at for (encoding, frame), (at, count) in self.frames.items()
                if frame >= first and at < self.now_ns - 1_500 * MS and got.get((encoding, frame), 0) != count]


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_tenth_lost_each_way_is_repaired(seed):
    simulation = Repaired(seed, upstream=Impairment(loss=0.1, delay_s=0.025))
    simulation.run(20)
    assert simulation.subscribers[0].oracle.violations(lost_at_source=1 << 30) == []
    assert simulation.uplink.lost > 60
    missing = simulation.incomplete()
    assert len(missing) <= 0.01 * len(simulation.frames)
    for at in missing:
        assert any(at < asked < at + 2_000 * MS for asked in simulation.asked_ns)


@pytest.mark.parametrize("seed", range(1, 4))
def test_what_nobody_repairs_brings_a_keyframe_request(seed):
    simulation = Repaired(seed, answers=0, upstream=Impairment(loss=0.02, delay_s=0.025))
    simulation.run(20)
    missing = simulation.incomplete()
    assert len(missing) > 5
    for at in missing:
        assert any(at < asked < at + 2_000 * MS for asked in simulation.asked_ns), at


@pytest.mark.parametrize("seed", range(1, 4))
def test_reordering_costs_few_repairs(seed):
    simulation = Repaired(seed, upstream=Impairment(reorder=0.2, reorder_delay_s=0.008))
    simulation.run(20)
    assert simulation.incomplete() == []
    counters = simulation.counters(simulation.engine)
    assert simulation.uplink.reordered > 80
    assert counters["nacks_sent"] < simulation.uplink.reordered // 4
    assert counters["nacks_given_up"] == 0


def test_duplicates_and_repairs_of_both_kinds_reach_the_subscriber_once():
    simulation = Repaired(9, upstream=Impairment(loss=0.1, duplicate=0.3, reorder=0.2, delay_s=0.025))
    simulation.run(20)
    assert simulation.subscribers[0].oracle.reused == [] and simulation.subscribers[0].peer.refused == 0
    assert simulation.counters(simulation.engine)["duplicates_dropped"] > 0
