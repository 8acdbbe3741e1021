"""Our offers to a subscriber: their shape over rounds of adding and removing, and what is made of the answers."""

import pytest

from relay.sdp import Codec, InvalidState, LocalTransport, SdpError, SentTrack, SubscriberNegotiation, parse
from relay.sdp.extensions import DEPENDENCY_DESCRIPTOR, MID, OFFERED_IDS, TRANSPORT_CC
from relay.sdp.grammar import MAX_SECTIONS, Attribute
from relay.sdp.offer import RECYCLE_FROM
from tests.support.sdp_text import FINGERPRINT, changed
from tests.support.subscriber_scenario import AV1, H264, LOCAL, OPUS, RED, VP8, VP9, add

DIRECTION = {"sendonly": "recvonly", "inactive": "inactive"}
# What an answer repeats of the offer's lines.
ECHOED = ("mid", "rtcp-mux", "rtcp-rsize", "extmap", "rtpmap", "fmtp", "rtcp-fb", "sctp-port")


def answer_to(offer_text: str, *, rejected=(), dropped=(), setup="active") -> str:
    """An answer that takes everything but the rejected mids and the lines that contain a dropped part."""
    offer = parse(offer_text)
    mids = [section.first("mid").value for section in offer.sections]
    alive = [mid for mid, s in zip(mids, offer.sections, strict=True) if s.port and mid not in rejected]
    lines = ["v=0", "o=- 7 7 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE " + " ".join(alive)]
    for mid, section in zip(mids, offer.sections, strict=True):
        head = f"m={section.media} {9 if mid in alive else 0} {section.protocol} {' '.join(section.formats)}"
        lines += [head, "c=IN IP4 0.0.0.0"]
        if mid not in alive:
            lines += [f"a=mid:{mid}", "a=inactive"]
            continue
        lines += ["a=ice-ufrag:them", "a=ice-pwd:passwordpasswordpassword", f"a=fingerprint:{FINGERPRINT}"]
        lines.append(f"a=setup:{setup}")
        for attribute in section.attributes:
            if attribute.name in DIRECTION:
                attribute = Attribute(DIRECTION[attribute.name])
            elif attribute.name not in ECHOED:
                continue
            if not any(part in str(attribute) for part in dropped):
                lines.append(str(attribute))
    return "".join(line + "\r\n" for line in lines)


def exchange(subscriber: SubscriberNegotiation, **options):
    offer = subscriber.offer(LOCAL)
    return parse(offer.sdp).sections, subscriber.accept(answer_to(offer.sdp, **options))


def values(block, name: str) -> list[str | None]:
    return [attribute.value for attribute in block.all(name)]


def mids(sections) -> list[str]:
    return [section.first("mid").value for section in sections]


# The shape of an offer.


def test_the_first_offer_is_the_application_section_alone():
    subscriber = SubscriberNegotiation()
    assert subscriber.needs_offer
    offer = subscriber.offer(LOCAL)
    description = parse(offer.sdp)
    (section,) = description.sections
    assert (section.media, section.port, section.protocol) == ("application", 9, "UDP/DTLS/SCTP")
    assert values(section, "setup") == ["actpass"]
    assert values(section, "mid") == ["0"]
    assert values(section, "max-message-size") == ["65536"]
    assert len(values(section, "candidate")) == 2 and section.has("end-of-candidates")
    assert values(description, "group") == ["BUNDLE 0"]
    assert description.has("ice-lite")
    assert offer.track_by_mid == {}


def test_a_video_section_says_all_about_its_track():
    subscriber = SubscriberNegotiation()
    assert add(subscriber, 1, VP8) == "1"
    offer = subscriber.offer(LOCAL)
    section = parse(offer.sdp).sections[1]
    assert str(section).splitlines() == [
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
        "c=IN IP4 0.0.0.0",
        "a=ice-ufrag:relay123",
        "a=ice-pwd:passwordpasswordpassword",
        f"a=fingerprint:{LOCAL.fingerprint}",
        "a=setup:actpass",
        "a=mid:1",
        "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=extmap:3 http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
        "a=extmap:4 https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
        "a=extmap:5 urn:3gpp:video-orientation",
        "a=extmap:6 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
        f"a=extmap:7 {TRANSPORT_CC}",
        "a=sendonly",
        "a=rtcp-mux",
        "a=rtcp-rsize",
        "a=rtpmap:96 VP8/90000",
        "a=rtcp-fb:96 nack",
        "a=rtcp-fb:96 nack pli",
        "a=rtcp-fb:96 ccm fir",
        "a=rtcp-fb:96 transport-cc",
        "a=rtpmap:97 rtx/90000",
        "a=fmtp:97 apt=96",
        "a=msid:PA_ada|TR_1 TR_1",
        "a=ssrc-group:FID 1002 1003",
        "a=ssrc:1002 cname:cname",
        "a=ssrc:1002 msid:PA_ada|TR_1 TR_1",
        "a=ssrc:1003 cname:cname",
        "a=ssrc:1003 msid:PA_ada|TR_1 TR_1",
    ]
    assert offer.track_by_mid == {"1": "TR_1"}


def test_an_audio_section_has_levels_and_no_video_extensions():
    subscriber = SubscriberNegotiation()
    add(subscriber, 1, RED, OPUS)
    section = parse(subscriber.offer(LOCAL).sdp).sections[1]
    assert section.formats == ("63", "111")
    assert [value.split()[0] for value in values(section, "extmap")] == ["1", "2", "3"]
    assert values(section, "rtcp-fb") == ["63 nack", "111 nack"]
    assert values(section, "fmtp") == ["63 111/111", "111 minptime=10;useinbandfec=1"]
    assert values(section, "ssrc-group") == []


def test_stereo_has_a_payload_type_of_its_own():
    subscriber = SubscriberNegotiation()
    add(subscriber, 1, OPUS)
    add(subscriber, 2, RED, OPUS, stereo=True)
    mono, stereo = parse(subscriber.offer(LOCAL).sdp).sections[1:]
    assert mono.formats == ("111",)
    assert stereo.formats == ("62", "110")
    assert values(stereo, "fmtp") == ["62 110/110", "110 minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1"]


def test_only_the_codec_that_arrives_is_offered():
    subscriber = SubscriberNegotiation()
    add(subscriber, 1, H264, VP8, VP9)
    section = parse(subscriber.offer(LOCAL).sdp).sections[1]
    assert section.formats == ("106", "107")
    assert values(section, "fmtp")[0].endswith("profile-level-id=42e01f")


def test_without_an_rtx_ssrc_there_is_no_rtx():
    subscriber = SubscriberNegotiation()
    subscriber.add(SentTrack("video", (VP8,), stream_id="PA_a|TR_b", track_id="TR_b", ssrc=5, rtx_ssrc=None, cname="c"))
    section = parse(subscriber.offer(LOCAL).sdp).sections[1]
    assert section.formats == ("96",)
    assert not section.has("ssrc-group")
    assert len(values(section, "ssrc")) == 2


def test_feedback_for_bandwidth_is_asked_for_on_video_alone():
    subscriber = SubscriberNegotiation()
    add(subscriber, 1, VP8)
    add(subscriber, 2, OPUS)
    text = subscriber.offer(LOCAL).sdp
    assert text.count(f"extmap:7 {TRANSPORT_CC}") == text.count(" transport-cc\r\n") == 1
    assert "rtcp-fb:96 transport-cc" in text
    assert "remb" not in text
    assert max(OFFERED_IDS.values()) <= 14


def test_what_cannot_stand_in_a_description_is_our_mistake():
    subscriber = SubscriberNegotiation()
    good = {"stream_id": "PA_a|TR_b", "track_id": "TR_b", "ssrc": 5, "rtx_ssrc": None, "cname": "c"}
    for codecs, changes in [
        ((), {}),
        ((OPUS,), {}),
        ((VP8, OPUS), {}),
        ((VP8,), {"stream_id": "PA a"}),
        ((VP8,), {"track_id": ""}),
        ((VP8,), {"cname": "x\r\na=y"}),
        ((Codec(1, "h264", 90_000, 2, 1, "profile-level-id=640032"),), {}),
    ]:
        with pytest.raises(ValueError):
            subscriber.add(SentTrack("video", codecs, **{**good, **changes}))
    with pytest.raises(ValueError):
        SentTrack("audio", (RED,), **good)
    assert subscriber.add(SentTrack("video", (VP8,), **good)) == "1"


# Rounds.


def test_mids_and_places_are_stable_over_rounds():
    subscriber = SubscriberNegotiation()
    sections, accepted = exchange(subscriber)
    assert not subscriber.needs_offer
    first, second = add(subscriber, 1, VP8), add(subscriber, 2, OPUS)
    assert subscriber.needs_offer
    sections, accepted = exchange(subscriber)
    assert mids(sections) == ["0", first, second]
    subscriber.remove(first)
    third = add(subscriber, 3, AV1)
    offer = subscriber.offer(LOCAL)
    sections = parse(offer.sdp).sections
    assert mids(sections) == ["0", first, second, third]
    assert offer.track_by_mid == {second: "TR_2", third: "TR_3"}
    gone = sections[1]
    assert (gone.port, gone.has("inactive")) == (9, True)
    assert not any(gone.has(name) for name in ("msid", "ssrc", "ssrc-group", "extmap"))
    assert parse(offer.sdp).first("group").value == f"BUNDLE 0 {first} {second} {third}"
    accepted = subscriber.accept(answer_to(offer.sdp))
    assert set(accepted.senders) == {second, third}


def test_the_version_rises_and_the_session_id_stays():
    subscriber = SubscriberNegotiation()
    origins = []
    for local in (LOCAL, LocalTransport("fresh", "p" * 22, LOCAL.fingerprint, LOCAL.candidates)):
        offer = subscriber.offer(local)
        subscriber.accept(answer_to(offer.sdp))
        origins.append(parse(offer.sdp).origin)
    assert [origin.version for origin in origins] == ["0", "1"]
    assert origins[0].session_id == origins[1].session_id


def test_one_offer_is_outstanding_at_a_time():
    subscriber = SubscriberNegotiation()
    with pytest.raises(InvalidState):
        subscriber.accept("")
    offer = subscriber.offer(LOCAL)
    assert subscriber.offer_outstanding
    with pytest.raises(InvalidState):
        subscriber.offer(LOCAL)
    subscriber.accept(answer_to(offer.sdp))
    assert not subscriber.offer_outstanding
    with pytest.raises(InvalidState):
        subscriber.accept(answer_to(offer.sdp))


def test_changes_while_an_offer_is_outstanding_wait_for_the_next():
    subscriber = SubscriberNegotiation()
    mid = add(subscriber, 1, VP8)
    offer = subscriber.offer(LOCAL)
    assert not subscriber.needs_offer
    later = add(subscriber, 2, VP8)
    subscriber.remove(mid)
    accepted = subscriber.accept(answer_to(offer.sdp))
    assert accepted.senders == {}
    assert subscriber.needs_offer
    _, accepted = exchange(subscriber)
    assert set(accepted.senders) == {later}


def test_an_abandoned_offer_is_made_again_with_all_it_held():
    subscriber = SubscriberNegotiation()
    subscriber.abandon_offer()
    mid = add(subscriber, 1, VP8)
    lost = subscriber.offer(LOCAL)
    subscriber.abandon_offer()
    assert subscriber.needs_offer and not subscriber.offer_outstanding
    again = subscriber.offer(LOCAL)
    assert mids(parse(again.sdp).sections) == mids(parse(lost.sdp).sections) == ["0", mid]


def test_removing_twice_or_something_unknown_is_our_mistake():
    subscriber = SubscriberNegotiation()
    mid = add(subscriber, 1, VP8)
    subscriber.remove(mid)
    for unknown in (mid, "0", "9"):
        with pytest.raises(KeyError):
            subscriber.remove(unknown)


def test_a_rejected_section_stays_ended_and_its_place_is_taken_once_it_is_removed():
    subscriber = SubscriberNegotiation()
    mid = add(subscriber, 1, H264)
    _, accepted = exchange(subscriber, rejected=(mid,))
    assert accepted.rejected == {mid}
    assert accepted.senders == {mid: ()}
    assert not subscriber.needs_offer
    other = add(subscriber, 2, VP8)
    offer = subscriber.offer(LOCAL)
    ended = parse(offer.sdp).sections[1]
    assert (ended.port, mids([ended]), ended.has("ice-ufrag")) == (0, [mid], False)
    assert parse(offer.sdp).first("group").value == f"BUNDLE 0 {other}"
    assert offer.track_by_mid == {other: "TR_2"}
    accepted = subscriber.accept(answer_to(offer.sdp))
    assert (accepted.rejected, set(accepted.senders)) == (frozenset(), {other}), "told once"
    subscriber.remove(mid)
    assert not subscriber.needs_offer
    new = add(subscriber, 3, VP9)
    sections, accepted = exchange(subscriber)
    assert mids(sections) == ["0", new, other]
    assert new not in ("0", mid, other)
    assert accepted.rejected == frozenset() and set(accepted.senders) == {new, other}


def test_places_of_removed_sections_are_recycled_on_a_long_connection():
    subscriber = SubscriberNegotiation()
    given = []
    live: list[str] = []
    for number in range(4 * RECYCLE_FROM):
        mid = add(subscriber, number, OPUS if number % 2 else VP8)
        given.append(mid)
        live.append(mid)
        if len(live) > 10:
            subscriber.remove(live.pop(0))
        sections, accepted = exchange(subscriber)
        assert set(accepted.senders) == set(live)
        assert all(accepted.senders.values()) and not accepted.rejected
        assert mids(sections)[0] == "0"
    assert len(set(given)) == len(given), "a mid is never used twice"
    assert len(sections) <= RECYCLE_FROM + 3


def test_a_short_connection_keeps_removed_sections_inactive():
    subscriber = SubscriberNegotiation()
    for number in range(RECYCLE_FROM - 1):
        mid = add(subscriber, number, OPUS)
        exchange(subscriber)
        subscriber.remove(mid)
    sections, _ = exchange(subscriber)
    assert len(sections) == RECYCLE_FROM
    assert all(section.port == 9 for section in sections)


def test_sections_have_a_limit():
    subscriber = SubscriberNegotiation()
    for number in range(MAX_SECTIONS - 1):
        add(subscriber, number, OPUS)
    with pytest.raises(InvalidState):
        add(subscriber, 999, OPUS)
    sections, accepted = exchange(subscriber)
    assert len(sections) == MAX_SECTIONS
    assert len(accepted.senders) == MAX_SECTIONS - 1


# Answers.


@pytest.mark.parametrize(("setup", "role"), [("active", "server"), ("passive", "client")])
def test_the_role_follows_the_answer_and_is_settled_for_life(setup, role):
    subscriber = SubscriberNegotiation()
    _, accepted = exchange(subscriber, setup=setup)
    assert accepted.role == subscriber.role == role
    offer = subscriber.offer(LOCAL)
    with pytest.raises(SdpError, match="settled"):
        subscriber.accept(answer_to(offer.sdp, setup="passive" if setup == "active" else "active"))
    with pytest.raises(SdpError, match="active or passive"):
        subscriber.accept(answer_to(offer.sdp, setup="actpass"))
    # What was refused left the offer outstanding.
    subscriber.accept(answer_to(offer.sdp, setup=setup))


def test_the_remote_transport_and_its_restart():
    subscriber = SubscriberNegotiation()
    _, accepted = exchange(subscriber)
    assert (accepted.remote.ufrag, accepted.ice_restarted) == ("them", False)
    assert accepted.fingerprints == (("sha-256", FINGERPRINT.split()[1]),)
    assert accepted.sctp.port == 5000
    offer = subscriber.offer(LOCAL)
    accepted = subscriber.accept(answer_to(offer.sdp).replace("ufrag:them", "ufrag:anew"))
    assert accepted.ice_restarted
    offer = subscriber.offer(LOCAL)
    with pytest.raises(SdpError, match="fingerprint changed"):
        subscriber.accept(answer_to(offer.sdp).replace("sha-256 0A", "sha-256 0B"))


def test_extensions_are_those_the_answer_kept_with_our_ids():
    subscriber = SubscriberNegotiation()
    add(subscriber, 1, VP8)
    _, accepted = exchange(subscriber, dropped=("dependency-descriptor",))
    assert DEPENDENCY_DESCRIPTOR not in accepted.extensions
    assert accepted.extensions[MID] == 1
    offer = subscriber.offer(LOCAL)
    text = changed(answer_to(offer.sdp), f"a=extmap:1 {MID}", f"a=extmap:2 {MID}")
    assert MID not in subscriber.accept(text).extensions
    offer = subscriber.offer(LOCAL)
    text = changed(answer_to(offer.sdp), f"a=extmap:1 {MID}", f"a=extmap:1/sendonly {MID}")
    assert MID not in subscriber.accept(text).extensions


def test_a_subset_of_the_payload_types_may_be_taken():
    subscriber = SubscriberNegotiation()
    audio, video = add(subscriber, 1, RED, OPUS), add(subscriber, 2, VP8)
    offer = subscriber.offer(LOCAL)
    text = changed(changed(answer_to(offer.sdp), "SAVPF 63 111", "SAVPF 111"), "SAVPF 96 97", "SAVPF 96")
    accepted = subscriber.accept(text)
    assert [codec.name for codec in accepted.senders[audio]] == ["opus"]
    assert accepted.senders[video] == (Codec(96, "vp8", 90_000, None),)


def test_an_answer_may_number_a_format_anew():
    subscriber = SubscriberNegotiation()
    mid = add(subscriber, 1, VP8)
    offer = subscriber.offer(LOCAL)
    text = answer_to(offer.sdp).replace("SAVPF 96 97", "SAVPF 120 124").replace("apt=96", "apt=120")
    text = text.replace(":96 ", ":120 ").replace(":97 ", ":124 ")
    assert subscriber.accept(text).senders[mid] == (Codec(120, "vp8", 90_000, 124),)


def test_another_profile_or_red_alone_is_nothing_we_can_send():
    subscriber = SubscriberNegotiation()
    video, audio = add(subscriber, 1, H264), add(subscriber, 2, RED, OPUS)
    offer = subscriber.offer(LOCAL)
    text = changed(answer_to(offer.sdp), "profile-level-id=42e01f", "profile-level-id=4d001f")
    text = changed(text, "SAVPF 63 111", "SAVPF 63")
    assert subscriber.accept(text).senders == {video: (), audio: ()}


def test_a_section_answered_inactive_takes_nothing_and_is_not_rejected():
    subscriber = SubscriberNegotiation()
    mid = add(subscriber, 1, VP8)
    offer = subscriber.offer(LOCAL)
    accepted = subscriber.accept(changed(answer_to(offer.sdp), "a=recvonly", "a=inactive"))
    assert (accepted.senders, accepted.rejected) == ({mid: ()}, frozenset())
    _, accepted = exchange(subscriber)
    assert accepted.senders[mid]


def test_a_rejected_section_need_not_repeat_its_mid():
    subscriber = SubscriberNegotiation()
    mid = add(subscriber, 1, VP8)
    offer = subscriber.offer(LOCAL)
    text = changed(answer_to(offer.sdp, rejected=(mid,)), f"a=mid:{mid}\r\n", "")
    assert subscriber.accept(text).rejected == {mid}


def test_a_live_section_outside_the_answers_bundle_counts_as_rejected():
    subscriber = SubscriberNegotiation()
    mid = add(subscriber, 1, VP8)
    offer = subscriber.offer(LOCAL)
    text = changed(answer_to(offer.sdp), f"BUNDLE 0 {mid}", "BUNDLE 0")
    assert subscriber.accept(text).rejected == {mid}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("a=mid:1", "a=mid:2", "mid 1 stands here"),
        ("a=mid:1\r\n", "", "needs an a=mid"),
        ("m=video", "m=audio", "mid 1 is video"),
        ("a=ice-pwd:passwordpasswordpassword\r\n", "", "ice-pwd"),
        ("a=extmap:1 ", "a=extmap:x ", "extension id"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_and_can_be_given_again(old, new, says):
    subscriber = SubscriberNegotiation()
    add(subscriber, 1, VP8)
    offer = subscriber.offer(LOCAL)
    text = answer_to(offer.sdp)
    with pytest.raises(SdpError, match=says):
        subscriber.accept(text.replace(old, new).replace("BUNDLE 0 2", "BUNDLE 0 1"))
    assert subscriber.offer_outstanding
    assert subscriber.accept(text).senders["1"]


def test_an_answer_has_as_many_sections_as_the_offer():
    subscriber = SubscriberNegotiation()
    offer = subscriber.offer(LOCAL)
    text = answer_to(offer.sdp)
    with pytest.raises(SdpError, match="1 m= lines, its answer 2"):
        subscriber.accept(text + "m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n")
    with pytest.raises(SdpError, match="1 m= lines, its answer 0"):
        subscriber.accept(text[: text.index("m=")])


def test_a_client_without_data_channels_is_served():
    subscriber = SubscriberNegotiation()
    mid = add(subscriber, 1, VP8)
    _, accepted = exchange(subscriber, rejected=("0",))
    assert accepted.sctp is None
    assert accepted.senders[mid] and not accepted.rejected
