"""Offers and answers of real clients lead to what tests/vectors/sdp/*.toml says."""

import tomllib
from pathlib import Path

import pytest

from relay.sdp import Codec, PublisherNegotiation, SubscriberNegotiation, extensions, parse
from tests.support.subscriber_scenario import LOCAL, rounds

FOLDER = Path(__file__).parents[2] / "vectors" / "sdp"
URI_NAMES = {
    value: name.lower() for name, value in vars(extensions).items() if name.isupper() and isinstance(value, str)
}
SINGLE = sorted(path.stem for path in FOLDER.glob("*.sdp") if "_life_" not in path.stem and "_answer_" not in path.stem)
CLIENTS = ("chromium", "firefox", "native")


def text(name: str) -> str:
    return (FOLDER / f"{name}.sdp").read_bytes().decode()


def expected(name: str) -> dict:
    return tomllib.loads((FOLDER / f"{name}.toml").read_text())["expect"]


def codec_line(codec: Codec) -> str:
    rtx = "" if codec.rtx_payload_type is None else f" rtx {codec.rtx_payload_type}"
    return f"{codec.payload_type} {codec.name}{rtx}"


def section_line(section) -> str:
    if section.port == 0:
        return f"{section.media} -"
    directions = [name for name in ("recvonly", "inactive", "sendonly", "sendrecv") if section.has(name)]
    return f"{section.media} {'data' if section.media == 'application' else ' '.join(directions)}"


def check_offer(publisher: PublisherNegotiation, name: str) -> None:
    offer = text(name)
    summary = publisher.inspect(offer)
    answer = publisher.answer(offer, LOCAL)
    want = expected(name)
    assert answer.role == want["role"]
    assert answer.ice_restarted is summary.ice_restarted is want["ice_restarted"]
    assert (answer.sctp.mid if answer.sctp else "") == want["sctp_mid"]
    assert summary.has_sctp is bool(want["sctp_mid"])
    assert list(answer.stopped) == want["stopped"]
    assert list(answer.refused) == want["refused"]
    assert {URI_NAMES[uri]: number for uri, number in answer.extensions.items()} == want["extensions"]
    sections = parse(answer.sdp).sections
    assert [section_line(section) for section in sections] == want["answered"]
    # Every m-line in order, with the same mid.
    assert [s.first("mid").value for s in sections] == [s.first("mid").value for s in parse(offer).sections]
    tracks = want.get("tracks", [])
    assert [track.mid for track in answer.tracks] == [track["mid"] for track in tracks]
    assert [section.mid for section in summary.tracks] == [track["mid"] for track in tracks]
    for track, section, wanted in zip(answer.tracks, summary.tracks, tracks, strict=True):
        assert track.kind == section.kind == wanted["kind"]
        assert [codec_line(codec) for codec in track.codecs] == wanted["codecs"]
        assert list(track.rids) == list(section.rids) == wanted["rids"]
        assert len(track.ssrcs) == len(track.rtx_ssrcs) == wanted["ssrcs"]
        assert sum(ssrc != 0 for ssrc in track.rtx_ssrcs) == wanted["rtx_ssrcs"]
        assert (track.msid_stream != "-") is wanted["has_stream"]
        assert bool(track.msid_track) is wanted["has_track"]
        assert bool(track.cname) is wanted["has_cname"]


@pytest.mark.parametrize("name", SINGLE)
def test_a_first_offer_is_answered(name):
    check_offer(PublisherNegotiation(), name)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_publishers_life_is_answered_offer_by_offer(client):
    publisher = PublisherNegotiation()
    names = sorted(path.stem for path in FOLDER.glob(f"{client}_life_*.sdp"))
    assert len(names) >= 4
    for name in names:
        check_offer(publisher, name)


@pytest.mark.parametrize("client", ("chromium", "firefox"))
def test_a_subscribers_answers_are_read_round_by_round(client):
    subscriber = SubscriberNegotiation()
    for number, _ in enumerate(rounds(subscriber), 1):
        accepted = subscriber.accept(text(f"{client}_answer_{number}"))
        want = expected(f"{client}_answer_{number}")
        assert accepted.role == want["role"]
        assert accepted.ice_restarted is want["ice_restarted"]
        assert accepted.sctp.mid == want["sctp_mid"]
        assert {URI_NAMES[uri]: n for uri, n in accepted.extensions.items()} == want["extensions"]
        assert sorted(accepted.rejected) == want["rejected"]
        senders = {mid: [codec_line(codec) for codec in codecs] for mid, codecs in accepted.senders.items()}
        assert senders == want["senders"]


def test_every_recording_has_its_expectation():
    assert {path.stem for path in FOLDER.glob("*.sdp")} == {path.stem for path in FOLDER.glob("*.toml")}
