"""The second reader of payloads says what the payload specifications say, byte by byte."""

import pytest

from tests.support.payload_views import descriptor_bytes, header_view, mark_views, replace_outside


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


def marks(codec: str, frame_format: str, *sizes: int, first: bytes = b"") -> list[list[int]]:
    """Numbers of the payloads' bytes in a frame's mark view."""
    payloads = [bytes(size) for size in sizes]
    payloads[0] = first + payloads[0][len(first) :]
    views = mark_views(codec, frame_format, payloads)
    return [
        sorted({i for begin, end in view for i in range(begin, min(end, size))})
        for view, size in zip(views, sizes, strict=True)
    ]


def test_the_mark_of_livekit_is_the_first_16_and_the_last_14_bytes():
    assert marks("opus", "livekit_gcm", 60) == [[*range(16), *range(46, 60)]]
    # Behind VP8's descriptor of one byte, over two packets at either end.
    assert marks("vp8", "livekit_gcm", 11, 50, 30, 5, first=b"\x10") == [
        [*range(1, 11)],
        [*range(1, 7)],
        [*range(20, 30)],
        [*range(1, 5)],
    ]
    assert marks("h264", "livekit_gcm", 100, 60) == [[*range(16)], [*range(36, 60)]]


def test_the_mark_of_sframe_is_its_header_where_the_codec_puts_it():
    # Eight bytes of KID and of CTR, behind VP8's descriptor and clear byte.
    assert marks("vp8", "sframe", 60, first=b"\x10\x00\xff") == [[*range(1, 19)]]
    assert marks("vp9", "sframe", 60, first=b"\x00\xff") == [[*range(1, 18)]]
    # AV1: the empty sequence header and the OBU's own byte go before it.
    assert marks("av1", "sframe", 60, first=b"\x28\x02\x08\x00\x30\xff") == [[*range(1, 22)]]
    assert marks("av1", "sframe", 60, 60, first=b"\x10\x30\x00") == [[*range(1, 17)], []]
    assert marks("vp8", "clear", 60) == [[]]
