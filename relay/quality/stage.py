"""Who is on stage in a large call: at most so many, those who spoke last, steadily.

Used twice: for pictures (last-N) and for sound (loudest-N). A voice that lasts brings somebody on; who goes is the one
silent for longest, and never before its time. Of sounds, where all on stage speak, a clearly louder voice may also
take the place of the quietest. Screens are not on this stage: whoever calls says who its candidates are.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

# A cough brings nobody on: two windows of speech (speakers.WINDOW_S) do.
ENTER_NS = 700_000_000
# Whoever came on stays at least so long, so that a lively talk does not make pictures jump.
STAY_NS = 3_000_000_000
# A voice counts as speaking through pauses for breath.
BREATH_NS = 1_500_000_000
# 6 dB: as much louder as people notice without comparing.
LOUDER = 2.0


@dataclass(slots=True)
class _Voice:
    began_ns: int
    heard_ns: int
    level: float


@dataclass(slots=True)
class Stage:
    """At most `size` are on stage, 0: everybody. for_sound: places go to voices at once, and to louder ones."""

    size: int
    for_sound: bool = False
    _on: dict[str, int] = field(default_factory=dict)
    _voices: dict[str, _Voice] = field(default_factory=dict)

    def hear(self, levels: Mapping[str, float], now_ns: int) -> None:
        """Note who speaks now, by level (0..1)."""
        for sid, level in levels.items():
            voice = self._voices.get(sid)
            if voice is None or now_ns - voice.heard_ns > BREATH_NS:
                self._voices[sid] = _Voice(now_ns, now_ns, level)
            else:
                voice.heard_ns, voice.level = now_ns, level

    def is_speaking(self, sid: str, now_ns: int) -> bool:
        """True while somebody speaks, pauses for breath included."""
        voice = self._voices.get(sid)
        return voice is not None and now_ns - voice.heard_ns <= BREATH_NS

    def pick(self, candidates: Sequence[str], now_ns: int) -> frozenset[str]:
        """Return who is on stage, of these, who stand in the order in which they came."""
        known = set(candidates)
        self._voices = {sid: voice for sid, voice in self._voices.items() if sid in known}
        if not self.size:
            return frozenset(known)
        self._on = {sid: since for sid, since in self._on.items() if sid in known}
        waiting = sorted((sid for sid in candidates if sid not in self._on), key=self._heard_ns, reverse=True)
        for sid in waiting[: self.size - len(self._on)]:
            self._on[sid] = now_ns
        for sid in waiting:
            if sid not in self._on and self._may_enter(sid, now_ns) and (leaves := self._who_leaves(sid, now_ns)):
                del self._on[leaves]
                self._on[sid] = now_ns
        return frozenset(self._on)

    def _heard_ns(self, sid: str) -> int:
        voice = self._voices.get(sid)
        return voice.heard_ns if voice is not None else -1

    def _may_enter(self, sid: str, now_ns: int) -> bool:
        if not self.is_speaking(sid, now_ns):
            return False
        return self.for_sound or now_ns - self._voices[sid].began_ns >= ENTER_NS

    def _who_leaves(self, comer: str, now_ns: int) -> str | None:
        silent = [sid for sid in self._on if not self.is_speaking(sid, now_ns)]
        stayed = silent if self.for_sound else [sid for sid in silent if now_ns - self._on[sid] >= STAY_NS]
        if stayed:
            return min(stayed, key=self._heard_ns)
        if silent or not self.for_sound:
            return None
        quietest = min(self._on, key=lambda sid: self._voices[sid].level)
        is_louder = self._voices[comer].level >= LOUDER * self._voices[quietest].level
        return quietest if is_louder and now_ns - self._on[quietest] >= STAY_NS else None


def speaking(stage: Stage, sids: Collection[str], now_ns: int) -> frozenset[str]:
    """Return who of these speaks now."""
    return frozenset(sid for sid in sids if stage.is_speaking(sid, now_ns))
