"""Attributes of one section become values, and malformed ones are refused with their line."""

import pytest

from relay.sdp import SdpError, parse
from relay.sdp.media import Extmap, Msid, read_parameters, read_rtp
from tests.support.sdp_text import audio, changed, offer, video


def read(*lines: str, base=video, **options):
    description = parse(offer(base("0", *lines, **options)))
    return read_rtp(description, description.sections[0])


def test_formats_carry_name_clock_channels_parameters_and_feedback():
    section = read("a=fmtp:96 Max-FS=12288;max-fr=60", "a=rtcp-fb:* ccm  tmmbr")
    vp8, rtx = section.formats
    assert (vp8.payload_type, vp8.name, vp8.clock_rate_hz, vp8.channels) == (96, "vp8", 90_000, 1)
    assert vp8.feedback == {"goog-remb", "transport-cc", "ccm fir", "nack", "nack pli", "ccm tmmbr"}
    assert vp8.parameter("max-fs") == "12288"
    assert (rtx.name, rtx.parameter("apt"), rtx.feedback) == ("rtx", "96", {"ccm tmmbr"})
    assert read(base=audio).formats[0].channels == 2


def test_feedback_of_payload_types_the_section_does_not_have_is_ignored():
    # Firefox leaves such lines behind after setCodecPreferences.
    assert len(read("a=rtcp-fb:98 nack", "a=rtpmap:98 VP9/90000").formats) == 2


def test_static_payload_types_without_rtpmap_are_no_formats():
    text = changed(offer(audio("0")), "SAVPF 111", "SAVPF 111 0 8")
    description = parse(text)
    assert [f.name for f in read_rtp(description, description.sections[0]).formats] == ["opus"]


def test_extmap_directions_and_parameters():
    section = read("a=extmap:1 urn:a", "a=extmap:9/sendonly urn:b", "a=extmap:3 urn:enc urn:c")
    assert section.extmaps == (
        Extmap(1, "urn:a"),
        Extmap(9, "urn:b", "sendonly", has_direction=True),
        Extmap(3, "urn:enc", has_attributes=True),
    )


def test_simulcast_lists_lose_pause_markers_alternatives_and_undeclared_rids():
    rids = ("a=rid:q send", "a=rid:h send pt=96", "a=rid:f send", "a=rid:r recv")
    section = read(*rids, "a=simulcast:send ~q;h,x;~f;nobody recv r")
    assert (section.send_rids, section.is_simulcast) == (("q", "h", "f"), True)
    assert read(*rids, "a=simulcast:recv r").send_rids == ()
    assert (read(*rids).send_rids, read(*rids).is_simulcast) == (("q", "h", "f"), False)


def test_direction_of_the_session_counts_where_the_section_has_none():
    text = offer(video("0"), session=("a=inactive",))
    for changed_text, direction in ((text, "sendonly"), (changed(text, "a=sendonly\r\n", ""), "inactive")):
        description = parse(changed_text)
        assert read_rtp(description, description.sections[0]).direction == direction
    description = parse(changed(offer(video("0")), "a=sendonly\r\n", ""))
    assert read_rtp(description, description.sections[0]).direction == "sendrecv"


def test_ssrcs_and_groups():
    section = read(
        "a=ssrc-group:SIM 30 10 20",
        "a=ssrc-group:FID 10 11",
        "a=ssrc-group:FID 30 31",
        "a=ssrc-group:FEC-FR 20 21",
        *(f"a=ssrc:{number} cname:here" for number in (10, 11, 20, 21, 30, 31)),
    )
    assert section.primary_ssrcs == (30, 10, 20)
    assert section.rtx_ssrc_of == {10: 11, 30: 31}
    assert section.cname == "here"


@pytest.mark.parametrize(
    ("lines", "msid"),
    [
        ((), Msid("-", "")),
        (("a=msid:stream track",), Msid("stream", "track")),
        (("a=msid:- track",), Msid("-", "track")),
        (("a=msid:stream",), Msid("stream", "")),
        (("a=msid:stream track appdata",), Msid("stream", "track")),
        (("a=ssrc:1 cname:x", "a=ssrc:1 msid:stream track"), Msid("stream", "track")),
    ],
)
def test_msid(lines, msid):
    assert read(*lines).msid == msid


def test_parameters_are_read_in_any_case_and_spacing():
    assert read_parameters("A=1; b = 2 ;flag;;a=3") == {"a": "1", "b": "2", "flag": ""}


@pytest.mark.parametrize(
    "line",
    [
        "a=rtpmap",
        "a=rtpmap:96",
        "a=rtpmap:128 VP8/90000",
        "a=rtpmap:x VP8/90000",
        "a=rtpmap:98 VP8",
        "a=rtpmap:98 VP8/90000/1/1",
        "a=rtpmap:98 V P/90000",
        "a=rtpmap:98 VP8/-1",
        "a=fmtp",
        "a=fmtp:96",
        "a=rtcp-fb",
        "a=rtcp-fb:x nack",
        "a=rtcp-fb:200 nack",
        "a=extmap",
        "a=extmap:",
        "a=extmap:1",
        "a=extmap:x urn:a",
        "a=extmap:99999 urn:a",
        "a=extmap:1/sideways urn:a",
        "a=rid",
        "a=rid:q",
        "a=rid:q both",
        "a=rid:q! send",
        "a=rid:q;h send",
        "a=rid:qqqqqqqqqqqqqqqqq send",
        "a=simulcast",
        "a=simulcast:",
        "a=simulcast:send",
        "a=simulcast:send q recv",
        "a=simulcast:send q send h",
        "a=simulcast:send q;;h",
        "a=ssrc:4294967296 cname:x",
        "a=ssrc",
        "a=ssrc:x cname:x",
        "a=ssrc-group",
        "a=ssrc-group:",
        "a=ssrc-group:FID",
        "a=ssrc-group:FID 1 x",
    ],
)
def test_a_malformed_attribute_is_refused_with_its_line(line):
    text = offer(video("0", line))
    with pytest.raises(SdpError) as refused:
        description = parse(text)
        read_rtp(description, description.sections[0])
    assert refused.value.line == text.split("\r\n").index(line) + 1


def test_unknown_attributes_and_candidates_are_tolerated():
    lines = (
        "a=candidate:not even close",
        "a=sctp-init:AQ==",
        "a=sframe",
        "a=ice-options:trickle goog-sped-v1",
        "a=rtcp-xr:rcvr-rtt=all",
        "a=x-anything:at all",
    )
    assert read(*lines) == read()
