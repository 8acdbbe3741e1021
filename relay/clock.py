"""The only place of the control plane that reads a clock.

Pure code takes `now_ns` as an argument; edges get it here. Monotonic time is CLOCK_MONOTONIC, the clock of the
data plane's workers too, so that a deadline made on one side may be compared on the other.
"""

import time


def monotonic_ns() -> int:
    """Return the time for deadlines and durations; it never steps and its zero means nothing.   Units: ns."""
    return time.monotonic_ns()


def wall_ms() -> int:
    """Return the time of day for what people and tokens see; it may step.   Units: ms since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


def wall_s() -> int:
    """Return the time of day as tokens count it.   Units: s since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000_000
