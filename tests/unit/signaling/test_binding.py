"""Which announced track an m-line carries."""

from dataclasses import dataclass

import pytest

from relay.rooms.publication import CodecChoice, Encryption, Layer, Publication
from relay.signaling.publishing import bind_by_name_then_kind


@dataclass(frozen=True)
class Section:
    mid: str
    kind: str
    msid_track: str


def audio(cid: str, **fields) -> Publication:
    return Publication(f"TR_{cid}", "PA_1", cid, False, **fields)


def video(cid: str, **fields) -> Publication:
    return Publication(f"TR_{cid}", "PA_1", cid, True, **fields)


def bound(sections: list[Section], pending: list[Publication]) -> dict[str, str]:
    return {mid: publication.sid for mid, publication in bind_by_name_then_kind(sections, pending).items()}


def test_names_decide_whatever_the_order() -> None:
    sections = [Section("7", "video", "b"), Section("8", "audio", "m"), Section("9", "video", "a")]
    assert bound(sections, [video("a"), video("b"), audio("m")]) == {"7": "TR_b", "8": "TR_m", "9": "TR_a"}


def test_firefox_names_match_nothing_so_the_first_of_the_kind_is_taken() -> None:
    sections = [Section("0", "audio", "{x}"), Section("1", "video", "{y}"), Section("2", "video", "{z}")]
    assert bound(sections, [video("cam"), audio("mic"), video("screen")]) == {
        "0": "TR_mic",
        "1": "TR_cam",
        "2": "TR_screen",
    }


@pytest.mark.parametrize("name", ["", "-"])
def test_a_section_without_a_name_goes_by_kind(name: str) -> None:
    assert bound([Section("0", "video", name)], [audio("m"), video("v")]) == {"0": "TR_v"}


def test_a_named_track_is_not_taken_by_an_earlier_nameless_section() -> None:
    sections = [Section("0", "video", "{unknown}"), Section("1", "video", "screen")]
    assert bound(sections, [video("screen"), video("cam")]) == {"0": "TR_cam", "1": "TR_screen"}


def test_a_name_of_another_kind_does_not_count() -> None:
    assert bound([Section("0", "audio", "v")], [video("v")]) == {}


def test_the_cid_of_a_codec_counts_too() -> None:
    track = video("main", codecs=(CodecChoice("video/vp9", "main"), CodecChoice("video/vp8", "backup")))
    assert bound([Section("0", "video", "backup")], [track]) == {"0": "TR_main"}


def test_a_track_is_carried_once() -> None:
    assert bound([Section("0", "audio", "m"), Section("1", "audio", "m")], [audio("m")]) == {"0": "TR_m"}


def test_nothing_announced_binds_nothing() -> None:
    assert bound([Section("0", "audio", "m")], []) == {}


def test_a_publication_takes_what_frames_of_its_format_can_carry_and_prefers_what_was_announced() -> None:
    backed = (CodecChoice("video/VP9", "a"), CodecChoice("video/vp8", ""))
    track = video("a", codecs=backed, encryption=Encryption.CUSTOM)
    assert (track.possible_codecs, track.preferred_codec) == ({"vp8", "vp9", "av1"}, "vp9")
    assert video("b", encryption=Encryption.GCM).possible_codecs == {"vp8", "h264", "vp9"}
    assert video("c").preferred_codec == "" and audio("d").possible_codecs is None


def test_layers_in_one_stream_are_no_simulcast() -> None:
    layers = tuple(Layer(quality, 320 << quality, 180 << quality) for quality in range(3))
    track = video("a", layers=layers)
    assert track.is_simulcast
    track.bound = True
    assert not track.is_simulcast and len(track.shapes()) == 1
    track.rids = ("q", "h", "f")
    assert track.is_simulcast
