"""Who left a room lately, for those who come back to it and have to be told.

A client that was cut off keeps showing everybody who left meanwhile, until it reads that they did. Bounded in number and
time; whoever was away for longer than is known here has to join anew.
"""

from collections import deque
from dataclasses import dataclass, field

from relay.rooms.endpoint import Description, Endpoint, State

NS_PER_S = 1_000_000_000
# As long as a participant may be without signalling (`session.SIGNAL_LOST_S`), and the time until that is noticed.
KEPT_NS = 150 * NS_PER_S
# In a room of 200 more than all of them, twice over; each is less than a kilobyte.
MAX_KEPT = 512


@dataclass(slots=True)
class Departures:
    """The departures of one room, oldest first."""

    _kept: deque[tuple[int, Endpoint]] = field(default_factory=deque)
    # When the newest one left of which nothing is known any more.
    _forgotten_ns: int | None = None

    def add(self, endpoint: Endpoint, now_ns: int) -> None:
        """Note that a participant is gone; what clients need of it is kept, not what it said and saw."""
        gone = Endpoint(
            endpoint.sid,
            Description(endpoint.identity, kind=endpoint.description.kind),
            endpoint.permission,
            endpoint.joined_at_ms,
            state=State.DISCONNECTED,
            leave_reason=endpoint.leave_reason,
            version=endpoint.version,
        )
        self._kept.append((now_ns, gone))
        while len(self._kept) > MAX_KEPT or now_ns - self._kept[0][0] > KEPT_NS:
            self._forgotten_ns = self._kept.popleft()[0]

    def since(self, begun_ns: int) -> list[Endpoint] | None:
        """Return who left at that time or later, None when not all of them are known any more."""
        if self._forgotten_ns is not None and self._forgotten_ns >= begun_ns:
            return None
        return [endpoint for at_ns, endpoint in self._kept if at_ns >= begun_ns]

    def find(self, sid: str) -> Endpoint | None:
        """Return the participant of that sid if it left lately."""
        return next((endpoint for _, endpoint in reversed(self._kept) if endpoint.sid == sid), None)
