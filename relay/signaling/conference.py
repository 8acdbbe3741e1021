"""The protocol-neutral core of signalling: sessions come in, get a room, and leave.

`prepare` makes a session and its transports before anybody has promised the client anything; `enter` puts it into
its room. Publishing, subscribing and data are calls on the session's parts; what they change reaches others through
the room's intents.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from relay.clock import monotonic_ns, wall_ms
from relay.config import Limits, Turn
from relay.errors import Refused
from relay.ids import new_sid
from relay.log import get_logger
from relay.plane import Plane
from relay.policy.terms import Demands, check_demands, choose_terms
from relay.policy.tiers import RoomKey, Tier, TierTable, least
from relay.rooms.directory import Directory
from relay.rooms.endpoint import Endpoint, LeaveReason
from relay.rooms.room import Room
from relay.sdp import CodecPolicy, LocalTransport
from relay.session import Certificate
from relay.signaling.hall import Hall, RoomObserver
from relay.signaling.keyring import Keyring
from relay.signaling.ladders import Ladders
from relay.signaling.measuring import Measuring
from relay.signaling.ratings import Ratings
from relay.signaling.session import Joining, Session, SessionListener
from relay.signaling.tasks import Tasks
from relay.signaling.transports import TransportDriver, handshake_pool

log = get_logger(__name__)

# How often empty rooms are looked for; their lives are counted in tens of seconds.
JANITOR_S = 5.0
SIF_TRAILER_BYTES = 24
# A room that its creator wants kept longer than a day while nobody is in it is forgotten after a day.
LONGEST_EMPTY_S = 86_400


@dataclass(frozen=True, slots=True)
class Counts:
    """How much is going on."""

    rooms: int
    participants: int
    publications: int
    subscriptions: int
    videos_paused: int
    videos_limited: int
    video_switches: int
    resumes: int


@dataclass(frozen=True, slots=True)
class RoomWishes:
    """What the creator of a room chooses within the relay's bounds and its tier's; 0 chooses nothing."""

    never_joined_s: int = 0
    departed_s: int = 0
    participants: int = 0
    metadata: str = ""


class Conference:
    """All calls of this relay."""

    def __init__(
        self,
        plane: Plane,
        limits: Limits,
        tiers: TierTable,
        refusals: dict[str, int],
        turn: Turn,
        observe: Callable[[Room], RoomObserver | None] = lambda _: None,
    ) -> None:
        self.plane = plane
        self.turn = turn
        self.limits = limits
        self.tiers = tiers
        self.refusals = refusals
        self.certificate = Certificate.generate()
        # Of the ICE-TCP port, once it is open.
        self.tcp_candidates: tuple[tuple[str, int], ...] = ()
        self.codecs = CodecPolicy()
        self.pool = handshake_pool()
        self.tasks = Tasks()
        self.is_draining = False
        self.video_switches = 0
        # How many sessions went on over another connection, since the start.
        self.resumes = 0
        self.measuring = Measuring(self, self._on_rates)
        self.ladders = Ladders(self.measuring)
        self._directory = Directory(limits.rooms_per_customer, limits.empty_room_s, limits.departed_room_s)
        self._observe = observe
        self._halls: dict[RoomKey, Hall] = {}
        self._janitor: asyncio.Task[None] | None = None
        self._rater: asyncio.Task[None] | None = None
        self._measurer: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look after rooms."""
        self._janitor = self.tasks.spawn(self._look_after_rooms(), "janitor")
        self._rater = self.tasks.spawn(Ratings(self).run(), "ratings")
        self._measurer = self.tasks.spawn(self.measuring.run(), "measuring")

    async def prepare(self, joining: Joining) -> Session:
        """Return a session whose transports exist.   Errors: Refused, PlaneError."""
        if self.is_draining:
            raise Refused(503, "The server is shutting down.")
        session = Session(self, joining)
        await session.open()
        return session

    def enter(self, session: Session, listener: SessionListener) -> Hall:
        """Put a prepared session into its room; an older one of the same identity leaves.   Errors: Refused."""
        joining = session.joining
        self.check_admission(joining.room, joining.endpoint.identity, joining.demands, joining.issued_s)
        hall = self._hall(joining.room, joining.demands)
        hall.enter(session, listener)
        log.info(
            "participant joined",
            room=hall.room.sid,
            participant=session.sid,
            customer=hall.room.key.customer,
            connections=1 if joining.is_single else 2,
        )
        return hall

    async def abandon(self, session: Session) -> None:
        """Give back what a session that never entered has."""
        session.is_over = True
        await session.close_sides()

    def remove(self, session: Session, reason: LeaveReason) -> None:
        """Take a session out of its room."""
        hall = session.hall
        if hall is None or hall.sessions.get(session.sid) is not session:
            return
        del hall.sessions[session.sid]
        hall.carry_out(hall.room.leave(session.sid, reason, monotonic_ns()))
        log.info("participant left", room=hall.room.sid, participant=session.sid, reason=reason.name.lower())

    def create(self, key: RoomKey, demands: Demands, wishes: RoomWishes) -> Hall:
        """Return the room of that name, made if it is not open; what is wished counts for an open one too.

        Errors: Refused 403 when it is, or would be, not what is demanded, or its customer has too many.
        """
        if self.is_draining:
            raise Refused(503, "The server is shutting down.")
        open_one = self._halls.get(key)
        terms = open_one.room.terms if open_one is not None else choose_terms(self.tiers.tier_of(key), demands)
        check_demands(terms, demands, self.tiers)
        hall = self._hall(key, demands)
        room = hall.room
        if wishes.never_joined_s:
            room.never_joined_s = min(wishes.never_joined_s, LONGEST_EMPTY_S)
        if wishes.departed_s:
            room.departed_s = min(wishes.departed_s, LONGEST_EMPTY_S)
        if wishes.participants:
            most = self._most_participants(room.terms.tier)
            room.max_participants = min(most, wishes.participants)
            room.is_size_chosen = wishes.participants < most
        if wishes.metadata:
            hall.carry_out(room.set_metadata(wishes.metadata))
        return hall

    def delete(self, hall: Hall) -> None:
        """End a room with everybody in it."""
        hall.end_all(LeaveReason.ROOM_DELETED)
        self._directory.remove(hall.room)
        self._close(hall.room)

    def rooms_of(self, customer: str) -> list[Room]:
        """Return the open rooms of one customer."""
        return self._directory.rooms_of(customer)

    def check_admission(self, room: RoomKey, identity: str, demands: Demands, issued_s: float) -> None:
        """Do nothing when that room is, or would become, what a token demands, and has a place.   Errors: Refused."""
        if self.is_draining:
            raise Refused(503, "The server is shutting down.")
        hall = self._halls.get(room)
        terms = hall.room.terms if hall is not None else choose_terms(self.tiers.tier_of(room), demands)
        check_demands(terms, demands, self.tiers)
        if hall is not None:
            hall.room.check_welcome(identity, issued_s)
            hall.room.check_place(identity)
        else:
            self._directory.check_place(room.customer, terms.tier.name)

    def tier_of(self, room: RoomKey) -> Tier:
        """Return the tier that rules this room; an open one keeps that of its creation."""
        hall = self._halls.get(room)
        return hall.room.terms.tier if hall is not None else self.tiers.tier_of(room)

    def end_revoked(self, keys: Keyring) -> int:
        """End the sessions whose API key is not what it was; return how many."""
        sessions = [session for hall in self._halls.values() for session in hall.sessions.values()]
        revoked = [session for session in sessions if not keys.holds(session.joining.key)]
        for session in revoked:
            log.info("participant removed: its API key was revoked", participant=session.sid, key=session.joining.key.key)
            if session.listener is not None and session.hall is not None:
                tier = session.hall.room.terms.tier.name
                sentence = f"You are out of this call of the {tier} tier: the key that let you in was taken back."
                session.listener.on_notice(sentence)
            session.end(LeaveReason.PARTICIPANT_REMOVED)
        return len(revoked)

    def count_refusal(self, reason: str) -> None:
        """Count something of a client that was refused, stopped or dropped."""
        self.refusals[reason] = self.refusals.get(reason, 0) + 1

    @property
    def halls(self) -> tuple[Hall, ...]:
        """The open rooms."""
        return tuple(self._halls.values())

    def find(self, room: RoomKey) -> Hall | None:
        """Return the open room of that full name."""
        return self._halls.get(room)

    def find_own(self, room: RoomKey, identity: str, sid: str) -> Session | Endpoint | None:
        """Return the session of that sid in that room, or its participant if it left lately, if it is this identity's.

        Whose token names another room or another identity learns nothing, not even that there is such a session.
        """
        hall = self._halls.get(room)
        if hall is None:
            return None
        session = hall.sessions.get(sid)
        if session is not None:
            return session if session.endpoint.identity == identity else None
        departed = hall.departures.find(sid)
        return departed if departed is not None and departed.identity == identity else None

    def find_session(self, sid: str) -> Session | None:
        """Return the session of a participant that is in a room."""
        return next((hall.sessions[sid] for hall in self._halls.values() if sid in hall.sessions), None)

    def local_transport(self, driver: TransportDriver) -> LocalTransport:
        """Return our end of a transport as descriptions tell it."""
        return LocalTransport(
            ufrag=driver.transport.ufrag,
            password=driver.transport.password,
            fingerprint=self.certificate.fingerprint,
            candidates=tuple((address.advertised_ip, address.port) for address in self.plane.candidates(driver.id)),
            max_message_bytes=self.limits.data_message_bytes,
            tcp_candidates=self.tcp_candidates,
        )

    def counts(self) -> Counts:
        """Count what is going on now."""
        divisions = [session.division for hall in self._halls.values() for session in hall.sessions.values()]
        endpoints = [endpoint for hall in self._halls.values() for endpoint in hall.room.endpoints.values()]
        return Counts(
            rooms=len(self._halls),
            participants=len(endpoints),
            publications=sum(len(endpoint.bound_publications()) for endpoint in endpoints),
            subscriptions=sum(len(endpoint.subscriptions) for endpoint in endpoints),
            videos_paused=sum(division.paused for division in divisions),
            videos_limited=sum(division.limited for division in divisions),
            video_switches=self.video_switches,
            resumes=self.resumes,
        )

    def drain(self) -> None:
        """Take nobody in any more and tell everybody to come back: to the relay that is started next, or to another."""
        self.is_draining = True
        for hall in tuple(self._halls.values()):
            hall.end_all(LeaveReason.SERVER_SHUTDOWN, come_back=True)

    async def stop(self) -> None:
        """Give everything back. Call `drain` first."""
        for task in (self._janitor, self._rater, self._measurer):
            if task is not None:
                task.cancel()
        await self.tasks.wait()
        for hall in self._halls.values():
            hall.close()
        self._halls.clear()
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _hall(self, key: RoomKey, demands: Demands) -> Hall:
        hall = self._halls.get(key)
        if hall is None:
            terms = choose_terms(self.tiers.tier_of(key), demands)
            limits = terms.tier.limits
            room = Room(
                key=key,
                sid=new_sid("RM"),
                terms=terms,
                created_ms=wall_ms(),
                created_ns=monotonic_ns(),
                # We inject no frames, so nobody ever sees this again; clients want one that cannot be guessed.
                sif_trailer=secrets.token_bytes(SIF_TRAILER_BYTES),
                max_participants=self._most_participants(terms.tier),
                never_joined_s=self.limits.empty_room_s,
                departed_s=self.limits.departed_room_s,
                max_publications=least(self.limits.publications_per_participant, limits.publications),
            )
            self._directory.add(room)
            hall = self._halls[key] = Hall(room, self._observe(room))
            log.info("room opened", room=room.sid, customer=key.customer, tier=terms.tier.name, frames=terms.frames)
        return hall

    def _on_rates(self, receivers: set[int]) -> None:
        """Have videos that cost another amount now divided anew."""
        self.ladders.on_rates(receivers)
        for hall in self._halls.values():
            hall.on_rates(receivers)

    async def _look_after_rooms(self) -> None:
        while True:
            await asyncio.sleep(JANITOR_S)
            for room in self._directory.expire(monotonic_ns()):
                self._close(room)

    def _close(self, room: Room) -> None:
        self._halls.pop(room.key).close()
        log.info("room closed", room=room.sid)

    def _most_participants(self, tier: Tier) -> int:
        return least(self.limits.participants_per_room, tier.limits.participants)
