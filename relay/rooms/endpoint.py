"""One participant's stay in a room."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from relay.quality.choice import BEST, Wanted
from relay.rooms.permissions import EVERYBODY, Audience, Permission
from relay.rooms.publication import Publication
from relay.rooms.subscription import Subscription


class State(enum.IntEnum):
    """How far a participant has come; the numbers are LiveKit's ParticipantInfo.State."""

    JOINING = 0
    JOINED = 1
    ACTIVE = 2
    DISCONNECTED = 3


class LeaveReason(enum.IntEnum):
    """Why a participant is gone; the numbers are LiveKit's DisconnectReason."""

    UNKNOWN = 0
    CLIENT_INITIATED = 1
    DUPLICATE_IDENTITY = 2
    SERVER_SHUTDOWN = 3
    PARTICIPANT_REMOVED = 4
    ROOM_DELETED = 5
    STATE_MISMATCH = 6
    JOIN_FAILURE = 7
    SIGNAL_CLOSE = 9
    ROOM_CLOSED = 10
    CONNECTION_TIMEOUT = 14
    MEDIA_FAILURE = 15


@dataclass(frozen=True, slots=True)
class Description:
    """Who joins and with which client; what others read about it before they choose how to talk to it."""

    identity: str
    name: str = ""
    metadata: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    kind: int = 0
    client_protocol: int = 0
    capabilities: tuple[int, ...] = ()


@dataclass(slots=True)
class Endpoint:
    """A participant. `version` grows with each change that others may see, because clients drop older ones."""

    sid: str
    description: Description
    permission: Permission
    joined_at_ms: int
    auto_subscribe: bool = True
    state: State = State.JOINING
    leave_reason: LeaveReason = LeaveReason.UNKNOWN
    version: int = 1
    publications: dict[str, Publication] = field(default_factory=dict)
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    audience: Audience = EVERYBODY
    # The room's own, shown among the participant's; nobody can change them.
    room_attributes: Mapping[str, str] = field(default_factory=dict)
    # Asked for before the subscription exists: kept, because clients send both in either order.
    chosen: dict[str, bool] = field(default_factory=dict)
    wanted: dict[str, Wanted] = field(default_factory=dict)
    # Of tracks it has not spoken of yet.
    default_wanted: Wanted = BEST

    @property
    def identity(self) -> str:
        """The name the token gave; at most one endpoint of a room has it."""
        return self.description.identity

    @property
    def is_publisher(self) -> bool:
        """True when at least one of its tracks is on a wire."""
        return any(publication.bound for publication in self.publications.values())

    def bound_publications(self) -> list[Publication]:
        """Return the tracks that others may know of, in the order of their announcement."""
        return [publication for publication in self.publications.values() if publication.bound]

    def pending_publications(self) -> list[Publication]:
        """Return the announced tracks that no m-line carries yet, oldest first."""
        return [publication for publication in self.publications.values() if not publication.bound]
