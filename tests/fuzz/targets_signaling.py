"""Fuzz targets of LiveKit signalling: any frame of a client, any data packet.

Frames are handled by a participant of a real relay, in a room with another one, so that what a frame sets in motion
(publications, offers, updates for the other) runs too. A message that would hurt a client is a finding, like an
exception anywhere on the loop.
"""

import asyncio
import functools
from pathlib import Path

from livekit.protocol import models, rtc

from relay import log
from relay.server import Server
from relay.signaling.livekit import data as packets
from relay.signaling.livekit.client_info import read_client_info
from relay.signaling.livekit.http import endpoint
from relay.signaling.livekit.join_request import read_join_request
from relay.signaling.livekit.outbox import Outbox
from relay.signaling.livekit.participant import LivekitParticipant
from relay.signaling.livekit.tokens import read_grant
from relay.signaling.session import Joining
from tests.support.local_relay import KEYS, settings, token

RECORDED = Path(__file__).resolve().parents[1] / "vectors" / "join_request"
SDP = (
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=ice-ufrag:abcd\r\n"
    "a=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\na=setup:actpass\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendonly\r\na=msid:s c\r\na=rtcp-mux\r\n"
    "a=rtpmap:111 opus/48000/2\r\n"
)


class World:
    """A relay and two participants, kept over all inputs of one process. `is_single`: the one under test came over v1."""

    def __init__(self, *, is_single: bool = False) -> None:
        self._is_single = is_single
        log.configure("error")
        self.loop = asyncio.new_event_loop()
        self.failures: list[object] = []
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context.get("exception") or context))
        self.server = Server(settings(rooms_per_customer=1))
        self.loop.run_until_complete(self.server.start())
        self.people: dict[str, LivekitParticipant] = {}

    def person(self, identity: str) -> LivekitParticipant:
        """Return the participant of this identity, in the room."""
        known = self.people.get(identity)
        if known is not None and not known.session.is_over:
            return known
        return self.loop.run_until_complete(self._join(identity))

    async def _join(self, identity: str) -> LivekitParticipant:
        grant = read_grant(token(sub=identity, video={"canUpdateOwnMetadata": True}), KEYS)
        conference = self.server.conference
        who, is_single = endpoint(grant, read_client_info({})), self._is_single and identity == "me"
        session = await conference.prepare(Joining(who, grant.room, grant.key, grant.demands, is_single=is_single))
        participant = LivekitParticipant(session, Outbox(protocol=17), grant, {})
        conference.enter(session, participant)
        self.people[identity] = participant
        if identity == "other":
            # There is something to subscribe to.
            track = rtc.AddTrackRequest(cid="c", type=models.TrackType.AUDIO, source=models.TrackSource.MICROPHONE)
            offer = rtc.SessionDescription(type="offer", sdp=SDP, id=1)
            for request in (rtc.SignalRequest(add_track=track), rtc.SignalRequest(offer=offer)):
                await participant.on_frame(request.SerializeToString(), participant.outbox)
        return participant

    def handle(self, frame: bytes | str) -> str:
        """Have one participant send this frame, and return what the relay answered."""
        other, me = self.person("other"), self.person("me")
        self.loop.run_until_complete(self._handle(me, frame))
        kinds = []
        for participant in (me, other):
            while (item := participant.outbox.take()) is not None:
                participant.outbox.written(item)
                if isinstance(item, bytes):
                    kinds.append(str(rtc.SignalResponse.FromString(item).WhichOneof("message")))
            assert participant.outbox.violations == 0, "a message that would hurt a client"
        assert not self.failures, self.failures
        return " ".join(kinds[:4])

    @staticmethod
    async def _handle(participant: LivekitParticipant, frame: bytes | str) -> None:
        await participant.on_frame(frame, participant.outbox)
        await asyncio.sleep(0)


@functools.cache
def world(*, is_single: bool = False) -> World:
    return World(is_single=is_single)


def fuzz_signal_request(data: bytes) -> str:
    """One WebSocket frame; text when it begins like JSON."""
    return world().handle(data.decode("utf-8", "replace") if data[:1] == b"{" else data)


def seeds_signal_request() -> list[bytes]:
    R = rtc.SignalRequest
    track = rtc.AddTrackRequest(cid="c", type=models.TrackType.AUDIO, source=models.TrackSource.MICROPHONE)
    requests = [
        R(offer=rtc.SessionDescription(type="offer", sdp=SDP, id=1)),
        R(answer=rtc.SessionDescription(type="answer", sdp=SDP, id=1)),
        R(trickle=rtc.TrickleRequest(candidateInit='{"candidate":"","sdpMid":"0"}', target=1)),
        R(add_track=track),
        R(add_track=rtc.AddTrackRequest(cid="v", type=1, layers=[models.VideoLayer(quality=2, width=3)])),
        R(mute=rtc.MuteTrackRequest(sid="TR_x", muted=True)),
        R(subscription=rtc.UpdateSubscription(track_sids=["TR_x"], subscribe=True)),
        R(track_setting=rtc.UpdateTrackSettings(track_sids=["TR_x"], quality=1, width=3)),
        R(leave=rtc.LeaveRequest()),
        R(subscription_permission=rtc.SubscriptionPermission(track_permissions=[rtc.TrackPermission(all_tracks=True)])),
        R(ping=1),
        R(ping_req=rtc.Ping(timestamp=1)),
        R(update_metadata=rtc.UpdateParticipantMetadata(metadata="m", attributes={"a": "b"})),
        R(update_audio_track=rtc.UpdateLocalAudioTrack(track_sid="TR_x", features=[1])),
        R(update_video_track=rtc.UpdateLocalVideoTrack(track_sid="TR_x", width=1)),
        R(publish_data_track_request=rtc.PublishDataTrackRequest(pub_handle=1)),
        R(sync_state=rtc.SyncState()),
    ]
    return [request.SerializeToString() for request in requests] + [b'{"ping": "1"}', b'{"addTrack": {"cid": "j"}}']


def fuzz_signal_request_v1(data: bytes) -> str:
    """The same from a client whose one connection carries both directions."""
    return world(is_single=True).handle(data.decode("utf-8", "replace") if data[:1] == b"{" else data)


def seeds_signal_request_v1() -> list[bytes]:
    """The same, and the first offers of real clients, with the sections that they keep free for what they will receive."""
    texts = [file.read_text().strip() for file in sorted(RECORDED.iterdir())]
    offers = [read_join_request(text).publisher_offer for text in texts]
    requests = [rtc.SignalRequest(offer=offer) for offer in offers if offer.sdp]
    return seeds_signal_request() + [request.SerializeToString() for request in requests]


def fuzz_data_packet(data: bytes) -> str:
    """One data channel message."""
    stamped = packets.stamp(data, reliable=True, sid="PA_me", identity="me")
    if stamped is None:
        return "refused"
    packet = models.DataPacket.FromString(stamped.payload)
    assert (packet.participant_sid, packet.participant_identity) == ("PA_me", "me")
    if packet.HasField("user"):
        assert (packet.user.participant_sid, packet.user.participant_identity) == ("PA_me", "me")
    again = packets.stamp(stamped.payload, reliable=True, sid="PA_me", identity="me")
    assert again is not None and again.identities == stamped.identities and again.sids == stamped.sids
    return packet.WhichOneof("value") or "unknown"


def seeds_data_packet() -> list[bytes]:
    P = models.DataPacket
    return [
        P(user=models.UserPacket(payload=b"x", topic="t", destination_identities=["a"])).SerializeToString(),
        P(user=models.UserPacket(payload=b"x", destination_sids=["PA_a"]), sequence=3).SerializeToString(),
        P(encrypted_packet=models.EncryptedPacket(iv=b"i" * 12, encrypted_value=b"x")).SerializeToString(),
        P(chat_message=models.ChatMessage(message="hi"), destination_identities=["b"]).SerializeToString(),
        P(rpc_request=models.RpcRequest(id="1", method="m")).SerializeToString(),
        P(speaker=models.ActiveSpeakerUpdate()).SerializeToString(),
        b"\xfa\x07\x03abc",
    ]
