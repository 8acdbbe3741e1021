"""The second reader of payloads says what the payload specifications say, byte by byte."""

import pytest

from tests.support.payload_views import descriptor_bytes, header_view, replace_outside


def kept(codec: str, payload: str) -> str:
    """The payload's bytes in hex, those outside its header view as dots."""
    data = bytes.fromhex(payload)
    seen = {i for begin, end in header_view(codec, data) for i in range(begin, end)}
    return " ".join(f"{byte:02x}" if i in seen else ".." for i, byte in enumerate(data))


@pytest.mark.parametrize("codec, payload, wanted", [
    # VP8: descriptor of one byte; with extension byte, 7 and 15 bit picture id, TL0PICIDX, TID; frame's first byte where it begins.
    ("vp8", "10 aa bb", "10 aa .."),
    ("vp8", "00 aa bb", "00 .. .."),
    ("vp8", "11 aa bb", "11 .. .."),
    ("vp8", "90 80 05 aa bb", "90 80 05 aa .."),
    ("vp8", "90 80 81 05 aa bb", "90 80 81 05 aa .."),
    ("vp8", "90 e0 81 05 07 20 aa bb", "90 e0 81 05 07 20 aa .."),
    ("vp8", "80 10 20 aa bb", "80 10 20 .. .."),
    ("vp8", "80", "80"),
    # VP9: no frame byte is clear; flexible mode has references and no TL0PICIDX; scalability structure with sizes and pictures.
    ("vp9", "8c 85 07 aa bb", "8c 85 07 .. .."),
    ("vp9", "ac 85 07 20 09 aa", "ac 85 07 20 09 .."),
    ("vp9", "fc 05 20 03 04 aa", "fc 05 20 03 04 .."),
    ("vp9", "ae 05 20 09 18 01 40 00 b4 01 04 01 aa bb", "ae 05 20 09 18 01 40 00 b4 01 04 01 .. .."),
    ("vp9", "02 08 02 00 04 09 aa", "02 08 02 00 04 09 .."),
    # AV1: the aggregation header alone, neither OBU headers nor lengths.
    ("av1", "18 0a 01 00 32", "18 .. .. .. .."),
    # H264: a single unit, a fragment, an aggregate of two, and one that says more than there is.
    ("h264", "65 88 84 00", "65 .. .. .."),
    ("h264", "7c 85 88 84", "7c 85 .. .."),
    ("h264", "78 00 02 67 42 00 03 68 ce 3c", "78 00 02 67 .. 00 03 68 .. .."),
    ("h264", "78 00 09 67 42", "78 00 09 67 .."),
    # Opus has no descriptor, nor has what nobody knows.
    ("opus", "fc ff fe", ".. .. .."),
    ("other_video", "01 02", ".. .."),
])  # fmt: skip
def test_header_views(codec, payload, wanted):
    assert kept(codec, payload) == wanted


def test_descriptors_end_before_the_clear_byte():
    assert descriptor_bytes("vp8", bytes.fromhex("908005aabb")) == 3
    assert descriptor_bytes("vp8", b"") == 0
    assert descriptor_bytes("av1", b"\x18\x0a") == 0


def test_a_replacement_keeps_what_is_kept():
    assert replace_outside(b"abcdef", b"ABCDEF", [(0, 1), (3, 5)]) == b"aBCdeF"
    assert replace_outside(b"ab", b"AB", [(0, 9)]) == b"ab"
