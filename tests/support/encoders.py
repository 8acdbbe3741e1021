"""Frames of real encoders: libvpx, libvpx-vp9, SVT-AV1, x264 and libopus, as PyAV brings them.

SVT-AV1 (4.1) now and then does not come back from a frame on a busy machine, so it works in a process of its own that can be
ended, and another one tries again.
"""

from __future__ import annotations

import functools
import pickle
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

VIDEO = {
    "vp8": ("libvpx", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}),
    "av1": ("libsvtav1", {"preset": "10", "svtav1-params": "pred-struct=1:rc=2"}),
    "h264": ("libx264", {"tune": "zerolatency", "preset": "ultrafast"}),
}
Frames = list[tuple[bytes, bool]]  # encoded frame, is a keyframe
ROOT = Path(__file__).parents[2]
# A second's work.
PATIENCE_S, TRIES = 20, 5


def picture(number: int, kind: str, width: int, height: int, rng: np.random.Generator) -> av.VideoFrame:
    """`moving`: a gradient that moves under noise; `still`: always the same; `black`."""
    if kind == "black":
        image = np.zeros((height, width, 3), np.uint8)
    else:
        step = number if kind == "moving" else 0
        y, x = np.mgrid[0:height, 0:width]
        image = np.stack([(x + 5 * step) % 256, (y + 3 * step) % 256, (x + y) % 256], axis=-1).astype(np.uint8)
        if kind == "moving":
            image[: height // 4] = rng.integers(0, 256, (height // 4, width, 3), np.uint8)
    return av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")


@functools.cache
def video(codec: str, kind: str = "moving", count: int = 40, bit_rate: int = 400_000, size: tuple[int, int] = (320, 184)) -> tuple:
    """Encoded frames, the first one a keyframe."""
    what = codec, kind, count, bit_rate, size
    return _encode_apart(*what) if codec == "av1" else _encode(*what)


def _encode_apart(*what: object) -> tuple:
    code = "import pickle, sys; from tests.support.encoders import _encode; sys.stdout.buffer.write(pickle.dumps(_encode(*{!r})))"
    for _ in range(TRIES):
        try:
            done = subprocess.run(
                [sys.executable, "-c", code.format(what)], cwd=ROOT, capture_output=True, timeout=PATIENCE_S, check=True
            )
        except subprocess.TimeoutExpired:
            continue
        return pickle.loads(done.stdout)
    raise TimeoutError(f"{TRIES} encoders did not come back within {PATIENCE_S} s each")


def _encode(codec: str, kind: str, count: int, bit_rate: int, size: tuple[int, int]) -> tuple:
    name, options = VIDEO[codec]
    encoder = av.CodecContext.create(name, "w")
    encoder.width, encoder.height = size
    encoder.pix_fmt, encoder.bit_rate, encoder.time_base = "yuv420p", bit_rate, Fraction(1, 30)
    encoder.framerate, encoder.gop_size, encoder.options, encoder.max_b_frames = Fraction(30), 20, options, 0
    rng = np.random.default_rng(1)
    out: Frames = []
    for number in range(count):
        frame = picture(number, kind, *size, rng)
        frame.pts = number
        out += [(bytes(p), p.is_keyframe) for p in encoder.encode(frame)]
    out += [(bytes(p), p.is_keyframe) for p in encoder.encode(None)]
    assert out and out[0][1]
    return tuple(out)


@functools.cache
def opus(kind: str = "voice", count: int = 60, bit_rate: int = 32_000, layout: str = "mono", **options: str) -> tuple:
    """Packets of 20 ms. `voice`: tones that come and go; `silence`; `mixed`: a second of each in turn."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = 48_000, layout, "s16", bit_rate
    encoder.time_base, encoder.options = Fraction(1, 48_000), {"application": "voip", **options}
    channels = 1 if layout == "mono" else 2
    rng = np.random.default_rng(2)
    out: Frames = []
    for number in range(count):
        at = np.arange(960 * number, 960 * (number + 1)) / 48_000
        loud = 0 if kind == "silence" or (kind == "mixed" and number // 50 % 2) else 9000
        wave = loud * (np.sin(2 * np.pi * (180 + 40 * np.sin(3 * at)) * at) + 0.1 * rng.standard_normal(960))
        samples = np.repeat(wave.astype(np.int16), channels).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 960 * number, Fraction(1, 48_000)
        out += [(bytes(p), True) for p in encoder.encode(frame)]
    return tuple(out)


def frames(codec: str, kind: str = "", **options) -> tuple:
    return opus(kind or "voice", **options) if codec == "opus" else video(codec, kind or "moving", **options)
