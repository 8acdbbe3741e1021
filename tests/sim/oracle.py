"""Egress conformance oracle: what any stream that leaves the relay must obey, judged from its plaintext packets alone.

Rules (each has a case that must fail in test_oracle.py):
  reuse     no sequence number is sent twice
  hole      a number is missing only where the source itself lost a packet
  backwards RTP timestamps never step back in sequence order
  clock     RTP time advances with capture time; what is older than the newest picture shown stands right behind that
  cut       a frame that looks whole (first packet to marker without a gap) is whole
  mixed     one frame's packets come from one source frame
  picture   VP8 picture ids grow by one per frame, or by as many as the source lost
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.sim.source import Stamp

CLOCK_TOLERANCE_S = 0.1  # a switch may place the new source this far off before sender reports are known


@dataclass(frozen=True)
class Seen:
    ext_seq: int
    rtp_ts: int
    marker: bool
    stamp: Stamp
    picture_id: int | None = None


@dataclass
class Oracle:
    """Collects one SSRC's packets; `violations()` names every broken rule."""

    clock_rate_hz: int = 90_000
    packets: dict[int, Seen] = field(default_factory=dict)
    padding: set[int] = field(default_factory=set)
    reused: list[int] = field(default_factory=list)
    _highest: int | None = None

    def _unwrap(self, seq: int) -> int:
        if self._highest is None:
            self._highest = seq
        ext = self._highest + ((seq - self._highest + 0x8000) & 0xFFFF) - 0x8000
        self._highest = max(self._highest, ext)
        return ext

    def says(self, seq: int, rtp_ts: int, marker: bool, stamp: Stamp, picture_id: int | None = None) -> bool:
        """Whether exactly this packet is there already; another one under its number breaks the rule against reuse."""
        ext = self._unwrap(seq)
        return self.packets.get(ext) == Seen(ext, rtp_ts, marker, stamp, picture_id)

    def add_padding(self, seq: int) -> None:
        """Take a packet without payload: its number is used, nothing else is to be judged."""
        ext = self._unwrap(seq)
        if ext in self.packets or ext in self.padding:
            self.reused.append(ext)
        self.padding.add(ext)

    def add(self, seq: int, rtp_ts: int, marker: bool, stamp: Stamp, picture_id: int | None = None) -> None:
        """Take one packet as it arrived (any order, no network duplicates)."""
        ext = self._unwrap(seq)
        if ext in self.packets or ext in self.padding:
            self.reused.append(ext)
            return
        self.packets[ext] = Seen(ext, rtp_ts, marker, stamp, picture_id)

    def violations(self, lost_at_source: int = 0, lost_behind: int = 0) -> list[str]:
        """Return broken rules; the two counts are packets the network took before and behind the relay."""
        found = [f"reuse: {ext}" for ext in self.reused]
        ordered = [self.packets[ext] for ext in sorted(self.packets)]
        if not ordered:
            return found
        missing = ordered[-1].ext_seq - ordered[0].ext_seq + 1 - len(ordered)
        missing -= sum(ordered[0].ext_seq < ext < ordered[-1].ext_seq for ext in self.padding)
        if missing > lost_at_source + lost_behind:
            found.append(f"hole: {missing} numbers missing, {lost_at_source} lost at the source, {lost_behind} behind")
        found += self._time(ordered)
        found += self._frames(ordered)
        return found

    def _time(self, ordered: list[Seen]) -> list[str]:
        found = []
        first = ordered[0]
        for before, after in zip(ordered, ordered[1:]):
            step = ((after.rtp_ts - before.rtp_ts + 0x80000000) & 0xFFFFFFFF) - 0x80000000
            if step < 0:
                found.append(f"backwards: {after.ext_seq} by {-step} ticks")
        elapsed_ticks = 0
        previous = first
        newest_s = first.stamp.capture_s
        for packet in ordered[1:]:
            elapsed_ticks += ((packet.rtp_ts - previous.rtp_ts + 0x80000000) & 0xFFFFFFFF) - 0x80000000
            newest_s = max(newest_s, packet.stamp.capture_s)
            expected = newest_s - first.stamp.capture_s
            if abs(elapsed_ticks / self.clock_rate_hz - expected) > CLOCK_TOLERANCE_S:
                found.append(f"clock: {packet.ext_seq} is {elapsed_ticks / self.clock_rate_hz - expected:+.3f} s off")
                break
            previous = packet
        return found

    def _frames(self, ordered: list[Seen]) -> list[str]:
        found = []
        frames: dict[int, list[Seen]] = {}
        for packet in ordered:
            frames.setdefault(packet.rtp_ts, []).append(packet)
        pictures: list[tuple[Stamp, int, int, int]] = []
        for packets in frames.values():
            sources = {(p.stamp.encoding, p.stamp.frame) for p in packets}
            if len(sources) > 1:
                found.append(f"mixed: {sorted(sources)} under one timestamp")
                continue
            contiguous = packets[-1].ext_seq - packets[0].ext_seq + 1 == len(packets)
            looks_whole = contiguous and packets[-1].marker and packets[0].stamp.index == 0
            indices = [p.stamp.index for p in packets]
            if looks_whole and indices != list(range(packets[0].stamp.count)):
                found.append(f"cut: frame {sources} has packets {indices} of {packets[0].stamp.count}")
            if packets[0].picture_id is not None:
                pictures.append((packets[0].stamp, packets[0].picture_id, packets[0].ext_seq, packets[-1].ext_seq))
        for (stamp_a, a, _, last_a), (stamp_b, b, first_b, _) in zip(pictures, pictures[1:]):
            # Frames that the network took before the relay leave their ids unused; a pause or a switch leaves none.
            most = max(1, stamp_b.frame - stamp_a.frame) if stamp_a.encoding == stamp_b.encoding else 1
            # Nor may it be judged what the network took behind the relay: a number is missing for each packet of it.
            most += max(0, first_b - last_a - 1)
            if not 1 <= (b - a) & 0x7FFF <= most:
                found.append(f"picture: {a} -> {b} at frame {stamp_b.frame} of encoding {stamp_b.encoding}")
        return found
