"""The digest is SipHash-2-4, and a generated frame is what its stamp says."""

import struct

import pytest

from relaycore import lgstamp

KEY = bytes(range(16))
# Aumasson, Bernstein: "SipHash", 2012, appendix A (15 bytes), and the reference code's vectors for 0, 7, 8 and 63 bytes.
VECTORS = {
    0: 0x726FDB47DD0E0E31,
    7: 0xAB0200F58B01D137,
    8: 0x93F5F5799A932462,
    15: 0xA129CA6149BE45E5,
    63: 0x958A324CEB064572,
}


@pytest.mark.parametrize("size", VECTORS)
@pytest.mark.parametrize("piece", [1, 3, 8, 13, 64])
def test_digest_equals_published_vectors_however_it_is_fed(size, piece):
    assert lgstamp.siphash(KEY, bytes(range(size)), piece) == VECTORS[size]


@pytest.mark.parametrize("codec, head", [("opus", 1), ("vp8", 3), ("av1", 1), ("vp9", 1)])
def test_a_frame_carries_stamp_behind_its_head_and_digest_at_its_end(codec, head):
    frame = lgstamp.frame(codec, KEY, stream=7, number=8, size=300, reference=5, temporal_id=2, send_ns=1 << 40)
    stamp = frame[head : head + 32]
    assert struct.unpack("!4xIIII", stamp[:20]) == (7, 8, 300, 5)
    assert struct.unpack("!xxBxQ", stamp[20:]) == (2, 1 << 40)
    content = frame[:head] + frame[head + 32 : -8] + stamp
    assert struct.unpack("<Q", frame[-8:])[0] == lgstamp.siphash(KEY, content)
    assert len(frame) == 300


def test_a_vp8_keyframe_has_start_code_and_size():
    frame = lgstamp.frame("vp8", KEY, stream=7, number=8, size=300, is_keyframe=True)
    assert frame[0] & 1 == 0 and frame[3:6] == b"\x9d\x01\x2a"
    assert struct.unpack("<HH", frame[6:10]) == (640, 360)


def test_frames_are_reproducible_and_differ_by_number():
    make = lambda number, stream=7: lgstamp.frame("vp8", KEY, stream=stream, number=number, size=1000)  # noqa: E731
    assert make(1) == make(1)
    fill = {make(n)[40:990] for n in range(50)} | {make(1, 8)[40:990]}
    assert len(fill) == 51
    # No piece of it repeats, so that a doubled or moved packet shows.
    words = [make(1)[i : i + 8] for i in range(40, 984, 8)]
    assert len(set(words)) == len(words)
