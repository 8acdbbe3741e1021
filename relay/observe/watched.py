"""The little that observation needs to know of a running relay, as plain calls that the server fills in."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class Worker(Protocol):
    """The part of `relay.plane.WorkerFigures` that is shown here."""

    @property
    def transports(self) -> int: ...
    @property
    def rtp_received(self) -> int: ...
    @property
    def rtp_forwarded(self) -> int: ...
    @property
    def predicted_load(self) -> float: ...


class Snapshot(Protocol):
    """The part of `relay.plane.PlaneSnapshot` that is counted here."""

    @property
    def transports(self) -> Any: ...
    @property
    def counters(self) -> Mapping[str, int]: ...
    @property
    def stages(self) -> Mapping[str, tuple[float, int]]: ...
    @property
    def workers(self) -> Sequence[Worker]: ...
    @property
    def errors(self) -> Mapping[str, int]: ...


@dataclass(frozen=True)
class Totals:
    """How much the relay holds at this moment."""

    rooms: int
    participants: int
    publications: int
    subscriptions: int
    # Videos that paths have no room for at all, and those that are less than asked for because of them.
    videos_paused: int = 0
    videos_limited: int = 0
    video_switches: int = 0
    # Since the start: sessions that went on over another signalling connection.
    resumes: int = 0


@dataclass(frozen=True)
class Watched:
    """One running relay."""

    # None when calls can be taken, else a sentence that says why not.
    unready: Callable[[], str | None]
    snapshot: Callable[[], Awaitable[Snapshot]]
    totals: Callable[[], Totals]
    # Requests and messages the signalling refused or dropped, by reason; a live mapping is fine.
    refusals: Mapping[str, int] = field(default_factory=dict)
    lost_records: Callable[[], int] = lambda: 0
    metrics_token: str = ""
