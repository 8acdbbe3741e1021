"""Fuzz target of LiveKit's v1 URL: the `join_request` parameter, from its letters down to the request inside."""

import base64
import gzip
from pathlib import Path

from livekit.protocol import models, rtc

from relay.errors import Refused
from relay.signaling.livekit.join_request import MAX_FIRST_TRACKS, MAX_LIGHT_BYTES, asked_by, read_join_request

RECORDED = Path(__file__).resolve().parents[1] / "vectors" / "join_request"
Wrapped = rtc.WrappedJoinRequest
TEXT, MESSAGE, STREAM, REQUEST, COMPRESSED = range(5)


def fuzz_join_request(data: bytes) -> str:
    """The first byte says what the rest is: a text, a wrapped request, a gzip stream, a request as it is or to be compressed."""
    kind, rest = data[:1], data[1:]
    layer = kind[0] % 5 if kind else TEXT
    message = rest
    if layer == STREAM:
        message = Wrapped(compression=Wrapped.Compression.GZIP, join_request=rest).SerializeToString()
    elif layer == REQUEST:
        message = Wrapped(join_request=rest).SerializeToString()
    elif layer == COMPRESSED:
        inner = gzip.compress(rest, 1, mtime=0)
        message = Wrapped(compression=Wrapped.Compression.GZIP, join_request=inner).SerializeToString()
    text = rest.decode("utf-8", "replace") if layer == TEXT else base64.urlsafe_b64encode(message).decode()
    try:
        request = read_join_request(text)
        asked = asked_by(request)
    except Refused as refused:
        assert 400 <= refused.status < 500 and refused.sentence.endswith(".")
        raise ValueError(refused.sentence) from None
    assert asked.client.is_single and asked.client.protocol > 0
    described = [request.publisher_offer.sdp, request.sync_state.offer.sdp, request.sync_state.answer.sdp]
    assert len(request.participant_attributes) + len(request.add_track_requests) <= MAX_LIGHT_BYTES // 64
    assert request.ByteSize() <= MAX_LIGHT_BYTES + sum(len(sdp.encode()) for sdp in described) + 64
    kinds = [first.WhichOneof("message") for first in asked.first]
    assert kinds == sorted(kinds, key=["sync_state", "add_track", "offer"].index) and len(kinds) <= MAX_FIRST_TRACKS + 2
    again = Wrapped(join_request=request.SerializeToString()).SerializeToString()
    # An empty one is none.
    assert not again or read_join_request(base64.b64encode(again).decode()) == request
    return " ".join(sorted({str(kind) for kind in kinds})) + asked.client.sdk


def seeds_join_request() -> list[bytes]:
    texts = [file.read_text().strip() for file in sorted(RECORDED.iterdir())]
    full = rtc.JoinRequest(
        client_info=models.ClientInfo(sdk=models.ClientInfo.SDK.GO, protocol=17, capabilities=[1, 2]),
        connection_settings=rtc.ConnectionSettings(adaptive_stream=True),
        metadata="m",
        participant_attributes={"a": "b"},
        add_track_requests=[rtc.AddTrackRequest(cid="c", layers=[models.VideoLayer(width=1)])],
        publisher_offer=rtc.SessionDescription(type="offer", sdp="v=0\r\n", mid_to_track_id={"0": "TR_1"}),
        reconnect=True,
        participant_sid="PA_1",
        sync_state=rtc.SyncState(answer=rtc.SessionDescription(sdp="v=0\r\n"), track_sids_disabled=["TR_1"]),
    ).SerializeToString()
    messages = [base64.urlsafe_b64decode(text) for text in texts]
    streams = [Wrapped.FromString(message).join_request for message in messages]
    seeds = [(TEXT, text.encode()) for text in texts] + [(MESSAGE, message) for message in messages]
    seeds += [(STREAM, stream) for stream in streams] + [(REQUEST, full), (COMPRESSED, full)]
    return [bytes([layer]) + data for layer, data in seeds]
