"""What can be sent of one published video, from the least to the best, and how much of that a subscriber asked for.

An option is one encoding with the layers of it that go out (RFC 8853 simulcast, VP9 and AV1 SVC); it costs what was
measured of it. Of a camera, low frame rates are worth their bits at the lowest size alone: more lines at less than
half the motion look worse than fewer lines (Jitsi's bridge asks for full motion from its preferred height on). A screen
is read, not watched: there lines come before motion.
"""

from collections.abc import Iterable, Sequence
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

    __slots__ = ("_bps", "_most_fps", "_offered", "_steps", "heights", "levels", "options")

    def __init__(self, options: Iterable[Option], *, is_screen: bool = False) -> None:
        ordered = sorted(options, key=lambda o: (o.height or 0, o.encoding, o.spatial, o.temporal))
        if ordered and not is_screen:
            lowest = ordered[0].level
            ordered = [o for o in ordered if o.level == lowest or o.fps == 0 or o.fps >= LEAST_FPS or o.temporal == ALL]
        self._offered = tuple(ordered)
        self._most_fps = max((option.fps for option in ordered), default=0.0)
        self.options = _worth_it(ordered)
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

    def steps(self, level: int | None, fps: int = 0, *, ceiling: int = ALL) -> tuple[Option, ...]:
        """Return the options up to the level of that number (None: all) and that encoding, with no more motion than
        asked for (0: all); kept, since many subscribers ask for the same."""
        if fps > self._most_fps:
            # More than there is is all there is, and not kept for each number that somebody makes up.
            fps = 0
        key = ceiling, level, fps
        found = self._steps.get(key)
        if found is None:
            found = self._steps[key] = self._within(level, fps, ceiling)
        return found

    def _within(self, level: int | None, fps: int, ceiling: int) -> tuple[Option, ...]:
        # What is left out for a better one must be looked at again when that one lies outside of what was asked for.
        offered = self._offered
        if level is not None and level < len(self.levels) - 1:
            highest = self.levels[level]
            offered = offered[: 1 + max(n for n, option in enumerate(offered) if option.level == highest)]
        kept = [option for option in offered if option.encoding <= ceiling]
        if fps > 0:
            enough = {o.level: o.temporal for o in reversed(kept) if o.fps >= fps}
            kept = [option for option in kept if option.temporal <= enough.get(option.level, ALL)]
        return _worth_it(kept)

    def level_for(self, wanted: Wanted, shape: EncodingShape) -> int | None:
        """Return the number of the lowest level that covers what is wanted of a picture of that full shape; None: all.

        Of several with the same number of lines it is the highest: some publishers send a small picture twice. Where its
        sizes are not known a quality counts, LOW the lowest level and MEDIUM the one above it.
        """
        if wanted.width > 0 and shape.width > 0 and shape.height > 0 and all(self.heights):
            lines = lines_for(wanted, shape)
            covers = min((height for height in self.heights if height >= lines), default=None)
            return None if covers is None else len(self.heights) - 1 - self.heights[::-1].index(covers)
        if wanted.width > 0 or wanted.quality is Quality.HIGH:
            return None
        return 0 if wanted.quality is Quality.LOW else 1


def _worth_it(ascending: Sequence[Option]) -> tuple[Option, ...]:
    """Return the options without those that cost no less than a better one."""
    kept: list[Option] = []
    dearest: float = float("inf")
    for option in reversed(ascending):
        # What was not measured yet says nothing about the cost of others.
        if option.bps < dearest:
            kept.append(option)
            dearest = option.bps or dearest
    return tuple(reversed(kept))


def lines_for(wanted: Wanted, shape: EncodingShape) -> float:
    """Return how many lines a picture of that shape needs to cover a box, whichever way either is turned."""
    long, short = max(shape.width, shape.height), min(shape.width, shape.height)
    box_long, box_short = max(wanted.width, wanted.height), min(wanted.width, wanted.height)
    # A line less than computed is nobody's loss: sizes are rounded to whole blocks.
    return max(box_long / long, box_short / short) * shape.height - 1
