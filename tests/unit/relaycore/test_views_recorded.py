"""Streams recorded from Chromium: what the codec's own descriptor says and what the Dependency Descriptor says agree."""

import tomllib
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest

from relaycore.depdesc import DescriptorReader
from relaycore.views import CODECS, StreamView

RECORDED = {
    path.stem.removeprefix("chromium_"): tomllib.loads(path.read_text())
    for path in sorted((Path(__file__).parents[2] / "vectors/views").glob("chromium_*.toml"))
}
PLAIN = [name for name in RECORDED if name.endswith("_plain")]
WITH_DD = [name for name in RECORDED if not name.endswith("_plain")]


@dataclass
class Packet:
    seq: int
    timestamp: int
    marker: bool
    dd: bytes | None
    payload: bytes


def packets(name):
    for row in RECORDED[name]["packets"]:
        seq, timestamp, marker, size, dd, head = row.split()
        # The cut-off rest is zeros: H264's aggregates need their sizes, nothing needs the bytes.
        payload = bytes.fromhex(head).ljust(int(size), b"\0")
        yield Packet(int(seq), int(timestamp), marker == "1", None if dd == "-" else bytes.fromhex(dd), payload)


def views(name, *, with_dd):
    stream = StreamView(CODECS[RECORDED[name]["codec"]])
    return [(p, stream.view(p.payload, p.marker, p.dd if with_dd else None)) for p in packets(name)]


def test_every_codec_was_recorded_with_and_without_a_dependency_descriptor():
    for names in (PLAIN, WITH_DD):
        assert {RECORDED[name]["codec"] for name in names} == {"vp8", "vp9", "h264", "av1"}
    assert all(p.dd for name in WITH_DD for p in packets(name))


@pytest.mark.parametrize("name", PLAIN)
def test_pictures_start_with_their_first_packet_and_end_with_their_last(name):
    pictures = [[v for _, v in group] for _, group in groupby(views(name, with_dd=False), lambda pv: pv[0].timestamp)]
    assert len(pictures) > 20
    for i, picture in enumerate(pictures):
        last = len(picture) - 1
        assert [v["start_of_frame"] for v in picture] == [1] + [0] * last
        assert [v["end_of_frame"] for v in picture] == [0] * last + [1]
        assert picture[0]["keyframe"] == (i == 0)
    assert all(v["source"] == 1 for picture in pictures for v in picture)


@pytest.mark.parametrize("name", ["vp8_plain", "vp9_plain"])
def test_picture_ids_count_pictures(name):
    pictures = [[v for _, v in group] for _, group in groupby(views(name, with_dd=False), lambda pv: pv[0].timestamp)]
    first = pictures[0][0]["picture_id"]
    for i, picture in enumerate(pictures):
        assert {v["picture_id"] for v in picture} == {(first + i) & 0x7FFF}


@pytest.mark.parametrize("name", WITH_DD)
def test_both_sources_agree_on_starts_and_keyframes(name):
    codec = RECORDED[name]["codec"]
    for (p, told), (_, own) in zip(views(name, with_dd=True), views(name, with_dd=False), strict=True):
        assert (told["source"], own["source"]) == (2, 1)
        assert told["start_of_frame"] == own["start_of_frame"], p.seq
        if told["start_of_frame"]:
            assert told["keyframe"] == own["keyframe"], p.seq
        # AV1's header knows no ends of layer frames: with layers only the picture's last packet is one for sure.
        if codec != "av1" or p.marker:
            assert told["end_of_frame"] == own["end_of_frame"], p.seq
        if codec == "vp9":
            assert (told["spatial_id"], told["temporal_id"]) == (own["spatial_id"], own["temporal_id"]), p.seq


@pytest.mark.parametrize("name", WITH_DD)
def test_frames_are_counted_without_gaps_and_depend_on_frames_that_were_sent(name):
    reader = DescriptorReader()
    seen = set()
    for p in packets(name):
        frame = reader.parse(p.dd)
        number = frame["frame_number"]
        assert frame["is_known"]
        if frame["start_of_frame"]:
            assert not seen or number == max(seen) + 1
            seen.add(number)
        assert number == max(seen)
        assert all(number - fdiff in seen for fdiff in frame["fdiffs"])
        assert all(number - fdiff in seen for fdiff in frame["chains"])
        assert not (frame["has_structure"] and frame["fdiffs"])


SVC_SIZES = [(320, 180), (640, 360), (1280, 720)]


@pytest.mark.parametrize(
    ("name", "templates", "targets", "chains", "sizes", "dd_bytes"),
    [
        ("vp8_l1t3", 7, 3, 0, [(320, 180)], 23),
        ("vp9_l3t3_key", 15, 9, 3, SVC_SIZES, 92),
        ("av1_l3t3_key", 15, 9, 3, SVC_SIZES, 92),
        ("h264_l1t2", 3, 2, 1, [], 11),
    ],
)
def test_structures_have_the_shape_that_the_mode_asks_for(name, templates, targets, chains, sizes, dd_bytes):
    reader = DescriptorReader()
    first = next(iter(packets(name)))
    reader.parse(first.dd)
    cached = reader.cached()
    assert len(first.dd) == dd_bytes and cached["raw"] == first.dd
    assert len(cached["templates"]) == templates
    assert cached["decode_target_count"] == targets
    assert {len(t["chains"]) for t in cached["templates"]} == {chains}
    assert cached["resolutions"] == sizes
