"""Chooses which encoding of a publication goes to one subscriber.

Simulcast per RFC 8853: up to four encodings, index 0 the lowest. A subscriber says what it can show (a size, else a
quality); the best active encoding at or below that is forwarded, and when none is, the lowest active one above it, so
that somebody who wants a small picture still sees one when only the large one comes. Going down is immediate, since
the picture would stop; going up after a fall waits until the higher encoding has proved itself, since every switch
costs the publisher a keyframe. Bandwidth plays no part here.
"""

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

# A higher encoding that came back must have been there this long before we return to it: two intervals of the
# worker's "silent for 1 s", so that an encoder that flaps at its bitrate limit does not make the picture flap.
SETTLE_NS = 2_000_000_000


class Quality(enum.IntEnum):
    """How good a picture is asked for; the numbers are LiveKit's VideoQuality."""

    LOW = 0
    MEDIUM = 1
    HIGH = 2
    OFF = 3


@dataclass(frozen=True, slots=True)
class EncodingShape:
    """Announced size of an encoding in pixels; 0 where unknown."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a subscriber asked for. A size, where given, says more than a quality."""

    disabled: bool = False
    quality: Quality = Quality.HIGH
    width: int = 0
    height: int = 0
    fps: int = 0
    # 1 to 255, the most important last; 0: as the relay thinks.
    priority: int = 0

    @property
    def is_paused(self) -> bool:
        """True when nothing is to be sent."""
        return self.disabled or (self.quality is Quality.OFF and not self.width)


BEST = Wanted()


def target(shapes: Sequence[EncodingShape], wanted: Wanted) -> int:
    """Return the encoding that would serve best if all were active: the smallest that covers the wanted size, else
    by quality, counted so that HIGH is the highest and LOW the lowest whatever their number."""
    highest = len(shapes) - 1
    if wanted.width > 0 and all(shape.width > 0 for shape in shapes):
        for index, shape in enumerate(shapes):
            # A portrait picture in a landscape box is compared by its longer and shorter side.
            long, short = max(shape.width, shape.height), min(shape.width, shape.height)
            box_long, box_short = max(wanted.width, wanted.height), min(wanted.width, wanted.height)
            if long >= box_long and (short >= box_short or not shape.height):
                return index
        return highest
    if wanted.quality is Quality.LOW:
        return 0
    if wanted.quality is Quality.MEDIUM:
        return min(1, highest)
    return highest


def quality_for(shapes: Mapping[Quality, EncodingShape], wanted: Wanted) -> Quality:
    """Return the least of a publisher's qualities that serves what is wanted; OFF when nothing is."""
    if wanted.is_paused:
        return Quality.OFF
    qualities = sorted(shapes)
    if wanted.width <= 0 or not qualities:
        return wanted.quality
    return qualities[target([shapes[quality] for quality in qualities], wanted)]


@dataclass(slots=True)
class Chooser:
    """The choice for one subscription, with its memory of what came and went."""

    current: int | None = None
    _risen_ns: dict[int, int] = field(default_factory=dict)
    _fell: bool = False

    def on_active(self, encoding: int, active: bool, now_ns: int) -> None:
        """Remember that an encoding began or stopped to arrive."""
        if active:
            self._risen_ns[encoding] = now_ns
            return
        self._risen_ns.pop(encoding, None)
        if encoding == self.current:
            self._fell = True

    def choose(
        self, shapes: Sequence[EncodingShape], active: Collection[int], wanted: Wanted, now_ns: int
    ) -> int | None:
        """Return the encoding to forward now, None for nothing.

        With none active the answer is the wanted one if it is alone, else the lowest: publishers start from below.
        """
        self.current = self._choose(shapes, active, wanted, now_ns)
        return self.current

    def _choose(
        self, shapes: Sequence[EncodingShape], active: Collection[int], wanted: Wanted, now_ns: int
    ) -> int | None:
        if wanted.is_paused:
            self._fell = False
            return None
        best = target(shapes, wanted)
        usable = [encoding for encoding in active if 0 <= encoding < len(shapes)]
        if not usable:
            # All of it stopped, as a muted camera does, or a screen that stands still: no encoder that flaps.
            self._fell = False
            return self.current if self.current is not None and self.current <= best else 0
        below = [encoding for encoding in usable if encoding <= best]
        choice = max(below) if below else min(usable)
        if self._fell and self.current in usable and choice > (self.current or 0):
            if now_ns - self._risen_ns.get(choice, now_ns) < SETTLE_NS:
                return self.current
            self._fell = False
        if choice == best:
            self._fell = False
        return choice
