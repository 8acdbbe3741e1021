"""How much every received encoding costs and what goes out to whom, from the data plane's snapshots, once a second.

One task for the whole relay; it costs nothing while no video is subscribed to. A rate is told to have changed when it
did by a tenth: encoders swing by less, and each change is a division anew for everybody who sees the video.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from relay.clock import monotonic_ns
from relay.plane import PlaneError

if TYPE_CHECKING:
    from relay.plane.stats import PlaneSnapshot
    from relay.signaling.conference import Conference

INTERVAL_S = 1.0
FIRST_INTERVAL_S = 0.25
# RTP header with extensions and the authentication tag, which a stream's byte count leaves out.
PACKET_OVERHEAD_BYTES = 40
# Weight of the newest second: a keyframe is spread over three.
SMOOTHING = 0.4
MATERIAL = 0.1
# What nothing comes of for so long is no news any more.
NEWS_S = 5.0
OTHER_FPS = 3
# spatial, temporal, height, selected bytes, frames
_Row = tuple[int, int, int, int, int]


@dataclass(slots=True)
class LayerRate:
    """What selecting an encoding up to these layers costs, `octets` so far; its pictures' height in lines, 0 unknown."""

    octets: int
    frames: int
    height: int
    bps: float = 0.0
    fps: float = 0.0
    told_bps: int = 0
    told_fps: float = 0.0


@dataclass(slots=True)
class Rate:
    """One received encoding. told_bps is what divisions go by; 0 until it was measured for a whole interval.

    layers: by (spatial, temporal), those that something came of.
    """

    packets: int
    octets: int
    frames: int
    bps: float = 0.0
    fps: float = 0.0
    told_bps: int = 0
    told_fps: float = 0.0
    # Intervals in a row in which something came; of the row before, how many; and how long nothing came in between.
    measured: int = 0
    measured_before: int = 0
    idle_s: float = 0.0
    layers: dict[tuple[int, int], LayerRate] = field(default_factory=dict)


@dataclass(slots=True)
class Sent:
    """What goes out of one subscription. encoding: -1 none; spatial, temporal: the highest layers, 7 all."""

    encoding: int
    spatial: int
    temporal: int
    bps: int = 0
    fps: float = 0.0


class Measuring:
    """The newest figures. `on_changed` is told the receivers whose encodings cost another amount now."""

    def __init__(self, conference: "Conference", on_changed: Callable[[set[int]], None]) -> None:
        self._conference = conference
        self._on_changed = on_changed
        self._at_ns = 0
        self._rates: dict[tuple[int, int], Rate] = {}
        self._of_receiver: dict[int, dict[int, Rate]] = {}
        self._egresses: Any = None
        self._egresses_before: Any = None
        self._span_s = INTERVAL_S
        self._sent: dict[int, Sent] | None = None
        self._has_news = False

    async def run(self) -> None:
        """Measure for ever; more often while something flows whose cost is not known."""
        while True:
            await asyncio.sleep(FIRST_INTERVAL_S if self._has_news else INTERVAL_S)
            if not any(hall.sessions for hall in self._conference.halls):
                continue
            try:
                self.take(await self._conference.plane.snapshot())
            except PlaneError:
                # It stops, or has no room for the question now.
                continue

    @property
    def receivers(self) -> Collection[int]:
        """The receivers that anything came from."""
        return self._of_receiver.keys()

    def rates_of(self, receiver: int) -> dict[int, Rate]:
        """Return what is known of a receiver's encodings, by their number."""
        return self._of_receiver.get(receiver, {})

    def sent(self, egress: int) -> Sent | None:
        """Return what went out of an egress in the last second; None when it is newer."""
        if self._sent is None:
            self._sent = self._compare()
        return self._sent.get(egress)

    def take(self, snapshot: "PlaneSnapshot") -> None:
        """Digest a snapshot."""
        now_ns = monotonic_ns()
        span_s = (now_ns - self._at_ns) / 1e9 if self._at_ns else 0.0
        self._at_ns = now_ns
        self._egresses_before, self._egresses = self._egresses, snapshot.egresses
        self._span_s, self._sent = span_s, None
        changed: set[int] = set()
        layers = _layers(snapshot)
        rates: dict[tuple[int, int], Rate] = {}
        by_receiver: dict[int, dict[int, Rate]] = {}
        streams = snapshot.streams
        columns = [streams[name].tolist() for name in ("receiver", "encoding", "packets", "bytes", "frames")]
        for receiver, encoding, packets, octets, frames in zip(*columns, strict=True):
            if encoding < 0:
                continue
            rate = self._rates.get((receiver, encoding))
            if rate is None or packets < rate.packets:
                rate = Rate(packets, octets, frames, measured_before=1 if packets else 0)
            elif span_s > 0 and _advance(rate, packets, octets, frames, layers.get((receiver, encoding), ()), span_s):
                changed.add(receiver)
            rates[receiver, encoding] = rate
            by_receiver.setdefault(receiver, {})[encoding] = rate
        self._rates, self._of_receiver = rates, by_receiver
        self._has_news = any(
            rate.packets and not rate.told_bps and rate.idle_s < NEWS_S for rate in rates.values()
        )
        if changed:
            self._on_changed(changed)

    def _compare(self) -> dict[int, Sent]:
        if self._egresses is None:
            return {}
        names = ("egress", "bytes", "frames", "encoding", "spatial", "temporal")
        before: dict[int, tuple[int, int]] = {}
        if self._egresses_before is not None:
            columns = [self._egresses_before[name].tolist() for name in names[:3]]
            before = {row[0]: row[1:] for row in zip(*columns, strict=True)}
        found = {}
        rows = zip(*(self._egresses[name].tolist() for name in names), strict=True)
        for egress, octets, frames, encoding, spatial, temporal in rows:
            sent = found[egress] = Sent(encoding, spatial, temporal)
            had = before.get(egress)
            if had is not None and self._span_s > 0:
                sent.bps = max(0, int((octets - had[0]) * 8 / self._span_s))
                sent.fps = max(0.0, (frames - had[1]) / self._span_s)
        return found


def _layers(snapshot: "PlaneSnapshot") -> dict[tuple[int, int], list[_Row]]:
    """Return the rows of every encoding's layers."""
    found: dict[tuple[int, int], list[_Row]] = {}
    names = ("receiver", "encoding", "spatial", "temporal", "height", "selected_bytes", "frames")
    for receiver, encoding, *row in zip(*(snapshot.layers[name].tolist() for name in names), strict=True):
        found.setdefault((receiver, encoding), []).append(tuple(row))
    return found


def _advance(rate: Rate, packets: int, octets: int, frames: int, rows: Sequence[_Row], span_s: float) -> bool:
    """Bring a rate up to now; True when it is another one than was told."""
    grown = octets - rate.octets + PACKET_OVERHEAD_BYTES * (packets - rate.packets)
    # Of its layers only payload is counted; headers are shared out alike.
    overhead = grown / max(1, octets - rate.octets)
    if not grown:
        # It pauses: what it cost stays known for when it comes back.
        if rate.measured:
            rate.measured_before, rate.measured, rate.idle_s = rate.measured, 0, 0.0
        rate.idle_s += span_s
        return False
    is_first = rate.measured == 0
    # A screen that stands still sends a picture a second: what comes so rarely is spread over the time since the last.
    is_rare = is_first and rate.idle_s > 0 and rate.measured_before == 1
    if is_rare:
        span_s += rate.idle_s
    rate.measured += 1
    rate.idle_s = 0.0
    # Else it began, or is back, somewhere within this interval.
    counts = is_rare or not is_first
    bps, fps = grown * 8 / span_s, (frames - rate.frames) / span_s
    rate.packets, rate.octets, rate.frames = packets, octets, frames
    is_other = _advance_layers(rate, rows, overhead, span_s, counts=counts)
    if not counts:
        return False
    weight = SMOOTHING if rate.bps else 1.0
    rate.bps += (bps - rate.bps) * weight
    rate.fps += (fps - rate.fps) * weight
    if not is_other and not _is_another(rate):
        return False
    for told in (rate, *rate.layers.values()):
        told.told_bps, told.told_fps = int(told.bps), told.fps
    return True


def _advance_layers(rate: Rate, rows: Sequence[_Row], overhead: float, span_s: float, *, counts: bool) -> bool:
    """Bring an encoding's layers up to now, `counts`: and what they cost; True when one came, went, or costs something else."""
    is_other = False
    frames_at: dict[int, int] = {}
    for spatial, temporal, height, octets, frames in sorted(rows):
        # Pictures of a spatial layer up to a temporal one.
        frames_at[spatial] = total = frames_at.get(spatial, 0) + frames
        layer = rate.layers.get((spatial, temporal))
        if layer is None:
            rate.layers[spatial, temporal] = LayerRate(octets, total, height)
            is_other = True
            continue
        if not counts:
            layer.octets, layer.frames, layer.height = octets, total, height
            continue
        bps, fps = (octets - layer.octets) * overhead * 8 / span_s, (total - layer.frames) / span_s
        # A layer that was switched off is gone at once, and one that is back is there at once.
        weight = SMOOTHING if layer.bps and bps else 1.0
        layer.bps += (bps - layer.bps) * weight
        layer.fps += (fps - layer.fps) * weight
        is_other |= layer.height != height or _is_another(layer)
        layer.octets, layer.frames, layer.height = octets, total, height
    return is_other


def _is_another(rate: Rate | LayerRate) -> bool:
    """True when a rate differs from what was told of it by something that matters."""
    return abs(rate.bps - rate.told_bps) > MATERIAL * rate.told_bps or abs(rate.fps - rate.told_fps) >= OTHER_FPS
