"""One LiveKit client in a session: what it is told becomes messages, what it asks becomes calls.

Requests are handled one after another, in the order in which they were sent, by a handler per message type. What a
newer client may add is accepted and ignored.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from livekit.protocol import models, rtc

from relay.clock import wall_ms, wall_s
from relay.errors import Refused, VeilError
from relay.ids import new_sid
from relay.log import get_logger
from relay.quality.connection import Rating
from relay.quality.speakers import Speaker
from relay.rooms.endpoint import LeaveReason
from relay.rooms.intents import Intent
from relay.rooms.room import Room
from relay.sdp import SdpError
from relay.session import FingerprintRefused
from relay.signaling.feed import RosterUpdate
from relay.signaling.livekit import data, messages
from relay.signaling.livekit.outbox import Frame, Outbox
from relay.signaling.livekit.tokens import Grant, refresh, with_permission
from relay.signaling.turn import ice_servers

if TYPE_CHECKING:
    from relay.signaling.hall import Hall
    from relay.signaling.session import Session

log = get_logger(__name__)

Reason = rtc.RequestResponse.Reason
# LiveKit's interval; a refreshed token lives ten minutes at least, so one may be missed.
REFRESH_S = 300.0
# Names that a client makes up and that everybody in the room is sent.
MAX_TEXT_CHARACTERS = 1024
# A whole announcement with codecs and layers: everybody is sent what it says, with each change of its publisher.
MAX_TRACK_BYTES = 4096
MAX_METADATA_BYTES = 65_536
# A client that sends so much that cannot be read is broken or hostile.
MAX_BAD_FRAMES = 16
# Track sids in one request; a room has not nearly as many.
MAX_TRACKS_PER_REQUEST = 1024


class LivekitParticipant:
    """A `SessionListener` that speaks LiveKit."""

    def __init__(self, session: "Session", outbox: Outbox, grant: Grant, refusals: dict[str, int]) -> None:
        self.session = session
        self._grant = grant
        self.outbox = outbox
        self._refusals = refusals
        self._hall: Hall | None = None
        self._bad_frames = 0
        self._is_cut_off = False
        self._handlers: dict[str, Callable[[Any], Awaitable[None] | None]] = {
            "offer": self._on_offer,
            "answer": self._on_answer,
            "add_track": self._on_add_track,
            "mute": self._on_mute,
            "subscription": self._on_subscription,
            "track_setting": self._on_track_setting,
            "leave": self._on_leave,
            "subscription_permission": self._on_subscription_permission,
            "ping": self._on_ping,
            "ping_req": self._on_ping_req,
            "update_metadata": self._on_update_metadata,
            "update_audio_track": self._on_update_audio_track,
            "update_video_track": self._on_update_video_track,
            "publish_data_track_request": self._on_publish_data_track,
        }

    # What the session tells.

    def on_joined(self, hall: "Hall") -> None:
        """Send the first frame."""
        self._hall = hall
        me = self.session.endpoint
        limits = self.session.conference.limits
        self._put(
            messages.join(
                hall.room,
                me,
                [other for other in hall.room.endpoints.values() if other is not me],
                subscriber_primary=me.permission.can_subscribe,
                ping_interval_s=limits.ping_interval_s,
                ping_timeout_s=limits.ping_timeout_s,
                ice_servers=ice_servers(self.session.conference.turn, me.sid, int(wall_s())),
            )
        )
        self.session.tasks.spawn(self._refresh_token(), "token refresh")

    def on_roster(self, update: RosterUpdate) -> None:
        """Send what changed; the message is made once for the whole room."""
        assert self._hall is not None
        if (update.departed or update.changed) and update.alone_about != self.session.sid:
            self._put(self._shared(update, "roster", lambda: messages.update((*update.departed, *update.changed))))
        if update.room_changed:
            room = self._hall.room
            self._put(self._shared(update, "room", lambda: messages.room_update(room)))

    def on_offer(self, sdp: str, number: int, track_by_mid: Mapping[str, str]) -> None:
        """Send our offer for the subscriber transport."""
        self._put(messages.offer(sdp, number, track_by_mid))

    def on_speakers(self, changes: Sequence[Speaker]) -> None:
        """Tell who speaks now."""
        self._put(messages.speakers(changes))

    def on_ratings(self, ratings: Mapping[str, Rating]) -> None:
        """Tell how good connections are."""
        self._put(messages.connection_quality(ratings))

    def on_first_subscriber(self, track_sid: str) -> None:
        """Tell the publisher; native clients wait for it."""
        self._put(rtc.SignalResponse(track_subscribed=rtc.TrackSubscribed(track_sid=track_sid)))

    def on_consent(self, publisher_sid: str, track_sid: str, allowed: bool) -> None:
        """Tell what a publisher allows now."""
        update = rtc.SubscriptionPermissionUpdate(participant_sid=publisher_sid, track_sid=track_sid, allowed=allowed)
        self._put(rtc.SignalResponse(subscription_permission_update=update))

    def on_subscription_failed(self, track_sid: str, *, is_unsupported: bool) -> None:
        """Tell that a track cannot be had. A name that is no track sid is not echoed: native clients would abort."""
        if not track_sid.startswith("TR_") or len(track_sid) > 64:
            return
        error = models.SubscriptionError
        err = error.SE_CODEC_UNSUPPORTED if is_unsupported else error.SE_TRACK_NOTFOUND
        self._put(rtc.SignalResponse(subscription_response=rtc.SubscriptionResponse(track_sid=track_sid, err=err)))

    def on_unpublished(self, track_sid: str) -> None:
        """Have the client stop sending a track."""
        self._put(messages.track_unpublished(track_sid))

    def on_muted(self, track_sid: str, muted: bool) -> None:
        """Have the client mute a track; nothing of it is forwarded either way."""
        self._put(messages.mute(track_sid, muted))

    def on_permission(self) -> None:
        """Give the client a token with the rights it has now, to come back with."""
        self._grant = with_permission(self._grant, self.session.endpoint.permission)
        self._put(rtc.SignalResponse(refresh_token=refresh(self._grant, wall_s())))

    def on_notice(self, sentence: str) -> None:
        """Tell the person, by a data message: signalling has no text that clients show."""
        self.session.send_data(data.RELIABLE, messages.notice(sentence))

    def on_data(self, label: str, message: bytes) -> None:
        """Pass a data packet on to whom it names. Labels we do not know are accepted and lead nowhere."""
        if label not in (data.RELIABLE, data.LOSSY) or self._hall is None:
            return
        if not self.session.data_rules.admits_one_more():
            self.refuse("data_rate")
            return
        me = self.session.endpoint
        stamped = data.stamp(
            message,
            reliable=label == data.RELIABLE,
            sid=me.sid,
            identity=me.identity,
            is_agent=me.permission.agent,
        )
        if stamped is None:
            self.refuse("data_packet")
            return
        reason = self.session.data_rules.refusal(is_encrypted=stamped.is_encrypted, keys=stamped.keys)
        if reason is not None:
            self.refuse(reason)
            return
        for recipient in self._hall.room.data_recipients(me.sid, stamped.identities, stamped.sids):
            session = self._hall.sessions.get(recipient.sid)
            if session is not None:
                session.send_data(label, stamped.payload)

    def on_ended(self, reason: LeaveReason, *, come_back: bool) -> None:
        """Say that it is over, unless the client said it first."""
        if reason is not LeaveReason.CLIENT_INITIATED and not self._is_cut_off:
            self.outbox.put(messages.leave(reason, come_back=come_back))
        self.outbox.finish()

    def on_signal_lost(self) -> None:
        """Note that the WebSocket is gone. Without a goodbye before it, media that flows keeps the participant."""
        self._is_cut_off = True
        self.outbox.finish()
        if not self.session.is_over:
            self.session.lost_signal()

    # What the client asks.

    async def on_frame(self, frame: bytes | str) -> None:
        """Handle one WebSocket message. Text is protobuf-JSON, and is answered in kind."""
        request = rtc.SignalRequest()
        try:
            if isinstance(frame, str):
                self.outbox.is_text = True
                json_format.Parse(frame, request, ignore_unknown_fields=True, max_recursion_depth=32)
            else:
                request.ParseFromString(frame)
        except (DecodeError, json_format.ParseError, UnicodeError, RecursionError):
            self.refuse("signal_frame")
            self._bad_frames += 1
            if self._bad_frames > MAX_BAD_FRAMES:
                self.session.end(LeaveReason.STATE_MISMATCH)
            return
        await self.on_request(request)

    async def on_request(self, request: rtc.SignalRequest) -> None:
        """Handle one request; unknown ones of newer clients are ignored."""
        kind = request.WhichOneof("message")
        handler = self._handlers.get(kind) if kind else None
        if handler is None or self.session.is_over or self._hall is None:
            return
        done = handler(getattr(request, str(kind)))
        if done is not None:
            await done

    async def _on_offer(self, description: rtc.SessionDescription) -> None:
        me = self.session.endpoint
        try:
            if len(description.sdp) > self.session.conference.limits.sdp_bytes:
                raise SdpError(f"the description is longer than {self.session.conference.limits.sdp_bytes} bytes")
            sdp = await self.session.publisher.answer(description.sdp)
        except (SdpError, FingerprintRefused) as error:
            # An answer that does not fit would abort native clients; without one they give up by themselves.
            log.info("offer refused", participant=me.sid, why=str(error))
            self.refuse("offer")
            return
        except VeilError as error:
            # A transport that was just closed under the offer needs no words; any other cannot carry this client.
            if not self.session.is_over:
                log.error("offer could not be carried out", participant=me.sid, why=str(error))
                self.session.end(LeaveReason.MEDIA_FAILURE, come_back=True)
            return
        self._put(messages.answer(sdp, description.id))

    def _on_answer(self, description: rtc.SessionDescription) -> None:
        if self.session.subscriber is None or len(description.sdp) > self.session.conference.limits.sdp_bytes:
            self.refuse("answer")
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
            self._put(messages.track_published(request.cid, waiting))
            return
        publication = messages.read_publication(request, new_sid("TR"), me.sid)
        try:
            self.room.publish(publication)
        except Refused as refused:
            reason = Reason.NOT_ALLOWED if refused.status == 403 else Reason.LIMIT_EXCEEDED
            self._not_allowed(reason, refused.sentence, add_track=request)
            self.on_notice(refused.sentence)
            return
        self._put(messages.track_published(request.cid, publication))
        await self.session.publisher.announced()

    def _on_mute(self, request: rtc.MuteTrackRequest) -> None:
        assert self._hall is not None
        publication = self.room.own_publication(self.session.sid, request.sid)
        was_silenced = publication is not None and publication.is_silenced
        self._carry_out(self.room.set_muted(self.session.sid, request.sid, request.muted))
        if was_silenced:
            self._hall.settle(request.sid)

    def _on_subscription(self, request: rtc.UpdateSubscription) -> None:
        sids = [*request.track_sids, *(sid for tracks in request.participant_tracks for sid in tracks.track_sids)]
        self._carry_out(self.room.choose(self.session.sid, sids[:MAX_TRACKS_PER_REQUEST], request.subscribe))

    def _on_track_setting(self, request: rtc.UpdateTrackSettings) -> None:
        wanted = messages.read_wanted(request)
        assert self._hall is not None
        self._hall.set_wanted(self.session.sid, request.track_sids[:MAX_TRACKS_PER_REQUEST], wanted)

    def _on_leave(self, request: rtc.LeaveRequest) -> None:
        self.session.end(LeaveReason.CLIENT_INITIATED)

    def _on_subscription_permission(self, request: rtc.SubscriptionPermission) -> None:
        self._carry_out(self.room.set_audience(self.session.sid, messages.read_audience(request)))

    def _on_ping(self, timestamp: int) -> None:
        self._put(rtc.SignalResponse(pong=wall_ms()))

    def _on_ping_req(self, request: rtc.Ping) -> None:
        pong = rtc.Pong(last_ping_timestamp=request.timestamp, timestamp=wall_ms())
        self._put(rtc.SignalResponse(pong_resp=pong))

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
        self._put(
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

    async def _refresh_token(self) -> None:
        """Keep the client able to join anew after its first token has ended."""
        while True:
            token = refresh(self._grant, wall_s())
            self._put(rtc.SignalResponse(refresh_token=token))
            await asyncio.sleep(REFRESH_S)

    @property
    def room(self) -> Room:
        """The room's policy."""
        assert self._hall is not None
        return self._hall.room

    def _put(self, message: rtc.SignalResponse | Frame) -> None:
        """Send while there is somebody to tell."""
        if not self.session.is_over and not self._is_cut_off:
            self.outbox.put(message)

    def _carry_out(self, intents: Iterable[Intent]) -> None:
        assert self._hall is not None
        self._hall.carry_out(intents)

    def _not_allowed(self, reason: int, sentence: str, **echo: Any) -> None:
        self.refuse("request")
        request_id = getattr(next(iter(echo.values())), "request_id", 0)
        self._put(
            rtc.SignalResponse(
                request_response=rtc.RequestResponse(
                    request_id=request_id,
                    reason=reason,  # type: ignore[arg-type]
                    message=sentence,
                    **echo,
                )
            )
        )

    def refuse(self, what: str) -> None:
        """Count something of this client that was refused or dropped."""
        self._refusals[what] = self._refusals.get(what, 0) + 1

    @staticmethod
    def _shared(update: RosterUpdate, name: str, make: Callable[[], rtc.SignalResponse]) -> Frame:
        frame = update.forms.get(name)
        if not isinstance(frame, Frame):
            frame = update.forms[name] = Frame(make())
        return frame
