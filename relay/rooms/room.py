"""One room: joins, leaves, publications and subscriptions, as decisions.

Every public method changes the state at once and returns the intents in the order in which they have to be carried
out. Wire order matters to clients: the roster that names a track comes before the m-line that carries it, so an
`Announce` always precedes the `Attach` it enables.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from relay.errors import Refused
from relay.policy.terms import PREFIX, Terms, counted, is_reserved
from relay.policy.tiers import RoomKey
from relay.quality.allocator import Reason
from relay.quality.choice import Quality, Wanted, quality_for, target
from relay.quality.dynacast import rank
from relay.rooms.endpoint import Endpoint, LeaveReason, State
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
from relay.rooms.permissions import Audience, Permission
from relay.rooms.publication import MAX_KEY_RANGES, Publication
from relay.rooms.subscription import Subscription

# What LiveKit allows to wait for an m-line; a client that announces without ever sending is a leak.
MAX_PENDING_PUBLICATIONS = 20
# Choices and settings may come before the track they speak of; a client may name this many.
MAX_REMEMBERED = 1024
# Ours have 15; what a client makes up is not kept.
MAX_SID_CHARACTERS = 64
# Keys and values of all attributes of a participant: they are part of what everybody is told with each change of it.
MAX_ATTRIBUTES_CHARACTERS = 65_536
# Who asks for more bans wants another list of guests.
MAX_BANNED = 10_000


@dataclass(slots=True)
class Room:
    """The state of one room. `terms` and `sif_trailer` are fixed at creation."""

    key: RoomKey
    sid: str
    terms: Terms
    created_ms: int
    created_ns: int
    sif_trailer: bytes
    max_participants: int = 200
    max_publications: int = 20
    metadata: str = ""
    # Of its creator's choice; None: as the relay's settings say.
    never_joined_s: int | None = None
    departed_s: int | None = None
    is_size_chosen: bool = False
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    ever_joined: bool = False
    emptied_ns: int | None = None
    # Tokens of these identities that were issued up to that second open nothing.
    _revoked_s: dict[str, int] = field(default_factory=dict)
    # Who was in when the room was locked may come again; None: it is open.
    _locked_for: set[str] | None = None
    _by_identity: dict[str, str] = field(default_factory=dict)
    _publisher_of: dict[str, str] = field(default_factory=dict)
    _subscribers_of: dict[str, set[str]] = field(default_factory=dict)

    # Who is here.

    def join(self, endpoint: Endpoint) -> list[Intent]:
        """Take a participant in, and its predecessor of the same identity out.   Errors: Refused 403 when full."""
        self.check_place(endpoint.identity)
        older = self._by_identity.get(endpoint.identity)
        intents = self.leave(older, LeaveReason.DUPLICATE_IDENTITY, 0) if older else []
        endpoint.state = State.JOINED
        endpoint.room_attributes = self.terms.attributes
        self.endpoints[endpoint.sid] = endpoint
        self._by_identity[endpoint.identity] = endpoint.sid
        self.ever_joined = True
        self.emptied_ns = None
        intents.append(Announce(endpoint.sid))
        intents.append(TellRoom())
        for other in self.endpoints.values():
            if other is not endpoint:
                for publication in other.bound_publications():
                    intents += self._reconsider(endpoint, publication)
        return intents

    def check_place(self, identity: str) -> None:
        """Do nothing when there is a place for this identity; who is in already may come again.   Errors: Refused 403.

        It is not 429, because browsers show people what a server says with 401 and 403 alone (LIVEKIT §1.1).
        """
        if len(self.endpoints) >= self.max_participants and identity not in self._by_identity:
            most = counted(self.max_participants, "participant")
            if self.is_size_chosen:
                raise Refused(403, f"The room is full: it was made for {most} at most.")
            raise Refused(403, f"The room is full: calls of the {self.terms.tier.name} tier have {most} at most.")

    def check_welcome(self, identity: str, issued_s: float) -> None:
        """Do nothing when a token of that identity, issued then, opens this room.   Errors: Refused 403."""
        if issued_s <= self._revoked_s.get(identity, -1):
            raise Refused(403, "You were removed from this call and cannot join it again.")
        if self._locked_for is not None and identity not in self._locked_for:
            raise Refused(403, "This call is locked: nobody else can join it now.")

    def revoke(self, identity: str, until_s: int) -> None:
        """Let no token of that identity in that was issued up to then, as long as the room lives.   Errors: Refused 403."""
        if identity not in self._revoked_s and len(self._revoked_s) >= MAX_BANNED:
            raise Refused(403, f"No more than {MAX_BANNED} identities can be kept out of a call.")
        self._revoked_s[identity] = max(until_s, self._revoked_s.get(identity, 0))
        self.forget_place(identity)

    def forget_place(self, identity: str) -> None:
        """Keep no place in a locked room for who was removed from it."""
        if self._locked_for is not None:
            self._locked_for.discard(identity)

    def set_locked(self, is_locked: bool) -> None:
        """Let nobody in but those who are here, or everybody again."""
        if not is_locked:
            self._locked_for = None
        elif self._locked_for is None:
            self._locked_for = set(self._by_identity)

    def set_metadata(self, metadata: str) -> list[Intent]:
        """Change what the room says about itself."""
        self.metadata = metadata
        return [TellRoom()]

    def set_permission(self, sid: str, permission: Permission) -> list[Intent]:
        """Give a participant other rights, and take back what it has beyond them."""
        endpoint = self.endpoints[sid]
        endpoint.permission = permission
        intents: list[Intent] = []
        for publication in list(endpoint.publications.values()):
            if not permission.may_publish(publication.source, is_video=publication.is_video):
                intents += [*self._withdraw(endpoint, publication), TellUnpublished(sid, publication.sid)]
        for other in self.endpoints.values():
            if other is not endpoint:
                for publication in other.bound_publications():
                    intents += self._reconsider(endpoint, publication)
        return [self._changed(endpoint, to_itself=True), *intents, TellPermission(sid)]

    def activate(self, sid: str) -> list[Intent]:
        """Note that the participant's media is connected."""
        endpoint = self.endpoints.get(sid)
        if endpoint is None or endpoint.state is not State.JOINED:
            return []
        endpoint.state = State.ACTIVE
        return [self._changed(endpoint)]

    def leave(self, sid: str, reason: LeaveReason, now_ns: int) -> list[Intent]:
        """Take a participant out with everything it published and saw."""
        endpoint = self.endpoints.get(sid)
        if endpoint is None:
            return []
        intents: list[Intent] = []
        for track_sid in list(endpoint.subscriptions):
            intents += self._detach(endpoint, track_sid)
        for publication in list(endpoint.publications.values()):
            intents += self._withdraw(endpoint, publication)
        del self.endpoints[sid]
        if self._by_identity.get(endpoint.identity) == sid:
            del self._by_identity[endpoint.identity]
        endpoint.state = State.DISCONNECTED
        endpoint.leave_reason = reason
        endpoint.version += 1
        if not self.endpoints:
            self.emptied_ns = now_ns
        return [*intents, Depart(endpoint, reason), TellRoom()]

    def hears(self, sid: str, publisher_sid: str) -> bool:
        """True when a participant subscribes to a voice of this publisher."""
        endpoint, publisher = self.endpoints.get(sid), self.endpoints.get(publisher_sid)
        if endpoint is None or publisher is None:
            return False
        return any(p.sid in endpoint.subscriptions and not p.is_video for p in publisher.publications.values())

    def by_identity(self, identity: str) -> Endpoint | None:
        """Return the participant of that identity."""
        sid = self._by_identity.get(identity)
        return self.endpoints[sid] if sid else None

    def update_description(
        self, sid: str, *, name: str, metadata: str, attributes: Collection[tuple[str, str]], by_server: bool = False
    ) -> list[Intent]:
        """Change what is said about a participant, by itself or `by_server`; empty values change nothing, an empty attribute is removed.

        Errors: Refused 403 when the token does not allow it or for a name of the server's, 413 when the attributes would become too many.
        """
        endpoint = self.endpoints[sid]
        if not by_server and not endpoint.permission.can_update_metadata:
            raise Refused(403, "The token does not allow its holder to change its own metadata.")
        if any(is_reserved(key) for key, _ in attributes):
            raise Refused(403, f"Attributes whose names begin with {PREFIX} are the server's.")
        before = endpoint.description.attributes
        merged = {key: value for key, value in (dict(before) | dict(attributes)).items() if value}
        size = _characters(merged.items())
        if size > MAX_ATTRIBUTES_CHARACTERS and size > _characters(before):
            raise Refused(413, f"The attributes are longer than {MAX_ATTRIBUTES_CHARACTERS} characters together.")
        endpoint.description = replace(
            endpoint.description,
            name=name or endpoint.description.name,
            metadata=metadata or endpoint.description.metadata,
            attributes=tuple(merged.items()),
        )
        return [self._changed(endpoint, to_itself=True)]

    # What is published.

    def publish(self, publication: Publication) -> None:
        """Note an announced track; nobody hears of it before it is bound.   Errors: Refused (403, 429)."""
        endpoint = self.endpoints[publication.publisher_sid]
        if not endpoint.permission.may_publish(publication.source, is_video=publication.is_video):
            raise Refused(403, f"The token does not allow publishing from {publication.source.name.lower()}.")
        sentence = self.terms.refusal(publication.frames)
        if sentence is not None:
            raise Refused(403, sentence)
        pending = len(endpoint.pending_publications())
        if pending >= MAX_PENDING_PUBLICATIONS or len(endpoint.publications) >= self.max_publications:
            most = counted(self.max_publications, "track")
            raise Refused(429, f"In calls of the {self.terms.tier.name} tier a participant publishes {most} at most.")
        endpoint.publications[publication.sid] = publication
        self._publisher_of[publication.sid] = endpoint.sid

    def bind(self, track_sid: str, *, mime_type: str, mid: str, rids: tuple[str, ...]) -> list[Intent]:
        """Note that an m-line carries the track: from now on it exists for others."""
        publication = self.publication(track_sid)
        if publication is None or publication.bound:
            return []
        endpoint = self.endpoints[publication.publisher_sid]
        publication.bound = True
        publication.mime_type, publication.mid, publication.rids = mime_type, mid, rids
        intents: list[Intent] = [self._changed(endpoint)]
        for other in self.endpoints.values():
            if other is not endpoint:
                intents += self._reconsider(other, publication)
        return intents

    def unpublish(self, track_sid: str) -> list[Intent]:
        """Forget a track, bound or pending."""
        publication = self.publication(track_sid)
        if publication is None:
            return []
        endpoint = self.endpoints[publication.publisher_sid]
        intents = self._withdraw(endpoint, publication)
        return [*intents, self._changed(endpoint)] if publication.bound else intents

    def set_muted(self, sid: str, track_sid: str, muted: bool) -> list[Intent]:
        """Note that a publisher muted its own track or unmuted it."""
        publication = self.own_publication(sid, track_sid)
        if publication is None or publication.muted == muted:
            return []
        publication.muted = muted
        publication.is_silenced = publication.is_silenced and muted
        return [self._changed(self.endpoints[sid])] if publication.bound else []

    def mute_from_outside(self, sid: str, track_sid: str, muted: bool, now_ns: int) -> list[Intent]:
        """Mute a participant's track for everybody, or unmute it; what it sends meanwhile is forwarded to nobody."""
        publication = self.own_publication(sid, track_sid)
        if publication is None:
            return []
        intents = self.set_muted(sid, track_sid, muted)
        publication.is_silenced = muted
        return [*intents, *self.settle(track_sid, now_ns), TellMuted(sid, track_sid, muted)]

    def describe_track(
        self, sid: str, track_sid: str, *, size: tuple[int, int] | None = None, features: tuple[int, ...] | None = None
    ) -> list[Intent]:
        """Note a new picture size or new audio features of a participant's own track."""
        publication = self.own_publication(sid, track_sid)
        if publication is None:
            return []
        if size is not None:
            publication.width, publication.height = size
        if features is not None:
            publication.audio_features = features
        return [self._changed(self.endpoints[sid])] if publication.bound else []

    def publication(self, track_sid: str) -> Publication | None:
        """Return the track of that sid."""
        publisher = self.endpoints.get(self._publisher_of.get(track_sid, ""))
        return publisher.publications.get(track_sid) if publisher else None

    def own_publication(self, sid: str, track_sid: str) -> Publication | None:
        """Return the track of that sid if that participant published it."""
        endpoint = self.endpoints.get(sid)
        return endpoint.publications.get(track_sid) if endpoint else None

    def announce_keys(self, sid: str, track_sid: str, first: int, last: int) -> Publication | None:
        """Note key ids that a participant's own track will use; None when it has no such track."""
        publication = self.own_publication(sid, track_sid)
        if publication is not None and not publication.bound:
            publication.key_ranges.append((first, last))
            del publication.key_ranges[:-MAX_KEY_RANGES]
        return publication

    # Who sees what.

    def choose(self, sid: str, track_sids: Iterable[str], subscribe: bool) -> list[Intent]:
        """Subscribe to these tracks or stop; the choice outlives a track that is gone for a moment."""
        endpoint = self.endpoints[sid]
        intents: list[Intent] = []
        for track_sid in track_sids:
            publication = self.publication(track_sid)
            if publication is None:
                if subscribe:
                    intents.append(TellNotFound(sid, track_sid))
                continue
            self._remember(endpoint.chosen, track_sid, subscribe)
            if publication.bound and publication.publisher_sid != sid:
                intents += self._reconsider(endpoint, publication)
        return intents

    def set_wanted(self, sid: str, track_sids: Iterable[str], wanted: Wanted, now_ns: int) -> list[Intent]:
        """Note what a subscriber can show of these tracks; kept for subscriptions that do not exist yet."""
        endpoint = self.endpoints[sid]
        intents: list[Intent] = []
        for track_sid in track_sids:
            self._remember(endpoint.wanted, track_sid, wanted)
            subscription = endpoint.subscriptions.get(track_sid)
            if subscription is not None:
                subscription.wanted = wanted
                intents += self._rechoose(subscription, now_ns)
        return intents

    def set_audience(self, sid: str, audience: Audience) -> list[Intent]:
        """Note whom a publisher lets subscribe, and take its tracks from everybody else."""
        endpoint = self.endpoints[sid]
        before, endpoint.audience = endpoint.audience, audience
        intents: list[Intent] = []
        for publication in endpoint.bound_publications():
            for other in self.endpoints.values():
                if other is endpoint:
                    continue
                was = before.allows(other.sid, other.identity, publication.sid)
                is_allowed = audience.allows(other.sid, other.identity, publication.sid)
                if was != is_allowed:
                    intents.append(TellAllowed(other.sid, sid, publication.sid, is_allowed))
                intents += self._reconsider(other, publication)
        return intents

    def attached(self, sid: str, track_sid: str, now_ns: int) -> list[Intent]:
        """Note that the subscriber's client has accepted the m-line: begin to forward."""
        endpoint = self.endpoints.get(sid)
        subscription = endpoint.subscriptions.get(track_sid) if endpoint else None
        publication = self.publication(track_sid)
        if subscription is None or publication is None:
            return []
        intents = self._rechoose(subscription, now_ns)
        if not publication.subscriber_seen:
            publication.subscriber_seen = True
            intents.append(TellFirstSubscriber(publication.publisher_sid, track_sid))
        return intents

    def encoding_changed(self, track_sid: str, encoding: int, active: bool, now_ns: int) -> list[Intent]:
        """Note that an encoding began or stopped to arrive, and choose anew for all who see the track."""
        publication = self.publication(track_sid)
        if publication is None:
            return []
        (publication.active_encodings.add if active else publication.active_encodings.discard)(encoding)
        for subscription in self.subscriptions_of(track_sid):
            subscription.chooser.on_active(encoding, active, now_ns)
        return self.settle(track_sid, now_ns)

    def settle(self, track_sid: str, now_ns: int) -> list[Intent]:
        """Choose anew for all who see the track; called again when a delayed rise may be due."""
        intents: list[Intent] = []
        for subscription in self.subscriptions_of(track_sid):
            intents += self._rechoose(subscription, now_ns)
        return intents

    def set_stage(self, track_sid: str, is_on: bool, now_ns: int) -> list[Intent]:
        """Forward this track, or nothing of it, whoever sees it: by the policy of a large room."""
        publication = self.publication(track_sid)
        if publication is None:
            return []
        publication.is_off_stage = not is_on
        return self.settle(track_sid, now_ns)

    def is_on_stage(self, track_sid: str) -> bool:
        """False for a track of which a large room's policy forwards nothing now."""
        publication = self.publication(track_sid)
        return publication is not None and not publication.is_off_stage

    def limit_of(self, subscription: Subscription) -> Reason:
        """Return why a subscription is sent no better encoding than policy lets it have; bandwidth is no part of this."""
        publication = self.publication(subscription.track_sid)
        if publication is None or publication.is_silenced:
            return Reason.PUBLISHER
        if publication.is_off_stage:
            return Reason.POLICY
        if subscription.wanted.is_paused:
            return Reason.REQUESTED
        if not publication.is_video:
            return Reason.NONE
        shapes = publication.shapes()
        best = target(shapes, subscription.wanted)
        if subscription.encoding is None or subscription.encoding < best:
            return Reason.PUBLISHER
        return Reason.REQUESTED if best < len(shapes) - 1 else Reason.NONE

    def wanted_of(self, track_sid: str) -> Quality:
        """Return the best quality of a video that anybody wants who may have it."""
        publication = self.publication(track_sid)
        if publication is None or publication.is_silenced or publication.is_off_stage:
            return Quality.OFF
        shapes = publication.qualities()
        wanted = (quality_for(shapes, subscription.wanted) for subscription in self.subscriptions_of(track_sid))
        return max(wanted, key=rank, default=Quality.OFF)

    def subscriptions_of(self, track_sid: str) -> list[Subscription]:
        """Return all views of one track."""
        return [self.endpoints[sid].subscriptions[track_sid] for sid in self._subscribers_of.get(track_sid, ())]

    def data_recipients(self, sid: str, identities: Collection[str], sids: Collection[str]) -> list[Endpoint]:
        """Return who gets a message of this sender: those named, else all; never the sender."""
        sender = self.endpoints.get(sid)
        if sender is None or not sender.permission.can_publish_data:
            return []
        if not identities and not sids:
            return [endpoint for endpoint in self.endpoints.values() if endpoint is not sender]
        named = {*sids, *(self._by_identity.get(identity, "") for identity in identities)}
        return [endpoint for endpoint in self.endpoints.values() if endpoint.sid in named and endpoint is not sender]

    # Inside.

    def _changed(self, endpoint: Endpoint, *, to_itself: bool = False) -> Announce:
        endpoint.version += 1
        return Announce(endpoint.sid, to_itself)

    @staticmethod
    def _remember(memory: dict[str, Any], track_sid: str, value: Any) -> None:
        if track_sid in memory or (len(memory) < MAX_REMEMBERED and len(track_sid) <= MAX_SID_CHARACTERS):
            memory[track_sid] = value

    def _reconsider(self, subscriber: Endpoint, publication: Publication) -> list[Intent]:
        """Attach or detach so that the subscription exists exactly when it may and is wanted."""
        publisher = self.endpoints[publication.publisher_sid]
        allowed = subscriber.permission.can_subscribe and publisher.audience.allows(
            subscriber.sid, subscriber.identity, publication.sid
        )
        should = allowed and subscriber.chosen.get(publication.sid, subscriber.auto_subscribe)
        if should and publication.sid not in subscriber.subscriptions:
            wanted = subscriber.wanted.get(publication.sid, subscriber.default_wanted)
            subscriber.subscriptions[publication.sid] = Subscription(subscriber.sid, publication.sid, wanted)
            self._subscribers_of.setdefault(publication.sid, set()).add(subscriber.sid)
            return [Attach(subscriber.sid, publication.sid)]
        if not should and publication.sid in subscriber.subscriptions:
            return self._detach(subscriber, publication.sid)
        return []

    def _detach(self, subscriber: Endpoint, track_sid: str) -> list[Intent]:
        del subscriber.subscriptions[track_sid]
        subscribers = self._subscribers_of.get(track_sid)
        if subscribers is not None:
            subscribers.discard(subscriber.sid)
            if not subscribers:
                del self._subscribers_of[track_sid]
        return [Detach(subscriber.sid, track_sid)]

    def _withdraw(self, publisher: Endpoint, publication: Publication) -> list[Intent]:
        intents: list[Intent] = []
        for sid in list(self._subscribers_of.get(publication.sid, ())):
            intents += self._detach(self.endpoints[sid], publication.sid)
        for other in self.endpoints.values():
            other.chosen.pop(publication.sid, None)
            other.wanted.pop(publication.sid, None)
        del publisher.publications[publication.sid]
        del self._publisher_of[publication.sid]
        return intents

    def _rechoose(self, subscription: Subscription, now_ns: int) -> list[Intent]:
        publication = self.publication(subscription.track_sid)
        if publication is None:
            return []
        if publication.is_silenced or publication.is_off_stage:
            encoding = None
        elif publication.is_video:
            encoding = subscription.chooser.choose(
                publication.shapes(), publication.active_encodings, subscription.wanted, now_ns
            )
        else:
            encoding = None if subscription.wanted.disabled else 0
        if encoding == subscription.encoding:
            return []
        subscription.encoding = encoding
        return [Forward(subscription.subscriber_sid, subscription.track_sid, encoding)]


def _characters(attributes: Iterable[tuple[str, str]]) -> int:
    return sum(len(key) + len(value) for key, value in attributes)
