"""Codec policy: what is taken of an offer, what the answer asks, how formats are told apart."""

import pytest

from relay.sdp import Codec, CodecPolicy, TrackOptions
from relay.sdp.codecs import agree, answered_parameters, h264_key, opus_parameters, same_format, taken_feedback
from relay.sdp.media import PayloadFormat
from relay.sdp.payload_types import as_offered

OPUS = PayloadFormat(111, "opus", 48_000, 2, "minptime=10;useinbandfec=1")
RED = PayloadFormat(63, "red", 48_000, 2, "111/111")
VP8 = PayloadFormat(96, "vp8", 90_000)
VP8_RTX = PayloadFormat(97, "rtx", 90_000, 1, "apt=96")


def names(kind, *offered, options: TrackOptions | None = None, policy: CodecPolicy | None = None):
    return [taken.name for taken, _ in agree(kind, offered, policy or CodecPolicy(), options)]


def h264(profile: str, mode: int | None = 1, number: int = 102) -> PayloadFormat:
    mode_text = "" if mode is None else f"packetization-mode={mode};"
    return PayloadFormat(number, "h264", 90_000, 1, f"level-asymmetry-allowed=1;{mode_text}profile-level-id={profile}")


@pytest.mark.parametrize(
    ("profile", "mode", "key"),
    [
        ("42001f", 1, ("baseline", "1")),
        ("42001f", 0, ("baseline", "0")),
        ("42e01f", 1, ("constrained-baseline", "1")),
        ("42C02A", 1, ("constrained-baseline", "1")),
        ("4d001f", 1, ("main", "1")),
        ("4d8028", None, ("constrained-baseline", "0")),
        ("640032", 1, None),
        ("f4001f", 1, None),
        ("58001f", 1, None),
        ("42001f", 2, None),
        ("42e0", 1, None),
        ("42e0zz", 1, None),
    ],
)
def test_h264_is_told_apart_by_profile_and_packetization_mode(profile, mode, key):
    assert h264_key(h264(profile, mode).parameters) == key
    assert names("video", h264(profile, mode), options=TrackOptions()) == (["h264"] if key else [])


def test_h264_without_parameters_is_baseline_in_single_nal_mode():
    assert h264_key("") == ("baseline", "0")


def test_h264_matches_over_levels_but_not_over_profiles():
    assert same_format("h264", h264("42e01f").parameters, h264("42e034").parameters)
    assert not same_format("h264", h264("42e01f").parameters, h264("42001f").parameters)
    assert not same_format("h264", h264("42e01f", 1).parameters, h264("42e01f", 0).parameters)


def test_the_clients_order_is_kept_and_unknown_formats_are_dropped():
    offered = (
        PayloadFormat(98, "vp9", 90_000, 1, "profile-id=0"),
        PayloadFormat(35, "h265", 90_000),
        h264("42e01f"),
        VP8,
        PayloadFormat(45, "av1", 90_000),
        PayloadFormat(118, "red", 90_000),
        PayloadFormat(120, "ulpfec", 90_000),
        PayloadFormat(49, "flexfec-03", 90_000),
    )
    assert names("video", *offered, options=TrackOptions()) == ["vp9", "h264", "vp8", "av1"]


def test_a_preferred_codec_comes_first_and_one_that_is_not_offered_changes_nothing():
    vp9 = PayloadFormat(98, "vp9", 90_000, 1, "profile-id=0")
    assert names("video", VP8, h264("42e01f"), vp9, options=TrackOptions(preferred="vp9")) == ["vp9", "vp8", "h264"]
    assert names("video", VP8, vp9, options=TrackOptions(preferred="av1")) == ["vp8", "vp9"]
    narrow = TrackOptions(codecs=frozenset(("vp8",)), preferred="vp9")
    assert names("video", VP8, vp9, options=narrow) == ["vp8"]


def test_profiles_that_are_not_forwarded_are_dropped():
    vp9_2 = PayloadFormat(100, "vp9", 90_000, 1, "profile-id=2")
    av1_1 = PayloadFormat(47, "av1", 90_000, 1, "level-idx=5;profile=1;tier=0")
    assert names("video", vp9_2, av1_1) == []


def test_wrong_clocks_channels_and_numbers_that_look_like_rtcp_are_dropped():
    mono = PayloadFormat(111, "opus", 48_000, 1)
    slow = PayloadFormat(96, "vp8", 8_000)
    like_rtcp = PayloadFormat(72, "vp8", 90_000)
    assert names("audio", mono) == names("video", slow) == names("video", like_rtcp) == []


def test_red_is_taken_only_when_asked_for_and_then_comes_first():
    assert names("audio", OPUS, RED, options=TrackOptions()) == ["opus"]
    assert names("audio", OPUS, RED, options=TrackOptions(red=True)) == ["red", "opus"]
    assert names("audio", OPUS, RED, options=None) == ["opus", "red"]
    foreign = PayloadFormat(63, "red", 48_000, 2, "111/0")
    assert names("audio", OPUS, foreign, options=TrackOptions(red=True)) == ["opus"]
    assert names("audio", RED, options=TrackOptions(red=True)) == []


def test_options_and_policy_narrow_by_name():
    assert names("video", VP8, h264("42e01f"), options=TrackOptions(codecs=frozenset({"h264"}))) == ["h264"]
    only = CodecPolicy(video=frozenset({"vp8"}))
    assert names("video", VP8, h264("42e01f"), policy=only) == ["vp8"]
    assert names("audio", OPUS, RED, options=TrackOptions(red=True, codecs=frozenset({"opus"}))) == ["red", "opus"]
    with pytest.raises(ValueError, match="h265"):
        CodecPolicy(video=frozenset({"h265"}))


def test_rtx_goes_with_the_format_it_names():
    vp9 = PayloadFormat(98, "vp9", 90_000)
    stray = PayloadFormat(99, "rtx", 90_000, 1, "apt=100")
    slow = PayloadFormat(101, "rtx", 48_000, 1, "apt=98")
    assert agree("video", (VP8, VP8_RTX, vp9, stray, slow), CodecPolicy(), None) == [(VP8, VP8_RTX), (vp9, None)]


def test_opus_asks_for_silence_and_channels_as_told():
    assert answered_parameters(OPUS, stereo=False, dtx=True) == "minptime=10;useinbandfec=1;usedtx=1"
    assert answered_parameters(OPUS, stereo=True, dtx=False) == "minptime=10;useinbandfec=1;stereo=1"


def test_what_a_client_writes_beside_known_parameters_does_not_come_back():
    offer = PayloadFormat(102, "h264", 90_000, 1, "profile-level-id=42e01f;packetization-mode=1;sprop=AA==;x=a b")
    assert answered_parameters(offer, stereo=False, dtx=True) == "packetization-mode=1;profile-level-id=42e01f"
    assert answered_parameters(PayloadFormat(120, "vp8", 90_000, 1, "max-fs=12288"), stereo=False, dtx=True) == ""


@pytest.mark.parametrize(
    ("kind", "offered", "has_transport_cc", "taken"),
    [
        ("video", {"nack", "nack pli", "ccm fir", "transport-cc", "goog-remb", "nack rpsi"}, True,
         ["nack", "nack pli", "ccm fir", "transport-cc"]),
        ("video", {"nack", "transport-cc", "goog-remb"}, False, ["nack", "goog-remb"]),
        ("video", {"goog-remb"}, True, ["goog-remb"]),
        ("audio", {"transport-cc", "nack", "goog-remb"}, True, ["transport-cc", "nack"]),
        ("audio", {"transport-cc"}, False, []),
    ],
)  # fmt: skip
def test_feedback_is_taken_once_per_purpose(kind, offered, has_transport_cc, taken):
    assert taken_feedback(kind, frozenset(offered), has_transport_cc=has_transport_cc) == taken


def test_offered_numbers_mean_one_format_each():
    opus = Codec(109, "opus", 48_000, None, 2)
    red = Codec(63, "red", 48_000, None, 2, "109/109")
    video = [
        Codec(1, "vp8", 90_000, 2), Codec(1, "vp9", 90_000, 2, 1, "profile-id=0"), Codec(1, "av1", 90_000, 2),
        *(Codec(1, "h264", 90_000, 2, 1, h264(profile, mode).parameters)
          for profile in ("42001f", "42e01f", "4d001f") for mode in (0, 1)),
    ]  # fmt: skip
    rows = [
        *as_offered([red, opus], stereo=False),
        *as_offered([red, opus], stereo=True),
        *as_offered(video, stereo=False),
    ]
    assert len(rows) == 13
    numbers = [n for row in rows for n in (row.payload_type, row.rtx_payload_type) if n is not None]
    assert len(set(numbers)) == len(numbers)
    assert all(35 <= number <= 127 and not 64 <= number < 96 for number in numbers)
    assert rows[:2] == [
        Codec(63, "red", 48_000, None, 2, "111/111"),
        Codec(111, "opus", 48_000, None, 2, opus_parameters(stereo=False, dtx=False)),
    ]
    # What a publisher wrote does not reach other clients, apart from the profile.
    odd = Codec(1, "h264", 90_000, 2, 1, "profile-level-id=42c034;packetization-mode=1;x=y")
    assert h264_key(as_offered([odd], stereo=False)[0].parameters) == ("constrained-baseline", "1")
    assert "x=y" not in as_offered([odd], stereo=False)[0].parameters


def test_mime_types_are_spelt_as_clients_spell_them():
    spelt = {Codec(1, n, 1).mime_type for n in ("opus", "red", "vp8", "vp9", "h264", "av1")}
    assert spelt == {"audio/opus", "audio/red", "video/VP8", "video/VP9", "video/H264", "video/AV1"}
