"""Clips: a few seconds of encoded frames, made once per process with PyAV's encoders, and the decoders that count what arrives.

Every clip begins with its only keyframe, so that a sender answers a request for one by starting the clip again.
"""

import functools
import math
import re
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

ENCODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9", "av1": "libsvtav1", "h264": "libx264", "opus": "libopus"}
DECODERS = {"vp8": "vp8", "vp9": "vp9", "av1": "libdav1d", "h264": "h264", "opus": "opus"}
# One frame in, one frame out: no look-ahead, no hidden frames, one slice.
OPTIONS = {
    "vp8": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "auto-alt-ref": "0"},
    "vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "auto-alt-ref": "0"},
    "av1": {"preset": "11", "svtav1-params": "pred-struct=1:rc=2:lookahead=0:lp=1:rtc=1"},
    "h264": {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "x264-params": "sliced-threads=0:repeat-headers=1"},
    "opus": {"frame_duration": "20"},
}
VIDEO_CLOCK_HZ, AUDIO_CLOCK_HZ = 90_000, 48_000
AUDIO_FRAME_SAMPLES = 960
NAL_SEI = 6
TEMPORAL_DELIMITER = b"\x12\x00"


@dataclass(frozen=True)
class Frame:
    data: bytes
    is_keyframe: bool


@dataclass(frozen=True)
class Clip:
    """Encoded frames of one codec; `ticks` of the RTP clock lie between two of them."""

    codec: str
    frames: tuple[Frame, ...]
    clock_hz: int
    ticks: int
    width: int = 0
    height: int = 0

    @property
    def kind(self) -> str:
        return "audio" if self.codec == "opus" else "video"

    @property
    def interval_s(self) -> float:
        return self.ticks / self.clock_hz


@functools.cache
def record(codec: str, *, width: int = 320, height: int = 240, fps: int = 15, seconds: float = 2.0, bitrate_bps: int = 300_000) -> Clip:
    """Return a clip of a moving picture, or of a tone for Opus."""
    if codec == "opus":
        return Clip(codec, _tone(seconds), AUDIO_CLOCK_HZ, AUDIO_FRAME_SAMPLES)
    count = round(fps * seconds)
    encoder = av.CodecContext.create(ENCODERS[codec], "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, fps), Fraction(fps)
    encoder.bit_rate, encoder.gop_size, encoder.thread_count = bitrate_bps, 10 * count, 1
    encoder.options = OPTIONS[codec]
    packets = [packet for number in range(count) for packet in encoder.encode(_picture(number, width, height))]
    packets += encoder.encode(None)
    frames = tuple(Frame(_without_sei(bytes(packet)) if codec == "h264" else bytes(packet), packet.is_keyframe) for packet in packets)
    if len(frames) != count or [f.is_keyframe for f in frames] != [True] + [False] * (count - 1):
        raise RuntimeError(f"{ENCODERS[codec]} did not give one keyframe and {count - 1} others: {[f.is_keyframe for f in frames]}")
    return Clip(codec, frames, VIDEO_CLOCK_HZ, VIDEO_CLOCK_HZ // fps, width, height)


def _without_sei(frame: bytes) -> bytes:
    """x264 tells its settings in 600 bytes of SEI, which LiveKit's format leaves clear; with more than 255 clear bytes the
    native SDKs open nothing (measured with Python's 1.2.1). No camera's encoder writes them."""
    units = [unit for unit in re.split(rb"\x00?\x00\x00\x01", frame) if unit]
    return b"".join(b"\0\0\0\1" + unit for unit in units if unit[0] & 0x1F != NAL_SEI)


def _picture(number: int, width: int, height: int) -> av.VideoFrame:
    """A gradient that moves, with some noise so that frames have a size."""
    columns = (np.arange(width) * 2 + number * 8) % 256
    noise = np.random.default_rng(number).integers(0, 24, (height, width))
    luma = np.clip(columns[None, :] // 2 + 60 + noise, 16, 235).astype(np.uint8)
    picture = np.concatenate([luma, np.full((height // 2, width), 128, np.uint8)])
    frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
    frame.pts = number
    return frame


def _tone(seconds: float) -> tuple[Frame, ...]:
    encoder = av.CodecContext.create(ENCODERS["opus"], "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = AUDIO_CLOCK_HZ, "mono", "s16"
    encoder.options = OPTIONS["opus"]
    packets = []
    for number in range(round(seconds * AUDIO_CLOCK_HZ / AUDIO_FRAME_SAMPLES)):
        at = np.arange(AUDIO_FRAME_SAMPLES) + number * AUDIO_FRAME_SAMPLES
        wave = (12_000 * np.sin(2 * math.pi * 440 * at / AUDIO_CLOCK_HZ)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(wave[None, :], format="s16", layout="mono")
        frame.sample_rate, frame.pts = AUDIO_CLOCK_HZ, number * AUDIO_FRAME_SAMPLES
        packets += encoder.encode(frame)
    return tuple(Frame(bytes(packet), True) for packet in packets)


class Decoder:
    """Decodes one stream. Not for two threads at once."""

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self._context = av.CodecContext.create(DECODERS[codec], "r")
        self._context.thread_count = 1
        if codec == "av1":
            self._context.options = {"framedelay": "1"}
        self.width = 0

    def decode(self, data: bytes) -> int:
        """Return how many pictures, or blocks of sound, came out; a decoder's refusal is none."""
        if self._codec == "av1" and not data.startswith(TEMPORAL_DELIMITER):
            data = TEMPORAL_DELIMITER + data
        try:
            found = self._context.decode(av.Packet(data))
        except av.error.FFmpegError:
            return 0
        for picture in found:
            if isinstance(picture, av.VideoFrame):
                self.width = picture.width
        return len(found)
