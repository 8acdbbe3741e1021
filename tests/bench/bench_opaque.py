"""`make bench-opaque`: what an opaque publication costs beside a clear one, in instructions and in CPU time.

Both sides are one engine on virtual time with the same packets, sizes and subscribers; they differ in the frame format that the
publication was declared in, and in the bytes. Instructions are counted by callgrind within engine_receive and engine_poll, so
that they repeat exactly. CPU time is measured in interleaved rounds, its ratio given with the 95 % interval: it holds what Python
costs too, so that only a larger effect than in the instructions would show there.

Ends with 1 when a pair's instructions per forwarded packet are more than 3 % apart.

usage: python -m tests.bench.bench_opaque [--rounds 20] [--packets 2000]
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.figures import Figure, ratio
from tests.support import packetise
from tests.support.engine import MS, OPUS, PUBLISHER, SUBSCRIBER, VP8, Bench, rtp
from tests.support.marks import cipher

GOAL = 0.03
OVERHEAD_BYTES = 30
VP9 = ((98, "vp9", 90_000, 99),)
CODECS = {"opus": (OPUS, 111, False), "vp8": (VP8, 96, True), "vp9": (VP9, 98, True)}
PAIRS = [(c, f, n) for n in (1, 10) for c in CODECS for f in ("livekit_gcm", "sframe")]
INSIDE = ("engine_receive", "engine_poll")


def frame(codec: str, size: int, rng: random.Random, *, keyframe: bool) -> bytes:
    """A frame that reads as its codec's as far as anybody looks."""
    if codec == "opus":
        return b"\x78" + rng.randbytes(size - 1)
    if codec == "vp9":
        return (b"\x82\x49\x83\x42" if keyframe else b"\x86\0\x40\x92") + rng.randbytes(size - 4)
    head = (64 << 5 | (0x10 if keyframe else 0x11)).to_bytes(3, "little")
    return head + (b"\x9d\x01\x2a" if keyframe else b"\0\0\0") + rng.randbytes(size - 6)


class Call:
    """One publication of a codec, declared in a format, with so many subscriptions on one transport."""

    def __init__(self, codec: str, frame_format: str, subscribers: int, packets: int) -> None:
        self.bench = Bench(3)
        codecs, self.payload_type, is_video = CODECS[codec]
        self.bench.ok("add_receiver", 1, 10, is_video, "0", codecs, (), (7,))
        self.bench.ok("set_frame_format", 10, frame_format)
        if frame_format == "sframe":
            self.bench.ok("announce_keys", 10, 0, 0)
        for number in range(subscribers):
            self.bench.ok("add_egress", 2, 20 + number, 10, 0x1000 + number, None, str(number), codecs, "cname", 0)
        self.datagrams = self._datagrams(codec, frame_format, packets, is_video)

    def _datagrams(self, codec: str, frame_format: str, packets: int, is_video: bool) -> list[bytes]:
        rng = random.Random(5)
        box = None if frame_format == "clear" else cipher(frame_format, codec, ssrc=7)
        out: list[bytes] = []
        number = 0
        while len(out) < packets:
            ts, keyframe = number * (3000 if is_video else 960), number % 300 == 0
            # The same on every side once it is packetised: what a format adds, a clear frame has of its own.
            size = (9000 if keyframe else 3000) if is_video else 120
            raw = frame(codec, size, rng, keyframe=keyframe)
            sealed = raw if box is None else box.seal(raw, rtp_ts=ts, keyframe=keyframe)
            sealed += rng.randbytes(max(0, size + OVERHEAD_BYTES - len(sealed))) if frame_format != "livekit_gcm" else b""
            parts = packetise.payloads(codec, sealed, keyframe=keyframe)
            for i, payload in enumerate(parts):
                marker = is_video and i == len(parts) - 1
                packet = rtp(7, len(out), pt=self.payload_type, ts=ts, marker=marker, payload=payload)
                out.append(self.bench.publisher.protect(packet))
            number += 1
        return out

    def run(self) -> float:
        """Forward everything; return the CPU seconds of this thread."""
        bench = self.bench
        begun = time.thread_time()
        for datagram in self.datagrams:
            bench.now_ns += 2 * MS
            bench.engine.receive(datagram, PUBLISHER, bench.now_ns)
            bench.engine.poll(bench.now_ns)
        return time.thread_time() - begun

    def check(self) -> int:
        """Return how many packets were forwarded; a bench of what was dropped would be none."""
        self.bench.receive(self.bench.subscriber.check(), SUBSCRIBER)
        counters = self.bench.snapshot()["counters"]
        assert counters["receivers_stopped"] == counters["undeclared_encryption"] == counters["frames_unparsed"] == 0, counters
        assert counters["rtp_forwarded"] > 0
        return counters["rtp_forwarded"]


def instructions(codec: str, frame_format: str, subscribers: int, packets: int) -> float:
    """Instructions per forwarded packet, counted in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        argv = [sys.executable, "-m", "tests.bench.bench_opaque", "--child", codec, frame_format, str(subscribers), str(packets)]
        toggles = [f"--toggle-collect=*{name}*" for name in INSIDE]
        ran = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--collect-atstart=no", *toggles, *argv],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if ran.returncode:
            raise RuntimeError(ran.stdout + ran.stderr)
        forwarded = int(ran.stdout.split()[-1])
        found = re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE)
    assert found is not None, "callgrind counted nothing"
    return int(found[1]) / forwarded


def cpu(codec: str, frame_format: str, subscribers: int, packets: int, rounds: int) -> Figure:
    """CPU time of opaque over clear, the other way round in odd rounds."""
    times: dict[str, list[float]] = {"clear": [], frame_format: []}
    for number in range(rounds):
        for side in list(times) if number % 2 == 0 else list(times)[::-1]:
            call = Call(codec, side, subscribers, packets)
            times[side].append(call.run())
            call.check()
    return ratio(times[frame_format], times["clear"])


def main() -> int:
    parser = argparse.ArgumentParser(description="what an opaque publication costs beside a clear one")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--packets", type=int, default=2000)
    parser.add_argument("--child", nargs=4, metavar=("CODEC", "FORMAT", "SUBSCRIBERS", "PACKETS"))
    options = parser.parse_args()
    if options.child:
        codec, frame_format, subscribers, packets = options.child
        call = Call(codec, frame_format, int(subscribers), int(packets))
        call.run()
        print(call.check())
        return 0
    clear: dict[tuple[str, int], float] = {}
    misses = 0
    print("instructions per forwarded packet (engine alone) and CPU time, opaque of clear")
    for codec, frame_format, subscribers in PAIRS:
        key = codec, subscribers
        if key not in clear:
            clear[key] = instructions(codec, "clear", subscribers, options.packets)
        opaque = instructions(codec, frame_format, subscribers, options.packets)
        share = opaque / clear[key] - 1
        misses += abs(share) > GOAL
        print(f"{'MISSED' if abs(share) > GOAL else 'met':7} {codec:4} {frame_format:11} {subscribers:2} subscribers: "
              f"{clear[key]:8.1f} clear, {opaque:8.1f} opaque, {share:+.2%}; "
              f"CPU {cpu(codec, frame_format, subscribers, options.packets, options.rounds)}", flush=True)  # fmt: skip
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
