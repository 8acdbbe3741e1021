"""A million encrypted frames through the probe that stops publications which are not: not one may be found bad.

Run by `make false-stops`; every codec of both frame formats gets its share, with DTX, pauses, loss that is repaired or not, disorder,
encodings that go on under another SSRC and, for SFrame, simulcast under one count and new keys now and then, several one after the
other when many people join. FRAMES says how many in all.
"""

import os
import random
import sys
import time

from relaycore.markprobe import Probe
from tests.support.marks import SEALED, Publisher, cipher, invented

FRAMES = int(os.environ.get("FRAMES", "1000000"))
KID_EVERY = 5000
JOINS = 5  # keys that follow each other within few frames


def disturb(rng: random.Random, publisher: Publisher, packets: list) -> list:
    """One packet in fifty lost, most of which are sent again later; one frame in thirty out of order."""
    left = [p for p in packets if rng.random() > 0.02]
    for _ in range(len(packets) - len(left)):
        if rng.random() < 0.9:
            publisher.probe.repair(publisher.encoding)
    if len(left) > 1 and rng.random() < 0.03:
        i = rng.randrange(len(left) - 1)
        left[i], left[i + 1] = left[i + 1], left[i]
    return left


def run(frame_format: str, codec: str, count: int, seed: int) -> dict[str, int]:
    """Return the probe's counts after so many frames of one publication; AssertionError when it stopped."""
    rng = random.Random(seed)
    probe = Probe(frame_format)
    encodings = range(1 if codec == "opus" else 3)
    rungs = [Publisher(probe, codec, ssrc=rng.getrandbits(32), encoding=i, seq=rng.getrandbits(15)) for i in encodings]
    boxes = [cipher(frame_format, codec, ssrc=p.ssrc, counter=rng.getrandbits(16)) for p in rungs]
    kid, joins = -1, 0
    for number in range(count):
        if number % KID_EVERY == 0:
            joins = rng.randrange(1, JOINS + 1)
        if frame_format == "sframe" and joins and (number % KID_EVERY == 0 or rng.random() < 0.1):
            kid, joins = kid + 1, joins - 1
            probe.announce(kid, kid)
            boxes = [cipher(frame_format, codec, ssrc=0, kid=kid)] * len(rungs)
        i = number % len(rungs)
        if rng.random() < 0.0005:
            rungs[i] = Publisher(probe, codec, encoding=i, ssrc=rng.getrandbits(32), seq=rng.getrandbits(15), rtp_ts=rng.getrandbits(32))
            if frame_format == "livekit_gcm":
                boxes[i] = cipher(frame_format, codec, ssrc=rungs[i].ssrc)
        publisher = rungs[i]
        frame, keyframe = invented(codec, rng, number // len(rungs))
        sealed = publisher.seal(boxes[i], frame, keyframe)
        goes_on = publisher.send(sealed, keyframe, pick=lambda packets: disturb(rng, rungs[i], packets))  # noqa: B023
        assert goes_on, f"{frame_format} {codec}: stopped after {number + 1} frames, {probe.reason}, {probe.counts}"
        if rng.random() < 0.01:
            publisher.send(b"")
        if rng.random() < 0.001:
            for rung in rungs:
                rung.pause(rng.randrange(3000))
    return probe.counts


def main() -> int:
    share = -(-FRAMES // len(SEALED))
    begun, judged, unmarked, total = time.monotonic(), 0, 0, 0
    for number, (frame_format, codec) in enumerate(SEALED):
        counts = run(frame_format, codec, share, number)
        total += share
        judged += counts["judged"]
        unmarked += counts["unmarked"]
        print(f"{frame_format:12} {codec:5} {share:8} frames, judged {counts['judged']:8}, found bad {counts['unmarked']}", flush=True)
    print(f"{total} frames in {time.monotonic() - begun:.0f} s: {judged} judged, {unmarked} found bad, 0 stops")
    return 1 if unmarked else 0


if __name__ == "__main__":
    sys.exit(main())
