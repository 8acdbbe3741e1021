"""One stream's views: the Dependency Descriptor overrules the codec, and what a view points at can be rewritten."""

import pytest

from relaycore.errs import WireError
from relaycore.views import CODECS, StreamView
from tests.support.depdesc_writer import Descriptor, Structure, Template, write_depdesc

VP8, VP9, AV1, OPUS = (CODECS[name] for name in ("vp8", "vp9", "av1", "opus"))
L1T2 = Structure(
    [Template(0, 0, (2, 2)), Template(0, 0, (2, 2), (2,)), Template(0, 1, (0, 1), (1,)), Template(0, 1, (0, 2), (1,))],
    resolutions=[(640, 360)],
)
KEY = write_depdesc(Descriptor(frame_number=7, end=False, structure=L1T2))


def known(view, *names):
    return tuple(view[name] for name in names)


def test_nothing_is_known_of_audio_of_empty_payloads_and_of_unknown_codecs():
    for codec, payload in ((OPUS, b"\x78opus"), (VP8, b""), (VP9, b""), (AV1, b""), (99, b"x")):
        assert set(StreamView(codec).view(payload, True).values()) == {0}


@pytest.mark.parametrize(("codec", "payload"), [(VP8, b"\x10\xff\xff"), (AV1, b"\x10\x32"), (99, b"any bytes")])
def test_a_keyframe_is_what_starts_a_frame_and_carries_a_structure(codec, payload):
    stream = StreamView(codec)
    names = ("source", "start_of_frame", "end_of_frame", "keyframe", "frame_number", "dd_has_structure")
    assert known(stream.view(payload, False, KEY), *names) == (2, 1, 0, 1, 7, 1)
    going_on = write_depdesc(Descriptor(frame_number=7, start=False))
    assert known(stream.view(payload, True, going_on), *names) == (2, 0, 1, 0, 7, 0)
    delta = write_depdesc(Descriptor(template_id=1, frame_number=8))
    assert known(stream.view(payload, True, delta), *names) == (2, 1, 1, 0, 8, 0)


def test_ciphertext_that_looks_like_a_vp8_keyframe_is_overruled():
    stream = StreamView(VP8)
    looks_key = b"\x10\x30cipher"
    assert stream.view(looks_key)["keyframe"] == 1
    stream.view(looks_key, False, KEY)
    assert stream.view(looks_key, True, write_depdesc(Descriptor(template_id=1)))["keyframe"] == 0


def test_layers_come_from_the_template_and_switching_from_its_indications():
    stream = StreamView(VP8)
    assert known(stream.view(b"\x10\x30", False, KEY), "temporal_id", "switch_up", "discardable") == (0, 1, 0)
    names = ("spatial_id", "temporal_id", "switch_up", "discardable")
    by_template = {
        i: known(stream.view(b"\x10\x31", True, write_depdesc(Descriptor(template_id=i))), *names) for i in range(4)
    }
    assert by_template == {0: (0, 0, 1, 0), 1: (0, 0, 1, 0), 2: (0, 1, 0, 1), 3: (0, 1, 1, 0)}
    custom = write_depdesc(Descriptor(template_id=3, dtis=(0, 3)))
    assert known(stream.view(b"\x10\x31", True, custom), *names) == (0, 1, 0, 0)


def test_without_its_structure_the_descriptor_still_tells_starts_and_the_codec_tells_layers():
    dd = write_depdesc(Descriptor(template_id=9, frame_number=3))
    view = StreamView(VP8).view(bytes.fromhex("90208031"), True, dd)
    assert known(view, "source", "start_of_frame", "end_of_frame", "frame_number", "temporal_id") == (2, 1, 1, 3, 2)


def test_what_a_projection_rewrites_is_told_beside_a_dependency_descriptor():
    view = StreamView(VP8).view(bytes.fromhex("90c0 8123 44 30"), False, KEY)
    assert known(view, "source", "picture_id", "picture_id_offset", "picture_id_bytes", "tl0", "tl0_offset") == (
        2, 0x123, 2, 2, 0x44, 4,
    )


@pytest.mark.parametrize("dd", [b"", b"\xc0", b"\xc0\x00", b"\xc0\x00\x01\x80"])
def test_a_malformed_descriptor_is_an_error_whatever_the_payload(dd):
    for payload in (b"", b"\x10\x30"):
        with pytest.raises(WireError, match="E_SHORT"):
            StreamView(VP8).view(payload, False, dd)


def test_a_malformed_payload_leaves_the_cached_structure_alone():
    stream = StreamView(VP8)
    with pytest.raises(WireError):
        stream.view(b"\x90", False, KEY)
    assert stream.view(b"\x10\x30", True, write_depdesc(Descriptor(template_id=3)))["temporal_id"] == 0


@pytest.mark.parametrize(
    ("codec", "payload", "picture_id", "tl0", "rewritten"),
    [
        (VP8, "10 30aa", 5, 6, "10 30aa"),
        (VP8, "9080 7f 31aa", 5, 6, "9080 05 31aa"),
        (VP8, "9080 7f 31aa", 0x185, 6, "9080 05 31aa"),
        (VP8, "9080 b0df 31aa", 5, 6, "9080 8005 31aa"),
        (VP8, "9080 b0df 31aa", 0xffff, 6, "9080 ffff 31aa"),
        (VP8, "90e0 b0df 11 40 31aa", 0x7ffe, 0, "90e0 fffe 00 40 31aa"),
        (VP8, "90f0 12 11 4f 31aa", 0x13, 255, "90f0 13 ff 4f 31aa"),
        (VP8, "9040 11 31aa", 5, 6, "9040 06 31aa"),
        (VP9, "8c 8005 aa", 0x1234, 9, "8c 9234 aa"),
        (VP9, "ac 05 05 07 aa", 6, 8, "ac 06 05 08 aa"),
        (VP9, "bc 8005 05 aa", 6, 8, "bc 8006 05 aa"),
        (AV1, "18 0a01", 5, 6, "18 0a01"),
    ],
)
def test_numbers_are_rewritten_in_their_own_width_and_nothing_else_changes(codec, payload, picture_id, tl0, rewritten):
    assert StreamView(codec).rewrite(bytes.fromhex(payload), picture_id, tl0) == bytes.fromhex(rewritten)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 32767])
def test_a_rewritten_number_is_read_back(number):
    stream = StreamView(VP8)
    view = stream.view(stream.rewrite(bytes.fromhex("90e0 8000 00 00 31"), number, number & 255))
    assert known(view, "picture_id", "tl0") == (number, number & 255)
