"""A subscriber of the bandwidth plans: it counts what arrives, reports every packet as libwebrtc does, and asks for what it misses.

It writes transport-wide feedback itself (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1), so that no fault of
the relay's own writer hides one of its reader. It reads headers, which SRTP leaves in the clear, and opens repairs alone.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tests.support.engine import TWCC
from tests.support.peer import MediaPeer, header_bytes

MS = 1_000_000
IP_UDP_BYTES = 28
TICK_NS = 250_000
# As libwebrtc's receivers: a report for 5 % of what arrives, every 50 to 250 ms.
REPORT_BITS, REPORT_SHARE = 68 * 8, 0.05
LEAST_NS, MOST_NS = 50 * MS, 250 * MS
RETRY_NS, TRIES = 120 * MS, 8
# A first report has to wait until something is there that an estimate can be made of.
REMB_NS = 1_000 * MS


def write_feedback(base: int, count: int, ticks_by_number: dict[int, int], serial: int, media_ssrc: int) -> bytes:
    """One RTCP packet about `count` numbers from `base` on; arrival in ticks of 250 us of those that did."""
    last = min(ticks_by_number.values()) // 256 * 256
    body = struct.pack("!IIHHI", 1, media_ssrc, base & 0xFFFF, count, (last // 256 & 0xFFFFFF) << 8 | serial & 0xFF)
    symbols, deltas = [], b""
    for number in range(base, base + count):
        ticks = ticks_by_number.get(number)
        if ticks is None:
            symbols.append(0)
            continue
        delta, last = ticks - last, ticks
        symbols.append(1 if 0 <= delta <= 255 else 2)
        deltas += struct.pack("!B" if 0 <= delta <= 255 else "!h", delta)
    for at in range(0, count, 7):
        chunk = 0xC000
        for place, symbol in enumerate(symbols[at : at + 7]):
            chunk |= symbol << (12 - 2 * place)
        body += struct.pack("!H", chunk)
    body += deltas
    padding = -len(body) % 4
    body += bytes(padding - 1) + bytes([padding]) if padding else b""
    return struct.pack("!BBH", 0xAF if padding else 0x8F, 205, len(body) // 4) + body


def write_remb(bps: int, ssrcs: list[int]) -> bytes:
    """draft-alvestrand-rmcat-remb-03 section 2.2."""
    exponent = max(0, bps.bit_length() - 18)
    body = struct.pack("!II4sI", 1, 0, b"REMB", len(ssrcs) << 24 | exponent << 18 | bps >> exponent)
    body += b"".join(struct.pack("!I", ssrc) for ssrc in ssrcs)
    return struct.pack("!BBH", 0x8F, 206, len(body) // 4) + body


def write_nack(media_ssrc: int, numbers: list[int]) -> bytes:
    """RFC 4585 section 6.2.1, one number to an item."""
    items = b"".join(struct.pack("!HH", number & 0xFFFF, 0) for number in numbers)
    return struct.pack("!BBHII", 0x81, 205, 2 + len(items) // 4, 1, media_ssrc) + items


@dataclass
class Stream:
    """What arrived of one SSRC; numbers unwrapped, those that are missing with when they were last asked for and how often."""

    newest: int | None = None
    packets: int = 0
    missing: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass
class Guest:
    """`reports` False: it negotiated transport-wide numbers and never sends feedback, or sends REMB if `remb_bps` is not 0."""

    transport: int
    peer: MediaPeer
    address: tuple[str, int]
    # RTX SSRC -> the SSRC it repairs.
    repairs: dict[int, int] = field(default_factory=dict)
    audio_ssrcs: set[int] = field(default_factory=set)
    reports: bool = True
    remb_bps: int = 0
    estimate_bps: int = 0
    rtt_ms: int = 0
    loss: float = 0.0
    # Bytes with IP and UDP headers.
    offered_bytes: int = 0
    arrived_bytes: int = 0
    rtx_bytes: int = 0
    audio_offered: int = 0
    streams: dict[int, Stream] = field(default_factory=dict)
    _ticks: dict[int, int] = field(default_factory=dict)
    _next: int | None = None
    _newest: int = 0
    _serial: int = 0
    _due_ns: int = 0
    _bytes_then: int = 0
    _then_ns: int = 0
    _nack_ns: int = 0

    def offer(self, datagram: bytes) -> None:
        """The relay sends this."""
        self.offered_bytes += len(datagram) + IP_UDP_BYTES
        if not 192 <= datagram[1] <= 223 and struct.unpack_from("!I", datagram, 8)[0] in self.audio_ssrcs:
            self.audio_offered += 1

    def take(self, datagram: bytes, now_ns: int) -> None:
        """The path brings this."""
        self.arrived_bytes += len(datagram) + IP_UDP_BYTES
        if datagram[0] < 4 or 192 <= datagram[1] <= 223:
            return
        seq, ssrc = struct.unpack_from("!2xH4xI", datagram)
        number = self._number(datagram)
        if number is not None:
            # Times on a clock of its own.
            self._ticks[number] = (now_ns + 7_654_321_000) // TICK_NS
        if ssrc in self.repairs:
            self.rtx_bytes += len(datagram) + IP_UDP_BYTES
            self._repair(datagram, ssrc)
            return
        stream = self.streams.setdefault(ssrc, Stream())
        stream.packets += 1
        ext = seq if stream.newest is None else stream.newest + ((seq - stream.newest + 0x8000) & 0xFFFF) - 0x8000
        if stream.newest is not None and ssrc not in self.audio_ssrcs:
            for missing in range(max(stream.newest + 1, ext - 500), ext):
                stream.missing[missing] = 0, 0
        stream.missing.pop(ext, None)
        stream.newest = ext if stream.newest is None else max(stream.newest, ext)

    def _number(self, datagram: bytes) -> int | None:
        """Return the transport-wide number, unwrapped."""
        if not datagram[0] & 0x10:
            return None
        end, at = header_bytes(datagram), 16
        while at < end:
            kind, length = datagram[at] >> 4, (datagram[at] & 15) + 1
            if kind == TWCC:
                low = struct.unpack_from("!H", datagram, at + 1)[0]
                number = low if self._next is None else self._newest + ((low - self._newest + 0x8000) & 0xFFFF) - 0x8000
                self._next = number if self._next is None else self._next
                self._newest = max(number, self._newest)
                return number
            at += 1 + length if kind else 1
        return None

    def _repair(self, datagram: bytes, ssrc: int) -> None:
        plain = self.peer.receive(datagram)
        assert plain is not None, "an RTX packet that does not open"
        payload = plain[header_bytes(plain) :]
        if plain[0] & 0x20:
            payload = payload[: -payload[-1]]
        stream = self.streams.get(self.repairs[ssrc])
        if len(payload) < 2 or stream is None or stream.newest is None:
            return
        osn = struct.unpack_from("!H", payload)[0]
        stream.missing.pop(stream.newest + ((osn - stream.newest + 0x8000) & 0xFFFF) - 0x8000, None)

    def rtcp(self, now_ns: int) -> list[bytes]:
        """What it sends now, protected."""
        packets = []
        if now_ns >= self._due_ns:
            bps = (self.arrived_bytes - self._bytes_then) * 8e9 / max(1, now_ns - self._then_ns)
            self._bytes_then, self._then_ns = self.arrived_bytes, now_ns
            pause_ns = int(min(max(REPORT_BITS * 1e9 / (REPORT_SHARE * max(bps, 1.0)), LEAST_NS), MOST_NS))
            self._due_ns = now_ns + (REMB_NS if self.remb_bps else pause_ns)
            if self.remb_bps:
                packets.append(write_remb(self.remb_bps, list(self.repairs.values())))
            elif self.reports and self._ticks:
                packets += self._report()
        if now_ns >= self._nack_ns:
            self._nack_ns = now_ns + 20 * MS
            for ssrc, stream in self.streams.items():
                wanted = self._ask(stream, now_ns) if stream.missing and ssrc in self.repairs.values() else None
                if wanted:
                    packets.append(write_nack(ssrc, wanted[:100]))
        return [self.peer.protect_rtcp(packet) for packet in packets]

    def _report(self) -> list[bytes]:
        assert self._next is not None
        count = self._newest + 1 - self._next
        packets = []
        # What one packet of 1,200 bytes has room for.
        for base in range(self._next, self._next + count, 300):
            part = {n: t for n, t in self._ticks.items() if base <= n < base + 300}
            if part:
                packets.append(write_feedback(base, max(part) + 1 - base, part, self._serial, next(iter(self.audio_ssrcs), 0)))
                self._serial += 1
        self._ticks.clear()
        self._next = self._newest + 1
        return packets

    @staticmethod
    def _ask(stream: Stream, now_ns: int) -> list[int]:
        wanted = []
        for number, (asked_ns, tries) in list(stream.missing.items()):
            if tries >= TRIES:
                del stream.missing[number]
            elif now_ns - asked_ns >= RETRY_NS:
                stream.missing[number] = now_ns, tries + 1
                wanted.append(number)
        return wanted
