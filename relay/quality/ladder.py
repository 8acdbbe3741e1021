"""What can be sent of one published video, from the least to the best, and how much of that a subscriber asked for.

An option is one encoding with the layers of it that go out (RFC 8853 simulcast, VP9 and AV1 SVC); it costs what was
measured of it. Of a camera, low frame rates are worth their bits at the lowest size alone: more lines at less than
half the motion look worse than fewer lines (Jitsi's bridge asks for full motion from its preferred height on). A screen
is read, not watched: there lines come before motion.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from relay.quality.choice import EncodingShape, Quality, Wanted

# All layers there are, as the data plane counts them.
ALL = 7
# Motion below that is an emergency: no option above the lowest size is offered with less.
LEAST_FPS = 12


@dataclass(frozen=True, slots=True)
class Option:
    """One way to send a video. bps: on the wire, measured; height in lines and fps in frames per second, 0 unknown."""

    encoding: int
    spatial: int = ALL
    temporal: int = ALL
    bps: int = 0
    height: int = 0
    fps: float = 0.0

    @property
    def level(self) -> tuple[int, int]:
        """What a keyframe or switch point is needed for to come to; options of one level differ in motion alone."""
        return self.encoding, self.spatial


class Ladder:
    """The options of one video, ascending; those that cost no less than a better one are left out."""

    __slots__ = ("_bps", "_steps", "heights", "levels", "options")

    def __init__(self, options: Iterable[Option], *, is_screen: bool = False) -> None:
        ordered = sorted(options, key=lambda o: (o.height or 0, o.encoding, o.spatial, o.temporal))
        if ordered and not is_screen:
            lowest = ordered[0].level
            ordered = [o for o in ordered if o.level == lowest or o.fps == 0 or o.fps >= LEAST_FPS or o.temporal == ALL]
        kept: list[Option] = []
        dearest: float = float("inf")
        for option in reversed(ordered):
            # What was not measured yet says nothing about the cost of others.
            if option.bps < dearest:
                kept.append(option)
                dearest = option.bps or dearest
        self.options = tuple(reversed(kept))
        self.levels: tuple[tuple[int, int], ...] = tuple(dict.fromkeys(option.level for option in self.options))
        self._bps = {(o.encoding, o.spatial, o.temporal): o.bps for o in self.options}
        self._steps: dict[tuple[int, int | None, int], tuple[Option, ...]] = {}
        self.heights = tuple(next(o.height for o in self.options if o.level == level) for level in self.levels)

    def like(self, option: Option) -> Option | None:
        """Return the option of the same layers, else one of the same level, None when there is none."""
        same = [o for o in self.options if o.level == option.level]
        return next((o for o in same if o.temporal == option.temporal), same[-1] if same else None)

    def bps_of(self, option: Option) -> int:
        """Return what an option of an earlier ladder costs by this one; as before where it has none like it."""
        return self._bps.get((option.encoding, option.spatial, option.temporal), option.bps)

    def steps(self, ceiling: int, level: int | None, fps: int) -> tuple[Option, ...]:
        """Return the options of `within` up to that encoding; kept, since many subscribers ask for the same."""
        key = ceiling, level, fps
        found = self._steps.get(key)
        if found is None:
            found = tuple(option for option in self.within(level, fps) if option.encoding <= ceiling)
            self._steps[key] = found
        return found

    def within(self, level: int | None, fps: int) -> tuple[Option, ...]:
        """Return the options up to the level of that number (None: all), with no more motion than asked for (0: all)."""
        if level is None and fps <= 0:
            return self.options
        levels = self.levels if level is None else self.levels[: level + 1]
        kept: list[Option] = []
        for wanted in levels:
            for option in (o for o in self.options if o.level == wanted):
                kept.append(option)
                if 0 < fps <= option.fps:
                    break
        return tuple(kept)

    def level_for(self, wanted: Wanted, shape: EncodingShape) -> int | None:
        """Return the number of the lowest level that covers what is wanted of a picture of that full shape; None: all.

        Where its sizes are not known a quality counts, LOW the lowest level and MEDIUM the one above it.
        """
        if wanted.width > 0 and shape.width > 0 and shape.height > 0 and all(self.heights):
            lines = lines_for(wanted, shape)
            return next((number for number, height in enumerate(self.heights) if height >= lines), None)
        if wanted.width > 0 or wanted.quality is Quality.HIGH:
            return None
        return 0 if wanted.quality is Quality.LOW else 1


def lines_for(wanted: Wanted, shape: EncodingShape) -> float:
    """Return how many lines a picture of that shape needs to cover a box, whichever way either is turned."""
    long, short = max(shape.width, shape.height), min(shape.width, shape.height)
    box_long, box_short = max(wanted.width, wanted.height), min(wanted.width, wanted.height)
    # A line less than computed is nobody's loss: sizes are rounded to whole blocks.
    return max(box_long / long, box_short / short) * shape.height - 1
