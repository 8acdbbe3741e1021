"""Why a picture looks as it does: per subscription what is forwarded now, the best there is, and the reason between them."""

from dataclasses import dataclass
from typing import Any

from relay.quality.allocator import Reason

SENTENCES = {
    Reason.NONE: "It is the best that its sender sends.",
    Reason.BANDWIDTH: "Your connection carries no more now.",
    Reason.REQUESTED: "Your app asks for no more than that.",
    Reason.PUBLISHER: "Its sender sends nothing better now.",
    Reason.KEYFRAME_BUDGET: "It changes with its sender's next keyframe, of which only so many are asked for.",
    Reason.POLICY: "In this call only those who spoke last are forwarded.",
}


@dataclass(frozen=True, slots=True)
class StreamState:
    """A video that a path has no room for any more, or has again."""

    publisher_sid: str
    track_sid: str
    is_paused: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture or sound as it goes out. spatial and temporal: the highest layer sent, None: all; 0 of the rest: unknown."""

    encoding: int
    rid: str = ""
    spatial: int | None = None
    temporal: int | None = None
    width: int = 0
    height: int = 0
    fps: float = 0.0
    bps: int = 0


@dataclass(frozen=True, slots=True)
class Explanation:
    """One subscription. `current` None: nothing is forwarded; `best`: of what its sender sends now, None: nothing."""

    track_sid: str
    publisher_sid: str
    is_video: bool
    source: str
    current: Shown | None
    best: Shown | None
    reason: Reason

    @property
    def is_paused(self) -> bool:
        """True when the path has no room for it at all."""
        return self.current is None and self.reason is Reason.BANDWIDTH

    def as_json(self) -> dict[str, Any]:
        """Return it as the API tells it."""
        return {
            "track": self.track_sid,
            "participant": self.publisher_sid,
            "kind": "video" if self.is_video else "audio",
            "source": self.source,
            "current": _fields(self.current),
            "best": _fields(self.best),
            "paused": self.is_paused,
            "reason": self.reason.value,
            "sentence": SENTENCES[self.reason],
        }


def _fields(shown: Shown | None) -> dict[str, Any] | None:
    if shown is None:
        return None
    return {
        "encoding": shown.encoding,
        "rid": shown.rid,
        "spatial": shown.spatial,
        "temporal": shown.temporal,
        "width": shown.width,
        "height": shown.height,
        "fps": round(shown.fps, 1),
        "bps": shown.bps,
    }
