"""Tells participants how good each other's connections are, from what the data plane counted in the last five seconds."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from relay.plane import PlaneError
from relay.quality.connection import INTERVAL_S, ConnectionQuality, Path, Rating, rate

if TYPE_CHECKING:
    from relay.plane.stats import PlaneSnapshot
    from relay.signaling.conference import Conference
    from relay.signaling.hall import Hall
    from relay.signaling.session import Session

# Fewer packets than a second of one voice say nothing about loss.
_ENOUGH_PACKETS = 50


@dataclass(slots=True)
class _Known:
    """What was counted of a participant, and what it was told of whom."""

    packets: int = 0
    lost: int = 0
    rating: Rating | None = None
    told: dict[str, ConnectionQuality] = field(default_factory=dict)


class Ratings:
    """The ratings of everybody on this relay. Costs nothing while nobody is here."""

    def __init__(self, conference: "Conference") -> None:
        self._conference = conference
        self._known: dict[str, _Known] = {}

    async def run(self) -> None:
        """Rate for ever, every INTERVAL_S."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            halls = [hall for hall in self._conference.halls if hall.sessions]
            present = {sid for hall in halls for sid in hall.sessions}
            self._known = {sid: known for sid, known in self._known.items() if sid in present}
            if not halls:
                continue
            try:
                figures = _Figures(await self._conference.plane.snapshot())
            except PlaneError:
                # It stops, or has no room for the question now.
                continue
            for hall in halls:
                self._rate(hall, figures)

    def _rate(self, hall: "Hall", figures: "_Figures") -> None:
        sessions = tuple(hall.sessions.values())
        for session in sessions:
            known = self._known.setdefault(session.sid, _Known())
            paths = figures.paths(session, known)
            if paths:
                known.rating = rate(*paths)
        for session in sessions:
            told = self._known[session.sid].told
            news = {}
            for other in sessions:
                rating = self._known[other.sid].rating
                if rating is not None and told.get(other.sid) != rating.quality:
                    told[other.sid] = rating.quality
                    news[other.sid] = rating
            if news and session.listener is not None:
                session.listener.on_ratings(news)


class _Figures:
    """A snapshot, by number."""

    def __init__(self, snapshot: "PlaneSnapshot") -> None:
        self._transports = _by(snapshot.transports, "transport")
        self._streams = _by(snapshot.streams, "receiver")
        self._egresses = _by(snapshot.egresses, "egress")

    def paths(self, session: "Session", known: _Known) -> list[Path]:
        """Return the paths of a participant that enough is known of. Losses are those of the network, before repair."""
        found = []
        receivers = [carried.receiver for carried in session.publisher.carried.values()]
        rows = [row for receiver in receivers for row in self._streams.get(receiver, ())]
        packets, lost = sum(int(row["packets"]) for row in rows), sum(max(0, int(row["lost"])) for row in rows)
        arrived, missing = packets - known.packets, max(0, lost - known.lost)
        known.packets, known.lost = packets, lost
        if arrived + missing >= _ENOUGH_PACKETS:
            found.append(Path(missing / (arrived + missing), self._rtt_ms(session.publisher.driver)))
        if session.subscriber is not None:
            rows = [row for egress in session.subscriber.egresses for row in self._egresses.get(egress, ())]
            # By their own reports; each counts as much as it is sent.
            weight = sum(int(row["packets"]) for row in rows)
            if weight >= _ENOUGH_PACKETS:
                lost_share = sum(int(row["fraction_lost"]) * int(row["packets"]) for row in rows) / (256 * weight)
                found.append(Path(lost_share, self._rtt_ms(session.subscriber.driver)))
        return found

    def _rtt_ms(self, driver: Any) -> float:
        rows = self._transports.get(driver.id, ()) if driver is not None else ()
        return max((int(row["rtt_ns"]) / 1e6 for row in rows), default=0.0) if rows else 0.0


def _by(rows: Iterable[Any], name: str) -> Mapping[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for row in rows:
        found.setdefault(int(row[name]), []).append(row)
    return found
