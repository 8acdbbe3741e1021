"""One participant's stay on this relay: its transports and what it is told. Protocol-neutral.

v0 of LiveKit's protocol and its like: a publisher transport, for which the client offers, and a subscriber transport,
for which we offer. The subscriber one exists from the start where the participant may subscribe; the publisher one
begins with the first offer. v1 has the publisher transport alone, which then carries both directions.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from relay.config import ApiKey
from relay.errors import VeilError
from relay.log import get_logger
from relay.policy.terms import NO_DEMANDS, Demands
from relay.policy.tiers import RoomKey, least
from relay.quality.choice import Quality
from relay.quality.connection import Rating
from relay.quality.explain import Explanation, StreamState
from relay.quality.speakers import Speaker
from relay.rooms.endpoint import Endpoint, LeaveReason
from relay.signaling.allocation import Division
from relay.signaling.answering import AnsweringSubscriber
from relay.signaling.channels import DataPipe, Origin
from relay.signaling.data_rules import DataRules
from relay.signaling.explaining import explain
from relay.signaling.feed import RosterUpdate
from relay.signaling.offering import OfferingSubscriber
from relay.signaling.publishing import PublisherSide
from relay.signaling.subscribing import SubscriberSide
from relay.signaling.tasks import Tasks
from relay.signaling.transports import TransportDriver

if TYPE_CHECKING:
    from relay.signaling.conference import Conference
    from relay.signaling.hall import Hall

log = get_logger(__name__)

# How long a participant whose media died may take to come back before it is removed (LiveKit: 5 s).
GRACE_S = 5.0
# How long a participant may be without signalling while its media lives. Clients give up by themselves before: browsers'
# ten attempts are over after a minute, or two where each of them times out.
SIGNAL_LOST_S = 120.0
RELIABLE = "_reliable"
LOSSY = "_lossy"


class SessionListener(Protocol):
    """The adapter's side of a session; all calls on the loop, none may raise."""

    def on_joined(self, hall: "Hall") -> None:
        """The participant is in; must become the first thing its client reads."""

    def on_roster(self, update: RosterUpdate) -> None:
        """Others changed, or the room did."""

    def on_offer(self, sdp: str, number: int, track_by_mid: Mapping[str, str]) -> None:
        """A description of the subscriber transport that has to be answered."""

    def on_sections_wanted(self, audios: int, videos: int) -> None:
        """The client has to offer again, with so many more sections to receive on; 0 of both: as they are."""

    def on_first_subscriber(self, track_sid: str) -> None:
        """Somebody sees a track of this participant."""

    def on_consent(self, publisher_sid: str, track_sid: str, allowed: bool) -> None:
        """A publisher gave or took its consent."""

    def on_subscription_failed(self, track_sid: str, *, is_unsupported: bool) -> None:
        """A track that was asked for cannot be had: it is not there, or its codec is not understood."""

    def on_unpublished(self, track_sid: str) -> None:
        """The relay took a track of this participant back; `on_notice` says why."""

    def on_muted(self, track_sid: str, muted: bool) -> None:
        """A track of this participant was muted or unmuted from outside."""

    def on_permission(self) -> None:
        """The participant has other rights now."""

    def on_notice(self, sentence: str) -> None:
        """Something of this participant was refused or stopped that no answer can tell it about."""

    def on_speakers(self, changes: Sequence[Speaker]) -> None:
        """Somebody whom this participant hears, or itself, began or stopped to speak or changed in loudness."""

    def on_stream_states(self, changes: Sequence[StreamState]) -> None:
        """The participant's path has no room for these videos any more, or has again."""

    def on_demand(self, track_sid: str, enabled: Mapping[Quality, bool]) -> None:
        """Of a track of this participant, which qualities anybody wants changed."""

    def on_ratings(self, ratings: Mapping[str, Rating]) -> None:
        """The connections of these participants, by sid, are rated anew."""

    def on_data(self, label: str, data: bytes) -> None:
        """The participant sent a data channel message."""

    def on_ended(self, reason: LeaveReason, *, come_back: bool) -> None:
        """The session is over; the client is told whether to join again."""


@dataclass(frozen=True, slots=True)
class Joining:
    """What a verified client asks for when it joins."""

    endpoint: Endpoint
    room: RoomKey
    # What its token was signed with; the session ends when that is taken back.
    key: ApiKey
    demands: Demands = NO_DEMANDS
    # When its token was signed, in seconds of wall time; one that does not say it is as old as can be.
    issued_s: float = 0
    # One connection carries both directions, for which the client alone offers.
    is_single: bool = False


class Session:
    """Made by `Conference.prepare`, put into its room by `Conference.enter`, over after `end`."""

    def __init__(self, conference: "Conference", joining: Joining) -> None:
        self.conference = conference
        self.joining = joining
        self.endpoint = joining.endpoint
        self.hall: Hall | None = None
        self.listener: SessionListener | None = None
        self.tasks = Tasks()
        self.is_over = False
        self.pipe = DataPipe(self._on_pipe_overflow, reliable_label=RELIABLE)
        self.publisher = PublisherSide(self)
        self.data_rules = DataRules(self)
        self.division = Division(self)
        self.subscriber: SubscriberSide | None = (
            self._new_subscriber() if self.endpoint.permission.can_subscribe else None
        )
        self._ever_connected = False
        self._gone: set[TransportDriver] = set()
        self._closed: set[TransportDriver] = set()
        self._grace: asyncio.TimerHandle | None = None
        self._signal_deadline: asyncio.TimerHandle | None = None
        self._join_deadline: asyncio.TimerHandle | None = None

    @property
    def sid(self) -> str:
        """The participant's sid."""
        return self.endpoint.sid

    @property
    def answering(self) -> AnsweringSubscriber | None:
        """The subscriber side, where the client's offers are for both directions."""
        return self.subscriber if isinstance(self.subscriber, AnsweringSubscriber) else None

    async def open(self) -> None:
        """Make what the first description needs.   Errors: PlaneError."""
        if self.subscriber is not None:
            await self.subscriber.open()

    def entered(self, hall: "Hall", listener: SessionListener) -> None:
        """Note that the session is in its room and whom to tell."""
        self.hall = hall
        self.listener = listener
        loop = asyncio.get_running_loop()
        self._join_deadline = loop.call_later(self.conference.limits.join_timeout_s, self._on_join_deadline)

    def begin(self) -> None:
        """Begin to negotiate; the listener has told the client that it is in."""
        if self.subscriber is not None:
            self.subscriber.begin()

    async def let_subscribe(self) -> None:
        """Make what subscriptions need, for who could not subscribe when it joined.   Errors: PlaneError."""
        if self.subscriber is not None or self.is_over:
            return
        side = self._new_subscriber()
        await side.open()
        if self.subscriber is not None or self.is_over:
            await side.close()
            return
        self.subscriber = side
        if self._signal_deadline is not None:
            side.pause()
        side.begin()

    def new_driver(self) -> TransportDriver:
        """Return a transport of this session that is not open yet."""
        conference, room = self.conference, self.joining.room
        return TransportDriver(
            conference.plane,
            conference.certificate,
            conference.pool,
            self,
            max_message_bytes=conference.limits.data_message_bytes,
            group=room,
            refusals=conference.refusals,
            bits_per_s=least(conference.limits.peer_bits_per_s, conference.tier_of(room).limits.bits_per_s),
        )

    def send_data(self, label: str, data: bytes, origin: Origin | None = None) -> None:
        """Send a data channel message to this participant; `origin` is what its client knows a repeated one by."""
        if not self.is_over:
            self.pipe.send(label, data, origin)

    def forward(self, track_sid: str, encoding: int | None) -> None:
        """Forward this encoding of a sound, None for nothing; of a video at most this one, as far as the path goes."""
        if self.division.has(track_sid):
            self.division.set_ceiling(track_sid, encoding)
        elif self.subscriber is not None:
            self.subscriber.forward(track_sid, encoding)

    def explain(self) -> list[Explanation]:
        """Return of every subscription what is forwarded now, the best there is, and what stands between them."""
        return explain(self)

    def lost_signal(self) -> None:
        """Note that the signalling connection is gone without a goodbye; media that flows keeps the participant."""
        if self.subscriber is not None:
            self.subscriber.pause()
        if not self._ever_connected or self._is_all_gone():
            self.end(LeaveReason.SIGNAL_CLOSE)
            return
        log.info("signalling lost", participant=self.sid)
        self._signal_deadline = asyncio.get_running_loop().call_later(SIGNAL_LOST_S, self._on_signal_deadline)

    def resumed(self) -> None:
        """Note that the client has a signalling connection again, which has just been told who is here."""
        if self._signal_deadline is not None:
            self._signal_deadline.cancel()
            self._signal_deadline = None
        self.conference.resumes += 1
        log.info("signalling resumed", participant=self.sid)
        if self.subscriber is not None:
            self.subscriber.resume()

    def end(self, reason: LeaveReason, *, come_back: bool = False) -> None:
        """End the session: out of the room, transports closed. Only the first call counts."""
        if self.is_over:
            return
        self.conference.remove(self, reason)
        self.close(reason, come_back=come_back)

    def close(self, reason: LeaveReason, *, come_back: bool = False) -> None:
        """Tell the client and give back the transports; the room has let go of the participant already."""
        if self.is_over:
            return
        self.is_over = True
        self.division.close()
        for timer in (self._grace, self._join_deadline, self._signal_deadline):
            if timer is not None:
                timer.cancel()
        if self.listener is not None:
            self.listener.on_ended(reason, come_back=come_back)
        self.conference.tasks.spawn(self.close_sides(), "close session")

    async def close_sides(self) -> None:
        """Give back both transports; part of `close`, and all there is to do for a session that never entered."""
        self.tasks.cancel()
        for side in (self.publisher, self.subscriber):
            if side is not None:
                try:
                    await side.close()
                except VeilError as error:
                    log.warning("a transport did not close cleanly", participant=self.sid, why=str(error))

    # From the transports.

    def on_connected(self, driver: TransportDriver) -> None:
        """Note that media flows; the primary transport makes the participant active."""
        self._ever_connected = True
        if self.subscriber is not None and driver is self.subscriber.driver:
            self.subscriber.connected()
        primary = self.subscriber.driver if self.subscriber is not None else self.publisher.driver
        if driver is primary and self.hall is not None and not self.is_over:
            if self._join_deadline is not None:
                self._join_deadline.cancel()
            self.hall.carry_out(self.hall.room.activate(self.sid))
            log.info("participant active", room=self.hall.room.sid, participant=self.sid)

    def on_reachable(self, driver: TransportDriver, is_reachable: bool) -> None:
        """Note that ICE found or lost the client."""
        if is_reachable:
            # ICE may outlive what it carried; nothing comes through a transport that is closed.
            if driver not in self._closed:
                self._gone.discard(driver)
        else:
            self._gone.add(driver)
        self._reconsider_grace()

    def on_estimate(self, driver: TransportDriver, estimate_bps: int) -> None:
        """Have videos divided by what their transport carries."""
        if self.subscriber is not None and driver is self.subscriber.driver and not self.is_over:
            self.division.on_estimate(estimate_bps)

    def on_closed(self, driver: TransportDriver, reason: str) -> None:
        """Note that a transport will carry nothing any more."""
        log.info("transport closed", participant=self.sid, transport=driver.id, why=reason)
        self._closed.add(driver)
        self._gone.add(driver)
        self._reconsider_grace()

    def on_channel_open(self, driver: TransportDriver, channel: int, label: str) -> None:
        """Note a channel towards this participant; those of the subscriber transport are preferred."""
        is_preferred = self.subscriber is not None and driver is self.subscriber.driver
        self.pipe.opened(driver, channel, label, preferred=is_preferred)

    def on_channel_room(self, driver: TransportDriver, channel: int) -> None:
        """Send what waited."""
        self.pipe.has_room()

    def on_channel_closed(self, driver: TransportDriver, channel: int) -> None:
        """Note that a channel is gone."""
        self.pipe.closed(driver, channel)

    def on_message(self, driver: TransportDriver, label: str, data: bytes, binary: bool) -> None:
        """Hand a message to the adapter. Text messages are not part of the protocol and dropped."""
        if binary and not self.is_over and self.listener is not None:
            self.listener.on_data(label, data)

    @property
    def transports(self) -> tuple[int, ...]:
        """The data plane's numbers of the open transports."""
        return tuple(driver.id for driver in self._drivers() if driver.id and not driver.is_closed)

    # Inside.

    def _new_subscriber(self) -> SubscriberSide:
        return AnsweringSubscriber(self) if self.joining.is_single else OfferingSubscriber(self)

    def _drivers(self) -> list[TransportDriver]:
        drivers = [self.publisher.driver, self.subscriber.driver if self.subscriber else None]
        return [driver for driver in dict.fromkeys(drivers) if driver is not None]

    def _is_all_gone(self) -> bool:
        return all(driver in self._gone for driver in self._drivers() if driver.is_reachable or driver in self._gone)

    def _reconsider_grace(self) -> None:
        if self.is_over:
            return
        if not self._gone:
            if self._grace is not None:
                self._grace.cancel()
                self._grace = None
        elif self._grace is None:
            self._grace = asyncio.get_running_loop().call_later(GRACE_S, self._on_grace_over)

    def _on_grace_over(self) -> None:
        log.info("participant lost its media", participant=self.sid)
        self.end(LeaveReason.CONNECTION_TIMEOUT, come_back=True)

    def _on_join_deadline(self) -> None:
        log.info("participant never connected its media", participant=self.sid)
        self.end(LeaveReason.CONNECTION_TIMEOUT)

    def _on_signal_deadline(self) -> None:
        log.info("participant did not bring its signalling back", participant=self.sid)
        self.end(LeaveReason.SIGNAL_CLOSE)

    def _on_pipe_overflow(self) -> None:
        log.warning("participant does not read its data channel", participant=self.sid)
        asyncio.get_running_loop().call_soon(lambda: self.end(LeaveReason.CONNECTION_TIMEOUT, come_back=True))
