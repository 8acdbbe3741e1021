"""Reads the `join_request` of LiveKit's v1 URL: what v0 says in its query, and what a client asks for at once (LIVEKIT §1.2).

It is a `WrappedJoinRequest` in base64, whose inside may be gzip, and everybody with a token may send it: a small line
could unfold into gigabytes, and what it unfolds into could be half a million empty messages, each a hundred bytes once
it is read. So no more is unfolded than a request may have, and its parts are weighed before it is read.
"""

import base64
import binascii
import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError
from livekit.protocol import models, rtc

from relay.errors import Refused
from relay.signaling.livekit.client_info import DEFAULT_PROTOCOL, MAX_ATTRIBUTES_CHARACTERS, ClientInfo

# What a request may unfold into: descriptions of as many sections as they may have, and announcements. LiveKit's bound.
MAX_REQUEST_BYTES = 1 << 20
# What it may have beside descriptions: metadata and attributes as long as they may be, and as much of tracks.
MAX_LIGHT_BYTES = 1 << 17
# What a part weighs at least, however short it is: about what it costs to read.
PART_BYTES = 64
# More tracks than any client announces before it has joined.
MAX_FIRST_TRACKS = 64
# zlib's way of saying "a gzip header, the largest window".
_GZIP = 31
# `+` unescaped in a query means a space.
_STANDARD_TO_URL = str.maketrans("+/ ", "-_-")
# Where the texts of descriptions are, by field numbers: publisher_offer.sdp, sync_state.answer.sdp, sync_state.offer.sdp.
_TEXT: Mapping[int, Any] = {2: None}
_TEXTS: Mapping[int, Any] = {6: _TEXT, 10: {1: _TEXT, 5: _TEXT}}


@dataclass(frozen=True, slots=True)
class Asked:
    """Who wants to join, and its first requests, in the order in which they are to be handled. Who handles them takes them
    out: they may be large, and a connection lasts for hours."""

    client: ClientInfo
    first: deque[rtc.SignalRequest] = field(default_factory=deque)


def read_join_request(text: str) -> rtc.JoinRequest:
    """Return the request in a `join_request` parameter; base64 of either alphabet, padded or not.

    Errors: Refused 400 for what cannot be read, 413 for what is too large.
    """
    bare = text.rstrip("=").translate(_STANDARD_TO_URL)
    if not bare:
        raise Refused(400, "The join_request is missing.")
    wrapped, request = rtc.WrappedJoinRequest(), rtc.JoinRequest()
    what = "base64"
    try:
        data = base64.b64decode(bare + "=" * (-len(bare) % 4), altchars="-_", validate=True)
        what = "a WrappedJoinRequest"
        wrapped.ParseFromString(data)
        what = "whole, or compressed in a way that is not known"
        data = _unwrapped(wrapped)
        what = "a JoinRequest"
        if _weight(data, 0, len(data), _TEXTS, 0) > MAX_LIGHT_BYTES:
            raise Refused(413, "The join_request has too many parts.")
        request.ParseFromString(data)
    except (binascii.Error, ValueError, DecodeError, zlib.error):
        raise Refused(400, f"The join_request cannot be read: it is not {what}.") from None
    return request


def _unwrapped(wrapped: rtc.WrappedJoinRequest) -> bytes:
    """Return the bytes of the request inside.   Errors: Refused 413; ValueError and zlib.error for what is malformed."""
    data = wrapped.join_request
    if wrapped.compression == rtc.WrappedJoinRequest.Compression.GZIP:
        inflater = zlib.decompressobj(_GZIP)
        data = inflater.decompress(data, MAX_REQUEST_BYTES + 1)
        if len(data) <= MAX_REQUEST_BYTES and (not inflater.eof or inflater.unused_data):
            raise ValueError("a gzip stream that ends too early or too late")
    elif wrapped.compression != rtc.WrappedJoinRequest.Compression.NONE:
        raise ValueError("a compression that nobody knows")
    if len(data) > MAX_REQUEST_BYTES:
        raise Refused(413, "The join_request is too large.")
    return data


def _weight(data: bytes, at: int, end: int, texts: Mapping[int, Any], weight: int) -> int:
    """Return `weight` and what the fields of a message weigh without the texts in it; counting ends where it is too much.

    Errors: ValueError for what is no protobuf message.
    """
    while at < end and weight <= MAX_LIGHT_BYTES:
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        length = 0
        if kind == 2:
            length, at = _varint(data, at)
        elif kind == 0:
            _, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError("a group, which no message of ours has")
        if at + length > end:
            raise ValueError("a field that is longer than its message")
        is_within = kind == 2 and number in texts
        weight += PART_BYTES if is_within else max(PART_BYTES, length)
        if is_within and texts[number] is not None:
            weight = _weight(data, at, at + length, texts[number], weight)
        at += length
    return weight


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number and where the next thing begins.   Errors: ValueError."""
    value = 0
    for place, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("a number that does not end")


def asked_by(request: rtc.JoinRequest) -> Asked:
    """Return what a join request says.   Errors: Refused 400 for more than clients announce before they have joined."""
    if len(request.add_track_requests) > MAX_FIRST_TRACKS:
        raise Refused(400, f"A join_request announces at most {MAX_FIRST_TRACKS} tracks.")
    said, settings = request.client_info, request.connection_settings
    attributes = tuple(request.participant_attributes.items())
    if len(request.metadata) + sum(len(key) + len(value) for key, value in attributes) > MAX_ATTRIBUTES_CHARACTERS:
        raise Refused(400, f"The metadata and attributes of a participant have at most {MAX_ATTRIBUTES_CHARACTERS} characters.")
    client = ClientInfo(
        protocol=said.protocol if said.protocol > 0 else DEFAULT_PROTOCOL,
        sdk=_sdk(said.sdk),
        version=said.version[:32],
        client_protocol=max(0, said.client_protocol),
        capabilities=tuple(dict.fromkeys(said.capabilities[:64])),
        # Who says nothing means all, as in v0.
        auto_subscribe=settings.auto_subscribe or not request.HasField("connection_settings"),
        adaptive_stream=settings.adaptive_stream,
        reconnect=request.reconnect,
        participant_sid=request.participant_sid[:64],
        attributes=attributes,
        wants_json=False,
        metadata=request.metadata,
        is_single=True,
    )
    first = deque(rtc.SignalRequest(add_track=track) for track in request.add_track_requests)
    if request.reconnect and request.HasField("sync_state"):
        first.appendleft(rtc.SignalRequest(sync_state=request.sync_state))
    if request.HasField("publisher_offer"):
        first.append(rtc.SignalRequest(offer=request.publisher_offer))
    return Asked(client, first)


def _sdk(number: int) -> str:
    names = models.ClientInfo.SDK.DESCRIPTOR.values_by_number
    return names[number].name.lower() if number in names else ""
