"""Tells a room about changes of its roster, at most four times a second, the first one at once.

A change waits for the next turn, and what has to come after it on the wire (an offer that carries the new track)
waits with it. One update is made per turn and shared by all receivers.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from relay.rooms.endpoint import Endpoint

# Four a second, as LiveKit servers do; a meeting that starts changes dozens of times in its first second.
INTERVAL_S = 0.25


@dataclass(frozen=True, slots=True)
class RosterUpdate:
    """What changed since the last turn. Departures come first: an identity may be back under a new sid."""

    departed: tuple[Endpoint, ...]
    changed: tuple[Endpoint, ...]
    # The only endpoint that need not hear of this update, because it tells of nothing but itself.
    alone_about: str = ""
    room_changed: bool = False
    # Adapters keep their serialised form here, so that it is made once for all receivers.
    forms: dict[str, object] = field(default_factory=dict)


class RosterFeed:
    """Coalesces the changes of one room. `deliver` is called with each update, on the loop."""

    def __init__(self, deliver: Callable[[RosterUpdate], None]) -> None:
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._changed: dict[str, Endpoint] = {}
        self._departed: dict[str, Endpoint] = {}
        self._to_itself = False
        self._room_changed = False
        self._then: list[Callable[[], None]] = []
        self._turn: asyncio.Handle | None = None
        self._last_s = -INTERVAL_S

    def mark(self, endpoint: Endpoint, *, to_itself: bool = False) -> None:
        """Note a change of a participant."""
        self._changed[endpoint.sid] = endpoint
        self._to_itself = self._to_itself or to_itself
        self._schedule()

    def depart(self, endpoint: Endpoint) -> None:
        """Note that a participant is gone."""
        self._changed.pop(endpoint.sid, None)
        self._departed[endpoint.sid] = endpoint
        self._schedule()

    def mark_room(self) -> None:
        """Note a change of the room itself."""
        self._room_changed = True
        self._schedule()

    def after(self, action: Callable[[], None]) -> None:
        """Call `action` once everything noted so far has been told."""
        if self._turn is None:
            action()
        else:
            self._then.append(action)

    def close(self) -> None:
        """Forget what was not told yet."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._then.clear()

    def _schedule(self) -> None:
        if self._turn is not None:
            return
        wait_s = self._last_s + INTERVAL_S - self._loop.time()
        # Even "at once" is the next round of the loop, so that one join is one update.
        self._turn = self._loop.call_later(wait_s, self._flush) if wait_s > 0 else self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._turn = None
        self._last_s = self._loop.time()
        alone = ""
        if len(self._changed) == 1 and not self._departed and not self._to_itself:
            alone = next(iter(self._changed))
        update = RosterUpdate(tuple(self._departed.values()), tuple(self._changed.values()), alone, self._room_changed)
        self._changed, self._departed, self._then, actions = {}, {}, [], self._then
        self._to_itself = self._room_changed = False
        self._deliver(update)
        for action in actions:
            action()
