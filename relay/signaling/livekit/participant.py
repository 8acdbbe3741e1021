"""One LiveKit client in a session: what it is told becomes messages; what it asks, `requests` makes calls of."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from livekit.protocol import models, rtc

from relay.clock import wall_s
from relay.log import get_logger
from relay.quality.choice import Quality
from relay.quality.connection import Rating
from relay.quality.explain import StreamState
from relay.quality.speakers import Speaker
from relay.rooms.endpoint import LeaveReason
from relay.signaling.feed import RosterUpdate
from relay.signaling.livekit import data, messages
from relay.signaling.livekit.outbox import Frame, Outbox
from relay.signaling.livekit.requests import Requests
from relay.signaling.livekit.tokens import Grant, refresh, with_permission
from relay.signaling.turn import ice_servers

if TYPE_CHECKING:
    from relay.signaling.hall import Hall
    from relay.signaling.session import Session

log = get_logger(__name__)

# LiveKit's interval; a refreshed token lives ten minutes at least, so one may be missed.
REFRESH_S = 300.0
# A client that sends so much that cannot be read is broken or hostile.
MAX_BAD_FRAMES = 16


class LivekitParticipant:
    """A `SessionListener` that speaks LiveKit."""

    def __init__(self, session: "Session", outbox: Outbox, grant: Grant, refusals: dict[str, int]) -> None:
        self.session = session
        self._grant = grant
        self.outbox = outbox
        self._refusals = refusals
        self.hall: Hall | None = None
        self._bad_frames = 0
        self._is_cut_off = False
        self._requests = Requests(self)

    # What the session tells.

    def on_joined(self, hall: "Hall") -> None:
        """Send the first frame."""
        self.hall = hall
        me = self.session.endpoint
        limits = self.session.conference.limits
        self.put(
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
        assert self.hall is not None
        if (update.departed or update.changed) and update.alone_about != self.session.sid:
            self.put(self._shared(update, "roster", lambda: messages.update((*update.departed, *update.changed))))
        if update.room_changed:
            room = self.hall.room
            self.put(self._shared(update, "room", lambda: messages.room_update(room)))

    def on_offer(self, sdp: str, number: int, track_by_mid: Mapping[str, str]) -> None:
        """Send our offer for the subscriber transport."""
        self.put(messages.offer(sdp, number, track_by_mid))

    def on_speakers(self, changes: Sequence[Speaker]) -> None:
        """Tell who speaks now."""
        self.put(messages.speakers(changes))

    def on_stream_states(self, changes: Sequence[StreamState]) -> None:
        """Tell which videos are paused for want of bandwidth."""
        self.put(messages.stream_states(changes))

    def on_demand(self, track_sid: str, enabled: Mapping[Quality, bool]) -> None:
        """Have the client stop or resume sending qualities of a track."""
        publication = self.session.endpoint.publications.get(track_sid)
        if publication is not None:
            self.put(messages.subscribed_quality(publication, enabled))

    def on_ratings(self, ratings: Mapping[str, Rating]) -> None:
        """Tell how good connections are."""
        self.put(messages.connection_quality(ratings))

    def on_first_subscriber(self, track_sid: str) -> None:
        """Tell the publisher; native clients wait for it."""
        self.put(rtc.SignalResponse(track_subscribed=rtc.TrackSubscribed(track_sid=track_sid)))

    def on_consent(self, publisher_sid: str, track_sid: str, allowed: bool) -> None:
        """Tell what a publisher allows now."""
        update = rtc.SubscriptionPermissionUpdate(participant_sid=publisher_sid, track_sid=track_sid, allowed=allowed)
        self.put(rtc.SignalResponse(subscription_permission_update=update))

    def on_subscription_failed(self, track_sid: str, *, is_unsupported: bool) -> None:
        """Tell that a track cannot be had. A name that is no track sid is not echoed: native clients would abort."""
        if not track_sid.startswith("TR_") or len(track_sid) > 64:
            return
        error = models.SubscriptionError
        err = error.SE_CODEC_UNSUPPORTED if is_unsupported else error.SE_TRACK_NOTFOUND
        self.put(rtc.SignalResponse(subscription_response=rtc.SubscriptionResponse(track_sid=track_sid, err=err)))

    def on_unpublished(self, track_sid: str) -> None:
        """Have the client stop sending a track."""
        self.put(messages.track_unpublished(track_sid))

    def on_muted(self, track_sid: str, muted: bool) -> None:
        """Have the client mute a track; nothing of it is forwarded either way."""
        self.put(messages.mute(track_sid, muted))

    def on_permission(self) -> None:
        """Give the client a token with the rights it has now, to come back with."""
        self._grant = with_permission(self._grant, self.session.endpoint.permission)
        self.put(rtc.SignalResponse(refresh_token=refresh(self._grant, wall_s())))

    def on_notice(self, sentence: str) -> None:
        """Tell the person, by a data message: signalling has no text that clients show."""
        self.session.send_data(data.RELIABLE, messages.notice(sentence))

    def on_data(self, label: str, message: bytes) -> None:
        """Pass a data packet on to whom it names. Labels we do not know are accepted and lead nowhere."""
        if label not in (data.RELIABLE, data.LOSSY) or self.hall is None:
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
        for recipient in self.hall.room.data_recipients(me.sid, stamped.identities, stamped.sids):
            session = self.hall.sessions.get(recipient.sid)
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
        await self._requests.handle(request)

    # Inside.

    async def _refresh_token(self) -> None:
        """Keep the client able to join anew after its first token has ended."""
        while True:
            token = refresh(self._grant, wall_s())
            self.put(rtc.SignalResponse(refresh_token=token))
            await asyncio.sleep(REFRESH_S)

    def put(self, message: rtc.SignalResponse | Frame) -> None:
        """Send while there is somebody to tell."""
        if not self.session.is_over and not self._is_cut_off:
            self.outbox.put(message)

    def refuse(self, what: str) -> None:
        """Count something of this client that was refused or dropped."""
        self._refusals[what] = self._refusals.get(what, 0) + 1

    @staticmethod
    def _shared(update: RosterUpdate, name: str, make: Callable[[], rtc.SignalResponse]) -> Frame:
        frame = update.forms.get(name)
        if not isinstance(frame, Frame):
            frame = update.forms[name] = Frame(make())
        return frame
