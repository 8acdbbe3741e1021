"""SFrame is the working group's, byte for byte and in all suites, and nothing else opens."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.e2ee import framing, sframe
from relay.e2ee.errors import KeyExhausted, Malformed, NotAuthentic, UnknownKey
from relaycore import frameseal

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/sframe/sframe-test-vectors.json").read_text())
BASE_KEY = bytes(range(16))
U64 = st.integers(0, sframe.MAX_U64) | st.integers(0, 300)


def unhex(vector: dict, *names: str) -> list[bytes]:
    return [bytes.fromhex(vector[name]) for name in names]


@pytest.mark.parametrize("vector", VECTORS["header"], ids=lambda v: f"{v['kid']:x}-{v['ctr']:x}")
def test_headers_of_the_working_group(vector):
    (encoded,) = unhex(vector, "encoded")
    assert sframe.write_header(vector["kid"], vector["ctr"]) == encoded
    assert sframe.parse_header(encoded + b"more") == (vector["kid"], vector["ctr"], len(encoded))


@pytest.mark.parametrize("vector", VECTORS["aes_ctr_hmac"], ids=lambda v: str(v["cipher_suite"]))
def test_counter_mode_ciphers_of_the_working_group(vector):
    key, nonce, aad, plaintext, sealed = unhex(vector, "key", "nonce", "aad", "pt", "ct")
    cipher = sframe.AesCtrHmac(sframe.SUITES[vector["cipher_suite"]], key)
    assert cipher.seal(nonce, aad, plaintext) == sealed
    assert cipher.open(nonce, aad, sealed) == plaintext


@pytest.mark.parametrize("vector", VECTORS["sframe"], ids=lambda v: str(v["cipher_suite"]))
def test_frames_of_the_working_group(vector):
    suite, kid, ctr = (vector[name] for name in ("cipher_suite", "kid", "ctr"))
    base_key, key, salt, metadata, plaintext, sealed = unhex(
        vector, "base_key", "sframe_key", "sframe_salt", "metadata", "pt", "ct"
    )
    assert sframe.derive(base_key, kid, suite) == (key, salt)
    frame_key = sframe.FrameKey(base_key, kid, suite)
    assert sframe.Sealer(frame_key, ctr).seal(plaintext, metadata) == sealed
    opener = sframe.Opener()
    opener.add(frame_key)
    assert opener.open(sealed, metadata) == plaintext


def test_all_suites_have_vectors():
    assert {v["cipher_suite"] for v in VECTORS["sframe"]} == set(sframe.SUITES) == {1, 2, 3, 4, 5}


@given(U64, U64)
def test_any_header_comes_back(kid, ctr):
    encoded = sframe.write_header(kid, ctr)
    assert 1 <= len(encoded) <= 17
    assert sframe.parse_header(encoded) == (kid, ctr, len(encoded))
    assert frameseal.sframe_header(kid, ctr) == encoded


@given(st.binary(max_size=24))
def test_whatever_parses_is_what_would_be_written(data):
    try:
        kid, ctr, size = sframe.parse_header(data)
    except Malformed:
        return
    assert sframe.write_header(kid, ctr) == data[:size]


@pytest.mark.parametrize("number", sframe.SUITES)
def test_one_changed_bit_anywhere_does_not_open(number):
    key = sframe.FrameKey(BASE_KEY, 300, number)
    sealed = sframe.Sealer(key, 70_000).seal(b"twelve bytes", b"meta")
    opener = sframe.Opener()
    opener.add(key)
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((NotAuthentic, UnknownKey, Malformed)):
            opener.open(bytes(changed), b"meta")
    with pytest.raises(NotAuthentic):
        opener.open(sealed, b"mete")
    assert opener.open(sealed, b"meta") == b"twelve bytes"


def test_the_test_above_sees_a_cipher_that_checks_no_tag(monkeypatch):
    monkeypatch.setattr(sframe.AesCtrHmac, "_tag", lambda self, nonce, aad, sealed: bytes(self._suite.tag_bytes))
    key = sframe.FrameKey(BASE_KEY, 1, 1)
    sealed = bytearray(sframe.Sealer(key).seal(b"frame"))
    sealed[3] ^= 1
    opener = sframe.Opener()
    opener.add(key)
    assert opener.open(bytes(sealed)) != b"frame"


def test_repeats_are_dropped_without_a_word_and_reordered_frames_are_not():
    key = sframe.FrameKey(BASE_KEY, 0)
    sealer, opener = sframe.Sealer(key), sframe.Opener()
    opener.add(key)
    frames = [sealer.seal(bytes([n])) for n in range(5)]
    assert [opener.open(frames[n]) for n in (0, 3, 1, 3, 0, 2, 4, 1)] == [b"\0", b"\3", b"\1", None, None, b"\2", b"\4", None]


def test_a_forged_counter_does_not_close_the_window():
    key = sframe.FrameKey(BASE_KEY, 0)
    opener = sframe.Opener()
    opener.add(key)
    forged = sframe.write_header(0, 1 << 40) + bytes(30)
    with pytest.raises(NotAuthentic):
        opener.open(forged)
    assert opener.open(sframe.Sealer(key).seal(b"x")) == b"x"


@given(st.lists(st.integers(0, 40), max_size=60))
def test_the_window_is_exact_within_its_size_and_closed_below(counters):
    window, seen = sframe.ReplayWindow(16), set()
    for ctr in counters:
        highest = max(seen, default=-1)
        assert window.has(ctr) == (ctr in seen or ctr <= highest - 16)
        if not window.has(ctr):
            window.add(ctr)
            seen.add(ctr)


def test_the_same_key_again_does_not_forget_what_came():
    key = sframe.FrameKey(BASE_KEY, 0)
    opener, frame = sframe.Opener(), sframe.Sealer(key).seal(b"x")
    opener.add(key)
    assert opener.open(frame) == b"x"
    opener.add(key)
    assert opener.open(frame) is None


def test_a_receiver_keeps_a_bounded_number_of_keys():
    opener = sframe.Opener(limit=2)
    keys = [sframe.FrameKey(BASE_KEY, kid) for kid in range(3)]
    for key in keys:
        opener.add(key)
    with pytest.raises(UnknownKey) as found:
        opener.open(sframe.Sealer(keys[0]).seal(b"x"))
    assert found.value.number == 0
    assert opener.open(sframe.Sealer(keys[2]).seal(b"x")) == b"x"
    opener.forget(2)
    with pytest.raises(UnknownKey):
        opener.open(sframe.Sealer(keys[2], 9).seal(b"x"))


def test_no_counter_is_used_twice():
    sealer = sframe.Sealer(sframe.FrameKey(BASE_KEY, 0), sframe.MAX_U64)
    sealer.seal(b"the last")
    with pytest.raises(KeyExhausted):
        sealer.seal(b"one more")


@pytest.mark.parametrize("number", sframe.SUITES)
def test_the_ratchet_gives_keys_that_do_not_open_each_other(number):
    first = BASE_KEY
    second = sframe.ratchet(first, number)
    assert len(second) == sframe.SUITES[number].hash_bytes and sframe.ratchet(second, number) != second
    opener = sframe.Opener()
    opener.add(sframe.FrameKey(first, 5, number))
    with pytest.raises(NotAuthentic):
        opener.open(sframe.Sealer(sframe.FrameKey(second, 5, number)).seal(b"x" * 20))


# --- within codecs, and beside the native implementation -----------------------------------------------------------


def native(codec: str, kid: int, counter: int = 0) -> frameseal.FrameCipher:
    return frameseal.sframe(*sframe.derive(BASE_KEY, kid), kid, codec=codec, counter=counter)


def ours(kid: int) -> sframe.Opener:
    opener = sframe.Opener()
    opener.add(sframe.FrameKey(BASE_KEY, kid))
    return opener


@given(
    st.sampled_from(framing.CODECS), st.binary(min_size=1, max_size=400), st.booleans(), U64, st.integers(0, 1 << 40),
    st.binary(max_size=8),
)  # fmt: skip
def test_frames_open_in_the_native_implementation_and_the_other_way(codec, frame, is_keyframe, kid, ctr, metadata):
    sealer = sframe.Sealer(sframe.FrameKey(BASE_KEY, kid), ctr)
    sealed = framing.seal(sealer, codec, frame, is_keyframe=is_keyframe, metadata=metadata)
    assert native(codec, kid, ctr).seal(frame, keyframe=is_keyframe, metadata=metadata) == sealed
    assert native(codec, kid).open(sealed, metadata=metadata) == frame
    assert framing.open_frame(ours(kid), codec, sealed, metadata=metadata) == frame


def test_vp8s_clear_byte_cannot_be_changed():
    sealed = framing.seal(sframe.Sealer(sframe.FrameKey(BASE_KEY, 0)), "vp8", b"\x10frame")
    assert sealed[:1] == b"\x10"
    with pytest.raises(NotAuthentic):
        framing.open_frame(ours(0), "vp8", b"\x11" + sealed[1:])


def test_av1_is_an_obu_chain_to_a_packetiser_and_opens_without_its_last_size():
    frame = bytes(300)
    sealed = framing.seal(sframe.Sealer(sframe.FrameKey(BASE_KEY, 0)), "av1", frame, is_keyframe=True)
    assert sealed[:4] == b"\x0a\x01\x00\x32"
    assert framing.open_frame(ours(0), "av1", sealed) == frame
    # A depacketiser may leave the size of the last OBU out, and the empty sequence header too.
    assert framing.open_frame(ours(0), "av1", b"\x30" + sealed[6:]) == frame


def test_an_empty_frame_stays_one_and_uses_no_counter():
    sealer = sframe.Sealer(sframe.FrameKey(BASE_KEY, 0))
    assert framing.seal(sealer, "opus", b"") == b"" and sealer.next_ctr == 0
    assert framing.open_frame(ours(0), "opus", b"") == b""


@pytest.mark.parametrize("data", [b"\x32", b"\x32\x05abc", b"\x0a\x01\x00", b"\x32" + b"\xff" * 9, b"\x36"])
def test_what_is_no_obu_chain_is_refused(data):
    with pytest.raises(Malformed):
        framing.open_frame(ours(0), "av1", data)


def test_h264_has_no_framing():
    with pytest.raises(ValueError, match="h264"):
        framing.seal(sframe.Sealer(sframe.FrameKey(BASE_KEY, 0)), "h264", b"x")


@given(st.sampled_from(framing.CODECS), st.binary(min_size=1, max_size=60))
def test_garbage_never_opens(codec, data):
    with pytest.raises((Malformed, UnknownKey, NotAuthentic)):
        framing.open_frame(ours(0), codec, data)
