"""Mistakes planted into relay/e2ee, each of which its check must find; without a mistake every check passes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from relay.e2ee import framing, linkkey, livekit_gcm, senderkeys, sframe
from relay.e2ee.errors import NotAuthentic, OpenFailed
from relaycore import frameseal

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/sframe/sframe-test-vectors.json").read_text())["sframe"]
BASE_KEY = bytes(range(16))
RAW = livekit_gcm.Material(bytes(range(32)))
FRAMES = {
    "opus": b"\x78voice", "vp8": b"\x10" + bytes(range(60)), "vp9": bytes(range(40)), "av1": b"\x0a\x01\x00\x32\x04abcd",
    "h264": bytes.fromhex("000000016742001f00000165b8") + bytes(60),
}  # fmt: skip
VP8_DELTA = b"\x31" + bytes(40)


def opener(kid: int = 0, suite: int = sframe.DEFAULT_SUITE) -> sframe.Opener:
    made = sframe.Opener()
    made.add(sframe.FrameKey(BASE_KEY, kid, suite))
    return made


def opens(made: sframe.Opener, sealed: bytes, codec: str = "") -> bool:
    try:
        return (framing.open_frame(made, codec, sealed) if codec else made.open(sealed)) is not None
    except OpenFailed:
        return False


# --- checks: true when all is well ------------------------------------------------------------------------------------


def vectors_are_met() -> bool:
    for vector in VECTORS:
        base_key, metadata, plaintext, sealed = (bytes.fromhex(vector[n]) for n in ("base_key", "metadata", "pt", "ct"))
        key = sframe.FrameKey(base_key, vector["kid"], vector["cipher_suite"])
        if sframe.Sealer(key, vector["ctr"]).seal(plaintext, metadata) != sealed:
            return False
    return True


def changed_bits_do_not_open() -> bool:
    for suite in sframe.SUITES:
        sealed = sframe.Sealer(sframe.FrameKey(BASE_KEY, 0, suite)).seal(b"frame")
        changed = [sealed[:at] + bytes((sealed[at] ^ 1,)) + sealed[at + 1 :] for at in range(len(sealed))]
        if any(opens(opener(0, suite), frame) for frame in changed):
            return False
    return True


def repeats_are_dropped() -> bool:
    sealed, made = sframe.Sealer(sframe.FrameKey(BASE_KEY, 0)).seal(b"frame"), opener()
    return [made.open(sealed), made.open(sealed)] == [b"frame", None]


def forgeries_leave_the_window_open() -> bool:
    made = opener()
    opens(made, sframe.write_header(0, 1 << 40) + bytes(30))
    return opens(made, sframe.Sealer(sframe.FrameKey(BASE_KEY, 0)).seal(b"frame"))


def counters_are_used_once() -> bool:
    sealer = sframe.Sealer(sframe.FrameKey(BASE_KEY, 0))
    return len({sframe.parse_header(sealer.seal(b""))[:2] for _ in range(20)}) == 20


def framing_is_the_native_one() -> bool:
    for codec in framing.CODECS:
        for is_keyframe in (True, False):
            ours = framing.seal(sframe.Sealer(sframe.FrameKey(BASE_KEY, 9)), codec, FRAMES[codec], is_keyframe=is_keyframe)
            native = frameseal.sframe(*sframe.derive(BASE_KEY, 9), 9, codec=codec)
            if ours != native.seal(FRAMES[codec], keyframe=is_keyframe):
                return False
    return True


def vp8s_clear_byte_is_authentic() -> bool:
    sealed = framing.seal(sframe.Sealer(sframe.FrameKey(BASE_KEY, 0)), "vp8", FRAMES["vp8"])
    return not opens(opener(), b"\x11" + sealed[1:], "vp8")


def livekits_frames_are_the_native_ones() -> bool:
    for codec in livekit_gcm.CODECS:
        ours = livekit_gcm.Sealer(RAW, codec, 5, counter=0xFFFD)
        native = frameseal.livekit(RAW.key(), codec, 5, counter=0xFFFD)
        frames = [FRAMES[codec]] * 4 + [VP8_DELTA] * (codec == "vp8")
        if any(ours.seal(frame, rtp_ts) != native.seal(frame, rtp_ts=rtp_ts) for rtp_ts, frame in enumerate(frames)):
            return False
    return True


def a_wrong_key_moves_no_ring() -> bool:
    keys = livekit_gcm.KeyRing(ratchet_window=1)
    keys.set(RAW)
    for material in (livekit_gcm.Material(b"another"), RAW):
        try:
            frame = keys.open_frame("opus", livekit_gcm.Sealer(material, "opus", 5).seal(FRAMES["opus"], 1))
        except OpenFailed:
            frame = b""
    return frame == FRAMES["opus"]


def forged_steps_move_nothing() -> bool:
    first = senderkeys.SenderKey(BASE_KEY, 1)
    made = senderkeys.FollowingOpener()
    made.follow(first)
    forged = senderkeys.SenderKey(bytes(16), 1).ratcheted(8)
    opens(made, sframe.Sealer(forged.frame_key()).seal(b"frame"))
    return opens(made, sframe.Sealer(first.ratcheted().frame_key()).seal(b"frame"))


def publications_have_keys_of_their_own() -> bool:
    who = (("ana", "TR_1"), ("ana", "TR_2"), ("bo", "TR_1"), ("anaTR_", "1"))
    return len({linkkey.publication_key(bytes(32), *names) for names in who}) == len(who)


CHECKS = [
    vectors_are_met, changed_bits_do_not_open, repeats_are_dropped, forgeries_leave_the_window_open, counters_are_used_once,
    framing_is_the_native_one, vp8s_clear_byte_is_authentic, livekits_frames_are_the_native_ones, a_wrong_key_moves_no_ring,
    forged_steps_move_nothing, publications_have_keys_of_their_own,
]  # fmt: skip


# --- mistakes ---------------------------------------------------------------------------------------------------------


def gcm_without_a_tag(_self: sframe._Gcm, nonce: bytes, _aad: bytes, sealed: bytes) -> bytes:
    """GCM's counter mode begins at 2; who decrypts with it alone checks nothing."""
    key, _ = sframe.derive(BASE_KEY, 0)
    return Cipher(algorithms.AES(key), modes.CTR(nonce + b"\0\0\0\2")).decryptor().update(sealed[:-16])


def open_and_remember_first(self: sframe.Opener, frame: bytes, metadata: bytes = b"") -> bytes | None:
    kid, ctr, size = sframe.parse_header(frame)
    key, window = self._keys[kid]
    if window.has(ctr):
        return None
    window.add(ctr)
    return key.open(frame[:size], ctr, frame[size:], metadata)


def vp8_clear_byte_outside_the_metadata(made: sframe.Opener, codec: str, frame: bytes, *, metadata: bytes = b"") -> bytes | None:
    return frame[:1] + (made.open(frame[1:], b"\x10" + metadata) or b"")


def ring_that_keeps_the_rung_it_tried(self: livekit_gcm.KeyRing, key_index: int, iv: bytes, sealed: bytes, aad: bytes = b"") -> bytes:
    rung = self._rungs[key_index]
    try:
        return rung.gcm.decrypt(iv, sealed, aad)
    except livekit_gcm.InvalidTag:
        self._rungs[key_index] = rung.after()
        raise NotAuthentic from None


def look_ahead_and_move(self: senderkeys.FollowingOpener, kid: int) -> sframe.FrameKey | None:
    rung = self._later(kid)
    if rung is None:
        return None
    self.follow(rung)
    return rung.frame_key()


def one_key_and_no_salt(_base_key: bytes, _kid: int, suite: int = 4) -> tuple[bytes, bytes]:
    return bytes(sframe.SUITES[suite].key_bytes), bytes(12)


def seal_and_stay(self: sframe.Sealer, plaintext: bytes, metadata: bytes = b"") -> bytes:
    return self._key.seal(self.next_ctr, plaintext, metadata)


def long_header(kid: int, ctr: int) -> bytes:
    return b"\xff" + kid.to_bytes(8, "big") + ctr.to_bytes(8, "big")


real_clear_bytes = livekit_gcm.clear_bytes


def vp8_as_if_always_a_keyframe(codec: str, frame: bytes) -> int:
    return 10 if codec == "vp8" else real_clear_bytes(codec, frame)


def names_run_together(link_key: bytes, identity: str, track_sid: str) -> bytes:
    return linkkey.HKDF(linkkey.SHA256(), 16, None, (identity + track_sid).encode()).derive(link_key)


# What it is, where it is planted, what it replaces by what, which check must find it.
MISTAKES: list[tuple[str, object, str, object, Callable[[], bool]]] = [
    ("no replay window", sframe.ReplayWindow, "has", lambda self, ctr: False, repeats_are_dropped),
    ("a forged counter is remembered", sframe.Opener, "open", open_and_remember_first, forgeries_leave_the_window_open),
    ("HMAC not compared", sframe.hmac, "compare_digest", lambda one, other: True, changed_bits_do_not_open),
    ("GCM without its tag", sframe._Gcm, "open", gcm_without_a_tag, changed_bits_do_not_open),
    ("one nonce for all", sframe.FrameKey, "_nonce", lambda self, ctr: self._salt, vectors_are_met),
    ("keys that are not derived", sframe, "derive", one_key_and_no_salt, vectors_are_met),
    ("a counter that stays", sframe.Sealer, "seal", seal_and_stay, counters_are_used_once),
    ("a header in its long form", sframe, "write_header", long_header, vectors_are_met),
    ("no empty sequence header", framing, "EMPTY_SEQUENCE_HEADER", b"", framing_is_the_native_one),
    ("a clear byte that anybody changes", framing, "open_frame", vp8_clear_byte_outside_the_metadata, vp8s_clear_byte_is_authentic),
    ("one clear byte more", livekit_gcm, "clear_bytes", lambda c, f: real_clear_bytes(c, f) + 1, livekits_frames_are_the_native_ones),
    ("VP8's clear bytes of another kind", livekit_gcm, "clear_bytes", vp8_as_if_always_a_keyframe, livekits_frames_are_the_native_ones),
    ("no emulation prevention", livekit_gcm, "escape", lambda data: data, livekits_frames_are_the_native_ones),
    ("start codes left short", livekit_gcm, "long_start_codes", lambda data: data, livekits_frames_are_the_native_ones),
    ("the counter's modulus", livekit_gcm, "COUNTER_MODULUS", 0x10000, livekits_frames_are_the_native_ones),
    ("a ring moved by a failure", livekit_gcm.KeyRing, "open", ring_that_keeps_the_rung_it_tried, a_wrong_key_moves_no_ring),
    ("a step taken before it opened", senderkeys.FollowingOpener, "_look_ahead", look_ahead_and_move, forged_steps_move_nothing),
    ("names that run together", linkkey, "publication_key", names_run_together, publications_have_keys_of_their_own),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_all_is_well(check: Callable[[], bool]) -> None:
    assert check()


@pytest.mark.parametrize(("where", "what", "wrong", "check"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_found(where: object, what: str, wrong: object, check: Callable[[], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(where, what, wrong)
    assert not check()


def test_every_check_finds_a_mistake() -> None:
    assert {check for *_, check in MISTAKES} == set(CHECKS)
