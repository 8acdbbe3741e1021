"""Sealed frames are byte for byte those of LiveKit's SDKs and of RFC 9605, and nothing else opens."""

import hashlib
import json
import random
import struct
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.e2ee.livekit_gcm import Material
from relay.e2ee.sframe import derive
from relaycore.cipher import backend_name
from relaycore.errs import WireError
from relaycore.frameseal import FrameCipher, livekit, sframe, sframe_header, take_sframe_header

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/sframe/sframe-test-vectors.json").read_text())
BACKENDS = [b for b in (1, 2) if backend_name(b) != "unavailable"]
KEY, SALT = bytes(range(16)), bytes(range(100, 112))
SSRC, COUNTER = 0xFFFFFFFE, 0xFFFD
RNG = random.Random(5)

# A delimiter (3-byte start code), parameter sets, then the slice; NAL header and one byte of it stay clear.
H264_KEY = bytes.fromhex("00000109f0 000000016742001f 00000168ce3c80 00000165b8") + RNG.randbytes(700) + bytes(9)
H264_DELTA = bytes.fromhex("0000000141 9a") + bytes(300)
FRAMES = {
    "opus": (b"\x78" + RNG.randbytes(90), 1),
    "opus of one byte": (b"\x78", 1),
    "vp8 key": (b"\x10" + RNG.randbytes(3000), 10),
    "vp8 delta": (b"\x31" + RNG.randbytes(500), 3),
    "vp9": (RNG.randbytes(1200), 0),
    "h264 key": (H264_KEY, len(H264_KEY) - 709),
    "h264 delta": (H264_DELTA, 6),
}


def codec_of(name: str) -> str:
    return name.split()[0]


# --- LiveKit's algorithm once more, over an independent AES-GCM ------------------


def long_start_codes(clear: bytes) -> bytes:
    return clear.replace(b"\0\0\0\1", b"\0\0\1").replace(b"\0\0\1", b"\0\0\0\1")


def escaped(data: bytes) -> bytes:
    out = bytearray()
    for byte in data:
        if out[-2:] == b"\0\0" and byte <= 3:
            out.append(3)
        out.append(byte)
    return bytes(out)


def unescaped(data: bytes) -> bytes:
    out, zeros = bytearray(), 0
    for byte in data:
        if zeros >= 2 and byte == 3:
            zeros = 0
            continue
        zeros = zeros + 1 if byte == 0 else 0
        out.append(byte)
    return bytes(out)


def reference_seal(name: str, key: bytes, rtp_ts: int, counter: int, key_index: int = 0) -> bytes:
    frame, clear = FRAMES[name]
    head = long_start_codes(frame[:clear]) if "h264" in name else frame[:clear]
    iv = struct.pack("!III", SSRC, rtp_ts, (rtp_ts - counter % 0xFFFF) & 0xFFFFFFFF)
    body = AESGCM(key).encrypt(iv, frame[clear:], head) + iv + bytes([12, key_index])
    return head + (escaped(body) if "h264" in name else body)


def reference_open(name: str, key: bytes, sealed: bytes) -> bytes:
    frame, clear = FRAMES[name]
    head = sealed[: len(long_start_codes(frame[:clear])) if "h264" in name else clear]
    body = sealed[len(head) :]
    if "h264" in name:
        body = unescaped(body)
    assert body[-2] == 12
    return head + AESGCM(key).decrypt(body[-14:-2], body[:-14], head)


def carried(name: str) -> bytes:
    """The frame as the far end sees it: H264 with four-byte start codes in front."""
    frame, clear = FRAMES[name]
    return (long_start_codes(frame[:clear]) if "h264" in name else frame[:clear]) + frame[clear:]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FRAMES)
def test_livekit_frames_are_those_of_the_reference_over_the_counters_wrap(name, backend):
    ours = livekit(KEY, codec_of(name), SSRC, key_index=3, counter=COUNTER, backend=backend)
    for step, rtp_ts in enumerate((0, 1, 960, 0xFFFFFFFF, 0x7FFFFFFF)):
        sealed = ours.seal(FRAMES[name][0], rtp_ts=rtp_ts)
        assert sealed == reference_seal(name, KEY, rtp_ts, COUNTER + step, 3)
        assert reference_open(name, KEY, sealed) == carried(name)
    assert ours.counter == COUNTER + 5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FRAMES)
def test_livekit_opens_what_the_reference_sealed(name, backend):
    sealed = reference_seal(name, KEY, 4711, 17)
    opener = livekit(KEY, codec_of(name), 0, backend=backend)
    assert opener.open(sealed) == carried(name)
    assert opener.opened_counter == 4711 - 17


def test_h264_needs_escapes_somewhere():
    """Otherwise the two tests above would not have seen any: zero bytes behind the frame make the ciphertext's only by luck."""
    cipher = livekit(KEY, "h264", 0, counter=0)
    sealed = cipher.seal(H264_DELTA, rtp_ts=0)
    # SSRC 0, timestamp 0: twelve zero bytes of IV, escaped.
    assert sealed.endswith(escaped(bytes(12) + b"\x0c\0")[-14:]) and b"\0\0\3" in sealed[-20:]
    assert livekit(KEY, "h264", 0).open(sealed) == H264_DELTA


def test_an_empty_frame_passes_as_it_is():
    cipher = livekit(KEY, "opus", SSRC)
    assert cipher.seal(b"") == b"" == cipher.open(b"")


@pytest.mark.parametrize(
    ("codec", "frame", "error"),
    [
        ("vp8", b"\x10123", "E_SHORT"),
        ("h264", b"\0\0\1\x67abc", "E_FORMAT"),
        ("h264", b"\0\0\1\x65", "E_SHORT"),
        ("h264", b"x", "E_FORMAT"),
    ],
)
def test_frames_that_cannot_be_sealed(codec, frame, error):
    with pytest.raises(WireError, match=error):
        livekit(KEY, codec, SSRC).seal(frame)


def test_livekit_has_no_av1_and_sframe_here_no_h264():
    with pytest.raises(ValueError):
        livekit(KEY, "av1", SSRC)
    with pytest.raises(ValueError):
        sframe(KEY, SALT, 1, codec="h264")
    with pytest.raises(TypeError):
        FrameCipher()


def test_a_passphrase_gives_the_key_that_the_sdks_were_measured_with():
    # hashlib is another implementation of RFC 8018.
    expected = hashlib.pbkdf2_hmac("sha256", b"password", b"LKFrameEncryptionKey", 100_000, 16)
    assert Material("password").key() == expected
    assert Material(b"password").key() != expected


# --- SFrame -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["header"], ids=lambda v: v["encoded"])
def test_headers_of_the_working_group(vector):
    encoded = bytes.fromhex(vector["encoded"])
    assert sframe_header(vector["kid"], vector["ctr"]) == encoded
    assert take_sframe_header(encoded + b"rest") == (vector["kid"], vector["ctr"], len(encoded))
    if len(encoded) > 1:
        with pytest.raises(WireError, match="E_SHORT"):
            take_sframe_header(encoded[:-1])


@pytest.mark.parametrize("encoded", ["0800", "0807", "0900ff", "8000", "880001", "f80000000000000000", "8907" + "00ff"])
def test_a_header_in_a_longer_form_than_needed_is_refused(encoded):
    with pytest.raises(WireError, match="E_FORMAT"):
        take_sframe_header(bytes.fromhex(encoded) + bytes(16))


@pytest.mark.parametrize("backend", BACKENDS)
def test_ciphertext_of_the_working_group(backend):
    (vector,) = [v for v in VECTORS["sframe"] if v["cipher_suite"] == 4]
    key, salt = derive(bytes.fromhex(vector["base_key"]), vector["kid"])
    assert (key.hex(), salt.hex()) == (vector["sframe_key"], vector["sframe_salt"])
    metadata, plain = bytes.fromhex(vector["metadata"]), bytes.fromhex(vector["pt"])
    cipher = sframe(key, salt, vector["kid"], counter=vector["ctr"], backend=backend)
    sealed = cipher.seal(plain, metadata=metadata)
    assert sealed.hex() == vector["ct"]
    assert cipher.open(sealed, metadata=metadata) == plain
    assert cipher.opened_counter == vector["ctr"]


@pytest.mark.parametrize("ctr", [0, 7, 8, 255, 256, 65535, 2**32, 2**64 - 1])
@pytest.mark.parametrize("keyframe", [False, True])
@pytest.mark.parametrize("codec", ["opus", "vp8", "vp9", "av1", "other"])
def test_sframe_within_what_packetisers_need(codec, keyframe, ctr):
    frame = RNG.randbytes(700)
    sealed = sframe(KEY, SALT, 2**63, codec=codec, counter=ctr).seal(frame, keyframe=keyframe, metadata=b"m")
    inner, clear = sealed, b""
    if codec == "vp8":
        inner, clear = sealed[1:], sealed[:1]
        assert clear == frame[:1]
    elif codec == "av1":
        if keyframe:
            assert inner[:3] == b"\x0a\x01\x00"
            inner = inner[3:]
        assert inner[0] == 0x32 and (inner[1] & 0x7F) + (inner[2] << 7) == len(inner) - 3
        inner = inner[3:]
    kid, number, n = take_sframe_header(inner)
    assert (kid, number) == (2**63, ctr)
    nonce = (int.from_bytes(SALT, "big") ^ ctr).to_bytes(12, "big")
    assert clear + AESGCM(KEY).decrypt(nonce, inner[n:], inner[:n] + clear + b"m") == frame
    assert sframe(KEY, SALT, 2**63, codec=codec).open(sealed, metadata=b"m") == frame


def test_av1_opens_as_a_receivers_depacketiser_may_give_it():
    cipher = sframe(KEY, SALT, 9, codec="av1")
    sealed = cipher.seal(b"picture", keyframe=True)
    inner = sealed[5:]
    # A temporal delimiter in front; the last OBU without a size field.
    assert cipher.open(b"\x12\0" + sealed) == b"picture"
    assert cipher.open(b"\x12\0\x30" + inner) == b"picture"
    assert cipher.open(b"\x34\x08" + inner) == b"picture"
    for wrong in (b"", b"\x12\0", b"\x32", b"\x32\xff\xff\xff\xff\x7f" + inner, b"\x32\x7f" + inner):
        with pytest.raises(WireError, match="E_FORMAT|E_SHORT|E_LENGTH"):
            cipher.open(wrong)


def test_no_counter_is_used_twice():
    cipher = sframe(KEY, SALT, 1, counter=2**64 - 2)
    assert cipher.seal(b"a") != cipher.seal(b"a")
    for _ in range(2):
        with pytest.raises(WireError, match="E_KEY_EXHAUSTED"):
            cipher.seal(b"a")


def test_metadata_has_a_bound():
    with pytest.raises(WireError, match="E_INVALID"):
        sframe(KEY, SALT, 1).seal(b"a", metadata=bytes(129))


# --- what must not open -----------------------------------------------------------------------------------------


def sealed_pairs() -> list:
    other = bytes(15) + b"x"
    pairs = []
    for name, (frame, _) in FRAMES.items():
        codec = codec_of(name)
        pairs.append((livekit(KEY, codec, SSRC, key_index=1), livekit(KEY, codec, SSRC, key_index=1),
                      livekit(other, codec, SSRC, key_index=1), livekit(KEY, codec, SSRC, key_index=2), frame))
    for codec in ("opus", "vp8", "vp9", "av1"):
        pairs.append((sframe(KEY, SALT, 300, codec=codec), sframe(KEY, SALT, 300, codec=codec),
                      sframe(other, SALT, 300, codec=codec), sframe(KEY, SALT, 301, codec=codec), b"\x01" + bytes(40)))
    return pairs  # fmt: skip


@pytest.mark.parametrize(("sealer", "opener", "wrong_key", "wrong_number", "frame"), sealed_pairs())
def test_mutants_do_not_open(sealer, opener, wrong_key, wrong_number, frame):
    sealed = sealer.seal(frame, rtp_ts=90_000)
    plain = opener.open(sealed)
    with pytest.raises(WireError, match="E_AUTH"):
        wrong_key.open(sealed)
    with pytest.raises(WireError, match="E_UNSUPPORTED"):
        wrong_number.open(sealed)
    for at in {*range(min(len(sealed), 60)), *range(max(0, len(sealed) - 60), len(sealed)), len(sealed) // 2}:
        flipped = bytearray(sealed)
        flipped[at] ^= 0x40
        try:
            opened = opener.open(flipped)
        except WireError:
            continue
        # AV1's wrapper is a packetiser's and not authenticated: bits of it may change, the frame within may not.
        assert opened == plain and at < 5 and sealed[0] in (0x0A, 0x32), at
    for n in range(1, min(len(sealed), 64)):
        with pytest.raises(WireError):
            opener.open(sealed[:-n])
    with pytest.raises(WireError):
        opener.open(sealed + b"\0" if sealed[0] != 0x32 else b"\x32\x80" + sealed[1:])


@pytest.mark.parametrize("codec", ["opus", "vp8", "vp9", "h264"])
def test_garbage_never_opens(codec):
    opener = livekit(KEY, codec, SSRC)
    for n in range(1, 200):
        garbage = bytearray(RNG.randbytes(n))
        if n > 40:
            garbage[-2:] = b"\x0c\0"
        with pytest.raises(WireError):
            opener.open(garbage)


def test_the_reference_is_a_judge():
    """A judge that opened anything would have made the tests above empty."""
    sealed = livekit(KEY, "opus", SSRC).seal(FRAMES["opus"][0])
    with pytest.raises(InvalidTag):
        reference_open("opus", bytes(16), sealed)
