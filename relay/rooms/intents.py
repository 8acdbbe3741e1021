"""What a room wants to happen outside. Past decisions, not requests for permission; carried out in order."""

from dataclasses import dataclass

from relay.rooms.endpoint import Endpoint, LeaveReason


@dataclass(frozen=True, slots=True)
class Announce:
    """The roster entry of this endpoint changed; others hear of it, and itself where it has to."""

    endpoint_sid: str
    to_itself: bool = False


@dataclass(frozen=True, slots=True)
class Depart:
    """This endpoint is out of the room: say so to the rest, and end its session if it still has one."""

    endpoint: Endpoint
    reason: LeaveReason


@dataclass(frozen=True, slots=True)
class Attach:
    """Give the subscriber an m-line for this track, after the roster that names the track."""

    subscriber_sid: str
    track_sid: str


@dataclass(frozen=True, slots=True)
class Detach:
    """Take the subscriber's m-line for this track away."""

    subscriber_sid: str
    track_sid: str


@dataclass(frozen=True, slots=True)
class Forward:
    """Send this encoding of the track to the subscriber; None sends nothing and keeps the m-line."""

    subscriber_sid: str
    track_sid: str
    encoding: int | None


@dataclass(frozen=True, slots=True)
class TellFirstSubscriber:
    """Tell the publisher that somebody sees its track."""

    publisher_sid: str
    track_sid: str


@dataclass(frozen=True, slots=True)
class TellAllowed:
    """Tell a subscriber that a publisher gave or took its consent."""

    subscriber_sid: str
    publisher_sid: str
    track_sid: str
    allowed: bool


@dataclass(frozen=True, slots=True)
class TellNotFound:
    """Tell a subscriber that no such track can be had."""

    subscriber_sid: str
    track_sid: str


@dataclass(frozen=True, slots=True)
class TellMuted:
    """Tell a publisher that its track was muted or unmuted from outside."""

    publisher_sid: str
    track_sid: str
    muted: bool


@dataclass(frozen=True, slots=True)
class TellUnpublished:
    """Tell a publisher that a track of its was taken back."""

    publisher_sid: str
    track_sid: str


@dataclass(frozen=True, slots=True)
class TellPermission:
    """Tell a participant that its rights are others now."""

    endpoint_sid: str


@dataclass(frozen=True, slots=True)
class TellRoom:
    """The room's own description changed, such as its participant count."""


Intent = (
    Announce
    | Depart
    | Attach
    | Detach
    | Forward
    | TellFirstSubscriber
    | TellAllowed
    | TellNotFound
    | TellMuted
    | TellUnpublished
    | TellPermission
    | TellRoom
)
