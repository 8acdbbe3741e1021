"""Divides what an endpoint's path carries among the videos it subscribes to.

Everybody gets the least of its video before anybody gets more; then, by priority, a picture worth looking at
(PREFERRED_LINES); then, by priority, what is left. Videos of one priority rise in turns. A video is paused only when
the least of all does not fit, the least important first. Sound is no part of this: it is reserved before.

What runs costs what was measured of it; a rise has to leave HEADROOM over everything, for a while (longer after a rise
that did not last), and then happens. To fall happens at once, a pause after a moment: estimates dip lower
than the path. Both LiveKit's stream allocator and Jitsi's bitrate controller work by such rules; the figures are ours.

No clock, no I/O: `now_ns` comes in, and `Allocation.again_ns` says when to ask again if nothing changes before.
"""

import enum
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from relay.quality.ladder import Option

# Up only if that much more than needed is there: rates of encoders swing, and a keyframe of the switch has to fit.
HEADROOM = 1.08
# How long it has to be there: for a switch, which costs its publisher a keyframe, and for motion, which costs nothing.
HOLD_NS = 1_000_000_000
MOTION_HOLD_NS = 300_000_000
# Who has less than a video's least must pause it, but not for a dip of the estimate; a third over is no dip.
PAUSE_HOLD_NS = 500_000_000
SEVERE = 1.33
# A rise that ended sooner had failed: the next waits twice as long, up to the most; one that lasted
# takes a failure back.
PROOF_NS = 15_000_000_000
MOST_HOLD_NS = 30_000_000_000
MOST_FAILURES = 5
# A publisher's encoder that flaps at its own limit must not make the picture flap (choice.SETTLE_NS).
SETTLE_NS = 2_000_000_000
# Jitsi's preferred height, and the size of LiveKit's medium layer.
PREFERRED_LINES = 360
# Over a path on which no video runs, little is learned about it: the most important one is tried again for a while, ever
# more rarely.
RETRY_NS = 3_000_000_000
TRIAL_NS = 2_500_000_000
MOST_RETRIES = 4
_NEVER = -(1 << 62)


class Reason(enum.StrEnum):
    """Why a video is not better than it is; the words are part of the API."""

    NONE = "none"
    BANDWIDTH = "bandwidth"
    REQUESTED = "requested"
    PUBLISHER = "publisher"
    KEYFRAME_BUDGET = "keyframe_budget"
    POLICY = "policy"


class Priority(enum.IntEnum):
    """What comes first; a client may say other numbers, 1 to 255 (LiveKit's track settings)."""

    USUAL = 1
    SPEAKER = 128
    SCREEN = 255


@dataclass(slots=True)
class Ask:
    """What one subscription could be sent now. Made often, never changed.

    steps: ascending in quality and cost, up to what was asked for (ladder.Ladder.within); empty: nothing, for `limit`.
    limit: why there is no better step than the last. lines: asked for, the larger first among equals. is_detail: a
    screen, whose preferred picture is the best there is.
    """

    key: Hashable
    steps: tuple[Option, ...]
    priority: int = Priority.USUAL
    lines: int = 0
    limit: Reason = Reason.NONE
    is_detail: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """What one subscription is sent: None for nothing; and why it is not more."""

    option: Option | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Allocation:
    """One division. All of it in bits per second of video but for the two bounds, which are estimates.

    spent_bps: what is granted costs; wanted_bps: what all that is asked for would cost, with headroom. While the estimate
    stays from falls_below_bps to rises_at_bps and nothing else changes, neither does the division before again_ns (None: ever).
    """

    grants: dict[Hashable, Grant]
    spent_bps: int
    wanted_bps: int
    falls_below_bps: float
    rises_at_bps: float
    again_ns: int | None

    @property
    def paused(self) -> frozenset[Hashable]:
        """The subscriptions that the path has no room for."""
        return frozenset(k for k, g in self.grants.items() if g.option is None and g.reason is Reason.BANDWIDTH)


@dataclass(slots=True)
class _Seen:
    """What is remembered of one subscription."""

    option: Option | None = None
    reason: Reason = Reason.NONE
    grant: Grant | None = None
    # Since when a rise is affordable.
    since_ns: int | None = None
    # What it was sent went away; better steps have to prove themselves until then.
    settles_ns: int = _NEVER


@dataclass(slots=True)
class Allocator:
    """The divisions for one endpoint, with the memory that keeps them steady."""

    _seen: dict[Hashable, _Seen] = field(default_factory=dict)
    _rose_ns: int = _NEVER
    _failures: int = 0
    _short_since_ns: int | None = None
    _retry_ns: int | None = None
    _trial_until_ns: int = _NEVER
    _trials: int = 0

    def allocate(
        self, estimate_bps: float | None, asks: Iterable[Ask], now_ns: int, *, reserved_bps: float = 0
    ) -> Allocation:
        """Divide anew. estimate_bps: of the whole path, None: unknown, everybody gets what it asked for; reserved_bps:
        what sound, data and repairs take of it. Keys are unique."""
        ordered = sorted(asks, key=self._rank)
        at = [self._place(ask, now_ns) for ask in ordered]
        budget = math.inf if estimate_bps is None else max(0.0, estimate_bps - reserved_bps)
        if self._rose_ns != _NEVER and now_ns - self._rose_ns > PROOF_NS:
            self._failures = max(0, self._failures - 1)
            self._rose_ns = _NEVER
        budget_least = self._budget_for_least(ordered, at, budget, now_ns)
        tops = [len(ask.steps) - 1 for ask in ordered]
        tried = self._tried(ordered, at, now_ns)
        if tried is not None:
            budget_least = max(budget_least, ordered[tried].steps[0].bps)
        running = sum(ask.steps[current].bps for ask, current in zip(ordered, at, strict=True) if current >= 0)
        # To begin costs no headroom: whoever is new gets the least of its video if there is any room.
        sure = [
            max(current, 0) if self._seen[ask.key].reason is not Reason.BANDWIDTH else current
            for ask, current in zip(ordered, at, strict=True)
        ]
        if tried is not None:
            sure[tried] = max(sure[tried], 0)
        if sum(ask.steps[-1].bps for ask in ordered if ask.steps) * HEADROOM <= budget:
            picks = tops
        else:
            picks = _fill(ordered, sure, tops, budget, budget_least)
        again_ns = None
        if any(pick > current for pick, current in zip(picks, at, strict=True)):
            tops, again_ns = self._held_back(ordered, at, picks, now_ns, tried)
            if again_ns is not None:
                picks = _fill(ordered, sure, tops, budget, budget_least)
        else:
            for ask in ordered:
                self._seen[ask.key].since_ns = None
        if running > budget and self._rose_ns != _NEVER:
            self._failures = min(MOST_FAILURES, self._failures + 1)
            self._rose_ns = _NEVER
        return self._conclude(ordered, at, picks, budget, reserved_bps, again_ns, now_ns)

    def _rank(self, ask: Ask) -> tuple[int, bool, int]:
        """Sort key: of equals, what runs goes before what is paused, and the larger before the smaller."""
        seen = self._seen.get(ask.key)
        return -ask.priority, seen is not None and seen.reason is Reason.BANDWIDTH and seen.option is None, -ask.lines

    def _place(self, ask: Ask, now_ns: int) -> int:
        """Return the step that the subscription is at now, -1 for none."""
        seen = self._seen.get(ask.key)
        if seen is None:
            self._seen[ask.key] = _Seen()
            return -1
        had = seen.option
        if had is None:
            return -1
        for index, step in enumerate(ask.steps):
            if (
                step is had
                or step.encoding == had.encoding
                and step.spatial == had.spatial
                and step.temporal == had.temporal
            ):
                return index
        # It is gone: asked for less, or not sent any more. The best that is no better takes its place.
        index = -1
        for number, step in enumerate(ask.steps):
            if (step.height, step.encoding, step.spatial, step.temporal) < (
                had.height, had.encoding, had.spatial, had.temporal
            ):  # fmt: skip
                index = number
        if ask.limit is Reason.PUBLISHER and index >= 0:
            seen.settles_ns = now_ns + SETTLE_NS
        # Where nothing less comes either, somebody who saw a picture goes on seeing one.
        return max(index, 0) if ask.steps else -1

    def _budget_for_least(self, ordered: Sequence[Ask], at: Sequence[int], budget: float, now_ns: int) -> float:
        """Return what may be spent on the least of all: for a moment more than there is, so that a dip pauses nobody."""
        running = sum(ask.steps[0].bps for ask, current in zip(ordered, at, strict=True) if current >= 0)
        if running <= budget:
            self._short_since_ns = None
            return budget
        if self._short_since_ns is None:
            self._short_since_ns = now_ns
        if running > budget * SEVERE or now_ns - self._short_since_ns >= PAUSE_HOLD_NS:
            return budget
        return running

    def _tried(self, ordered: Sequence[Ask], at: Sequence[int], now_ns: int) -> int | None:
        """Return the place of the video that is sent whether the path has room for it or not, for a trial."""
        # What costs nothing is silent: it teaches nothing about the path.
        first = next((number for number, ask in enumerate(ordered) if ask.steps and ask.steps[-1].bps), None)
        is_running = any(current >= 0 and ask.steps[current].bps for ask, current in zip(ordered, at, strict=True))
        if first is None or (is_running and now_ns >= self._trial_until_ns):
            if self._short_since_ns is None:
                self._trials = 0
            self._retry_ns = None
            return None
        if now_ns < self._trial_until_ns:
            return first
        if not any(self._seen[ask.key].reason is Reason.BANDWIDTH for ask in ordered):
            return None
        if self._retry_ns is None:
            self._retry_ns = now_ns + (RETRY_NS << min(self._trials, MOST_RETRIES))
        if now_ns < self._retry_ns:
            return None
        self._trials += 1
        self._retry_ns = None
        self._trial_until_ns = now_ns + TRIAL_NS
        return first

    def _held_back(
        self, ordered: Sequence[Ask], at: Sequence[int], picks: Sequence[int], now_ns: int, tried: int | None
    ) -> tuple[list[int], int | None]:
        """Return how far everybody may go now, and when the first of those who may not yet will."""
        tops, again_ns = [], None
        for number, (ask, current, pick) in enumerate(zip(ordered, at, picks, strict=True)):
            seen = self._seen[ask.key]
            if pick <= current or number == tried:
                seen.since_ns = None
                tops.append(len(ask.steps) - 1)
                continue
            if seen.since_ns is None:
                seen.since_ns = now_ns
            due_ns = max(seen.since_ns + self._hold_ns(ask, seen, current, pick), seen.settles_ns)
            if due_ns <= now_ns:
                tops.append(len(ask.steps) - 1)
            else:
                tops.append(current)
                again_ns = due_ns if again_ns is None else min(again_ns, due_ns)
        return tops, again_ns

    def _hold_ns(self, ask: Ask, seen: _Seen, current: int, pick: int) -> int:
        if seen.reason is not Reason.BANDWIDTH:
            # It had all it asked for and asks for more now, or is new: nothing to wait for.
            return 0
        if current >= 0 and ask.steps[current].level == ask.steps[pick].level:
            return MOTION_HOLD_NS << self._failures
        return min(MOST_HOLD_NS, HOLD_NS << self._failures)

    def _conclude(
        self,
        ordered: Sequence[Ask],
        at: Sequence[int],
        picks: Sequence[int],
        budget: float,
        reserved_bps: float,
        again_ns: int | None,
        now_ns: int,
    ) -> Allocation:
        """Remember the division and say what it means."""
        grants: dict[Hashable, Grant] = {}
        spent = wanted = 0
        rises = math.inf
        has_risen = has_changed_places = False
        kept: dict[Hashable, _Seen] = {}
        for ask, current, pick in zip(ordered, at, picks, strict=True):
            seen = kept[ask.key] = self._seen[ask.key]
            if ask.steps:
                spent += ask.steps[pick].bps if pick >= 0 else 0
                wanted += ask.steps[-1].bps
            is_short = pick < len(ask.steps) - 1
            has_changed_places |= pick > current
            has_risen |= pick > current and seen.reason is Reason.BANDWIDTH
            seen.option = ask.steps[pick] if pick >= 0 else None
            seen.reason = Reason.BANDWIDTH if is_short else ask.limit
            if seen.grant is None or seen.grant.option is not seen.option or seen.grant.reason is not seen.reason:
                seen.grant = Grant(seen.option, seen.reason)
            grants[ask.key] = seen.grant
        self._seen = kept
        if has_risen:
            self._rose_ns = now_ns
        for ask, pick in zip(ordered, picks, strict=True):
            if pick < len(ask.steps) - 1:
                before = ask.steps[pick].bps if pick >= 0 else 0
                rises = min(rises, (spent - before + ask.steps[pick + 1].bps) * HEADROOM)
        if has_changed_places and again_ns is None and rises <= budget:
            # What rose costs no headroom any more: there may be room for another.
            again_ns = now_ns + MOTION_HOLD_NS
        dues = [again_ns] if again_ns is not None else []
        if self._short_since_ns is not None and spent > budget:
            dues.append(max(self._short_since_ns + PAUSE_HOLD_NS, self._trial_until_ns))
        if not spent and rises < math.inf:
            dues.append(self._retry_ns if self._retry_ns is not None else now_ns + RETRY_NS)
        again_ns = min(dues, default=None)
        return Allocation(
            grants,
            spent_bps=spent,
            wanted_bps=math.ceil(wanted * HEADROOM),
            falls_below_bps=spent + reserved_bps if spent else -math.inf,
            rises_at_bps=rises + reserved_bps,
            again_ns=again_ns,
        )


def _fill(
    ordered: Sequence[Ask], sure: Sequence[int], tops: Sequence[int], budget: float, budget_least: float
) -> list[int]:
    """Return the step of everybody, -1 for none: what fits into the budget, most important first.

    sure: steps above these need headroom over all that is spent, and come behind those of equals who have them. tops: how
    far everybody may go.
    """
    picks = [-1] * len(ordered)
    margin = budget - budget / HEADROOM if budget < math.inf else 0.0
    left = budget_least
    for number, top in enumerate(tops):
        if top >= 0 and (cost := ordered[number].steps[0].bps) <= (left if sure[number] >= 0 else left - margin):
            picks[number] = 0
            left -= cost
    if budget_least != budget:
        left -= budget_least - budget
    for is_last in (False, True):
        first = 0
        while first < len(ordered):
            end = first
            while end < len(ordered) and ordered[end].priority == ordered[first].priority:
                end += 1
            left = _rise(ordered, sure, picks, tops, range(first, end), left, margin, is_last=is_last)
            first = end
    return picks


def _rise(
    ordered: Sequence[Ask],
    sure: Sequence[int],
    picks: list[int],
    tops: Sequence[int],
    equals: range,
    left: float,
    margin: float,
    *,
    is_last: bool,
) -> float:
    """Let equals rise in turns, the one that has least first, as far as fits; return what is left."""
    rising = [number for number in equals if 0 <= picks[number] < tops[number]]
    while rising:
        still = []
        turn = [n for n in rising if picks[n] < sure[n]]
        for number in turn + [n for n in rising if picks[n] >= sure[n]]:
            pick, ask = picks[number] + 1, ordered[number]
            step = ask.steps[pick]
            if not is_last and not ask.is_detail and step.height > PREFERRED_LINES:
                continue
            cost = step.bps - ask.steps[pick - 1].bps
            if cost <= (left if pick <= sure[number] else left - margin):
                picks[number] = pick
                left -= cost
                if pick < tops[number]:
                    still.append(number)
        rising = still
    return left
