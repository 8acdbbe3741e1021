"""Media of a recorded caller: senders that play clips, receivers that put packets in order, open frames and decode them."""

import asyncio
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from aiortc.rtp import (
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    RtcpPsfbPacket,
    RtcpRtpfbPacket,
    RtcpSenderInfo,
    RtcpSrPacket,
    pack_header_extensions,
)

from relay.e2ee.errors import OpenFailed
from tests.interop.recorded.clips import Clip, Decoder
from tests.interop.recorded.formats import Format, Open, Seal
from tests.interop.recorded.payloads import Packetiser, assemble

HISTORY = 1024
REPEAT_MS, GIVE_UP_MS, PLI_MS = 60.0, 500.0, 300.0
NTP_UNIX_S = 2_208_988_800


def rtp(payload_type: int, seq: int, rtp_ts: int, ssrc: int, payload: bytes, *, marker: bool,
        extensions: Iterable[tuple[int, bytes]]) -> bytes:
    profile, block = pack_header_extensions(list(extensions))
    head = bytes((0x80 | (0x10 if block else 0), (0x80 if marker else 0) | payload_type))
    words = seq.to_bytes(2, "big") + rtp_ts.to_bytes(4, "big") + ssrc.to_bytes(4, "big")
    tail = profile.to_bytes(2, "big") + (len(block) // 4).to_bytes(2, "big") + block if block else b""
    return head + words + tail + payload


@dataclass(frozen=True)
class Packet:
    """One RTP packet that came, padding taken off."""

    payload_type: int
    seq: int
    rtp_ts: int
    ssrc: int
    marker: bool
    payload: bytes
    extensions: bytes

    @classmethod
    def of(cls, data: bytes) -> "Packet | None":
        if len(data) < 12:
            return None
        at = 12 + 4 * (data[0] & 0x0F)
        extensions = b""
        if data[0] & 0x10:
            size = 4 * int.from_bytes(data[at + 2 : at + 4], "big")
            extensions = data[at : at + 4 + size]
            at += 4 + size
        end = len(data) - (data[-1] if data[0] & 0x20 else 0)
        if at > end:
            return None
        numbers = (int.from_bytes(data[a:b], "big") for a, b in ((2, 4), (4, 8), (8, 12)))
        return cls(data[1] & 0x7F, *numbers, bool(data[1] & 0x80), data[at:end], extensions)


class Sender:
    """Plays a clip on the clock, over and over. Starts when `start` is called."""

    def __init__(self, clip: Clip, seal: Seal, send_rtp: Callable[[bytes], None], send_rtcp: Callable[[bytes], None], *,
                 ssrc: int, payload_type: int, rtx: tuple[int, int] | None, extensions: dict[str, int], mid: str) -> None:
        self.clip, self.ssrc = clip, ssrc
        self.frames = self.keyframes = self.repaired = 0
        self._seal, self._send_rtp, self._send_rtcp = seal, send_rtp, send_rtcp
        self._payload_type, self._rtx = payload_type, rtx
        self._mid = (extensions.get("mid"), mid.encode())
        self._depdesc = extensions.get("depdesc")
        self._packetiser = Packetiser(clip.codec, clip.width, clip.height)
        self._seq, self._rtx_seq = secrets.randbelow(1 << 16), secrets.randbelow(1 << 16)
        self._first_ts = secrets.randbelow(1 << 32)
        self._octets = self._packets = 0
        self._next = 0
        self._history: OrderedDict[int, tuple[bytes, int, bool]] = OrderedDict()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._play())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def request_keyframe(self) -> None:
        """Begin the clip anew with the next frame."""
        self._next = 0

    def repair(self, seq: int) -> None:
        held = self._history.get(seq)
        if held is None:
            return
        payload, rtp_ts, marker = held
        self.repaired += 1
        if self._rtx is None:
            self._send_rtp(rtp(self._payload_type, seq, rtp_ts, self.ssrc, payload, marker=marker, extensions=self._always()))
            return
        ssrc, payload_type = self._rtx
        # RFC 4588 §4: the original number, then the original payload.
        payload = seq.to_bytes(2, "big") + payload
        self._send_rtp(rtp(payload_type, self._rtx_seq, rtp_ts, ssrc, payload, marker=marker, extensions=self._always()))
        self._rtx_seq = self._rtx_seq + 1 & 0xFFFF

    def _always(self) -> list[tuple[int, bytes]]:
        return [] if self._mid[0] is None else [(self._mid[0], self._mid[1])]

    async def _play(self) -> None:
        loop = asyncio.get_running_loop()
        begun, count = loop.time(), 0
        while True:
            rtp_ts = self._first_ts + count * self.clip.ticks & 0xFFFFFFFF
            if count % max(1, round(1 / self.clip.interval_s)) == 0:
                self._report(rtp_ts)
            frame = self.clip.frames[self._next]
            self._next = (self._next + 1) % len(self.clip.frames)
            self._send(self._seal(frame.data, rtp_ts, frame.is_keyframe), rtp_ts, frame.is_keyframe)
            count += 1
            await asyncio.sleep(max(0.0, begun + count * self.clip.interval_s - loop.time()))

    def _send(self, frame: bytes, rtp_ts: int, is_keyframe: bool) -> None:
        described = self._packetiser.packets(frame, is_keyframe)
        for n, (payload, depdesc) in enumerate(described):
            marker = n == len(described) - 1 and self.clip.kind == "video"
            extensions = self._always() + ([(self._depdesc, depdesc)] if self._depdesc is not None and depdesc else [])
            self._send_rtp(rtp(self._payload_type, self._seq, rtp_ts, self.ssrc, payload, marker=marker, extensions=extensions))
            self._history[self._seq] = (payload, rtp_ts, marker)
            if len(self._history) > HISTORY:
                self._history.popitem(last=False)
            self._seq = self._seq + 1 & 0xFFFF
            self._packets += 1
            self._octets += len(payload)
        self.frames += 1
        self.keyframes += is_keyframe

    def _report(self, rtp_ts: int) -> None:
        now = time.time() + NTP_UNIX_S
        ntp = int(now) << 32 | int(now % 1 * (1 << 32))
        info = RtcpSenderInfo(ntp_timestamp=ntp, rtp_timestamp=rtp_ts, packet_count=self._packets, octet_count=self._octets)
        self._send_rtcp(bytes(RtcpSrPacket(ssrc=self.ssrc, sender_info=info)))


@dataclass
class Counts:
    """What came of one publication. `failures`: by the error's name."""

    packets: int = 0
    frames: int = 0
    opened: int = 0
    repeated: int = 0
    decoded: int = 0
    lost: int = 0
    failures: Counter = field(default_factory=Counter)
    width: int = 0


class Receiver:
    """Packets of one publication: in order, frames opened, decoded in the caller's decoding thread."""

    def __init__(self, codecs: dict[int, tuple[str, int | None]], format_: Format, send_rtcp: Callable[[bytes], None],
                 pool: ThreadPoolExecutor, on_news: Callable[[], None]) -> None:
        self.counts = Counts()
        self.kind = "audio" if any(name == "opus" for name, _ in codecs.values()) else "video"
        self._names = {payload_type: name for payload_type, (name, _) in codecs.items()}
        self._rtx = {rtx: payload_type for payload_type, (_, rtx) in codecs.items() if rtx is not None}
        self._format, self._send_rtcp, self._pool, self._on_news = format_, send_rtcp, pool, on_news
        self._loop = asyncio.get_running_loop()
        self._openers: dict[str, Open] = {}
        self.whose: tuple[str, str] | None = None
        self._decoder: Decoder | None = None
        self._media_ssrc = 0
        self._next: int | None = None
        self._waiting: dict[int, Packet] = {}
        self._hole_since: float | None = None
        self._asked_at = self._pli_at = -1e9
        self._unit: list[Packet] = []
        self._unit_is_whole = False
        self._needs_keyframe = True

    def belongs_to(self, identity: str, track_sid: str) -> None:
        """Say whose frames these are, which decides the key."""
        self.whose = (identity, track_sid)

    def take(self, packet: Packet) -> None:
        payload_type, seq, payload = packet.payload_type, packet.seq, packet.payload
        if payload_type in self._rtx:
            if len(payload) < 2:
                return
            payload_type, seq, payload = self._rtx[payload_type], int.from_bytes(payload[:2], "big"), payload[2:]
        elif self._media_ssrc == 0:
            self._media_ssrc = packet.ssrc
        name = self._names.get(payload_type)
        if name is None:
            self.counts.failures["unknown payload type"] += 1
            return
        self.counts.packets += 1
        packet = Packet(payload_type, seq, packet.rtp_ts, packet.ssrc, packet.marker, payload, packet.extensions)
        if name == "opus":
            self._finish([packet])
            return
        if self._next is None:
            self._next = seq
        distance = (seq - self._next + 0x8000 & 0xFFFF) - 0x8000
        if distance >= 0:
            self._waiting.setdefault(self._next + distance, packet)
            self._advance()

    def poll(self, now_ms: float) -> None:
        """Ask for what is missing; give up on what does not come."""
        if self._next is None:
            return
        if not self._waiting:
            self._hole_since = None
            return
        if self._hole_since is None:
            self._hole_since = now_ms
        if now_ms - self._hole_since > GIVE_UP_MS:
            first = min(self._waiting)
            self.counts.lost += first - self._next
            self._next = first
            self._unit, self._unit_is_whole, self._needs_keyframe = [], False, True
            self._hole_since = None
            self._request_keyframe(now_ms)
            self._advance()
        elif now_ms - self._asked_at > REPEAT_MS:
            self._asked_at = now_ms
            missing = [seq & 0xFFFF for seq in range(self._next, max(self._waiting)) if seq not in self._waiting][:64]
            self._send_rtcp(bytes(RtcpRtpfbPacket(fmt=RTCP_RTPFB_NACK, ssrc=1, media_ssrc=self._media_ssrc, lost=missing)))

    def _request_keyframe(self, now_ms: float) -> None:
        if now_ms - self._pli_at > PLI_MS:
            self._pli_at = now_ms
            self._send_rtcp(bytes(RtcpPsfbPacket(fmt=RTCP_PSFB_PLI, ssrc=1, media_ssrc=self._media_ssrc)))

    def _advance(self) -> None:
        assert self._next is not None
        while (packet := self._waiting.pop(self._next, None)) is not None:
            self._next += 1
            self._hole_since = None
            if not packet.payload:
                continue
            if self._unit and packet.rtp_ts != self._unit[0].rtp_ts:
                self._finish(self._unit)
                self._unit = []
            self._unit.append(packet)
            if packet.marker:
                self._finish(self._unit)
                self._unit = []

    def _finish(self, packets: list[Packet]) -> None:
        """All packets of one timestamp are here."""
        codec = self._names[packets[0].payload_type]
        self.counts.frames += 1
        opened = []
        try:
            for frame in assemble(codec, [packet.payload for packet in packets]):
                for part in self._format.split(codec, frame):
                    plaintext = self._open(codec, part)
                    if plaintext is not None:
                        opened.append(plaintext)
        except OpenFailed as error:
            self.counts.failures[type(error).__name__] += 1
        except (IndexError, KeyError):
            self.counts.failures["not this codec's payload"] += 1
        if opened:
            self.counts.opened += 1
            # Layers of one picture go to FFmpeg one by one, but AV1's as one temporal unit.
            self._pool.submit(self._decode, codec, [b"".join(opened)] if codec == "av1" else opened)
        self._on_news()

    def _open(self, codec: str, frame: bytes) -> bytes | None:
        if self.whose is None:
            self.counts.failures["nobody's track"] += 1
            return None
        if codec not in self._openers:
            self._openers[codec] = self._format.open(*self.whose, codec)
        plaintext = self._openers[codec](frame)
        if plaintext is None:
            self.counts.repeated += 1
        return plaintext

    def _decode(self, codec: str, frames: list[bytes]) -> None:
        if self._decoder is None:
            self._decoder = Decoder(codec)
        came = sum(self._decoder.decode(frame) for frame in frames)
        self.counts.decoded += came > 0
        self.counts.width = self._decoder.width
        self._loop.call_soon_threadsafe(self._on_news)
