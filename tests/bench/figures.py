"""Statistics of interleaved rounds (DESIGN §12): medians, ratios with their 95 % interval, and when a run is void."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Of Student's t, 97.5 %, by degrees of freedom; beyond 30 the normal one is near enough.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
         2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)  # fmt: skip
CONTROL_MAY_MOVE = 0.10


@dataclass(frozen=True)
class Figure:
    """A ratio or a difference, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}-{self.high:.2f}]"

    def misses(self, goal: float) -> bool:
        """True when even the good end of the interval is above the goal."""
        return self.low > goal


def mean(values: Sequence[float]) -> Figure:
    """Return the mean of the rounds; of a single one nothing is known but its value."""
    middle = statistics.fmean(values)
    if len(values) < 2:
        return Figure(middle, -math.inf, math.inf)
    t = T_975[min(len(values) - 2, len(T_975) - 1)]
    half = t * statistics.stdev(values) / math.sqrt(len(values))
    return Figure(middle, middle - half, middle + half)


def ratio(ours: Sequence[float], control: Sequence[float]) -> Figure:
    """Return the geometric mean of the rounds' ratios; round i of one side ran beside round i of the other."""
    logs = mean([math.log(a / b) for a, b in zip(ours, control, strict=True)])
    return Figure(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high))


def difference(ours: Sequence[float], control: Sequence[float]) -> Figure:
    """Return the median of the rounds' differences. Its interval is of order statistics, since a tail's rounds are no bell
    curve: the widest pair that still leaves at most 2.5 % of a fair coin's rows beyond each end."""
    found = sorted(a - b for a, b in zip(ours, control, strict=True))
    count = len(found)
    beyond, tail = -1, 0.0
    while (tail := tail + math.comb(count, beyond + 1) / 2**count) <= 0.025:
        beyond += 1
    if beyond < 0:
        return Figure(statistics.median(found), -math.inf, math.inf)
    return Figure(statistics.median(found), found[beyond], found[-1 - beyond])


def movement(control: Sequence[float]) -> float:
    """Return how far a control moved over a run, as a share of its median: the widest of its drift between the halves
    and its interquartile range. One odd round does not count, a machine that others use does."""
    middle = statistics.median(control)
    half = len(control) // 2
    drift = abs(statistics.median(control[:half]) - statistics.median(control[-half:])) if half else 0.0
    low, _, high = statistics.quantiles(control, n=4) if len(control) > 1 else (middle, middle, middle)
    return max(drift, high - low) / middle


def is_void(control: Sequence[float]) -> bool:
    return movement(control) > CONTROL_MAY_MOVE


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Return median and range as text."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}-{max(values):.{digits}f}]"
