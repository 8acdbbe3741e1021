"""Reads the `join_request` of LiveKit's v1 URL: what v0 says in its query, and what a client asks for at once (LIVEKIT §1.2).

It is a `WrappedJoinRequest` in base64, whose inside may be gzip: a small line could unfold into gigabytes, so no more is
unfolded than a request may have.
"""

import base64
import binascii
import zlib
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from livekit.protocol import models, rtc

from relay.errors import Refused
from relay.signaling.livekit.client_info import DEFAULT_PROTOCOL, MAX_ATTRIBUTES_CHARACTERS, ClientInfo

# What a request may unfold into: an offer of as many sections as a description may have, and announcements.
MAX_REQUEST_BYTES = 1 << 20
# More tracks than any client announces before it has joined.
MAX_FIRST_TRACKS = 64
# zlib's way of saying "a gzip header, the largest window".
_GZIP = 31
_STANDARD_TO_URL = str.maketrans("+/", "-_")


@dataclass(frozen=True, slots=True)
class Asked:
    """Who wants to join, and its first requests, in the order in which they are to be handled."""

    client: ClientInfo
    first: tuple[rtc.SignalRequest, ...] = ()


def read_join_request(text: str) -> rtc.JoinRequest:
    """Return the request in a `join_request` parameter; base64 of either alphabet, padded or not.

    Errors: Refused 400 for what cannot be read, 413 for what is too large.
    """
    if not text:
        raise Refused(400, "The join_request is missing.")
    wrapped, request = rtc.WrappedJoinRequest(), rtc.JoinRequest()
    try:
        bare = text.rstrip("=").translate(_STANDARD_TO_URL)
        wrapped.ParseFromString(base64.b64decode(bare + "=" * (-len(bare) % 4), altchars="-_", validate=True))
        request.ParseFromString(_unwrapped(wrapped))
    except (binascii.Error, ValueError, DecodeError, zlib.error):
        raise Refused(400, "The join_request cannot be read.") from None
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


def asked_by(request: rtc.JoinRequest) -> Asked:
    """Return what a join request says.   Errors: Refused 400 for more first tracks than clients announce."""
    if len(request.add_track_requests) > MAX_FIRST_TRACKS:
        raise Refused(400, f"A join_request announces at most {MAX_FIRST_TRACKS} tracks.")
    said, settings = request.client_info, request.connection_settings
    attributes = tuple(request.participant_attributes.items())
    length = sum(len(key) + len(value) for key, value in attributes)
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
        attributes=attributes if length <= MAX_ATTRIBUTES_CHARACTERS else (),
        wants_json=False,
        metadata=request.metadata if len(request.metadata) <= MAX_ATTRIBUTES_CHARACTERS else "",
        is_single=True,
    )
    first = [rtc.SignalRequest(add_track=track) for track in request.add_track_requests]
    if request.reconnect and request.HasField("sync_state"):
        first.insert(0, rtc.SignalRequest(sync_state=request.sync_state))
    if request.HasField("publisher_offer"):
        first.append(rtc.SignalRequest(offer=request.publisher_offer))
    return Asked(client, tuple(first))


def _sdk(number: int) -> str:
    names = models.ClientInfo.SDK.DESCRIPTOR.values_by_number
    return names[number].name.lower() if number in names else ""
