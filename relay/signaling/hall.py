"""One room with the sessions in it: carries out what the room's policy intends."""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from relay.clock import monotonic_ns
from relay.log import get_logger
from relay.quality.choice import SETTLE_NS, Wanted
from relay.quality.speakers import WINDOW_S, Speakers
from relay.rooms.endpoint import Endpoint, LeaveReason
from relay.rooms.intents import (
    Announce,
    Attach,
    Depart,
    Detach,
    Forward,
    Intent,
    TellAllowed,
    TellFirstSubscriber,
    TellMuted,
    TellNotFound,
    TellPermission,
    TellRoom,
    TellUnpublished,
)
from relay.rooms.room import Room
from relay.signaling.demands import Demands
from relay.signaling.departures import Departures
from relay.signaling.feed import RosterFeed, RosterUpdate
from relay.signaling.stages import Stages

if TYPE_CHECKING:
    from relay.signaling.session import Session, SessionListener

log = get_logger(__name__)


class RoomObserver(Protocol):
    """Somebody outside who is told of one room; no call may raise or wait."""

    def changed(self, endpoint: Endpoint) -> None:
        """A participant came or changed."""

    def departed(self, endpoint: Endpoint) -> None:
        """A participant is gone."""

    def finished(self) -> None:
        """The room is over."""


class Hall:
    """A room that is open on this relay."""

    def __init__(self, room: Room, observer: RoomObserver | None = None) -> None:
        self.room = room
        self._observer = observer
        self.sessions: dict[str, Session] = {}
        self.feed = RosterFeed(self._deliver)
        # Whose videos come first: who speaks, pauses for breath included.
        self.speaking: frozenset[str] = frozenset()
        self.demands = Demands(self)
        self._stages = Stages(self)
        self.departures = Departures()
        self._speakers = Speakers()
        self._speaking: asyncio.TimerHandle | None = None

    def enter(self, session: "Session", listener: "SessionListener") -> None:
        """Put a session into the room; its client is told first, then everybody else.   Errors: Refused."""
        intents = self.room.join(session.endpoint)
        self._drop_keyframes()
        self.sessions[session.sid] = session
        session.entered(self, listener)
        listener.on_joined(self)
        session.begin()
        # The joiner has just read the whole roster, so what it subscribes to need not wait for the next update.
        for intent in intents:
            if isinstance(intent, Attach):
                self.demands.touch(intent.track_sid)
                self._attach(intent.subscriber_sid, intent.track_sid)
        self.carry_out(intent for intent in intents if not isinstance(intent, Attach))

    def carry_out(self, intents: Iterable[Intent]) -> None:
        """Do what policy decided, in order."""
        for intent in intents:
            self._carry_out(intent)

    def encoding_changed(self, track_sid: str, encoding: int, active: bool) -> None:
        """Choose anew when an encoding comes or goes, and once more when it has proved itself."""
        self.carry_out(self.room.encoding_changed(track_sid, encoding, active, monotonic_ns()))
        for session in self.sessions.values():
            # Also whose choice is the same: less of it, or more, can be sent now.
            session.division.refresh_soon(track_sid)
        if active:
            asyncio.get_running_loop().call_later(SETTLE_NS / 1e9 + 0.01, self.settle, track_sid)

    def set_wanted(self, sid: str, track_sids: Iterable[str], wanted: Wanted) -> None:
        """Note what a subscriber can show of these tracks."""
        track_sids = tuple(track_sids)
        self.carry_out(self.room.set_wanted(sid, track_sids, wanted, monotonic_ns()))
        for track_sid in track_sids:
            self.demands.touch(track_sid)
        if (session := self.sessions.get(sid)) is not None:
            session.division.refresh_tracks(track_sids)

    def on_rates(self, receivers: set[int]) -> None:
        """Divide anew for who sees something of these receivers, since it costs another amount now."""
        for session in self.sessions.values():
            session.division.refresh(receivers)

    def heard(self, sid: str, dbov: int) -> None:
        """Note that a participant spoke; those who hear it are told soon."""
        self._speakers.heard(sid, dbov)
        self._listen_on()

    def close(self) -> None:
        """Forget what was not told yet; nobody is here."""
        if self._observer is not None:
            self._observer.finished()
        self.feed.close()
        self.demands.close()
        if self._speaking is not None:
            self._speaking.cancel()

    def _listen_on(self) -> None:
        if self._speaking is None and not self._speakers.is_quiet:
            self._speaking = asyncio.get_running_loop().call_later(WINDOW_S, self._tell_speakers)

    def _tell_speakers(self) -> None:
        self._speaking = None
        if changes := self._speakers.tick():
            for session in tuple(self.sessions.values()):
                mine = [c for c in changes if c.sid == session.sid or self.room.hears(session.sid, c.sid)]
                if mine and session.listener is not None:
                    session.listener.on_speakers(mine)
        self._stages.hear(self._speakers.active)
        self._listen_on()

    def settle(self, track_sid: str) -> None:
        """Choose anew for all who see the track."""
        self.carry_out(self.room.settle(track_sid, monotonic_ns()))

    def _carry_out(self, intent: Intent) -> None:
        match intent:
            case Announce(sid, to_itself):
                endpoint = self.room.endpoints.get(sid)
                if endpoint is not None:
                    self.demands.meet(endpoint)
                    self._stages.update()
                    self.feed.mark(endpoint, to_itself=to_itself)
                    if self._observer is not None:
                        self._observer.changed(endpoint)
            case Depart(endpoint, reason):
                self._drop_keyframes()
                self._stages.update()
                self.feed.depart(endpoint)
                self.departures.add(endpoint, monotonic_ns())
                if self._observer is not None:
                    self._observer.departed(endpoint)
                self._speakers.forget(endpoint.sid)
                session = self.sessions.pop(endpoint.sid, None)
                if session is not None:
                    session.close(reason)
            case Attach(subscriber_sid, track_sid):
                self.demands.touch(track_sid)
                self.feed.after(lambda: self._attach(subscriber_sid, track_sid))
            case Detach(subscriber_sid, track_sid):
                self.demands.touch(track_sid)
                session = self.sessions.get(subscriber_sid)
                if session is not None and session.subscriber is not None:
                    session.subscriber.remove(track_sid)
            case Forward(subscriber_sid, track_sid, encoding):
                session = self.sessions.get(subscriber_sid)
                if session is not None:
                    session.forward(track_sid, encoding)
            case TellFirstSubscriber(publisher_sid, track_sid):
                if (listener := self.listener(publisher_sid)) is not None:
                    listener.on_first_subscriber(track_sid)
            case TellAllowed(subscriber_sid, publisher_sid, track_sid, allowed):
                if (listener := self.listener(subscriber_sid)) is not None:
                    listener.on_consent(publisher_sid, track_sid, allowed)
            case TellNotFound(subscriber_sid, track_sid):
                if (listener := self.listener(subscriber_sid)) is not None:
                    listener.on_subscription_failed(track_sid, is_unsupported=False)
            case TellMuted(publisher_sid, track_sid, muted):
                if (listener := self.listener(publisher_sid)) is not None:
                    listener.on_muted(track_sid, muted)
            case TellUnpublished(publisher_sid, track_sid):
                if (listener := self.listener(publisher_sid)) is not None:
                    listener.on_unpublished(track_sid)
            case TellPermission(sid):
                if (listener := self.listener(sid)) is not None:
                    listener.on_permission()
            case TellRoom():
                self.feed.mark_room()

    def _drop_keyframes(self) -> None:
        """See to it that nobody is sent encrypted frames from before a change of the roster."""
        for session in self.sessions.values():
            session.publisher.drop_keyframes()

    def _attach(self, subscriber_sid: str, track_sid: str) -> None:
        """Offer the track if the subscription still stands; it may have gone while it waited for its turn."""
        session = self.sessions.get(subscriber_sid)
        publication = self.room.publication(track_sid)
        if session is None or session.subscriber is None or publication is None:
            return
        if track_sid not in session.endpoint.subscriptions:
            return
        publisher = self.sessions.get(publication.publisher_sid)
        carried = publisher.publisher.carried_as(track_sid) if publisher is not None else None
        if carried is not None:
            session.subscriber.add(publication, carried)

    def listener(self, sid: str) -> "SessionListener | None":
        """Return whom to tell about a participant that is here."""
        session = self.sessions.get(sid)
        return session.listener if session is not None else None

    def _deliver(self, update: RosterUpdate) -> None:
        for session in tuple(self.sessions.values()):
            if session.listener is not None:
                session.listener.on_roster(update)

    def end_all(self, reason: LeaveReason, *, come_back: bool = False) -> None:
        """End every session of the room."""
        for session in tuple(self.sessions.values()):
            session.end(reason, come_back=come_back)
