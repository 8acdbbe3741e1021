"""The bots' descriptions are ones that the relay takes, and they read the relay's: neither side knows the other's code."""

import pytest

from loadtests import sdp
from relay.sdp import Codec, CodecPolicy, LocalTransport, PublisherNegotiation, SentTrack, SubscriberNegotiation

FINGERPRINT = "sha-256 " + ":".join(["AB"] * 32)
LOCAL = sdp.Local("abcd1234", "0123456789abcdef0123456789abcdef", FINGERPRINT, ("127.0.0.1", 5000))
MIC = sdp.Published("0", "audio", "opus", "stream", "mic", "cname", (11,), (None,))
CAM = sdp.Published("1", "video", "vp8", "stream", "cam", "cname", (21,), (22,))
SIMULCAST = sdp.Published("2", "video", "av1", "stream", "screen", "cname", (31, 32, 33), (41, 42, 43), ("q", "h", "f"))


def relay_local() -> LocalTransport:
    return LocalTransport(
        ufrag="relay123",
        password="fedcba9876543210fedcba9876543210",
        fingerprint=FINGERPRINT,
        candidates=(("192.0.2.1", 7882),),
    )


def test_the_relay_takes_an_offer_of_everything_and_its_answer_is_understood() -> None:
    publisher = PublisherNegotiation(CodecPolicy())
    offer = sdp.write_offer(LOCAL, [MIC, CAM, SIMULCAST], data=True)
    found = publisher.answer(offer, relay_local())
    assert [(track.mid, track.kind, track.rids) for track in found.tracks] == [
        ("0", "audio", ()),
        ("1", "video", ()),
        ("2", "video", ("q", "h", "f")),
    ]
    assert found.tracks[0].ssrcs == (11,) and found.tracks[1].ssrcs == (21,) and found.tracks[1].rtx_ssrcs == (22,)
    assert found.sctp is not None
    answer = sdp.parse(found.sdp)
    assert (answer.ufrag, answer.setup, answer.is_lite) == ("relay123", "passive", True)
    assert answer.candidates == (("192.0.2.1", 7882),)
    assert answer.fingerprints == ((FINGERPRINT.split(" ")[0], FINGERPRINT.split(" ")[1]),)
    for track, codec in ((MIC, (111, "opus", 48_000, None)), (CAM, (96, "vp8", 90_000, 97)), (SIMULCAST, (45, "av1", 90_000, 46))):
        section = answer.section(track.mid)
        assert section is not None and section.direction == "recvonly" and section.codecs[0] == codec
        assert section.extensions[sdp.MID] == 1
    assert answer.section("2").extensions[sdp.RID] == 5  # type: ignore[union-attr]


def test_the_relay_takes_an_answer_and_its_offer_is_understood() -> None:
    subscriber = SubscriberNegotiation()
    opus, vp8 = Codec(111, "opus", 48_000, None, 2), Codec(96, "vp8", 90_000, 97)
    common = {"stream_id": "PA_x|TR_y", "track_id": "TR_y", "cname": "c"}
    mic = subscriber.add(SentTrack("audio", (opus,), ssrc=77, rtx_ssrc=None, **common))
    cam = subscriber.add(SentTrack("video", (vp8,), ssrc=88, rtx_ssrc=89, **common))
    gone = subscriber.add(SentTrack("video", (vp8,), ssrc=98, rtx_ssrc=None, **common))
    subscriber.remove(gone)
    offer = sdp.parse(subscriber.offer(relay_local()).sdp)
    assert offer.is_lite and offer.setup == "actpass"
    section = offer.section(mic)
    assert section is not None and section.ssrcs == (77, None) and section.msid == ("PA_x|TR_y", "TR_y")
    section = offer.section(cam)
    assert section is not None and section.ssrcs == (88, 89) and section.codecs[0][1] == "vp8"
    accepted = subscriber.accept(sdp.write_answer(LOCAL, offer, setup="active"))
    assert accepted.role == "server" and accepted.remote.ufrag == LOCAL.ufrag
    assert accepted.sctp is not None
    assert {mid: bool(codecs) for mid, codecs in accepted.senders.items()} == {mic: True, cam: True}
    assert not accepted.rejected


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        ("candidate:1 1 udp 2130706431 192.0.2.7 4000 typ host", (2130706431, ("192.0.2.7", 4000))),
        ("1 1 UDP 7 2001:db8::1 4000 typ host generation 0", (7, ("2001:db8::1", 4000))),
        ("1 1 tcp 7 192.0.2.7 9 typ host tcptype active", None),
        ("1 1 udp 7 9a5b.local 4000 typ host", None),
        ("", None),
    ],
)
def test_only_udp_addresses_are_candidates(value: str, taken: object) -> None:
    assert sdp.take_candidate(value) == taken


@pytest.mark.parametrize("missing", ["a=ice-ufrag", "a=ice-pwd", "a=fingerprint"])
def test_a_description_without_what_a_call_needs_is_refused(missing: str) -> None:
    offer = sdp.write_offer(LOCAL, [MIC], data=False)
    with pytest.raises(sdp.SdpError):
        sdp.parse("\r\n".join(line for line in offer.split("\r\n") if not line.startswith(missing)))
