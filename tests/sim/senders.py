"""Senders of every codec whose frames are bytes of chance behind true descriptors, with or without a Dependency Descriptor.

What a frame holds is of no concern to the relay; what stands in front of it is what a browser writes, and so are the marks
of the frame formats: LiveKit's last 14 bytes, SFrame's header (behind VP8's clear byte, in AV1's wrapper).
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from functools import lru_cache

from tests.support.depdesc_writer import Descriptor, Structure, Template, write_depdesc
from tests.support.payload_views import Range, mark_views

MID, RID, RRID, TWCC, LEVEL, DD, SENT, PLAYOUT, OFFSET, CAPTURE = range(1, 11)
URIS = {
    "urn:ietf:params:rtp-hdrext:sdes:mid": MID,
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id": RID,
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id": RRID,
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01": TWCC,
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level": LEVEL,
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension": DD,
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time": SENT,
    "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay": PLAYOUT,
    "urn:ietf:params:rtp-hdrext:toffset": OFFSET,
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time": CAPTURE,
}
VIDEO = {"vp8": 96, "vp9": 98, "h264": 102, "av1": 104}  # payload types; RTX one above
AUDIO = {"red": 63, "opus": 111}
RED_HEADER_BYTES = 5  # in front of the blocks, where there is one redundant block
RIDS = ("q", "h", "f")
MASK = 0xFFFFFFFF


def _templates(spatial: int) -> list[Template]:
    """Three temporal layers each: the key frame's template (it may lean on the layer below) and one for each layer."""
    found = []
    for s in range(spatial):
        reach = [int(target // 3 == s) * 2 for target in range(3 * spatial)]
        found.append(
            Template(
                s, 0, [2 if target // 3 >= s else 0 for target in range(3 * spatial)], (1,) if s else (), (0,) * spatial
            )
        )
        found.append(Template(s, 0, reach, (4 * spatial,), (4 if c == s else 0 for c in range(spatial))))
        found.append(Template(s, 1, [r if t % 3 else 0 for t, r in enumerate(reach)], (2 * spatial,), (2,) * spatial))
        found.append(
            Template(s, 2, [r // 2 if t % 3 == 2 else 0 for t, r in enumerate(reach)], (spatial,), (1,) * spatial)
        )
    for template in found:
        template.chains = tuple(template.chains)
    return found


@lru_cache
def _descriptor(spatial: int, template: int, start: bool, end: bool, has_structure: bool, custom: bool) -> bytes:
    structure = None
    if has_structure:
        structure = Structure(
            _templates(spatial),
            protected_by=[target // 3 for target in range(3 * spatial)],
            resolutions=[(320 << s, 180 << s) for s in range(spatial)],
        )
    return write_depdesc(
        Descriptor(
            template_id=template,
            start=start,
            end=end,
            structure=structure,
            fdiffs=(3, 6) if custom and not has_structure else None,
        )
    )


def extension_block(elements: dict[int, bytes]) -> bytes:
    """RFC 8285: one-byte form where every element fits, else the two-byte form."""
    if not elements:
        return b""
    short = all(1 <= len(value) <= 16 for value in elements.values())
    body = b"".join(
        (bytes([number << 4 | len(value) - 1]) if short else bytes([number, len(value)])) + value
        for number, value in elements.items()
    )
    body += bytes(-len(body) % 4)
    return struct.pack("!HH", 0xBEDE if short else 0x1000, len(body) // 4) + body


def sframe_header(kid: int, ctr: int) -> bytes:
    """RFC 9605 section 4.3."""

    def field_of(number: int) -> tuple[int, bytes]:
        body = number.to_bytes((number.bit_length() + 7) // 8, "big")
        return (number, b"") if number < 8 else (8 | len(body) - 1, body)

    (k, kid_bytes), (c, ctr_bytes) = field_of(kid), field_of(ctr)
    return bytes([k << 4 | c]) + kid_bytes + ctr_bytes


def escaped(data: bytes) -> bytes:
    """With emulation prevention (ITU-T H.264 section 7.4.1)."""
    out = bytearray()
    for byte in data:
        if byte <= 3 and out[-2:] == b"\0\0":
            out.append(3)
        out.append(byte)
    return bytes(out)


@dataclass
class Sent:
    """One packet as its sender made it; payload_at is where its payload begins, marks is its part of the mark view."""

    packet: bytes
    payload_at: int
    codec: str
    marks: list[Range] = field(default_factory=list)
    osn_bytes: int = 0  # of a retransmission: the number in front of the payload
    padding: int = 0
    primary_at: int = 0  # of clear RED: how far in the payload its primary block stands


@dataclass
class Encoding:
    index: int
    ssrc: int
    seq: int
    ts_offset: int
    picture_id: int
    keyframe_wanted: bool = True
    frames: int = 0
    packets: int = 0
    rtx_seq: int = 100
    kept: dict[int, Sent] = field(default_factory=dict)


@dataclass
class Sender:
    """One published m-line. spatial: layers in one encoding (SVC); rids: simulcast, else one encoding named by its SSRC."""

    rng: random.Random
    codec: str
    mid: str
    uses_dd: bool = False
    uses_rids: bool = True
    spatial: int = 1
    short_picture_id: bool = False
    frame_format: str = "clear"
    kid: int = 0
    ctr: int = 0
    frame_number: int = 0
    twcc: int = 0
    former_voice: bytes = b""
    encodings: list[Encoding] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = self.rng
        self.payload_type = (VIDEO | AUDIO)[self.codec]
        self.is_video = self.codec in VIDEO
        self.clock_hz = 90_000 if self.is_video else 48_000
        self.frame_number = rng.randrange(65_536)
        self.encodings += map(self._begin, range(3 if self.uses_rids and self.is_video else 1))

    def _begin(self, index: int) -> Encoding:
        rng = self.rng
        start = rng.choice((rng.randrange(1 << 15), 32_760, 65_530))
        ssrc = rng.randrange(1, 1 << 30) * 4 + index
        return Encoding(index, ssrc, start, rng.getrandbits(32), rng.randrange(1 << 15))

    def restart(self, encoding: Encoding) -> None:
        """Go on under another SSRC, with other numbers and another clock; keys and counts of frames stay."""
        self.encodings[encoding.index] = self._begin(encoding.index)

    def rtp_ts(self, encoding: Encoding, now_ns: int) -> int:
        return now_ns * self.clock_hz // 1_000_000_000 + encoding.ts_offset & MASK

    def _elements(self, encoding: Encoding, *, repaired: bool = False) -> dict[int, bytes]:
        found = {MID: self.mid.encode(), TWCC: struct.pack("!H", self.twcc & 0xFFFF), SENT: self.rng.randbytes(3)}
        self.twcc += 1
        if self.uses_rids and self.is_video:
            found[RRID if repaired else RID] = RIDS[encoding.index].encode()
        return found

    def _packet(
        self,
        encoding: Encoding,
        ts: int,
        marker: bool,
        payload: bytes,
        elements: dict[int, bytes],
        *,
        ssrc: int | None = None,
        seq: int | None = None,
        payload_type: int | None = None,
        padding: int = 0,
    ) -> tuple[bytes, int]:
        if seq is None:
            seq = encoding.seq
            encoding.seq += 1
        block = extension_block(elements)
        head = (
            struct.pack(
                "!BBHII",
                0x90 | (0x20 if padding else 0),
                marker << 7 | (self.payload_type if payload_type is None else payload_type),
                seq & 0xFFFF,
                ts,
                encoding.ssrc if ssrc is None else ssrc,
            )
            + block
        )
        tail = self.rng.randbytes(padding - 1) + bytes([padding]) if padding else b""
        return head + payload + tail, len(head)

    # --- descriptors --------------------------------------------------------------------------------------------------

    def _vp8(self, encoding: Encoding, key: bool, tid: int, first: bool) -> bytes:
        if self.uses_dd:
            return bytes([0x10 if first else 0x00])
        head = bytes([(0x90 if first else 0x80) | (0x20 if tid == 2 else 0), 0xE0])
        number = (
            bytes([encoding.picture_id & 0x7F])
            if self.short_picture_id
            else struct.pack("!H", 0x8000 | encoding.picture_id & 0x7FFF)
        )
        return head + number + bytes([encoding.frames & 0xFF, tid << 6 | (0x20 if tid else 0)])

    def _vp9(self, encoding: Encoding, key: bool, tid: int, sid: int, first: bool, last: bool) -> bytes:
        structure = key and first and sid == 0
        head = (
            0x80
            | (0 if key else 0x40)
            | 0x20
            | (0x08 if first else 0)
            | (0x04 if last else 0)
            | (0x02 if structure else 0)
        )
        out = (
            bytes([head])
            + struct.pack("!H", 0x8000 | encoding.picture_id & 0x7FFF)
            + bytes([tid << 5 | sid << 1, encoding.frames & 0xFF])
        )
        if structure:
            out += bytes([self.spatial - 1 << 5 | 0x18]) + bytes(4 * self.spatial) + bytes([1, 0x04, 1])
        return out

    def _h264(self, key: bool, body: bytes, index: int, count: int) -> bytes:
        header = 0x65 if key else 0x41
        slices = range(1 if key and count > 1 else 0, count)
        if index not in slices:
            # Parameter sets go ahead of a key frame's slice, in one packet.
            half = len(body) // 2
            return (
                b"\x78"
                + struct.pack("!HB", half + 1, 0x67)
                + body[:half]
                + struct.pack("!HB", len(body) - half + 1, 0x68)
                + body[half:]
            )
        if len(slices) == 1:
            return bytes([header]) + body
        edges = (0x80 if index == slices[0] else 0) | (0x40 if index == slices[-1] else 0)
        return bytes([header & 0x60 | 28, edges | header & 31]) + body

    def _payload(self, encoding: Encoding, key: bool, tid: int, sid: int, body: bytes, index: int, count: int) -> bytes:
        first, last = index == 0, index == count - 1
        if self.codec == "vp8":
            return self._vp8(encoding, key, tid, first) + body
        if self.codec == "vp9":
            return self._vp9(encoding, key, tid, sid, first, last) + body
        if self.codec == "av1":
            return (
                bytes(
                    [
                        (0 if first else 0x80)
                        | (0 if last else 0x40)
                        | (0x20 if key and first and self.frame_format == "sframe" else 0x10)
                        | (0x08 if key and first and sid == 0 else 0)
                    ]
                )
                + body
            )
        return self._h264(key, body, index, count)

    # --- packets ------------------------------------------------------------------------------------------------------

    def _bodies(self, encoding: Encoding, ts: int, count: int, size: int, key: bool) -> list[bytes]:
        """One frame in `count` pieces: bytes of chance, its clear byte and its mark."""
        pieces = [self.rng.randbytes(max(1, size - 7 * index)) for index in range(count)]
        if self.frame_format == "sframe":
            self.ctr += 1
            # AV1: an empty sequence header in front of a keyframe, then one OBU around the frame, both without sizes.
            wrapper = (b"\x02\x08\x00\x30" if key else b"\x30") if self.codec == "av1" else b""
            pieces[0] = wrapper + sframe_header(self.kid, self.ctr) + pieces[0]
        if self.codec == "vp8":
            pieces[0] = bytes([self.rng.getrandbits(8) & 0xFE | (not key)]) + pieces[0]
        if self.frame_format == "livekit_gcm":
            mark = struct.pack("!II", encoding.ssrc, ts) + self.rng.randbytes(4) + bytes([12, self.kid & 15])
            # The mark may lie across two packets; of H264 only of one NAL unit, not where parameter sets go ahead.
            pieces[-1] = escaped(pieces[-1] + mark) if self.codec == "h264" else pieces[-1] + mark
            early = self.rng.randrange(14) if self.rng.getrandbits(1) else 0
            if early and count > (2 if self.codec == "h264" and key else 1):
                whole = pieces[-2] + pieces[-1]
                pieces[-2:] = whole[: early - 14], whole[early - 14 :]
        return pieces

    def frame(self, encoding: Encoding, now_ns: int, count: int, size: int, *, key: bool) -> list[Sent]:
        """The packets of one picture: a frame for each spatial layer."""
        key = key or encoding.keyframe_wanted
        encoding.keyframe_wanted = False
        tid = 0 if key else (0, 2, 1, 2)[encoding.frames % 4]
        ts = self.rtp_ts(encoding, now_ns)
        found = []
        for sid in range(self.spatial):
            bodies = self._bodies(encoding, ts, count, size, key)
            payloads = [self._payload(encoding, key, tid, sid, body, i, count) for i, body in enumerate(bodies)]
            marks = mark_views(self.codec, self.frame_format, payloads)
            for index, payload in enumerate(payloads):
                elements = self._elements(encoding)
                if self.uses_dd:
                    template = 4 * sid + (0 if key else 1 + tid)
                    dd = _descriptor(
                        self.spatial,
                        template,
                        index == 0,
                        index == count - 1,
                        key and index == 0 and sid == 0,
                        self.uses_rids and not key,
                    )
                    elements[DD] = dd[:1] + struct.pack("!H", self.frame_number & 0xFFFF) + dd[3:]
                if encoding.packets % 16 == 0:
                    elements[CAPTURE] = self.rng.randbytes(8)
                marker = index == count - 1 and sid == self.spatial - 1
                seq = encoding.seq & 0xFFFF
                packet, at = self._packet(encoding, ts, marker, payload, elements)
                encoding.packets += 1
                sent = encoding.kept[seq] = Sent(packet, at, self.codec, marks[index])
                found.append(sent)
            self.frame_number += 1
        encoding.frames += 1
        encoding.picture_id += 1
        return found

    def audio(self, now_ns: int, size: int) -> Sent:
        encoding = self.encodings[0]
        ts = self.rtp_ts(encoding, now_ns)
        elements = self._elements(encoding) | {LEVEL: self.rng.randbytes(1)}
        payload = self._bodies(encoding, ts, 1, size, False)[0]
        # What would be too long with what came before goes out alone.
        codec = "opus" if size > 80 else self.codec
        primary_at, voice = 0, payload
        if codec == "red" and self.frame_format == "clear":
            # RFC 2198: one redundant block, 20 ms older. What is encrypted has no such shape.
            primary_at = RED_HEADER_BYTES + len(self.former_voice)
            head = struct.pack("!BBHB", 0x80 | AUDIO["opus"], 960 >> 6, (960 & 63) << 10 | len(self.former_voice), AUDIO["opus"])
            payload = head + self.former_voice + voice
        self.former_voice = voice[:80]
        packet, at = self._packet(encoding, ts, encoding.packets == 0, payload, elements, payload_type=AUDIO[codec])
        encoding.packets += 1
        return Sent(packet, at, codec, mark_views(codec, self.frame_format, [payload])[0], primary_at=primary_at)

    def retransmission(self, encoding: Encoding, seq: int) -> Sent | None:
        """RFC 4588: the number it had, then the payload it had."""
        original = encoding.kept.get(seq & 0xFFFF)
        if original is None:
            return None
        encoding.rtx_seq += 1
        marker, ts = original.packet[1] >> 7, struct.unpack_from("!I", original.packet, 4)[0]
        packet, at = self._packet(
            encoding,
            ts,
            bool(marker),
            struct.pack("!H", seq) + original.packet[original.payload_at :],
            self._elements(encoding, repaired=True) | self._dd_of(original),
            ssrc=encoding.ssrc ^ 2,
            seq=encoding.rtx_seq,
            payload_type=self.payload_type + 1,
        )
        return Sent(packet, at, self.codec, original.marks, osn_bytes=2)

    def _dd_of(self, original: Sent) -> dict[int, bytes]:
        """A repair says again what its original said."""
        if not self.uses_dd:
            return {}
        profile, at = struct.unpack_from("!H", original.packet, 12)[0], 16
        while at < original.payload_at and original.packet[at]:
            number, size = original.packet[at], original.packet[at + 1]
            head = 2
            if profile == 0xBEDE:
                number, size, head = original.packet[at] >> 4, (original.packet[at] & 15) + 1, 1
            if number == DD:
                return {DD: original.packet[at + head : at + head + size]}
            at += head + size
        return {}

    def padding(self, encoding: Encoding, now_ns: int, size: int, *, repair: bool) -> Sent:
        """Padding alone, on the stream itself or on its repair stream, as probes are."""
        ts = self.rtp_ts(encoding, now_ns)
        if repair:
            encoding.rtx_seq += 1
            packet, at = self._packet(
                encoding,
                ts,
                False,
                b"",
                self._elements(encoding, repaired=True),
                ssrc=encoding.ssrc ^ 2,
                seq=encoding.rtx_seq,
                payload_type=self.payload_type + 1,
                padding=size,
            )
        else:
            packet, at = self._packet(encoding, ts, False, b"", self._elements(encoding), padding=size)
        return Sent(packet, at, self.codec, padding=size)

    def report(self, encoding: Encoding, now_ns: int) -> bytes:
        ntp = (now_ns << 32) // 1_000_000_000
        return struct.pack(
            "!BBHIQIII", 0x80, 200, 6, encoding.ssrc, ntp, self.rtp_ts(encoding, now_ns), encoding.packets, 0
        )
