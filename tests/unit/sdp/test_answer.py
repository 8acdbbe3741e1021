"""Answers to a publisher's offers: roles, bundle, extensions, simulcast, and what is refused."""

from dataclasses import replace

import pytest

from relay.sdp import (
    Codec,
    CodecPolicy,
    LocalTransport,
    PublisherNegotiation,
    SdpError,
    TrackOptions,
    extensions,
    parse,
)
from tests.support import subscriber_scenario as tracks
from tests.support.sdp_text import (
    ABS_SEND_TIME_URI,
    FINGERPRINT,
    MID_URI,
    OPUS,
    RED,
    RID_URI,
    TRANSPORT_CC_URI,
    audio,
    changed,
    data,
    offer,
    section,
    video,
)
from tests.support.subscriber_scenario import LOCAL

RIDS = ("a=rid:q send", "a=rid:h send", "a=rid:f send", "a=simulcast:send q;h;f")
RID_EXTMAP = f"a=extmap:10 {RID_URI}"


def answer(text: str, options=None, publisher: PublisherNegotiation | None = None, local: LocalTransport = LOCAL):
    return (publisher or PublisherNegotiation()).answer(text, local, options)


def sections(answered) -> tuple:
    return parse(answered.sdp).sections


def values(block, name: str) -> list[str | None]:
    return [attribute.value for attribute in block.all(name)]


def group(answered) -> str | None:
    attribute = parse(answered.sdp).first("group")
    return attribute and attribute.value


# Roles and the transport.


@pytest.mark.parametrize(
    ("setup", "role", "answered_setup"),
    [("actpass", "server", "passive"), ("active", "server", "passive"), ("passive", "client", "active")],
)
def test_passive_unless_the_client_insists(setup, role, answered_setup):
    answered = answer(offer(audio("0")).replace("actpass", setup))
    assert answered.role == role
    assert values(sections(answered)[0], "setup") == [answered_setup]


def test_the_role_is_settled_for_life():
    publisher = PublisherNegotiation()
    answer(offer(audio("0")).replace("actpass", "passive"), publisher=publisher)
    assert publisher.role == "client"
    again = answer(offer(audio("0")), publisher=publisher)
    assert (again.role, values(sections(again)[0], "setup")) == ("client", ["active"])
    with pytest.raises(SdpError, match="settled"):
        answer(offer(audio("0")).replace("actpass", "active"), publisher=publisher)
    with pytest.raises(SdpError, match="a=setup is"):
        answer(offer(audio("0")).replace("actpass", "holdconn"))


def test_local_transport_is_written_once_with_all_candidates():
    answered = answer(offer(audio("0"), video("1"), data("2")))
    first, *others = sections(answered)
    assert values(first, "candidate") == [
        "1 1 udp 2130706431 127.0.0.1 7882 typ host",
        "2 1 udp 2130706175 ::1 7882 typ host",
    ]
    assert first.has("end-of-candidates")
    for each in (first, *others):
        assert values(each, "ice-ufrag") == ["relay123"]
        assert values(each, "fingerprint") == [LOCAL.fingerprint]
        assert (each.port, each.lines) == (9, (("c", "IN IP4 0.0.0.0"),))
    assert not any(each.has("candidate") for each in others)
    assert parse(answered.sdp).has("ice-lite")


def test_the_remote_transport_comes_from_section_or_session():
    text = offer(audio("0"), session=(f"a=fingerprint:{FINGERPRINT}", "a=ice-ufrag:other"))
    remote = answer(text).remote
    assert (remote.ufrag, remote.password) == ("user", "passwordpasswordpassword")
    assert remote.fingerprints == (("sha-256", FINGERPRINT.split()[1]),)
    at_session = changed(
        changed(text, f"a=fingerprint:{FINGERPRINT}\r\na=setup", "a=setup"), "a=ice-ufrag:user\r\n", ""
    )
    assert answer(at_session).remote.ufrag == "other"
    assert answer(at_session).fingerprints == remote.fingerprints


def test_passwords_are_not_in_what_is_printed():
    assert "password" + "password" not in repr(answer(offer(audio("0"))).remote) + repr(LOCAL)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("a=ice-ufrag:user\r\n", "", "ice-ufrag is missing"),
        ("a=ice-ufrag:user", "a=ice-ufrag:usr", "a=ice-ufrag has 4 to 256"),
        ("a=ice-ufrag:user", "a=ice-ufrag:us er", "a=ice-ufrag has 4 to 256"),
        ("a=ice-pwd:passwordpasswordpassword\r\n", "", "ice-pwd is missing"),
        ("a=ice-pwd:passwordpasswordpassword", "a=ice-pwd:short", "a=ice-pwd has 22 to 256"),
        (f"a=fingerprint:{FINGERPRINT}\r\n", "", "fingerprint is missing"),
        ("sha-256 0A", "sha-1 0A", "fingerprint is missing"),
        ("sha-256 0A:", "sha-256 0G:", "32 octets"),
        ("sha-256 0A:", "sha-256 ", "32 octets"),
        ("a=mid:0\r\n", "", "needs an a=mid"),
        ("a=mid:0", "a=mid:a-mid-of-17-chars", "at most 16"),
        ("BUNDLE 0", "BUNDLE 0 7", "names '7'"),
    ],
)
def test_what_a_transport_needs_is_asked_for(old, new, says):
    publisher = PublisherNegotiation()
    with pytest.raises(SdpError, match=says):
        answer(changed(offer(audio("0"), group="BUNDLE 0"), old, new), publisher=publisher)
    # Nothing has changed: the client may try again.
    assert publisher.role is None
    answer(offer(audio("0")), publisher=publisher)


def test_an_offer_without_sections_and_one_with_a_mid_twice_are_refused():
    with pytest.raises(SdpError, match="at least one"):
        answer(offer())
    with pytest.raises(SdpError, match="stands twice"):
        answer(offer(audio("0"), audio("0"), group="BUNDLE 0"))


def test_ice_restart_is_seen_before_and_in_the_answer():
    publisher = PublisherNegotiation()
    assert not answer(offer(audio("0")), publisher=publisher).ice_restarted
    assert not publisher.inspect(offer(audio("0"))).ice_restarted
    restarted = offer(audio("0")).replace("ice-ufrag:user", "ice-ufrag:resu")
    assert publisher.inspect(restarted).ice_restarted
    fresh = LocalTransport("fresh", "p" * 22, LOCAL.fingerprint, LOCAL.candidates)
    answered = answer(restarted, publisher=publisher, local=fresh)
    assert answered.ice_restarted
    assert values(sections(answered)[0], "ice-ufrag") == ["fresh"]
    assert not publisher.inspect(restarted).ice_restarted


def test_another_certificate_needs_another_connection():
    publisher = PublisherNegotiation()
    answer(offer(audio("0")), publisher=publisher)
    with pytest.raises(SdpError, match="fingerprint changed"):
        answer(offer(audio("0")).replace("sha-256 0A", "sha-256 0B"), publisher=publisher)


def test_one_session_id_and_a_rising_version():
    publisher = PublisherNegotiation()
    fresh = LocalTransport("fresh", "p" * 22, LOCAL.fingerprint, LOCAL.candidates)
    origins = [parse(answer(offer(audio("0")), publisher=publisher, local=x).sdp).origin for x in (LOCAL, fresh)]
    assert [origin.version for origin in origins] == ["0", "1"]
    assert origins[0].session_id == origins[1].session_id
    assert int(origins[0].session_id) < 1 << 62


# Bundle and rejection.


def test_a_section_without_an_acceptable_codec_is_refused_and_leaves_the_bundle():
    h265 = section("video", "1", "35", "a=rtpmap:35 H265/90000", *RIDS)
    answered = answer(offer(audio("0"), h265, video("2")))
    assert group(answered) == "BUNDLE 0 2"
    refused = sections(answered)[1]
    assert (refused.port, refused.formats, values(refused, "mid")) == (0, ("35",), ["1"])
    assert not refused.has("bundle-only") and not refused.has("ice-ufrag")
    assert answered.refused == ("1",)
    assert [track.mid for track in answered.tracks] == ["0", "2"]


def test_the_next_section_carries_the_address_when_the_first_is_refused():
    first = section("video", "0", "35", "a=rtpmap:35 H265/90000")
    answered = answer(offer(first, audio("1")))
    assert group(answered) == "BUNDLE 1"
    assert [each.has("candidate") for each in sections(answered)] == [False, True]


def test_everything_refused_is_still_an_answer():
    answered = answer(offer(section("video", "0", "35", "a=rtpmap:35 H265/90000")))
    assert group(answered) is None
    assert (answered.tracks, answered.extensions, answered.refused) == ((), {}, ("0",))
    assert sections(answered)[0].port == 0


def test_port_0_with_bundle_only_lives_and_without_it_has_ended():
    text = offer(audio("0"), video("1", "a=bundle-only", port=0), video("2", port=0), group="BUNDLE 0 1")
    answered = answer(text)
    assert group(answered) == "BUNDLE 0 1"
    assert [each.port for each in sections(answered)] == [9, 9, 0]
    assert [track.mid for track in answered.tracks] == ["0", "1"]
    assert not sections(answered)[1].has("bundle-only")


def test_sections_outside_the_bundle_have_no_transport_of_ours():
    answered = answer(offer(audio("0"), video("1"), group="BUNDLE 1"))
    assert group(answered) == "BUNDLE 1"
    assert [each.port for each in sections(answered)] == [0, 9]
    without_group = answer(offer(audio("0"), video("1"), group=""))
    assert group(without_group) is None
    assert [each.port for each in sections(without_group)] == [9, 0]
    assert without_group.refused == ()


@pytest.mark.parametrize("line", ["a=group", "a=group:", "a=group:LS 0 1", "a=group:BUNDLE"])
def test_a_group_that_bundles_nothing_is_no_group(line):
    answered = answer(offer(audio("0"), video("1"), group="", session=(line,)))
    assert group(answered) is None
    assert [each.port for each in sections(answered)] == [9, 0]


def test_the_group_keeps_the_offers_order():
    answered = answer(offer(audio("0"), video("1"), data("2"), group="BUNDLE 2 1 0"))
    assert group(answered) == "BUNDLE 2 1 0"
    assert [each.has("candidate") for each in sections(answered)] == [False, False, True]


def test_media_without_rtcp_mux_is_refused():
    answered = answer(changed(offer(audio("0")), "a=rtcp-mux\r\n", ""))
    assert answered.refused == ("0",)


@pytest.mark.parametrize(
    "head", ["m=audio 9 RTP/AVP 111", "m=text 9 UDP/TLS/RTP/SAVPF 111", "m=application 9 UDP/BFCP *", "m=image 9 udptl t38"]
)  # fmt: skip
def test_other_protocols_and_media_are_refused_in_place(head):
    text = changed(offer(audio("0"), video("1")), "m=audio 9 UDP/TLS/RTP/SAVPF 111", head)
    answered = answer(text)
    assert [each.port for each in sections(answered)] == [0, 9]
    assert str(sections(answered)[0]).startswith(head.replace(" 9 ", " 0 "))


def test_data_channels_alone_and_a_second_application_section():
    answered = answer(offer(data("0"), data("1")))
    assert (answered.sctp.mid, answered.sctp.port, answered.sctp.max_message_bytes) == ("0", 5000, 262_144)
    first, second = sections(answered)
    assert (first.protocol, first.formats) == ("UDP/DTLS/SCTP", ("webrtc-datachannel",))
    assert values(first, "sctp-port") == ["5000"]
    assert values(first, "max-message-size") == ["65536"]
    assert second.port == 0
    assert answer(offer(audio("0"))).sctp is None


def test_data_channel_numbers_have_defaults_and_bounds():
    bare = changed(changed(offer(data("0")), "a=sctp-port:5000\r\n", ""), "a=max-message-size:262144\r\n", "")
    assert (answer(bare).sctp.port, answer(bare).sctp.max_message_bytes) == (5000, 65_536)
    with pytest.raises(SdpError, match="an SCTP port"):
        answer(changed(offer(data("0")), "sctp-port:5000", "sctp-port:70000"))


# Codecs, feedback, extensions, simulcast.


def test_payload_types_and_order_are_the_clients():
    lines = (
        "a=rtpmap:45 AV1/90000", "a=rtpmap:46 rtx/90000", "a=fmtp:46 apt=45",
        "a=rtpmap:120 VP8/90000", "a=rtpmap:124 rtx/90000", "a=fmtp:124 apt=120", "a=rtpmap:118 red/90000",
    )  # fmt: skip
    answered = answer(offer(section("video", "0", "120 124 45 46 118", *lines)))
    assert sections(answered)[0].formats == ("120", "124", "45", "46")
    assert [(c.name, c.payload_type, c.rtx_payload_type) for c in answered.tracks[0].codecs] == [
        ("vp8", 120, 124),
        ("av1", 45, 46),
    ]
    assert values(sections(answered)[0], "rtpmap") == [
        "120 VP8/90000", "124 rtx/90000", "45 AV1/90000", "46 rtx/90000",
    ]  # fmt: skip


def test_remb_only_stands_in_for_transport_wide_feedback():
    with_cc = answer(offer(video("0", f"a=extmap:3 {TRANSPORT_CC_URI}")))
    assert values(sections(with_cc)[0], "rtcp-fb") == ["96 nack", "96 nack pli", "96 ccm fir", "96 transport-cc"]
    without = answer(offer(video("0")))
    assert values(sections(without)[0], "rtcp-fb") == ["96 nack", "96 nack pli", "96 ccm fir", "96 goog-remb"]


def test_reduced_size_rtcp_and_mixed_extension_headers_are_taken_where_offered():
    answered = answer(offer(audio("0"), video("1", "a=rtcp-rsize"), session=("a=extmap-allow-mixed",)))
    assert [each.has("rtcp-rsize") for each in sections(answered)] == [False, True]
    assert parse(answered.sdp).has("extmap-allow-mixed")
    in_section = answer(offer(audio("0", "a=extmap-allow-mixed")))
    assert not parse(in_section.sdp).has("extmap-allow-mixed")
    assert sections(in_section)[0].has("extmap-allow-mixed")


def test_extensions_keep_the_clients_ids_and_turn_directions_round():
    answered = answer(
        offer(
            audio("0", f"a=extmap:4 {MID_URI}", "a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:csrc-audio-level"),
            video(
                "1",
                f"a=extmap:4 {MID_URI}",
                f"a=extmap:9/sendonly {RID_URI}",
                "a=extmap:6/recvonly urn:3gpp:video-orientation",
                f"a=extmap:17 {TRANSPORT_CC_URI}",
                f"a=extmap:14 {ABS_SEND_TIME_URI}",
                "a=extmap:13 urn:ietf:params:rtp-hdrext:toffset",
            ),
        )
    )
    assert values(sections(answered)[0], "extmap") == [f"4 {MID_URI}"]
    assert values(sections(answered)[1], "extmap") == [
        f"4 {MID_URI}", f"9/recvonly {RID_URI}", f"14 {ABS_SEND_TIME_URI}",
    ]  # fmt: skip
    assert answered.extensions == {MID_URI: 4, RID_URI: 9, ABS_SEND_TIME_URI: 14}


def test_absolute_send_time_is_left_out_beside_transport_wide_feedback():
    extmaps = (f"a=extmap:2 {ABS_SEND_TIME_URI}", f"a=extmap:3 {TRANSPORT_CC_URI}")
    assert answer(offer(video("0", *extmaps))).extensions == {TRANSPORT_CC_URI: 3}


def test_an_id_means_one_extension_over_the_bundle():
    answered = answer(
        offer(
            audio("0", f"a=extmap:4 {MID_URI}"),
            video("1", f"a=extmap:5 {MID_URI}", f"a=extmap:4 {RID_URI}", f"a=extmap:6 {TRANSPORT_CC_URI}"),
        )
    )
    assert answered.extensions == {MID_URI: 4, TRANSPORT_CC_URI: 6}
    assert values(sections(answered)[1], "extmap") == [f"6 {TRANSPORT_CC_URI}"]


def test_simulcast_is_answered_rid_by_rid():
    answered = answer(offer(video("0", RID_EXTMAP, *RIDS[:3], "a=simulcast:send ~q;h;f", "a=ssrc:1 cname:here")))
    assert values(sections(answered)[0], "rid") == ["q recv", "h recv", "f recv"]
    assert values(sections(answered)[0], "simulcast") == ["recv q;h;f"]
    track = answered.tracks[0]
    assert (track.rids, track.ssrcs, track.rtx_ssrcs, track.cname) == (("q", "h", "f"), (), (), "here")


@pytest.mark.parametrize(
    ("listed", "rids"),
    [("f;h;q", ("q", "h", "f")), ("h;q", ("q", "h")), ("2;1;0", ("2", "1", "0")), ("q;x;f", ("q", "x", "f"))],
)
def test_known_names_give_the_order_from_low_to_high(listed, rids):
    lines = [f"a=rid:{rid} send" for rid in listed.split(";")]
    text = offer(video("0", RID_EXTMAP, *lines, f"a=simulcast:send {listed}"))
    answered = answer(text)
    assert answered.tracks[0].rids == PublisherNegotiation().inspect(text).tracks[0].rids == rids
    # The answer itself repeats the client's order.
    assert values(sections(answered)[0], "simulcast") == [f"recv {listed}"]


def test_simulcast_needs_the_rid_extension_and_has_four_encodings_at_most():
    answered = answer(offer(video("0", *RIDS)))
    assert answered.tracks[0].rids == ()
    assert not sections(answered)[0].has("simulcast") and not sections(answered)[0].has("rid")
    names = "abcde"
    lines = [f"a=rid:{name} send" for name in names]
    answered = answer(offer(video("0", RID_EXTMAP, *lines, "a=simulcast:send " + ";".join(names))))
    assert answered.tracks[0].rids == tuple("abcd")
    assert values(sections(answered)[0], "simulcast") == ["recv a;b;c;d"]


def test_one_rid_without_a_simulcast_line_is_taken_as_it_is():
    answered = answer(offer(video("0", RID_EXTMAP, "a=rid:one send")))
    assert values(sections(answered)[0], "rid") == ["one recv"]
    assert not sections(answered)[0].has("simulcast")
    assert answered.tracks[0].rids == ("one",)


def test_announced_ssrcs_stand_beside_their_rtx_ssrcs():
    lines = ("a=ssrc-group:FID 1 2", "a=ssrc:1 cname:x", "a=ssrc:2 cname:x", "a=ssrc:3 cname:x")
    track = answer(offer(video("0", *lines, "a=msid:- camera"))).tracks[0]
    assert (track.ssrcs, track.rtx_ssrcs) == ((1, 3), (2, 0))
    assert (track.msid_stream, track.msid_track) == ("-", "camera")


def test_sections_that_only_receive_are_answered_inactive_with_all_a_client_may_offer_later():
    rid = f"a=extmap:10 {RID_URI}"
    red = (*OPUS, *RED)
    text = offer(
        section("audio", "0", "111 63", *red, direction="recvonly"),
        video("1", rid, direction="recvonly"),
        video("2", rid, direction="inactive"),
    )
    answered = answer(text)
    assert [each.has("inactive") for each in sections(answered)] == [True, True, True]
    assert sections(answered)[0].formats == ("111", "63")
    assert sections(answered)[1].formats == ("96", "97")
    assert answered.extensions == {RID_URI: 10}
    assert (answered.tracks, answered.refused) == ((), ())


# Options of tracks.


def opus_lines(answered) -> list[str]:
    return [value for each in sections(answered) for value in values(each, "fmtp") if value.startswith("111")]


def test_opus_asks_for_silence_unless_told_and_for_stereo_on_request():
    assert opus_lines(answer(offer(audio("0")))) == ["111 minptime=10;useinbandfec=1;usedtx=1"]
    assert opus_lines(answer(offer(audio("0")), {"0": TrackOptions(dtx=False, stereo=True)})) == [
        "111 minptime=10;useinbandfec=1;stereo=1"
    ]


def test_a_client_that_sends_both_channels_is_asked_for_them():
    mono, stereo = "a=fmtp:111 stereo=1;useinbandfec=1", "a=fmtp:111 useinbandfec=1;sprop-stereo=1"
    text = offer(
        *(section("audio", mid, "111", "a=rtpmap:111 opus/48000/2", fmtp) for mid, fmtp in (("0", mono), ("1", stereo)))
    )
    answered = answer(text)
    assert [media.stereo for media in answered.tracks] == [False, True]
    assert opus_lines(answered) == ["111 minptime=10;useinbandfec=1;usedtx=1;stereo=1"] * 2
    assert (
        opus_lines(answer(text.replace("sprop-stereo=1", "sprop-stereo=0")))
        == ["111 minptime=10;useinbandfec=1;usedtx=1"] * 2
    )


def test_one_payload_type_has_one_format_line_over_the_bundle():
    text = offer(audio("0"), audio("1"), audio("2", direction="recvonly"))
    answered = answer(text, {"1": TrackOptions(stereo=True, dtx=False)})
    assert opus_lines(answered) == ["111 minptime=10;useinbandfec=1;stereo=1"] * 3


def test_a_format_line_that_differs_between_sections_is_answered_as_the_first_had_it():
    def h264(mid: str, level: str) -> list[str]:
        fmtp = f"a=fmtp:102 packetization-mode=1;profile-level-id=42e0{level}"
        return section("video", mid, "102", "a=rtpmap:102 H264/90000", fmtp)

    answered = answer(offer(h264("0", "1f"), h264("1", "34")))
    assert [values(each, "fmtp") for each in sections(answered)] == [
        ["102 packetization-mode=1;profile-level-id=42e01f"]
    ] * 2


def test_red_is_answered_first_where_allowed_and_nowhere_else():
    text = offer(*(section("audio", mid, "111 63", *OPUS, *RED) for mid in "01"))
    answered = answer(text, {"1": TrackOptions(red=True)})
    assert [each.formats for each in sections(answered)] == [("111",), ("63", "111")]
    assert [[codec.name for codec in track.codecs] for track in answered.tracks] == [["opus"], ["red", "opus"]]


def test_a_track_and_the_policy_narrow_the_codecs():
    vp9 = ("a=rtpmap:98 VP9/90000", "a=fmtp:98 profile-id=0")
    text = offer(section("video", "0", "96 98", "a=rtpmap:96 VP8/90000", *vp9))
    assert sections(answer(text, {"0": TrackOptions(codecs=frozenset({"vp9"}))}))[0].formats == ("98",)
    strict = PublisherNegotiation(CodecPolicy(video=frozenset({"vp8"})))
    assert sections(answer(text, publisher=strict))[0].formats == ("96",)
    assert answer(text, {"0": TrackOptions(codecs=frozenset({"av1"}))}).refused == ("0",)


def test_a_payload_type_that_changes_its_meaning_within_the_bundle_counts_once():
    other = section("video", "1", "96 98", "a=rtpmap:96 VP9/90000", "a=rtpmap:98 VP9/90000")
    answered = answer(offer(video("0"), other))
    assert [each.formats for each in sections(answered)] == [("96", "97"), ("98",)]


# A connection's life.


def test_stopped_tracks_are_told_once():
    publisher = PublisherNegotiation()
    answer(offer(audio("0"), video("1")), publisher=publisher)
    second = answer(offer(audio("0"), video("1", direction="inactive")), publisher=publisher)
    assert (second.stopped, [track.mid for track in second.tracks]) == (("1",), ["0"])
    third = answer(offer(audio("0", direction="recvonly"), video("1")), publisher=publisher)
    assert (third.stopped, [track.mid for track in third.tracks]) == (("0",), ["1"])
    ended = answer(offer(audio("0"), video("1", port=0), group="BUNDLE 0"), publisher=publisher)
    assert ended.stopped == ("1",)
    assert answer(offer(audio("0"), video("1", port=0), group="BUNDLE 0"), publisher=publisher).stopped == ()


def test_sections_keep_their_place_until_they_have_ended():
    publisher = PublisherNegotiation()
    answer(offer(audio("0"), video("1")), publisher=publisher)
    with pytest.raises(SdpError, match="keeps all m= lines"):
        answer(offer(audio("0")), publisher=publisher)
    with pytest.raises(SdpError, match="audio section with mid 0 stands here"):
        answer(offer(audio("5"), video("1")), publisher=publisher)
    with pytest.raises(SdpError, match="video section with mid 1 stands here"):
        answer(offer(audio("0"), audio("1")), publisher=publisher)
    answer(offer(audio("0"), video("1", port=0), group="BUNDLE 0"), publisher=publisher)
    recycled = answer(offer(audio("0"), audio("2"), video("3")), publisher=publisher)
    assert [track.mid for track in recycled.tracks] == ["0", "2", "3"]


def test_inspecting_changes_nothing():
    publisher = PublisherNegotiation()
    text = offer(audio("0", "a=msid:s a"), video("1", RID_EXTMAP, *RIDS), data("2"))
    first, second = publisher.inspect(text), publisher.inspect(text)
    assert first == second
    assert [(s.mid, s.kind, s.msid_track, s.rids) for s in first.tracks] == [
        ("0", "audio", "a", ()),
        ("1", "video", "", ("q", "h", "f")),
    ]
    assert first.has_sctp and publisher.role is None


def test_an_answer_reads_back_as_what_was_written():
    answered = answer(offer(audio("0"), video("1", RID_EXTMAP, *RIDS), data("2")))
    assert str(parse(answered.sdp)) == answered.sdp
    assert answered.sdp.endswith("\r\n")


# One connection for both directions.

DD_URI, PLAYOUT_URI = extensions.DEPENDENCY_DESCRIPTOR, extensions.PLAYOUT_DELAY
RECEIVED = {"direction": "recvonly"}


def test_a_track_of_ours_goes_out_where_the_client_would_receive_one():
    publisher = PublisherNegotiation()
    text = offer(audio("0", **RECEIVED), video("1", **RECEIVED), video("2", **RECEIVED), video("3"))
    assert [(each.mid, each.kind) for each in publisher.inspect(text).receiving] == [
        ("0", "audio"), ("1", "video"), ("2", "video"),
    ]  # fmt: skip
    sent = {"0": tracks.sent(1, tracks.OPUS), "2": tracks.sent(2, tracks.VP8)}
    answered = publisher.answer(text, LOCAL, None, sent)
    directions = [next(a.name for a in block.attributes if a.name.endswith(("only", "active"))) for block in sections(answered)]
    assert directions == ["sendonly", "inactive", "sendonly", "recvonly"]
    assert {mid: [codec.payload_type for codec in codecs] for mid, codecs in answered.senders.items()} == {
        "0": [111], "2": [96],
    }  # fmt: skip
    assert answered.senders["2"][0].rtx_payload_type == 97
    block = sections(answered)[2]
    assert values(block, "msid") == ["PA_ada|TR_2 TR_2"]
    assert values(block, "ssrc-group") == ["FID 1004 1005"] and "1004 cname:cname" in values(block, "ssrc")
    assert not sections(answered)[1].has("msid") and not sections(answered)[1].has("ssrc")


def test_a_track_whose_codec_the_client_lacks_leaves_its_section_inactive():
    text = offer(video("0", **RECEIVED), audio("1", **RECEIVED))
    sent = {"0": tracks.sent(1, tracks.H264), "1": tracks.sent(2, tracks.RED, tracks.OPUS)}
    answered = PublisherNegotiation().answer(text, LOCAL, None, sent)
    assert answered.senders["0"] == () and sections(answered)[0].has("inactive") and not sections(answered)[0].has("msid")
    # RED around sound is no reason to refuse it.
    assert [codec.name for codec in answered.senders["1"]] == ["opus"] and sections(answered)[1].has("sendonly")


def test_red_goes_to_who_takes_it_in_the_order_of_the_publication():
    text = offer(section("audio", "0", "111 63", *OPUS, *RED, direction="recvonly"))
    answered = PublisherNegotiation().answer(text, LOCAL, None, {"0": tracks.sent(1, tracks.RED, tracks.OPUS)})
    assert [(codec.name, codec.payload_type) for codec in answered.senders["0"]] == [("red", 63), ("opus", 111)]
    answered = PublisherNegotiation().answer(text, LOCAL, None, {"0": tracks.sent(1, tracks.OPUS)})
    assert [codec.name for codec in answered.senders["0"]] == ["opus"]


def test_a_track_without_rtx_is_sent_without():
    track = tracks.sent(1, Codec(96, "vp8", 90_000, 97))
    text = offer(video("0", **RECEIVED))
    [codec] = PublisherNegotiation().answer(text, LOCAL, None, {"0": replace(track, rtx_ssrc=None)}).senders["0"]
    assert codec.rtx_payload_type is None


def test_what_the_client_sends_on_carries_no_track_of_ours():
    answered = PublisherNegotiation().answer(offer(video("0")), LOCAL, None, {"0": tracks.sent(1, tracks.VP8)})
    assert sections(answered)[0].has("recvonly") and not answered.senders


def test_extensions_that_a_client_sends_alone_are_not_sent_to_it():
    # As Firefox offers: a descriptor it would send and cannot read, playout delay the other way round.
    lines = (f"a=extmap:3 {MID_URI}", f"a=extmap:8/sendonly {DD_URI}", f"a=extmap:6/recvonly {PLAYOUT_URI}")
    text = offer(video("0", *lines, **RECEIVED), video("1", *lines))
    answered = PublisherNegotiation().answer(text, LOCAL, None, {"0": tracks.sent(1, tracks.VP8)})
    assert answered.sent_extensions == {MID_URI: 3, PLAYOUT_URI: 6}
    assert answered.extensions[DD_URI] == 8
    assert f"8/recvonly {DD_URI}" in values(sections(answered)[0], "extmap")
    assert f"6/sendonly {PLAYOUT_URI}" in values(sections(answered)[0], "extmap")
    assert not any(PLAYOUT_URI in value for value in values(sections(answered)[1], "extmap"))
