"""One LiveKit client in a session: what it is told becomes messages; what it asks, `requests` makes calls of."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from livekit.protocol import models, rtc

from relay.clock import monotonic_ns, wall_s
from relay.log import get_logger
from relay.quality.choice import Quality
from relay.quality.connection import Rating
from relay.quality.explain import StreamState
from relay.quality.speakers import Speaker
from relay.rooms.endpoint import LeaveReason
from relay.signaling.channels import Origin
from relay.signaling.data_rules import Rate
from relay.signaling.feed import RosterUpdate
from relay.signaling.livekit import data, messages
from relay.signaling.livekit.missed import Missed
from relay.signaling.livekit.outbox import Frame, Outbox
from relay.signaling.livekit.requests import Requests
from relay.signaling.livekit.tokens import Grant, refresh, with_permission
from relay.signaling.turn import IceServer, ice_servers

if TYPE_CHECKING:
    from relay.signaling.hall import Hall
    from relay.signaling.session import Session

log = get_logger(__name__)

# LiveKit's interval; a refreshed token lives ten minutes at least, so one may be missed.
REFRESH_S = 300.0
# A client that sends so much that cannot be read is broken or hostile.
MAX_BAD_FRAMES = 16
# A client tries ten times, the first three within two seconds; each resume costs us the whole roster and an offer.
RESUMES_PER_S = 1
RESUMES_BURST = 10
# What a client asks is work on the loop that all calls share, for a list of tracks by its length: up to 80 us for each
# PART_BYTES, but no longer than requests.MAX_TRACKS_PER_REQUEST. Who asks for more is read more slowly. A room of 200 is joined with
# some 1,500 parts, descriptions for the most.
PART_BYTES = 256
MOST_PARTS = 256
PARTS_PER_S = 1000
PARTS_BURST = 5000
# Heartbeats are not answered while a client waits (`ws.HEARTBEAT_S`).
MOST_WAIT_S = 2.0
# How long a dead connection is taken for a live one (`ws.HEARTBEAT_S` and half of it for the answer, and some): what was
# written meanwhile was never read.
UNNOTICED_NS = 20_000_000_000
MAX_TAKEN_BACK = 64


class LivekitParticipant:
    """A `SessionListener` that speaks LiveKit."""

    def __init__(self, session: "Session", outbox: Outbox, grant: Grant, refusals: dict[str, int]) -> None:
        self.session = session
        self._grant = grant
        self.outbox = outbox
        self._refusals = refusals
        self.hall: Hall | None = None
        self._bad_frames = 0
        # Since when nobody reads what is put, None while somebody does.
        self._lost_ns: int | None = None
        self._heard_ns = monotonic_ns()
        self._missed = Missed()
        self._resumes = Rate(RESUMES_PER_S, RESUMES_BURST)
        self._asked = Rate(PARTS_PER_S, PARTS_BURST)
        self._last_sequence = 0
        # Tracks that the relay took back; the client may not have read it yet.
        self.taken_back: deque[str] = deque(maxlen=MAX_TAKEN_BACK)
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
                subscriber_primary=me.permission.can_subscribe and not self.session.joining.is_single,
                ping_interval_s=limits.ping_interval_s,
                ping_timeout_s=limits.ping_timeout_s,
                ice_servers=self._ice_servers(),
            )
        )
        self.session.tasks.spawn(self._refresh_token(), "token refresh")

    # A connection lost, and another one in its place.

    def on_signal_lost(self, outbox: Outbox) -> None:
        """Note that the WebSocket is gone. Without a goodbye before it, media that flows keeps the participant."""
        if outbox is not self.outbox:
            # Another one has taken its place already.
            return
        self._lost_ns = monotonic_ns()
        outbox.finish()
        if not self.session.is_over:
            self.session.lost_signal()

    def may_resume(self) -> bool:
        """True while its client resumes no more often than a bad network makes it."""
        return self._resumes.take(monotonic_ns())

    def resume(self, outbox: Outbox, grant: Grant) -> bool:
        """Go on over another connection, and tell what was missed; False when that is not known, and nothing changed.

        What the server allowed this participant counts, not what a token says that may be older than that.
        """
        assert self.hall is not None
        now_ns = monotonic_ns()
        lost_ns = now_ns if self._lost_ns is None else self._lost_ns
        departed = self.hall.departures.since(max(self._heard_ns, lost_ns - UNNOTICED_NS))
        if departed is None or self._missed.is_too_much:
            return False
        former, self.outbox = self.outbox, outbox
        former.replace()
        self._lost_ns, self._heard_ns = None, now_ns
        me, room = self.session.endpoint, self.hall.room
        self._grant = with_permission(grant, me.permission)
        self.put(messages.reconnect(self._ice_servers(), self._last_sequence))
        present = {endpoint.identity: endpoint for endpoint in room.endpoints.values()}
        # Browsers go by identity: the end of a former stay would end a later one that they know of already.
        ended = [
            one for one in departed if one.identity not in present or not former.knows(present[one.identity].sid)
        ]
        self.put(messages.update((*ended, *room.endpoints.values())))
        self.put(messages.room_update(room))
        for publication in me.publications.values():
            if publication.is_silenced:
                # Before the client says itself what is muted.
                self.put(messages.mute(publication.sid, True))
            if not publication.bound:
                self.put(messages.track_published(publication.cid, publication))
        for message in self._missed.take(room.endpoints):
            self.put(message)
        self.put(rtc.SignalResponse(refresh_token=refresh(self._grant, wall_s())))
        self.session.resumed()
        return True

    # What the session tells.

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

    def on_sections_wanted(self, audios: int, videos: int) -> None:
        """Ask for an offer."""
        self.put(messages.sections_wanted(audios, videos))

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
        self.taken_back.append(track_sid)
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
        if stamped.sequence:
            if stamped.sequence <= self._last_sequence:
                # A client that comes back sends again what it cannot know to have arrived.
                self.refuse("data_repeated")
                return
            self._last_sequence = stamped.sequence
        reason = self.session.data_rules.refusal(is_encrypted=stamped.is_encrypted, keys=stamped.keys)
        if reason is not None:
            self.refuse(reason)
            return
        origin = Origin(me.sid, stamped.sequence) if stamped.sequence else None
        for recipient in self.hall.room.data_recipients(me.sid, stamped.identities, stamped.sids):
            session = self.hall.sessions.get(recipient.sid)
            if session is not None:
                session.send_data(label, stamped.payload, origin)

    def on_ended(self, reason: LeaveReason, *, come_back: bool) -> None:
        """Say that it is over, unless the client said it first."""
        if reason is not LeaveReason.CLIENT_INITIATED and self._lost_ns is None:
            self.outbox.put(messages.leave(reason, come_back=come_back))
        self.outbox.finish()

    # What the client asks.

    async def on_frame(self, frame: bytes | str, outbox: Outbox) -> None:
        """Handle one message of the WebSocket that `outbox` belongs to. Text is protobuf-JSON, and is answered in kind."""
        if outbox is not self.outbox:
            return
        self._heard_ns = monotonic_ns()
        wait_s = self._asked.owe(min(MOST_PARTS, 1 + len(frame) // PART_BYTES), self._heard_ns, most_s=MOST_WAIT_S)
        if wait_s:
            self.refuse("signal_pace")
            await asyncio.sleep(wait_s)
            if outbox is not self.outbox or self.session.is_over:
                return
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
        await self.handle(request)

    async def handle(self, request: rtc.SignalRequest) -> None:
        """Do what the client asks for."""
        await self._requests.handle(request)

    # Inside.

    async def _refresh_token(self) -> None:
        """Keep the client able to join anew after its first token has ended."""
        while True:
            token = refresh(self._grant, wall_s())
            self.put(rtc.SignalResponse(refresh_token=token))
            await asyncio.sleep(REFRESH_S)

    def put(self, message: rtc.SignalResponse | Frame) -> None:
        """Send, or keep what its client cannot be told otherwise when it is back. Frames are shared, of what it reads anew."""
        if self.session.is_over:
            return
        if self._lost_ns is None:
            self.outbox.put(message)
        elif not isinstance(message, Frame):
            self._missed.add(message)

    def _ice_servers(self) -> list[IceServer]:
        return ice_servers(self.session.conference.turn, self.session.sid, int(wall_s()))

    def refuse(self, what: str) -> None:
        """Count something of this client that was refused or dropped."""
        self._refusals[what] = self._refusals.get(what, 0) + 1

    @staticmethod
    def _shared(update: RosterUpdate, name: str, make: Callable[[], rtc.SignalResponse]) -> Frame:
        frame = update.forms.get(name)
        if not isinstance(frame, Frame):
            frame = update.forms[name] = Frame(make())
        return frame
