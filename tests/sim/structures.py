"""Scalability structures as browsers send them: which frame of a picture leans on which, and the Dependency Descriptors that say so.

Names as in W3C's webrtc-svc: L<spatial>T<temporal>, _KEY: upper spatial layers lean on lower ones at keyframes alone, _KEY_SHIFT: their
temporal layers are shifted against each other, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from tests.support.depdesc_writer import Descriptor, Structure, Template, write_depdesc

# Temporal ids by picture.
PATTERNS = {1: (0,), 2: (0, 1), 3: (0, 2, 1, 2)}


@dataclass(frozen=True)
class Frame:
    """One frame of one spatial layer. `leans`: numbers of frames; numbers count on without wrapping."""

    number: int
    picture: int
    spatial_id: int
    temporal_id: int
    key: bool  # of a key picture
    leans: tuple[int, ...]
    switch_up: bool  # leans on lower temporal layers alone


@dataclass
class Layout:
    """A structure by name, and the frames of an endless stream of it."""

    name: str
    number: int = 0
    picture: int = 0
    since_key: int = 0
    templates_begin: int = 0
    _last: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spatial, self.temporal = map(int, re.fullmatch(r"L(\d)T(\d).*", self.name).groups())
        self.is_key, self.is_shifted = "_KEY" in self.name, self.name.endswith("_SHIFT")

    @property
    def targets(self) -> list[tuple[int, int]]:
        return [(s, t) for s in range(self.spatial) for t in range(self.temporal)]

    def _temporal_id(self, spatial_id: int) -> int:
        pattern = PATTERNS[self.temporal]
        return pattern[(self.since_key + (spatial_id % 2 if self.is_shifted else 0)) % len(pattern)] if self.since_key else 0

    def next_picture(self, key: bool) -> Iterator[Frame]:
        """Yield the frames of the next picture."""
        if key:
            self.since_key = 0
            self._last.clear()
        below = None
        for s in range(self.spatial):
            tid = self._temporal_id(s)
            leans = []
            if below is not None and (key or not self.is_key):
                leans.append(below)
            before = [number for t in range(tid + (tid == 0)) if (number := self._last.get((s, t))) is not None]
            if before:
                leans.append(max(before))
            yield Frame(self.number, self.picture, s, tid, key, tuple(leans), key or tid > 0)
            self._last[s, tid] = below = self.number
            self.number += 1
        self.picture += 1
        self.since_key += 1

    # --- descriptors ---

    def _dti(self, s: int, t: int, key: bool, target: tuple[int, int]) -> int:
        """0 not present, 1 discardable, 2 switch, 3 required."""
        upper, rate = target
        if t > rate or s > upper or (self.is_key and not key and s != upper):
            return 0
        if t == self.temporal - 1 > 0 or (t and t == rate):
            return 1 if s == upper or self.is_key else 3
        return 2 if s == upper or key else 3

    @cached_property
    def _templates(self) -> list[tuple[int, int, bool]]:
        return [(s, t, key) for s in range(self.spatial) for t in range(self.temporal) for key in ((True, False) if t == 0 else (False,))]

    def structure(self) -> Structure:
        targets = self.targets
        return Structure(
            [Template(s, t, [self._dti(s, t, key, target) for target in targets]) for s, t, key in self._templates],
            template_id_offset=self.templates_begin,
            resolutions=[(160 << s, 90 << s) for s in range(self.spatial)],
        )

    def descriptor(self, frame: Frame, start: bool, end: bool) -> bytes:
        """The descriptor of one packet; a keyframe's first one has the structure."""
        has_structure = frame.key and start and frame.spatial_id == 0
        template = self._templates.index((frame.spatial_id, frame.temporal_id, frame.key))
        return write_depdesc(
            Descriptor(
                (self.templates_begin + template) & 63,
                frame.number & 0xFFFF,
                start,
                end,
                structure=self.structure() if has_structure else None,
                fdiffs=[frame.number - number for number in frame.leans] or None,
            )
        )


NAMES = ("L1T1", "L1T2", "L1T3", "L2T1", "L2T2", "L3T1", "L3T3", "L2T1_KEY", "L2T2_KEY", "L2T2_KEY_SHIFT", "L3T1_KEY", "L3T3_KEY")
