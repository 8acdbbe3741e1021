"""What a LiveKit client may ask for: a handler per message type, which makes calls of requests.

Requests are handled one after another, in the order in which they were sent. What a newer client may add is accepted and
ignored.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from livekit.protocol import models, rtc

from relay.clock import wall_ms
from relay.errors import Refused, VeilError
from relay.ids import new_sid
from relay.log import get_logger
from relay.quality.choice import BEST
from relay.rooms.endpoint import LeaveReason
from relay.rooms.intents import Intent
from relay.rooms.room import Room
from relay.sdp import SdpError
from relay.session import FingerprintRefused
from relay.signaling.livekit import messages

if TYPE_CHECKING:
    from relay.signaling.livekit.participant import LivekitParticipant
    from relay.signaling.session import Session

log = get_logger(__name__)

Reason = rtc.RequestResponse.Reason
# Names that a client makes up and that everybody in the room is sent.
MAX_TEXT_CHARACTERS = 1024
# A whole announcement with codecs and layers: everybody is sent what it says, with each change of its publisher.
MAX_TRACK_BYTES = 4096
MAX_METADATA_BYTES = 65_536
# Track sids in one request; a room has not nearly as many.
MAX_TRACKS_PER_REQUEST = 1024


class Requests:
    """The handlers of one client."""

    def __init__(self, client: "LivekitParticipant") -> None:
        self._client = client
        self._handlers: dict[str, Callable[[Any], Awaitable[None] | None]] = {
            "offer": self._on_offer,
            "answer": self._on_answer,
            "add_track": self._on_add_track,
            "mute": self._on_mute,
            "subscription": self._on_subscription,
            "track_setting": self._on_track_setting,
            "leave": self._on_leave,
            "subscription_permission": self._on_subscription_permission,
            "sync_state": self._on_sync_state,
            "ping": self._on_ping,
            "ping_req": self._on_ping_req,
            "update_metadata": self._on_update_metadata,
            "update_audio_track": self._on_update_audio_track,
            "update_video_track": self._on_update_video_track,
            "publish_data_track_request": self._on_publish_data_track,
        }

    @property
    def session(self) -> "Session":
        """Whose requests these are."""
        return self._client.session

    async def handle(self, request: rtc.SignalRequest) -> None:
        """Handle one request; unknown ones of newer clients are ignored."""
        kind = request.WhichOneof("message")
        handler = self._handlers.get(kind) if kind else None
        if handler is None or self.session.is_over or self._client.hall is None:
            return
        done = handler(getattr(request, str(kind)))
        if done is not None:
            await done

    async def _on_offer(self, description: rtc.SessionDescription) -> None:
        me, outbox = self.session.endpoint, self._client.outbox
        try:
            if len(description.sdp) > self.session.conference.limits.sdp_bytes:
                raise SdpError(f"the description is longer than {self.session.conference.limits.sdp_bytes} bytes")
            answered = await self.session.publisher.answer(description.sdp)
        except (SdpError, FingerprintRefused) as error:
            # An answer that does not fit would abort native clients; without one they give up by themselves.
            log.info("offer refused", participant=me.sid, why=str(error))
            self._client.refuse("offer")
            return
        except VeilError as error:
            # A transport that was just closed under the offer needs no words; any other cannot carry this client.
            if not self.session.is_over:
                log.error("offer could not be carried out", participant=me.sid, why=str(error))
                self.session.end(LeaveReason.MEDIA_FAILURE, come_back=True)
            return
        if self._client.outbox is not outbox:
            # Its client is back over another connection, and has made another offer.
            return
        self._client.put(messages.answer(answered.sdp, description.id, answered.track_by_mid))
        if self.session.answering is not None:
            await self.session.answering.told()

    def _on_answer(self, description: rtc.SessionDescription) -> None:
        if self.session.subscriber is None or len(description.sdp) > self.session.conference.limits.sdp_bytes:
            self._client.refuse("answer")
            return
        self.session.subscriber.answered(description.id, description.sdp)

    async def _on_add_track(self, request: rtc.AddTrackRequest) -> None:
        me = self.session.endpoint
        is_media = request.type in (models.TrackType.AUDIO, models.TrackType.VIDEO)
        texts = (request.cid, request.name, request.stream)
        # A request for an existing sid is a backup codec, which we never ask for.
        is_too_long = request.ByteSize() > MAX_TRACK_BYTES or any(len(text) > MAX_TEXT_CHARACTERS for text in texts)
        if not is_media or request.sid or not request.cid or is_too_long:
            self._not_allowed(Reason.INVALID_REQUEST, "This track cannot be published.", add_track=request)
            return
        waiting = next((p for p in me.pending_publications() if p.cid == request.cid), None)
        if waiting is not None:
            self._client.put(messages.track_published(request.cid, waiting))
            return
        publication = messages.read_publication(request, new_sid("TR"), me.sid)
        try:
            self.room.publish(publication)
        except Refused as refused:
            reason = Reason.NOT_ALLOWED if refused.status == 403 else Reason.LIMIT_EXCEEDED
            self._not_allowed(reason, refused.sentence, add_track=request)
            self._client.on_notice(refused.sentence)
            return
        self._client.put(messages.track_published(request.cid, publication))
        await self.session.publisher.announced()

    def _on_mute(self, request: rtc.MuteTrackRequest) -> None:
        assert self._client.hall is not None
        publication = self.room.own_publication(self.session.sid, request.sid)
        was_silenced = publication is not None and publication.is_silenced
        self._carry_out(self.room.set_muted(self.session.sid, request.sid, request.muted))
        if was_silenced:
            self._client.hall.settle(request.sid)

    def _on_subscription(self, request: rtc.UpdateSubscription) -> None:
        sids = [*request.track_sids, *(sid for tracks in request.participant_tracks for sid in tracks.track_sids)]
        self._carry_out(self.room.choose(self.session.sid, sids[:MAX_TRACKS_PER_REQUEST], request.subscribe))

    def _on_track_setting(self, request: rtc.UpdateTrackSettings) -> None:
        wanted = messages.read_wanted(request)
        assert self._client.hall is not None
        self._client.hall.set_wanted(self.session.sid, request.track_sids[:MAX_TRACKS_PER_REQUEST], wanted)

    def _on_leave(self, request: rtc.LeaveRequest) -> None:
        self.session.end(LeaveReason.CLIENT_INITIATED)

    def _on_subscription_permission(self, request: rtc.SubscriptionPermission) -> None:
        self._carry_out(self.room.set_audience(self.session.sid, messages.read_audience(request)))

    def _on_sync_state(self, state: rtc.SyncState) -> None:
        """Bring the session to what a client says that has just resumed it: it asked for it, and may not have been heard."""
        me, sid = self.session.endpoint, self.session.sid
        for published in state.publish_tracks[:MAX_TRACKS_PER_REQUEST]:
            if self.room.own_publication(sid, published.track.sid) is not None:
                continue
            if published.track.sid in self._client.taken_back:
                self._client.put(messages.track_unpublished(published.track.sid))
                continue
            log.info("resumed with a track that is not known", participant=sid, track=published.track.sid[:64])
            self.session.end(LeaveReason.STATE_MISMATCH, come_back=True)
            return
        assert self._client.hall is not None
        for track_sid in state.track_sids_disabled[:MAX_TRACKS_PER_REQUEST]:
            wanted = replace(me.wanted.get(track_sid, BEST), disabled=True)
            self._client.hall.set_wanted(sid, (track_sid,), wanted)
        self._sync_subscription(state.subscription)
        last = {said.publisher_sid: said.last_seq for said in state.datachannel_receive_states[:MAX_TRACKS_PER_REQUEST]}
        self.session.pipe.replay(last)

    def _sync_subscription(self, said: rtc.UpdateSubscription) -> None:
        """Take the list of all tracks whose choice is not that of auto_subscribe."""
        me = self.session.endpoint
        if said.subscribe == me.auto_subscribe:
            return
        sids = [*said.track_sids, *(sid for tracks in said.participant_tracks for sid in tracks.track_sids)]
        # One that ended meanwhile is no failure: the roster told of it.
        named = {sid for sid in sids[:MAX_TRACKS_PER_REQUEST] if self.room.publication(sid) is not None}
        others = [sid for sid, chosen in me.chosen.items() if chosen == said.subscribe and sid not in named]
        self._carry_out(self.room.choose(me.sid, named, said.subscribe))
        self._carry_out(self.room.choose(me.sid, [sid for sid in others if self.room.publication(sid)], me.auto_subscribe))

    def _on_ping(self, timestamp: int) -> None:
        self._client.put(rtc.SignalResponse(pong=wall_ms()))

    def _on_ping_req(self, request: rtc.Ping) -> None:
        pong = rtc.Pong(last_ping_timestamp=request.timestamp, timestamp=wall_ms())
        self._client.put(rtc.SignalResponse(pong_resp=pong))

    def _on_update_metadata(self, request: rtc.UpdateParticipantMetadata) -> None:
        if request.ByteSize() > MAX_METADATA_BYTES or len(request.name) > 256:
            self._not_allowed(Reason.LIMIT_EXCEEDED, "The metadata is too long.", update_metadata=request)
            return
        try:
            intents = self.room.update_description(
                self.session.sid,
                name=request.name,
                metadata=request.metadata,
                attributes=tuple(request.attributes.items()),
            )
        except Refused as refused:
            reason = Reason.NOT_ALLOWED if refused.status == 403 else Reason.LIMIT_EXCEEDED
            self._not_allowed(reason, refused.sentence, update_metadata=request)
            return
        self._carry_out(intents)
        self._client.put(
            rtc.SignalResponse(request_response=rtc.RequestResponse(request_id=request.request_id, reason=Reason.OK))
        )

    def _on_update_audio_track(self, request: rtc.UpdateLocalAudioTrack) -> None:
        features = tuple(request.features[:16])
        self._carry_out(self.room.describe_track(self.session.sid, request.track_sid, features=features))

    def _on_update_video_track(self, request: rtc.UpdateLocalVideoTrack) -> None:
        size = (request.width, request.height)
        self._carry_out(self.room.describe_track(self.session.sid, request.track_sid, size=size))

    def _on_publish_data_track(self, request: rtc.PublishDataTrackRequest) -> None:
        self._not_allowed(Reason.NOT_ALLOWED, "This server carries no data tracks.", publish_data_track=request)

    # Inside.

    @property
    def room(self) -> Room:
        """The room's policy."""
        assert self._client.hall is not None
        return self._client.hall.room

    def _carry_out(self, intents: Iterable[Intent]) -> None:
        assert self._client.hall is not None
        self._client.hall.carry_out(intents)

    def _not_allowed(self, reason: int, sentence: str, **echo: Any) -> None:
        self._client.refuse("request")
        request_id = getattr(next(iter(echo.values())), "request_id", 0)
        self._client.put(
            rtc.SignalResponse(
                request_response=rtc.RequestResponse(
                    request_id=request_id,
                    reason=reason,  # type: ignore[arg-type]
                    message=sentence,
                    **echo,
                )
            )
        )
