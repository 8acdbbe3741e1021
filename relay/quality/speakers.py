"""Who speaks now, and how loud: what the data plane hears, smoothed so that a pause for breath does not flicker.

The data plane says of each window of 400 ms in which somebody spoke how loud it was; silence is that it says nothing.
Levels are told as LiveKit tells them: 0 to 1, linear in sound pressure, in steps of an eighth.
"""

import math
from dataclasses import dataclass, field

WINDOW_S = 0.4
# Weight of the newest window: two windows are remembered.
SMOOTHING = 2 / 3
SPEECH = 10 ** (-35 / 20)
STEPS = 8
# Below this, the next windows of silence change nothing that is told.
FORGOTTEN = SPEECH / 16


@dataclass(frozen=True, slots=True)
class Speaker:
    """A change: somebody began or stopped to speak, or became louder or quieter. level 0..1, 0 when not active."""

    sid: str
    level: float
    active: bool


@dataclass(slots=True)
class _Voice:
    smoothed: float = 0.0
    told: float = 0.0
    # Windows come on the publishers' clocks: one may end just behind a tick, and two before the next.
    silent_ticks: int = 0


@dataclass(slots=True)
class Speakers:
    """The speakers of one room."""

    _voices: dict[str, _Voice] = field(default_factory=dict)
    _heard: dict[str, float] = field(default_factory=dict)

    @property
    def is_quiet(self) -> bool:
        """True when nobody spoke lately: a tick would change nothing."""
        return not self._voices and not self._heard

    @property
    def active(self) -> dict[str, float]:
        """Who speaks, as told last, and how loud."""
        return {sid: voice.told for sid, voice in self._voices.items() if voice.told > 0}

    def heard(self, sid: str, dbov: int) -> None:
        """Note that a participant spoke through a window, at this level in -dBov. Of several tracks the loudest counts."""
        self._heard[sid] = max(self._heard.get(sid, 0.0), 10 ** (-dbov / 20))

    def forget(self, sid: str) -> None:
        """Somebody left."""
        self._voices.pop(sid, None)
        self._heard.pop(sid, None)

    def tick(self) -> list[Speaker]:
        """Return what changed. Call it every WINDOW_S while it is not quiet."""
        heard, self._heard = self._heard, {}
        for sid in heard:
            self._voices.setdefault(sid, _Voice())
        changes = []
        for sid, voice in list(self._voices.items()):
            voice.silent_ticks = 0 if sid in heard else voice.silent_ticks + 1
            if voice.silent_ticks != 1:
                voice.smoothed += (heard.get(sid, 0.0) - voice.smoothed) * SMOOTHING
            level = math.ceil(voice.smoothed * STEPS) / STEPS if voice.smoothed >= SPEECH else 0.0
            if level != voice.told:
                voice.told = level
                changes.append(Speaker(sid, level, level > 0))
            if voice.smoothed < FORGOTTEN and not level:
                del self._voices[sid]
        return changes
