"""Which qualities a publisher should send: the best that anybody wants and those below it, so that nobody encodes unseen.

More is asked for at once, since somebody waits for it; less only after a while, since who leaves a tile often comes
back to it, and an encoder that stops and starts costs a keyframe. LiveKit's servers wait as long.
"""

from dataclasses import dataclass

from relay.quality.choice import Quality

PATIENCE_NS = 5_000_000_000


def rank(quality: Quality) -> int:
    """Return how much a quality asks for; OFF is the least."""
    return -1 if quality is Quality.OFF else int(quality)


@dataclass(slots=True)
class Demand:
    """What is asked of the publisher of one track. Publishers begin with all they have."""

    asked: Quality = Quality.HIGH
    _less_since_ns: int | None = None

    def update(self, wanted: Quality, now_ns: int) -> bool:
        """Take the best that anybody wants now; True when the publisher has to be told of `asked`."""
        if rank(wanted) >= rank(self.asked):
            self._less_since_ns = None
            is_more = wanted is not self.asked
            self.asked = wanted
            return is_more
        if self._less_since_ns is None:
            self._less_since_ns = now_ns
        if now_ns - self._less_since_ns < PATIENCE_NS:
            return False
        self._less_since_ns = None
        self.asked = wanted
        return True

    @property
    def due_ns(self) -> int | None:
        """When to update again at the latest, None: not before something changes."""
        return None if self._less_since_ns is None else self._less_since_ns + PATIENCE_NS

    def enabled(self) -> dict[Quality, bool]:
        """Return of every quality whether it should be sent."""
        return {q: rank(q) <= rank(self.asked) for q in (Quality.LOW, Quality.MEDIUM, Quality.HIGH)}
