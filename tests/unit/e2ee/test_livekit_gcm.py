"""LiveKit's frames are those that its SDKs were measured with (through the native implementation, which met them), both ways."""

import random

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from relay.e2ee import livekit_gcm
from relay.e2ee.errors import Malformed, NotAuthentic, UnknownKey
from relay.e2ee.livekit_gcm import KeyRing, Material, Sealer
from relaycore import frameseal

SSRC = 0xFFFFFFFE
RNG = random.Random(3)
RAW = Material(bytes(range(32)))
FRAMES = {
    "opus": [b"\x78" + RNG.randbytes(90), b"\x78"],
    "vp8": [b"\x10" + RNG.randbytes(900), b"\x31" + RNG.randbytes(5)],
    "vp9": [RNG.randbytes(700)],
    "h264": [
        bytes.fromhex("00000109f0 000000016742001f 00000168ce3c80 00000165b8") + RNG.randbytes(700) + bytes(9),
        bytes.fromhex("0000000141 9a") + bytes(300),
    ],
}
CASES = [(codec, frame) for codec, frames in FRAMES.items() for frame in frames]


def ring(material: Material = RAW, **options: int) -> KeyRing:
    keys = KeyRing(**options)
    keys.set(material)
    return keys


def test_the_passphrase_of_the_measurement():
    """LIVEKIT section 4.2: a string in livekit-client is the same bytes in the Python SDK."""
    assert Material("password").key() == Material(b"password", uses_hkdf=False).key() != Material(b"password").key()


@pytest.mark.parametrize(("codec", "frame"), CASES)
def test_frames_are_the_native_ones_over_the_counters_wrap(codec, frame):
    counter = livekit_gcm.COUNTER_MODULUS - 2
    ours = Sealer(RAW, codec, SSRC, key_index=3, counter=counter)
    native = frameseal.livekit(RAW.key(), codec, SSRC, key_index=3, counter=counter)
    keys = KeyRing()
    keys.set(RAW, 3)
    for rtp_ts in (0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 960):
        sealed = ours.seal(frame, rtp_ts)
        assert sealed == native.seal(frame, rtp_ts=rtp_ts)
        assert keys.open_frame(codec, sealed) == native.open(sealed)


@given(st.binary(min_size=10, max_size=300), st.sampled_from(("opus", "vp8", "vp9")), st.integers(0, 0xFFFFFFFF))
def test_any_frame_comes_back(frame, codec, rtp_ts):
    assert ring().open_frame(codec, Sealer(RAW, codec, SSRC).seal(frame, rtp_ts)) == frame


@given(st.lists(st.sampled_from((b"\0", b"\1", b"\2", b"\3", b"\x65")), max_size=60).map(b"".join))
def test_h264_keeps_its_slices_whatever_they_hold(body):
    frame = bytes.fromhex("00000001659a") + body
    sealed = Sealer(RAW, "h264", SSRC).seal(frame, 7)
    assert ring().open_frame("h264", sealed) == frame
    # Behind what is clear no start code may show.
    assert b"\0\0\1" not in sealed[6:] and b"\0\0\0" not in sealed[6:]


@pytest.mark.parametrize(("codec", "frame"), CASES)
def test_one_changed_byte_anywhere_does_not_open(codec, frame):
    sealed = Sealer(RAW, codec, SSRC).seal(frame, 90_000)
    keys = ring(ratchet_window=0)
    for at in range(0, len(sealed), max(1, len(sealed) // 60)):
        changed = bytearray(sealed)
        changed[at] ^= 0x10
        with pytest.raises((NotAuthentic, UnknownKey, Malformed)):
            keys.open_frame(codec, bytes(changed))


def test_a_frame_in_clear_does_not_open():
    for codec, frame in CASES:
        with pytest.raises((NotAuthentic, UnknownKey, Malformed)):
            ring().open_frame(codec, frame)


def test_an_empty_frame_passes_as_it_is():
    assert Sealer(RAW, "opus", SSRC).seal(b"", 1) == b"" == ring().open_frame("opus", b"")


def test_there_is_no_av1():
    with pytest.raises(ValueError, match="av1"):
        Sealer(RAW, "av1", SSRC)
    with pytest.raises(ValueError, match="av1"):
        ring().open_frame("av1", b"x" * 40)


@pytest.mark.parametrize(("codec", "frame"), [("vp8", b"\x10123"), ("h264", b"\0\0\1\x67abc"), ("h264", b"\0\0\1\x65"), ("h264", b"x")])
def test_frames_that_cannot_be_sealed(codec, frame):
    with pytest.raises(Malformed):
        Sealer(RAW, codec, SSRC).seal(frame, 0)


def test_a_receiver_follows_a_senders_ratchet_and_stays_there():
    third = RAW.ratcheted().ratcheted()
    keys = ring(ratchet_window=2)
    assert keys.open_frame("opus", Sealer(third, "opus", SSRC).seal(b"\x78voice", 1)) == b"\x78voice"
    with pytest.raises(NotAuthentic):
        keys.open_frame("opus", Sealer(RAW, "opus", SSRC).seal(b"\x78voice", 2))


def test_a_rung_beyond_the_window_is_not_found_and_nothing_moves():
    keys = ring(ratchet_window=1)
    with pytest.raises(NotAuthentic):
        keys.open_frame("opus", Sealer(RAW.ratcheted().ratcheted(), "opus", SSRC).seal(b"\x78voice", 1))
    assert keys.open_frame("opus", Sealer(RAW, "opus", SSRC).seal(b"\x78voice", 1)) == b"\x78voice"


def test_a_wrong_key_costs_one_search_and_after_ten_failures_no_more_than_one_try(monkeypatch):
    steps, tries = [], []
    ratcheted, decrypt = Material.ratcheted, AESGCM.decrypt

    class Counting:
        def __init__(self, key):
            self._gcm = AESGCM(key)

        def decrypt(self, *arguments):
            tries.append(1)
            return decrypt(self._gcm, *arguments)

    monkeypatch.setattr(Material, "ratcheted", lambda self: steps.append(1) or ratcheted(self))
    wrong = Sealer(Material(b"another key"), "opus", SSRC)
    monkeypatch.setattr(livekit_gcm, "AESGCM", Counting)
    keys = ring()
    for _ in range(livekit_gcm.FAILURE_TOLERANCE + 5):
        with pytest.raises(NotAuthentic):
            keys.open_frame("opus", wrong.seal(b"\x78voice", 1))
    monkeypatch.undo()
    assert len(steps) == livekit_gcm.RATCHET_WINDOW
    assert len(tries) == livekit_gcm.FAILURE_TOLERANCE * (1 + livekit_gcm.RATCHET_WINDOW) + 5
    assert keys.open_frame("opus", Sealer(RAW, "opus", SSRC).seal(b"\x78voice", 1)) == b"\x78voice"


def test_keys_are_told_apart_by_their_index():
    keys = ring()
    keys.set(Material(b"another"), 15)
    sealed = Sealer(Material(b"another"), "opus", SSRC, key_index=15).seal(b"\x78voice", 1)
    assert keys.open_frame("opus", sealed) == b"\x78voice"
    with pytest.raises(UnknownKey):
        keys.open_frame("opus", sealed[:-1] + b"\x07")
    with pytest.raises(ValueError, match="0 to 15"):
        keys.set(RAW, 16)
