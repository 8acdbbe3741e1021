"""Frames sealed natively open in livekit-client's own encryption worker, and the other way round.

The worker is the SDK's published file, run by Node with the scope a browser would give it.
"""

import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.e2ee.livekit_gcm import Material
from relaycore.errs import WireError
from relaycore.frameseal import livekit

ROOT = Path(__file__).resolve().parents[2]
WORKER = ROOT / "build/clients/2.23.0/livekit-client.e2ee.worker.js"
PASSPHRASE = "correct horse"
RNG = random.Random(7)

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(60)]

FRAMES = {
    "opus": ("audio", "key", b"\x78" + RNG.randbytes(120)),
    "vp8": ("video", "key", b"\x10" + RNG.randbytes(2000)),
    "vp9": ("video", "delta", RNG.randbytes(900)),
    "h264": ("video", "key", bytes.fromhex("0000000167420 01f 00000168ce 00000165b8".replace(" ", "")) + RNG.randbytes(400) + bytes(30)),
}


class Worker:
    """The SDK's worker in a Node process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            ["node", str(Path(__file__).with_name("livekit_frames.mjs")), str(WORKER), PASSPHRASE],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, operation: str, codec: str, data: bytes, *, ssrc: int = 0, timestamp: int = 0, type_: str = "") -> bytes | None:
        kind, usual_type, _ = FRAMES[codec]
        line = {"operation": operation, "codec": codec, "kind": kind, "type": type_ or usual_type, "ssrc": ssrc}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({**line, "timestamp": timestamp, "data": data.hex()}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return None if answer["data"] is None else bytes.fromhex(answer["data"])


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    if not WORKER.exists():
        pytest.skip("livekit-client is not fetched: scripts/fetch-clients.sh")
    made = Worker()
    yield made
    assert made.process.stdin is not None
    made.process.stdin.close()
    assert made.process.wait(10) == 0


@pytest.fixture(scope="module")
def key() -> bytes:
    return Material(PASSPHRASE).key()


def long(frame: bytes, codec: str) -> bytes:
    return frame.replace(b"\0\0\1\x68", b"\0\0\0\1\x68").replace(b"\0\0\1\x65", b"\0\0\0\1\x65") if codec == "h264" else frame


@pytest.mark.parametrize("codec", FRAMES)
def test_the_sdk_opens_ours(worker: Worker, key: bytes, codec: str) -> None:
    frame = FRAMES[codec][2]
    cipher = livekit(key, codec, 0xDEADBEEF, counter=65_530)
    for number in range(8):
        timestamp = (0xFFFFFFF0 + 3000 * number) & 0xFFFFFFFF
        sealed = cipher.seal(frame, rtp_ts=timestamp)
        assert worker.ask("decode", codec, sealed, ssrc=0xDEADBEEF, timestamp=timestamp) == long(frame, codec)


@pytest.mark.parametrize("codec", FRAMES)
def test_we_open_the_sdks(worker: Worker, key: bytes, codec: str) -> None:
    frame = FRAMES[codec][2]
    opener = livekit(key, codec, 0)
    for number in range(4):
        sealed = worker.ask("encode", codec, frame, ssrc=0x80000001, timestamp=0xFFFFFFF0 + number)
        assert sealed is not None and sealed != frame
        assert opener.open(sealed) == long(frame, codec)
        with pytest.raises(WireError, match="E_AUTH"):
            livekit(bytes(16), codec, 0).open(sealed)


def test_the_sdk_refuses_what_was_changed(worker: Worker, key: bytes) -> None:
    frame = FRAMES["vp8"][2]
    sealed = bytearray(livekit(key, "vp8", 5).seal(frame, rtp_ts=1))
    sealed[20] ^= 1
    assert worker.ask("decode", "vp8", bytes(sealed), ssrc=5, timestamp=1) is None
