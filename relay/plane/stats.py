"""One picture of the whole data plane, put together from the snapshots of its workers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class WorkerFigures:
    """What tells one worker from another. predicted_load in cores (relay.plane.placement)."""

    transports: int
    slots_used: int
    rtp_received: int
    rtp_forwarded: int
    predicted_load: float


@dataclass(frozen=True)
class PlaneSnapshot:
    """Figures as the workers copied them between two batches.

    transports, streams, egresses, layers: NumPy structured arrays with the fields of relaycore/engine.pxd (rtt_ns -1 = unknown,
    audio_level in -dBov with 255 = unknown, fraction_lost in 1/256; layers: a row for each layer that an encoding has sent).
    counters: sums over the workers; errors: dropped datagrams by reason; stages: (ns, packets) of the sampled turns, by stage of
    the packet path. workers: one entry each. now_ns: monotonic time of the oldest part.
    """

    transports: np.ndarray
    streams: np.ndarray
    egresses: np.ndarray
    layers: np.ndarray
    counters: dict[str, int]
    errors: dict[str, int]
    stages: dict[str, tuple[float, int]]
    slots_used: int
    transports_alive: int
    workers: tuple[WorkerFigures, ...]
    now_ns: int


def merge(parts: Sequence[Mapping[str, Any]], loads: Sequence[float]) -> PlaneSnapshot:
    """Return one snapshot of Worker.snapshot() dicts, at least one, and as many predicted loads."""
    counters: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    stages: dict[str, tuple[float, int]] = {}
    for part in parts:
        counters.update(part["counters"])
        errors.update(part["errors"])
        for name, (ns, packets) in part["stages"].items():
            before_ns, before_packets = stages.get(name, (0.0, 0))
            stages[name] = before_ns + ns, before_packets + packets
    return PlaneSnapshot(
        transports=np.concatenate([part["transports"] for part in parts]),
        streams=np.concatenate([part["streams"] for part in parts]),
        egresses=np.concatenate([part["egresses"] for part in parts]),
        layers=np.concatenate([part["layers"] for part in parts]),
        counters=dict(counters),
        errors=dict(errors),
        stages=stages,
        slots_used=sum(part["slots_used"] for part in parts),
        transports_alive=sum(part["transports_alive"] for part in parts),
        workers=tuple(
            WorkerFigures(
                transports=len(part["transports"]),
                slots_used=part["slots_used"],
                rtp_received=part["counters"]["rtp_received"],
                rtp_forwarded=part["counters"]["rtp_forwarded"],
                predicted_load=load,
            )
            for part, load in zip(parts, loads, strict=True)
        ),
        now_ns=min(part["now_ns"] for part in parts),
    )
