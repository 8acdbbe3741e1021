"""Frames and data packets of ours open in livekit-client's own encryption worker, and the other way round.

Ours are two: relay/e2ee for people's programs, relaycore.frameseal for load tests. The worker is the SDK's published file, run
by Node with the scope a browser would give it.
"""

import json
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from livekit.protocol import models

from relay.e2ee.datapackets import DataSealer, open_packet
from relay.e2ee.errors import NotAuthentic
from relay.e2ee.livekit_gcm import KeyRing, Material, Sealer
from relaycore.errs import WireError
from relaycore.frameseal import livekit
from tests.interop.recorded.clips import record

ROOT = Path(__file__).resolve().parents[2]
WORKER = ROOT / "build/clients/2.23.0/livekit-client.e2ee.worker.js"
PASSPHRASE = "correct horse"
RAW_KEY = bytes(range(100, 132))
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

    def __init__(self, *secret: str) -> None:
        self.process = subprocess.Popen(
            ["node", str(Path(__file__).with_name("livekit_frames.mjs")), str(WORKER), *secret],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def command(self, operation: str, **details: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"operation": operation, **details}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def ask(self, operation: str, codec: str, data: bytes, *, ssrc: int = 0, timestamp: int = 0, type_: str = "") -> bytes | None:
        kind, usual_type, _ = FRAMES[codec]
        type_ = type_ or usual_type
        answer = self.command(operation, codec=codec, kind=kind, type=type_, ssrc=ssrc, timestamp=timestamp, data=data.hex())
        return None if answer["data"] is None else bytes.fromhex(answer["data"])

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(10) == 0


def started(*secret: str) -> Iterator[Worker]:
    if not WORKER.exists():
        pytest.skip("livekit-client is not fetched: scripts/fetch-clients.sh")
    made = Worker(*secret)
    yield made
    made.end()


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    yield from started(PASSPHRASE)


@pytest.fixture
def raw_worker() -> Iterator[Worker]:
    yield from started(RAW_KEY.hex(), "HKDF")


@pytest.fixture(scope="module")
def material() -> Material:
    return Material(PASSPHRASE)


def long(frame: bytes, codec: str) -> bytes:
    return frame.replace(b"\0\0\1\x68", b"\0\0\0\1\x68").replace(b"\0\0\1\x65", b"\0\0\0\1\x65") if codec == "h264" else frame


def short(frame: bytes | None) -> bytes:
    """Frames whose start codes have three bytes or four are the same to a decoder."""
    assert frame is not None
    return frame.replace(b"\0\0\0\1", b"\0\0\1")


def ring(material: Material, **options: int) -> KeyRing:
    keys = KeyRing(**options)
    keys.set(material)
    return keys


OURS = ("library", "native")


def sealing(ours: str, material: Material, codec: str, ssrc: int, counter: int) -> Callable[[bytes, int], bytes]:
    if ours == "native":
        cipher = livekit(material.key(), codec, ssrc, counter=counter)
        return lambda frame, rtp_ts: cipher.seal(frame, rtp_ts=rtp_ts)
    return Sealer(material, codec, ssrc, counter=counter).seal


def opening(ours: str, material: Material, codec: str) -> Callable[[bytes], bytes]:
    if ours == "native":
        return livekit(material.key(), codec, 0).open
    keys = ring(material, ratchet_window=0)
    return lambda sealed: keys.open_frame(codec, sealed)


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize("codec", FRAMES)
def test_the_sdk_opens_ours(worker: Worker, material: Material, codec: str, ours: str) -> None:
    frame = FRAMES[codec][2]
    seal = sealing(ours, material, codec, 0xDEADBEEF, 65_530)
    for number in range(8):
        timestamp = (0xFFFFFFF0 + 3000 * number) & 0xFFFFFFFF
        assert worker.ask("decode", codec, seal(frame, timestamp), ssrc=0xDEADBEEF, timestamp=timestamp) == long(frame, codec)


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize("codec", FRAMES)
def test_we_open_the_sdks(worker: Worker, material: Material, codec: str, ours: str) -> None:
    frame = FRAMES[codec][2]
    open_, other = opening(ours, material, codec), opening(ours, Material(bytes(16)), codec)
    for number in range(4):
        sealed = worker.ask("encode", codec, frame, ssrc=0x80000001, timestamp=0xFFFFFFF0 + number)
        assert sealed is not None and sealed != frame
        assert open_(sealed) == long(frame, codec)
        with pytest.raises((WireError, NotAuthentic)):
            other(sealed)


@pytest.mark.parametrize("codec", ["vp8", "vp9", "h264", "opus"])
def test_frames_of_real_encoders_go_both_ways(worker: Worker, material: Material, codec: str) -> None:
    """Keyframes and others, with the parameter sets, delimiters and zeros that an encoder writes."""
    clip = record(codec)
    sealer, keys = Sealer(material, codec, 9), ring(material)
    for number, frame in enumerate(clip.frames[:6]):
        type_ = "key" if frame.is_keyframe else "delta"
        sealed = sealer.seal(frame.data, number * clip.ticks)
        opened = worker.ask("decode", codec, sealed, ssrc=9, timestamp=number * clip.ticks, type_=type_)
        theirs = worker.ask("encode", codec, frame.data, ssrc=9, timestamp=number * clip.ticks, type_=type_)
        assert theirs is not None
        for came in (opened, keys.open_frame(codec, theirs), keys.open_frame(codec, sealed)):
            assert came == frame.data or (codec == "h264" and short(came) == short(frame.data))


@pytest.mark.parametrize("operation", ["encode", "decode"])
def test_h264_full_of_what_looks_like_start_codes(worker: Worker, material: Material, operation: str) -> None:
    rng = random.Random(11)
    for _ in range(6):
        body = bytes(rng.choice((0, 0, 0, 1, 2, 3, 0x65)) for _ in range(60))
        frame = bytes.fromhex("00000001659a") + body
        if operation == "decode":
            assert worker.ask("decode", "h264", Sealer(material, "h264", 0).seal(frame, 0)) == frame
        else:
            sealed = worker.ask("encode", "h264", frame, ssrc=0, timestamp=0)
            assert sealed is not None and ring(material).open_frame("h264", sealed) == frame


def test_raw_keys_and_the_ratchet(raw_worker: Worker) -> None:
    first = Material(RAW_KEY)
    frame = FRAMES["vp8"][2]
    keys = ring(first)
    for step in (first, first.ratcheted(), first.ratcheted().ratcheted()):
        if step is not first:
            raw_worker.command("ratchet")
        assert raw_worker.ask("decode", "vp8", Sealer(step, "vp8", 3).seal(frame, 7), ssrc=3, timestamp=7) == frame
        sealed = raw_worker.ask("encode", "vp8", frame, ssrc=3, timestamp=8)
        assert sealed is not None and keys.open_frame("vp8", sealed) == frame
    with pytest.raises(NotAuthentic):
        ring(first, ratchet_window=1).open_frame("vp8", sealed)


def test_data_packets_both_ways(worker: Worker, material: Material) -> None:
    packet = models.DataPacket(user=models.UserPacket(payload=b"hello", topic="chat"))
    body = models.EncryptedPacketPayload(user=packet.user).SerializeToString()
    ours = DataSealer.of_material(material).seal(packet).encrypted_packet
    answer = worker.command("open", data=ours.encrypted_value.hex(), iv=ours.iv.hex(), key_index=ours.key_index)
    assert bytes.fromhex(answer["data"]) == body
    theirs = worker.command("seal", data=body.hex())
    sealed = models.EncryptedPacket(
        iv=bytes.fromhex(theirs["iv"]), key_index=theirs["key_index"], encrypted_value=bytes.fromhex(theirs["data"])
    )
    assert open_packet(ring(material), models.DataPacket(encrypted_packet=sealed)) == packet
    assert worker.command("open", data=bytes(40).hex(), iv=ours.iv.hex(), key_index=0)["data"] is None


@pytest.mark.parametrize("ours", OURS)
def test_the_sdk_refuses_what_was_changed(worker: Worker, material: Material, ours: str) -> None:
    sealed = bytearray(sealing(ours, material, "vp8", 5, 0)(FRAMES["vp8"][2], 1))
    sealed[20] ^= 1
    assert worker.ask("decode", "vp8", bytes(sealed), ssrc=5, timestamp=1) is None


def test_a_wrong_count_of_clear_bytes_would_be_seen(worker: Worker, material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    from relay.e2ee import livekit_gcm

    real = livekit_gcm.clear_bytes
    for codec, (_, _, frame) in FRAMES.items():
        monkeypatch.setattr(livekit_gcm, "clear_bytes", lambda codec, frame: real(codec, frame) + 1)
        sealed = Sealer(material, codec, 5).seal(frame, 1)
        monkeypatch.setattr(livekit_gcm, "clear_bytes", real)
        assert worker.ask("decode", codec, sealed, ssrc=5, timestamp=1) is None, codec
