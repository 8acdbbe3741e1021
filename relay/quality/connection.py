"""How good a participant's connection is, in LiveKit's three words, from loss and round trip on both its paths.

The E-model of ITU-T G.107 with the defaults for Opus-like codecs gives a mean opinion score (1 to 5); what LiveKit calls
excellent begins at 4.1 (below 2.5 % of loss without delay), good at 3.5 (10 %).
"""

import enum
from dataclasses import dataclass

INTERVAL_S = 5.0
# R without any impairment; delay counts little up to 160 ms one way, a percent of loss costs 2.5.
_BEST_R = 93.2
_KNEE_MS = 160.0
_PER_LOSS = 250.0
_EXCELLENT, _GOOD = 4.1, 3.5


class ConnectionQuality(enum.IntEnum):
    """The numbers are LiveKit's; LOST is never told, since clients start over at it."""

    POOR = 0
    GOOD = 1
    EXCELLENT = 2


@dataclass(frozen=True, slots=True)
class Path:
    """One direction. loss 0..1 before repair; rtt_ms 0 = unknown."""

    loss: float = 0.0
    rtt_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Rating:
    """The worse of both paths, with its score."""

    quality: ConnectionQuality
    score: float


def score(path: Path) -> float:
    """Return the mean opinion score of a path, 1 to 5 (G.107 annex B)."""
    delay_ms = path.rtt_ms / 2
    r = _BEST_R - (delay_ms / 40 if delay_ms < _KNEE_MS else (delay_ms - 120) / 10) - path.loss * _PER_LOSS
    r = min(100.0, max(0.0, r))
    return max(1.0, 1 + 0.035 * r + 7e-6 * r * (r - 60) * (100 - r))


def rate(*paths: Path) -> Rating:
    """Return how good a connection of these paths is."""
    worst = min(map(score, paths))
    quality = ConnectionQuality.POOR
    if worst >= _GOOD:
        quality = ConnectionQuality.GOOD if worst < _EXCELLENT else ConnectionQuality.EXCELLENT
    return Rating(quality, round(worst, 2))
