"""Publications shown to a `markprobe.Probe`: encoded frames, sealed or not, packetised and numbered as a sender does."""

from __future__ import annotations

import random
from collections.abc import Callable

from relaycore.frameseal import FrameCipher, livekit, sframe
from relaycore.markprobe import Probe
from relaycore.views import CODECS
from tests.support import packetise

KEY, SALT = bytes(range(16)), bytes(range(40, 52))
FORMATS = ("livekit_gcm", "sframe")
CODEC_NAMES = ("opus", "vp8", "vp9", "av1", "h264")
# LiveKit has no AV1, SFrame no H264.
SEALED = [(f, c) for f in FORMATS for c in CODEC_NAMES if (f, c) not in (("livekit_gcm", "av1"), ("sframe", "h264"))]
AUDIO = {"opus": 1, "red": 2, "other_audio": 7}
MS = 1_000_000


def numbers(codec: str) -> tuple[int, bool, int, int]:
    """Codec number, is video, clock ticks and milliseconds per frame."""
    if codec in AUDIO:
        return AUDIO[codec], False, 960, 20
    return CODECS[codec], True, 3000, 33


def cipher(frame_format: str, codec: str, *, ssrc: int, kid: int = 0, counter: int = 0) -> FrameCipher:
    name = {"red": "audio", "other_audio": "audio"}.get(codec, codec)
    if frame_format == "livekit_gcm":
        return livekit(KEY, name, ssrc, key_index=kid % 16, counter=counter)
    return sframe(KEY, SALT, kid, codec="other" if name == "audio" else name, counter=counter)


class Publisher:
    """One encoding of a publication. `seal`: what is made of a frame before it is packetised, None = nothing."""

    def __init__(self, probe: Probe, codec: str, *, encoding: int = 0, ssrc: int = 0x11223344, seq: int = 70_000,
                 rtp_ts: int = 0xFFFF0000, limit: int = packetise.LIMIT_BYTES) -> None:  # fmt: skip
        self.probe, self.codec, self.encoding, self.ssrc = probe, codec, encoding, ssrc
        self.seq, self.rtp_ts, self.limit = seq, rtp_ts, limit
        self.number, self.is_video, self.ticks, self.milliseconds = numbers(codec)
        self.now_ns = 0
        self.frames = 0

    def seal(self, box: FrameCipher | None, frame: bytes, keyframe: bool) -> bytes:
        return frame if box is None else box.seal(frame, rtp_ts=self.rtp_ts, keyframe=keyframe)

    def send(self, frame: bytes, keyframe: bool = False, *, pick: Callable[[list], list] = lambda packets: packets) -> bool:
        """Show the packets of one frame, those that `pick` leaves and in its order; true = the publication goes on."""
        goes_on = True
        parts = packetise.payloads(self.codec, frame, self.limit, keyframe=keyframe) if frame else []
        packets = [(self.seq + i, p, self.is_video and i == len(parts) - 1) for i, p in enumerate(parts)]
        for seq, payload, marker in pick(packets):
            goes_on = self.probe.packet(payload, codec=self.number, is_video=self.is_video, encoding=self.encoding, ssrc=self.ssrc,
                                        ext_seq=seq, rtp_ts=self.rtp_ts, marker=marker, now_ns=self.now_ns)  # fmt: skip
        self.seq += len(parts)
        self.frames += 1
        self.pause(0)
        return goes_on

    def pause(self, frames: int) -> None:
        """Let the time of so many more frames pass."""
        self.rtp_ts = (self.rtp_ts + self.ticks * (frames + 1)) & 0xFFFFFFFF
        self.now_ns += self.milliseconds * MS * (frames + 1)


def frames_until_stopped(publisher: Publisher, frames: list[tuple[bytes, bool]]) -> int | None:
    """How many frames were sent when the publication stopped; None = it never did."""
    for number, (frame, keyframe) in enumerate(frames, 1):
        if not publisher.send(frame, keyframe):
            return number
    return None


def invented(codec: str, rng: random.Random, number: int) -> tuple[bytes, bool]:
    """A frame as sizes go, of any content but its first bytes: now and then tiny (DTX), a keyframe every hundred."""
    keyframe = number % 100 == 0
    if codec in AUDIO:
        size = rng.choice((1, 2, 3, 40, 90, 160))
        return b"\x78" + rng.randbytes(size - 1), True
    size = rng.choice((12, 30, 60, 300, 1080, 1100, 1130, 2400)) * (4 if keyframe else 1)
    body = rng.randbytes(size)
    if codec == "vp8":
        return bytes([0x10 if keyframe else 0x11]) + body, keyframe
    if codec == "h264":
        # Zeros all over, so that emulation prevention has work.
        head = bytes.fromhex("00000001674200 1f0000000168ce3c80 0000000165b8" if keyframe else "00000001419a")
        return head + bytes(rng.choice((0, 0, 1, 3, 255)) for _ in range(min(size, 40))) + body, keyframe
    return body, keyframe
