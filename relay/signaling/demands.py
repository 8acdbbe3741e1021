"""Tells publishers which qualities of their videos anybody wants (LiveKit: dynacast, LIVEKIT §2.8)."""

import asyncio
from typing import TYPE_CHECKING

from relay.clock import monotonic_ns
from relay.quality.dynacast import Demand
from relay.rooms.endpoint import Endpoint

if TYPE_CHECKING:
    from relay.signaling.hall import Hall

MANY = 64


class Demands:
    """The demand for every video of one room. Changes of one turn of the loop are looked at together."""

    def __init__(self, hall: "Hall") -> None:
        self._hall = hall
        self._demands: dict[str, Demand] = {}
        self._touched: set[str] = set()
        self._forget_at = MANY
        self._due: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None

    def meet(self, publisher: Endpoint) -> None:
        """Look at what this participant publishes by now."""
        for publication in publisher.bound_publications():
            if publication.is_video and publication.sid not in self._demands:
                self._forget_gone()
                self._demands[publication.sid] = Demand()
                self.touch(publication.sid)

    def touch(self, track_sid: str) -> None:
        """Look at a track soon: who sees it, or what they want of it, changed."""
        if track_sid not in self._demands:
            return
        self._touched.add(track_sid)
        if self._due is None:
            self._due = asyncio.get_running_loop().call_soon(self._update)

    def close(self) -> None:
        """Tell nobody anything any more."""
        for handle in (self._due, self._timer):
            if handle is not None:
                handle.cancel()
        self._touched.clear()

    def _forget_gone(self) -> None:
        """Keep nothing of tracks that ended unseen: of those nobody tells."""
        if len(self._demands) >= self._forget_at:
            room = self._hall.room
            self._demands = {sid: demand for sid, demand in self._demands.items() if room.publication(sid) is not None}
            self._forget_at = max(MANY, 2 * len(self._demands))

    def _update(self) -> None:
        self._due = None
        touched, self._touched = self._touched, set()
        now_ns = monotonic_ns()
        room = self._hall.room
        for track_sid in touched:
            publication = room.publication(track_sid)
            if publication is None:
                self._demands.pop(track_sid, None)
                continue
            demand = self._demands.get(track_sid)
            if demand is not None and demand.update(room.wanted_of(track_sid), now_ns):
                listener = self._hall.listener(publication.publisher_sid)
                if listener is not None:
                    listener.on_demand(track_sid, demand.enabled())
        self._wait(now_ns)

    def _wait(self, now_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = {sid: demand.due_ns for sid, demand in self._demands.items() if demand.due_ns is not None}
        if due:
            first = min(due.values())
            delay_s = max(0.001, (first - now_ns) / 1e9)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_patience_over, tuple(due))

    def _on_patience_over(self, track_sids: tuple[str, ...]) -> None:
        self._timer = None
        self._touched.update(sid for sid in track_sids if sid in self._demands)
        self._update()
