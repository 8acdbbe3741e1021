"""One publisher of every codec and structure on the real engine, and subscribers whose layers change: what reaches them can be decoded.

The publisher loses, swaps and doubles packets on the way to the relay and answers no NACK; behind the relay nothing is lost, so what
a subscriber lacks the relay left out, or never had. Rules, beside those of oracle.py:
  leans    a frame is forwarded only with all that it leans on, save what was lost before the relay
  cut      a frame goes whole, or not at all; one out of the keyframe cache may end where a newer keyframe comes instead
  hole     a number is missing only for a packet that was lost before the relay
  marker   the last packet of a picture has the marker and no other one
  picture  VP8's picture ids grow by one, VP9's by as many as the source's; frame numbers of the descriptor keep their distance
  unread   a descriptor says what it said, and its receiver knows the structure
  layers   once things have settled, the layers that are chosen come, and no others
"""

from __future__ import annotations

import random
import struct
from collections import defaultdict
from dataclasses import dataclass

from relaycore.depdesc import DescriptorReader
from relaycore.errs import WireError
from tests.sim.senders import DD, URIS
from tests.sim.structures import Frame, Layout
from tests.support.engine import Bench, rtcp_packets
from tests.support.peer import header_bytes

STAMP = struct.Struct("!BBIIBBBB")  # encoding, generation, frame, picture, spatial id, temporal id, index, count
MID, RID = 1, 2
RIDS = (b"q", b"h")
PAYLOAD_TYPES = {"vp8": 96, "vp9": 98, "h264": 102, "av1": 104}
EGRESS, SSRC = 21, 0x5000


@dataclass
class Source:
    """One encoding."""

    index: int
    layout: Layout
    ssrc: int
    seq: int
    rtp_ts: int
    picture_id: int
    tl0: int = 0
    key_wanted: bool = True


@dataclass(frozen=True)
class Got:
    seq: int
    rtp_ts: int
    marker: bool
    encoding: int
    frame: int
    picture: int
    spatial_id: int
    temporal_id: int
    index: int
    count: int
    picture_id: int | None
    frame_number: int | None


@dataclass
class Scenario:
    codec: str
    name: str  # of the structure
    uses_dd: bool
    encodings: int = 1
    loss: float = 0.0
    disorder: float = 0.0
    start_seq: int = 65_000
    has_dd: bool = True  # the subscriber


class LayeredCall(Bench):
    def __init__(self, seed: int, scenario: Scenario) -> None:
        super().__init__(seed)
        self.scenario = scenario
        rng = self.rng
        codecs = ((PAYLOAD_TYPES[scenario.codec], scenario.codec, 90_000, None),)
        rids = RIDS[: scenario.encodings] if scenario.encodings > 1 else ()
        uris = {uri: number for uri, number in URIS.items() if number in (MID, RID, DD)}
        self.ok("set_extensions", 1, uris)
        self.ok("set_extensions", 2, uris if scenario.has_dd else {uri: n for uri, n in uris.items() if n != DD})
        self.ok("add_receiver", 1, 11, True, "1", codecs, rids, () if rids else (1,))
        self.ok("add_egress", 2, EGRESS, 11, SSRC, None, "6", codecs, "cname", 0)
        self.sources = [
            Source(i, Layout(scenario.name, rng.choice((0, 65_400)), rng.randrange(100)), 1 + i, scenario.start_seq + i,
                   rng.getrandbits(32), rng.choice((5, 0x7FF0)))
            for i in range(scenario.encodings)
        ]  # fmt: skip
        self.wanted = (0, 7, 7)
        self.frames: dict[tuple[int, int], Frame] = {}
        self.lost: set[tuple[int, int]] = set()
        self.lost_packets = self.late_packets = self.generated = 0
        self.late: set[tuple[int, int]] = set()
        self.held: list[bytes] = []
        self.got: list[Got] = []
        self.unread: list[str] = []
        self.reader = DescriptorReader()
        self._highest = 0
        self._overtaken: set[tuple[int, int]] = set()
        self._seen: set[int] = set()
        self._paddings: set[int] = set()

    # --- the publisher ---

    def _payload(self, source: Source, frame: Frame, index: int, count: int) -> bytes:
        first, last = index == 0, index == count - 1
        stamp = STAMP.pack(source.index, 0, frame.number, frame.picture, frame.spatial_id, frame.temporal_id, index, count)
        pid = struct.pack("!H", 0x8000 | source.picture_id & 0x7FFF)
        key, tid, sid = frame.key, frame.temporal_id, frame.spatial_id
        codec = self.scenario.codec
        if codec == "vp8":
            head = bytes([0x90 if first else 0x80, 0xE0]) + pid + bytes([source.tl0 & 0xFF, tid << 6 | frame.switch_up << 5])
            return head + bytes([0x00 if key else 0x01]) + stamp
        if codec == "vp9":
            flags = 0xA0 | (0 if key else 0x40) | first << 3 | last << 2
            return bytes([flags]) + pid + bytes([tid << 5 | frame.switch_up << 4 | sid << 1, source.tl0 & 0xFF]) + stamp
        if codec == "av1":
            return bytes([(not first) << 7 | (not last) << 6 | 0x10 | (8 if key and first and sid == 0 else 0), 0x30]) + stamp
        edges = (0x80 if first else 0) | (0x40 if last else 0)
        return bytes([0x60 | 28, edges | (5 if key else 1)]) + stamp

    def picture(self, source: Source) -> None:
        """Send the next picture of an encoding."""
        key, source.key_wanted = source.key_wanted, False
        frames = list(source.layout.next_picture(key))
        source.tl0 += frames[0].temporal_id == 0
        for frame in frames:
            self.frames[source.index, frame.number] = frame
            count = self.rng.choice((1, 1, 2, 3))
            for index in range(count):
                elements = {MID: b"1"}
                if self.scenario.encodings > 1:
                    elements[RID] = RIDS[source.index]
                if self.scenario.uses_dd:
                    elements[DD] = source.layout.descriptor(frame, index == 0, index == count - 1)
                marker = frame is frames[-1] and index == count - 1
                self._send(source, frame, marker, elements, self._payload(source, frame, index, count))
        source.picture_id += 1
        source.rtp_ts += 3000

    def _send(self, source: Source, frame: Frame, marker: bool, elements: dict[int, bytes], payload: bytes) -> None:
        body = b"".join(bytes([number, len(value)]) + value for number, value in elements.items())
        body += bytes(-len(body) % 4)
        head = struct.pack("!BBHIIHH", 0x90, marker << 7 | PAYLOAD_TYPES[self.scenario.codec], source.seq & 0xFFFF,
                           source.rtp_ts & 0xFFFFFFFF, source.ssrc, 0x1000, len(body) // 4)  # fmt: skip
        source.seq += 1
        self.generated += 1
        protected = self.publisher.protect(head + body + payload)
        fate = self.rng.random()
        if fate < self.scenario.loss:
            self.lost.add((source.index, frame.number))
            self.lost_packets += 1
            return
        if fate < self.scenario.loss + self.scenario.disorder:
            self.held.append(protected)
            self.late.add((source.index, frame.number))
            self.late_packets += 1
            return
        self.receive(protected)
        if fate > 1 - self.scenario.disorder / 4:
            self.receive(protected)
        if self.held and self.rng.random() < 0.5:
            self.receive(self.held.pop(0))

    def step(self) -> None:
        """33 ms of the call."""
        for source in self.sources:
            self.picture(source)
        self.advance(33)
        for kind, count, body in rtcp_packets(self.publisher.rtcp):
            if (kind, count) == (206, 1):
                self.sources[struct.unpack_from("!I", body, 4)[0] - 1].key_wanted = True
        self.publisher.rtcp.clear()
        self._take()

    def choose(self, encoding: int | None, spatial: int, temporal: int) -> None:
        self.wanted = (encoding, spatial, temporal)
        self.ok("select_layers", EGRESS, encoding, spatial, temporal)

    # --- the subscriber ---

    def _take(self) -> None:
        for packet in self.subscriber.rtp:
            low, rtp_ts = struct.unpack_from("!2xHI", packet)
            seq = low if not self._seen else self._highest + ((low - self._highest + 0x8000) & 0xFFFF) - 0x8000
            if seq in self._seen:
                self.unread.append(f"reuse: {seq}")
            self._seen.add(seq)
            self._highest = max(self._highest, seq)
            at = header_bytes(packet)
            payload = packet[at:]
            if packet[0] & 0x20:
                payload = payload[: -packet[-1]]
            if not payload:
                self._paddings.add(seq)
                continue
            self.got.append(self._read(packet, payload, seq, rtp_ts))
        self.subscriber.rtp.clear()

    def _read(self, packet: bytes, payload: bytes, seq: int, rtp_ts: int) -> Got:
        skip = {"vp8": 7, "vp9": 5, "av1": 2, "h264": 2}[self.scenario.codec]
        encoding, _, number, picture, sid, tid, index, count = STAMP.unpack_from(payload, skip)
        picture_id = None
        if self.scenario.codec in ("vp8", "vp9"):
            picture_id = struct.unpack_from("!H", payload, 2 if self.scenario.codec == "vp8" else 1)[0] & 0x7FFF
        frame_number = None
        dd = self._descriptor(packet)
        if dd is not None:
            try:
                fields = self.reader.parse(dd)
            except WireError as error:
                self.unread.append(f"unread: frame {number}: {error}")
            else:
                frame_number = fields["frame_number"]
                frame = self.frames[encoding, number]
                if not fields["is_known"]:
                    self.unread.append(f"unread: frame {number} of an unknown structure")
                elif (fields["spatial_id"], fields["temporal_id"]) != (sid, tid):
                    self.unread.append(f"unread: frame {number} says {fields}")
                elif fields["fdiffs"] != [number - before for before in frame.leans] and frame.leans:
                    self.unread.append(f"unread: frame {number} leans on {fields['fdiffs']}")
        return Got(seq, rtp_ts, bool(packet[1] & 0x80), encoding, number, picture, sid, tid, index, count, picture_id, frame_number)

    def _descriptor(self, packet: bytes) -> bytes | None:
        at, end = 16, header_bytes(packet)
        if not packet[0] & 0x10:
            return None
        short = packet[12:14] == b"\xbe\xde"
        while at < end:
            if packet[at] == 0:
                at += 1
                continue
            number, size, head = (packet[at] >> 4, (packet[at] & 15) + 1, 1) if short else (packet[at], packet[at + 1], 2)
            if number == DD:
                return packet[at + head : at + head + size]
            at += head + size
        return None

    # --- judgement ---

    def violations(self) -> list[str]:
        found = list(self.unread)
        got = sorted(self.got, key=lambda g: g.seq)
        if not got:
            return [*found, "nothing came"]
        missing = self._highest - min(self._seen) + 1 - len(self._seen)
        # What comes late, behind a switch, is too late.
        if missing > self.lost_packets + self.late_packets:
            found.append(f"hole: {missing} numbers missing, {self.lost_packets} packets lost, {self.late_packets} late")
        by_frame: dict[tuple[int, int], list[Got]] = defaultdict(list)
        for g in got:
            by_frame[g.encoding, g.frame].append(g)
        self._overtaken = {(a.encoding, a.frame) for a, b in zip(got, got[1:]) if self._begins(b)}
        found += self._frames(by_frame)
        found += self._pictures(got)
        return found

    def _frames(self, by_frame: dict[tuple[int, int], list[Got]]) -> list[str]:
        found = []
        for (encoding, number), packets in by_frame.items():
            if (encoding, number) in self.lost | self.late | self._overtaken:
                continue
            # Some may come twice: a switch may begin at a keyframe that was shown before.
            indices = sorted({g.index for g in packets})
            if indices != list(range(packets[0].count)) and number < self.sources[encoding].layout.number - 40:
                found.append(f"cut: frame {number} of {encoding} has packets {indices} of {packets[0].count}")
            for before in self.frames[encoding, number].leans:
                if (encoding, before) not in by_frame and (encoding, before) not in self.lost | self.late:
                    found.append(f"leans: frame {number} of {encoding} lacks {before}")
        return found

    def _pictures(self, got: list[Got]) -> list[str]:
        found = []
        pictures: list[list[Got]] = []
        for g in got:
            same = pictures and pictures[-1][0]
            if not same or (same.encoding, same.picture) != (g.encoding, g.picture) or self._begins(g):
                pictures.append([])
            pictures[-1].append(g)
        is_clean = not self.lost and not self.late
        for packets in pictures:
            markers = [g.marker for g in packets]
            is_whole = not any((g.encoding, g.frame) in self.lost | self._overtaken for g in packets)
            if is_clean and is_whole and markers != [False] * (len(markers) - 1) + [True]:
                found.append(f"marker: picture {packets[0].picture} of {packets[0].encoding} has {markers}")
            if len({g.rtp_ts for g in packets}) > 1:
                found.append(f"mixed: picture {packets[0].picture} under two timestamps")
        for before, after in zip(pictures, pictures[1:]):
            a, b = before[0], after[0]
            if ((b.rtp_ts - a.rtp_ts + 0x80000000) & 0xFFFFFFFF) - 0x80000000 <= 0:
                found.append(f"backwards: picture {b.picture}")
            if a.picture_id is not None and is_clean:
                wanted = {1 if self.scenario.codec == "vp8" else b.picture - a.picture} | ({1} if self._begins(b) else set())
                if (b.picture_id - a.picture_id) & 0x7FFF not in wanted:
                    found.append(f"picture: {a.picture_id} -> {b.picture_id} at {b.picture} of {b.encoding}")
            x, y = before[-1], after[0]
            if x.frame_number is not None and y.frame_number is not None and not self._begins(y):
                if (y.frame_number - x.frame_number) & 0xFFFF != (y.frame - x.frame) & 0xFFFF:
                    found.append(f"picture: frame numbers {x.frame_number} -> {y.frame_number}")
        return found

    def _begins(self, g: Got) -> bool:
        """Whether a source may begin here, with numbers of its own."""
        return self.frames[g.encoding, g.frame].key and g.spatial_id == 0 and g.index == 0

    def settled(self) -> list[str]:
        """What was wrong with the layers of the last pictures, which were clean."""
        encoding, spatial, temporal = self.wanted
        if encoding is None:
            return []
        layout = self.sources[encoding].layout
        last = [g for g in self.got if g.encoding == encoding and g.picture >= layout.picture - 9]
        limit = spatial
        if self.scenario.codec == "av1" and not self.scenario.has_dd:
            limit = 0
        upper = min(limit, layout.spatial - 1)
        by_targets = self.scenario.uses_dd and layout.is_key
        spatials = {upper} if by_targets else set(range(upper + 1))
        shown = {g.spatial_id for g in last if not self.frames[encoding, g.frame].key}
        rates = {g.temporal_id for g in last}
        wanted_rates = set(range(min(temporal, layout.temporal - 1) + 1))
        if shown != spatials or rates != wanted_rates:
            return [f"layers: {shown} and {rates} came for {self.wanted}"]
        return []


# Codec, structure, with a Dependency Descriptor, encodings, whether the subscriber has it.
KINDS = (
    ("vp8", "L1T3", False, 2, True), ("vp8", "L1T3", True, 2, True), ("h264", "L1T1", False, 2, True), ("h264", "L1T3", True, 2, True),
    ("vp9", "L1T3", False, 2, True), ("vp9", "L1T3", True, 2, True), ("vp9", "L3T3", False, 1, True), ("vp9", "L3T3_KEY", False, 1, True),
    ("vp9", "L3T3", True, 1, True), ("vp9", "L3T3_KEY", True, 1, True), ("vp9", "L2T2_KEY_SHIFT", True, 1, True),
    ("vp9", "L3T3_KEY", True, 1, False), ("av1", "L1T3", True, 2, True), ("av1", "L1T2", True, 1, True), ("av1", "L2T1", True, 1, True),
    ("av1", "L2T2_KEY_SHIFT", True, 1, True), ("av1", "L3T3", True, 1, True), ("av1", "L3T3_KEY", True, 1, True),
    ("av1", "L3T3_KEY", True, 1, False),
)  # fmt: skip
NETWORKS = ((0.0, 0.0), (0.0, 0.1), (0.02, 0.05))  # loss, disorder


def run(seed: int, scenario: Scenario, switches: int, steps: int = 12) -> LayeredCall:
    """A call with so many switches; every fourth is given time to settle and is then judged."""
    call = LayeredCall(seed, scenario)
    rng = random.Random(seed)
    for _ in range(8):
        call.step()
    for i in range(switches):
        call.choose(rng.choice((*range(scenario.encodings), *range(scenario.encodings), None)), rng.choice((0, 1, 2, 7)),
                    rng.choice((0, 1, 2, 7)))  # fmt: skip
        if i % 4 == 3 and not scenario.loss and not scenario.disorder:
            for _ in range(45):
                call.step()
            call.unread += call.settled()
        else:
            for _ in range(rng.randrange(1, steps)):
                call.step()
    for datagram in call.held:
        call.receive(datagram)
    call.step()
    return call
