"""Which worker a new transport goes to.

A room stays on one worker as long as that has room to spare, because a stream that crosses to another worker is copied
there. Load is predicted, not measured: what is subscribed to says what a worker will have to do in a second, while its
CPU time says what it had to do before the last ten people joined.

    load = (published encodings + subscriptions) * packets/s * seconds per packet

with the rates of a usual call and one price for every packet. All of it errs on the safe side: a paused subscription
counts in full, and so does a publication that nobody sees.
"""

from collections.abc import Hashable
from dataclasses import dataclass

# Opus sends a packet per 20 ms; a camera of 2.5 Mbit/s in packets of 1,200 bytes sends 260 a second.
PACKETS_PER_S = {"audio": 50.0, "video": 260.0}
# All of the path, socket to socket: one microsecond is the goal, so this leaves a third for repair and reports.
S_PER_PACKET = 1.5e-6
# From here on a room spreads: keyframes come in bursts of several times the mean rate, and somebody always joins.
FULL_LOAD = 0.6


@dataclass
class _Worker:
    load: float = 0.0
    transports: int = 0


@dataclass
class _Group:
    worker: int
    transports: int = 0


class Placement:
    """Loads of the workers and the groups (rooms) on them. A group without transports is forgotten."""

    def __init__(self, workers: int) -> None:
        self._workers = [_Worker() for _ in range(workers)]
        self._groups: dict[Hashable, _Group] = {}

    def place(self, group: Hashable | None) -> int:
        """Return the worker for a new transport and count it there; undone by `leave`. None: a group of its own."""
        known = self._groups.get(group) if group is not None else None
        if known is None or self._workers[known.worker].load >= FULL_LOAD:
            worker = min(range(len(self._workers)), key=lambda i: (self._workers[i].load, self._workers[i].transports))
        else:
            worker = known.worker
        if group is not None:
            known = self._groups.setdefault(group, _Group(worker))
            known.worker = worker
            known.transports += 1
        self._workers[worker].transports += 1
        return worker

    def leave(self, group: Hashable | None, worker: int) -> None:
        self._workers[worker].transports -= 1
        if group is not None:
            known = self._groups[group]
            known.transports -= 1
            if known.transports == 0:
                del self._groups[group]

    def add(self, worker: int, kind: str, encodings: int = 1) -> None:
        """Count a subscription, or a publication with its encodings."""
        self._workers[worker].load += _cost(kind) * encodings

    def remove(self, worker: int, kind: str, encodings: int = 1) -> None:
        self._workers[worker].load -= _cost(kind) * encodings

    def loads(self) -> list[float]:
        """Return the predicted load of each worker, in cores. Never below 0: sums of many prices round."""
        return [max(0.0, worker.load) for worker in self._workers]


def _cost(kind: str) -> float:
    return PACKETS_PER_S[kind] * S_PER_PACKET
