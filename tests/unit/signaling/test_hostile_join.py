"""What a `join_request` can cost: little, whatever is in it. Real clients' ones are read as they are."""

import base64
import gzip
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from livekit.protocol import models, rtc

from relay.errors import Refused
from relay.server import MAX_LINE_BYTES
from relay.signaling.livekit import join_request
from relay.signaling.livekit.join_request import asked_by, read_join_request

RECORDED = Path(__file__).resolve().parents[2] / "vectors" / "join_request"
NONE, GZIP = rtc.WrappedJoinRequest.Compression.NONE, rtc.WrappedJoinRequest.Compression.GZIP
SMALL = rtc.JoinRequest(client_info=models.ClientInfo(protocol=17), metadata="here")
# What reading may take of memory at once: a request unfolded, a second buffer while the first one grows, and its line.
MOST_BYTES = 3 << 20


def wrapped(inner: bytes, compression: int = GZIP) -> str:
    message = rtc.WrappedJoinRequest(compression=compression, join_request=inner)  # type: ignore[arg-type]
    return base64.urlsafe_b64encode(message.SerializeToString()).decode()


def packed(inner: bytes) -> str:
    return wrapped(gzip.compress(inner, 9))


def field(number: int, inside: bytes) -> bytes:
    """A length-delimited field as it is on the wire."""
    head, length = bytes([number << 3 | 2]), len(inside)
    while length > 127:
        head, length = head + bytes([length & 127 | 128]), length >> 7
    return head + bytes([length]) + inside


def bomb() -> str:
    """As much as a request line has room for, all zeros."""
    text = packed(bytes(46 << 20))
    assert 60_000 < len(text) < MAX_LINE_BYTES
    return text


MANY = ((1 << 20) - 64) // 2
# Each is a line of some 1,500 characters, and hundreds of thousands of messages.
SWARMS = {
    "announcements": field(5, b"") * MANY,
    "layers": field(5, field(9, b"") * (MANY - 8)),
    "tracks published before": field(10, field(3, b"") * (MANY - 8)),
    "mids of an offer": field(6, field(4, b"") * (MANY - 8)),
    "mids of an offer before": field(10, field(5, field(4, b"") * (MANY - 8))),
    "attributes": field(4, b"") * MANY,
    "fields nobody knows": field(15, b"") * MANY,
    "numbers nobody knows": b"\x78\x00" * MANY,
}


def peak_bytes(read: Callable[[str], object], text: str) -> int:
    """The most memory that reading this took at once, by Python's own count."""
    tracemalloc.start()
    try:
        read(text)
    except Refused as refused:
        assert refused.status == 413
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def unbounded(message: rtc.WrappedJoinRequest) -> bytes:
    """The mutant: unfolds first and looks at the size then."""
    data = zlib.decompress(message.join_request, 31)
    if len(data) > join_request.MAX_REQUEST_BYTES:
        raise Refused(413, "Too late.")
    return data


def test_a_zip_bomb_is_refused_while_it_unfolds(monkeypatch) -> None:
    text = bomb()
    assert peak_bytes(read_join_request, text) < MOST_BYTES
    monkeypatch.setattr(join_request, "_unwrapped", unbounded)
    assert peak_bytes(read_join_request, text) > 40 << 20, "the control: unfolding it all is noticed"


@pytest.mark.parametrize("name", SWARMS)
def test_a_swarm_of_empty_messages_is_not_read(name: str, monkeypatch) -> None:
    text = packed(SWARMS[name])
    assert len(text) < 4096

    def cost() -> float:
        before = time.process_time()
        with pytest.raises(Refused) as refused:
            read_join_request(text)
        assert refused.value.status == 413 and refused.value.sentence.endswith("parts.")
        return time.process_time() - before

    assert min(cost() for _ in range(3)) < 0.015
    if name == "announcements":
        monkeypatch.setattr(join_request, "MAX_LIGHT_BYTES", 1 << 40)
        before = time.process_time()
        assert len(read_join_request(text).add_track_requests) == MANY
        assert time.process_time() - before > 0.03, "the control: reading it would be noticed"


def test_what_a_request_may_have_at_most_is_taken() -> None:
    text = "x" * 250_000
    tracks = [rtc.AddTrackRequest(cid=f"cid{n}", name="x" * 500) for n in range(join_request.MAX_FIRST_TRACKS)]
    offer = rtc.SessionDescription(type="offer", sdp=text, id=7)
    attributes = {f"name{n:03}": "x" * 50 for n in range(500)}
    request = rtc.JoinRequest(
        metadata="m" * 30_000,
        participant_attributes=attributes,
        add_track_requests=tracks,
        publisher_offer=offer,
        reconnect=True,
        sync_state=rtc.SyncState(offer=offer, answer=offer),
    )
    asked = asked_by(read_join_request(packed(request.SerializeToString())))
    assert dict(asked.client.attributes) == attributes and len(asked.client.metadata) == 30_000
    kinds = [first.WhichOneof("message") for first in asked.first]
    assert kinds == ["sync_state"] + ["add_track"] * len(tracks) + ["offer"]


@pytest.mark.parametrize(
    "request_",
    [
        rtc.JoinRequest(add_track_requests=[rtc.AddTrackRequest(cid="c")] * 65),
        rtc.JoinRequest(metadata="x" * 65_537),
        rtc.JoinRequest(metadata="x" * 40_000, participant_attributes={"a": "x" * 40_000}),
    ],
    ids=["65 tracks", "metadata", "metadata and attributes"],
)
def test_more_than_a_client_may_say_is_refused_in_words(request_: rtc.JoinRequest) -> None:
    request = read_join_request(packed(request_.SerializeToString()))
    with pytest.raises(Refused) as refused:
        asked_by(request)
    assert refused.value.status == 400 and "at most" in refused.value.sentence


GOOD = gzip.compress(SMALL.SerializeToString())
MALFORMED = {
    "nothing": ("", "missing"),
    "padding alone": ("====", "missing"),
    "no base64": ("%%%%", "base64"),
    "a letter of no alphabet": ("ärger", "base64"),
    "a length that base64 never has": ("AAAAA", "base64"),
    "both alphabets' odd ones out": ("A!A=", "base64"),
    "no message": (base64.urlsafe_b64encode(b"\xff\xff\xff").decode(), "a WrappedJoinRequest"),
    "text that is not UTF-8": (wrapped(field(3, b"\xff"), NONE), "a JoinRequest"),
    "a compression of tomorrow": (wrapped(SMALL.SerializeToString(), 7), "compressed"),
    "gzip that is none": (wrapped(SMALL.SerializeToString()), "compressed"),
    "deflate without gzip's header": (wrapped(zlib.compress(SMALL.SerializeToString())), "compressed"),
    "an empty stream": (wrapped(b""), "whole"),
    "half a stream": (wrapped(GOOD[: len(GOOD) // 2]), "whole"),
    "a stream without its checksum": (wrapped(GOOD[:-1]), "whole"),
    "another checksum": (wrapped(GOOD[:-8] + bytes(4) + GOOD[-4:]), "whole"),
    "something behind the stream": (wrapped(GOOD + b"x"), "whole"),
    "two streams": (wrapped(GOOD * 2), "whole"),
    "half a message": (packed(SMALL.SerializeToString()[:-1]), "a JoinRequest"),
    "a field longer than its message": (packed(b"\x1a\xff\xff\xff\xff\x0f"), "a JoinRequest"),
    "a number that does not end": (packed(b"\xff" * 20), "a JoinRequest"),
    "an offer longer than the request": (packed(b"\x32\x04\x12\x7fab"), "a JoinRequest"),
    "a group": (packed(b"\x7b\x7c"), "a JoinRequest"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_cannot_be_read_is_refused_in_words(name: str) -> None:
    text, words = MALFORMED[name]
    with pytest.raises(Refused) as refused:
        read_join_request(text)
    assert refused.value.status == 400 and words in refused.value.sentence


def test_both_alphabets_with_and_without_padding() -> None:
    # Bytes that need the letters in which the alphabets differ.
    inner = rtc.JoinRequest(metadata="ÿþ~?>>>???" * 9, participant_sid="PA_1").SerializeToString()
    for cut in range(3):
        data = rtc.WrappedJoinRequest(join_request=inner + field(15, b"?" * cut)).SerializeToString()
        standard, url = base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()
        assert {"-", "_"} & set(url)
        for text in (standard, url, standard.rstrip("="), url.rstrip("="), standard.replace("+", " ")):
            assert read_join_request(text).participant_sid == "PA_1"


@pytest.mark.parametrize(
    ("name", "sdk", "protocol", "sections"),
    [("chromium_2_23_0", "js", 17, 7), ("firefox_2_23_0", "js", 17, 0), ("python_1_2_1", "python", 18, 7)],
)
def test_what_clients_really_send(name: str, sdk: str, protocol: int, sections: int) -> None:
    asked = asked_by(read_join_request((RECORDED / f"{name}.txt").read_text().strip()))
    assert (asked.client.sdk, asked.client.protocol) == (sdk, protocol)
    assert asked.client.is_single and asked.client.auto_subscribe and not asked.client.adaptive_stream
    assert not asked.client.reconnect and asked.client.version in ("2.23.0", "1.2.1")
    assert [first.offer.sdp.count("\r\nm=") for first in asked.first] == ([sections] if sections else [])
