"""How an endpoint's path is divided: minimum for all, priority, steadiness, pause last."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.quality.allocator import (
    HEADROOM,
    HOLD_NS,
    MOST_HOLD_NS,
    PAUSE_HOLD_NS,
    PROOF_NS,
    RETRY_NS,
    SETTLE_NS,
    Allocator,
    Ask,
    Priority,
    Reason,
)
from relay.quality.ladder import Ladder, Option

MS = 1_000_000
S = 1000 * MS
Q, H, F = (Option(0, bps=150_000, height=180), Option(1, bps=500_000, height=360), Option(2, bps=1_700_000, height=720))
CAMERA = (Q, H, F)


def ask(key, steps=CAMERA, **kwargs):
    return Ask(key, tuple(steps), **kwargs)


class Path:
    """An allocator with a clock and what it said last."""

    def __init__(self, *asks):
        self.allocator = Allocator()
        self.asks = list(asks)
        self.now_ns = 5 * S
        self.last = None

    def at(self, bps, after_ns=0, reserved_bps=0):
        """Divide at this estimate after this time, with the wake-ups that were asked for in between."""
        until = self.now_ns + after_ns
        while after_ns and self.last is not None and self.last.again_ns is not None and self.last.again_ns <= until:
            self.now_ns = max(self.now_ns, self.last.again_ns)
            self.last = self.allocator.allocate(bps, self.asks, self.now_ns, reserved_bps=reserved_bps)
            if self.now_ns == until:
                break
        self.now_ns = until
        self.last = self.allocator.allocate(bps, self.asks, self.now_ns, reserved_bps=reserved_bps)
        return self.last

    def steps(self, bps, after_ns=0, **kwargs):
        return {key: grant.option for key, grant in self.at(bps, after_ns, **kwargs).grants.items()}


def test_without_an_estimate_everybody_gets_what_was_asked_for():
    path = Path(ask("a"), ask("b", (Q, H), limit=Reason.REQUESTED))
    found = path.at(None).grants
    assert (found["a"].option, found["a"].reason) == (F, Reason.NONE)
    assert (found["b"].option, found["b"].reason) == (H, Reason.REQUESTED)


def test_the_least_for_all_comes_before_more_for_some():
    path = Path(ask("speaker", priority=Priority.SPEAKER), ask("b"), ask("c"))
    assert path.steps(900_000) == {"speaker": H, "b": Q, "c": Q}
    assert path.last.grants["b"].reason is Reason.BANDWIDTH


def test_a_picture_worth_looking_at_for_all_comes_before_the_best_for_one():
    path = Path(ask("speaker", priority=Priority.SPEAKER), ask("b"))
    assert path.steps(1_200_000) == {"speaker": H, "b": H}
    assert Path(ask("speaker", priority=Priority.SPEAKER), ask("b")).steps(2_500_000) == {"speaker": F, "b": H}


def test_a_screen_gets_its_best_before_others_get_more_than_the_least():
    path = Path(ask("camera", priority=Priority.SPEAKER), ask("screen", priority=Priority.SCREEN, is_detail=True))
    assert path.steps(2_100_000) == {"camera": Q, "screen": F}


def test_equals_are_served_alike_and_the_larger_first():
    assert Path(*map(ask, "abc")).steps(1_700_000) == dict.fromkeys("abc", H)
    found = Path(ask("small", lines=180), ask("large", lines=720)).steps(700_000 * HEADROOM)
    assert found == {"small": Q, "large": H}


def test_a_fall_happens_at_once():
    path = Path(ask("a"))
    assert path.steps(3_000_000) == {"a": F}
    assert path.steps(500_000, 10 * MS) == {"a": H}
    assert path.steps(499_999, 10 * MS) == {"a": Q}


def test_a_rise_needs_headroom_that_stays():
    path = Path(ask("a"))
    path.at(400_000)
    assert path.steps(H.bps * HEADROOM - 1, 60 * S) == {"a": Q}
    assert path.steps(H.bps * HEADROOM + 1, 1 * MS) == {"a": Q}
    assert path.last.again_ns == path.now_ns + HOLD_NS
    assert path.steps(400_000, HOLD_NS // 2) == {"a": Q}
    # The dip in between counts: it has to stay anew.
    assert path.steps(600_000, HOLD_NS // 2) == {"a": Q}
    assert path.steps(600_000, HOLD_NS) == {"a": H}


def test_motion_rises_sooner_than_size():
    slow, quick = dataclasses.replace(H, temporal=0, bps=300_000), H
    path = Path(ask("a", (Q, slow, quick)))
    path.at(300_000)
    path.at(400_000)
    assert path.steps(400_000, HOLD_NS) == {"a": slow}
    path.at(600_000, 20 * S)
    assert path.steps(600_000, HOLD_NS // 2) == {"a": quick}


def test_what_runs_is_not_taken_away_by_its_own_headroom():
    path = Path(ask("a"))
    path.at(600_000)
    assert path.steps(H.bps * 1.01, 10 * S) == {"a": H}


def test_rises_that_fail_become_rarer_and_are_forgiven():
    path = Path(ask("a"))
    path.at(200_000)
    waits = []
    for _ in range(7):
        start = path.now_ns
        while path.steps(600_000, 100 * MS)["a"] is not H:
            assert path.now_ns - start < 40 * S
        waits.append((path.now_ns - start) // S)
        path.at(200_000, 1 * S)
    assert waits[:4] == [1, 2, 4, 8] and waits[-1] == MOST_HOLD_NS // S
    path.at(600_000)
    assert path.steps(600_000, MOST_HOLD_NS) == {"a": H}
    path.at(600_000, PROOF_NS + S)
    path.at(200_000)
    path.at(600_000, 1)
    assert path.last.again_ns - path.now_ns < MOST_HOLD_NS


def test_a_pause_comes_last_and_takes_the_least_important():
    path = Path(ask("speaker", priority=Priority.SPEAKER), ask("b"), ask("c"))
    path.at(3_000_000)
    assert path.steps(450_000, 10 * MS) == {"speaker": Q, "b": Q, "c": Q}
    assert path.last.paused == frozenset()
    path.at(310_000)
    assert path.steps(310_000, PAUSE_HOLD_NS) == {"speaker": Q, "b": Q, "c": None}
    assert path.last.paused == {"c"}
    assert path.last.grants["c"].reason is Reason.BANDWIDTH


def test_a_dip_pauses_nobody_but_a_collapse_does():
    path = Path(*map(ask, "ab"))
    path.at(400_000)
    assert path.steps(280_000) == dict.fromkeys("ab", Q)
    assert path.steps(320_000, 300 * MS) == dict.fromkeys("ab", Q)
    assert path.steps(280_000, 300 * MS) == dict.fromkeys("ab", Q)
    assert path.steps(160_000, 1 * MS) == {"a": Q, "b": None}


def test_paused_videos_come_back_when_there_is_room():
    path = Path(*map(ask, "ab"))
    path.at(160_000)
    assert path.last.paused == {"b"}
    path.at(330_000)
    assert path.steps(330_000, HOLD_NS) == dict.fromkeys("ab", Q)


def test_a_video_that_is_silent_and_costs_nothing_neither_counts_as_running_nor_is_tried():
    path = Path(ask("muted", (Option(2, height=720),), priority=Priority.SPEAKER), ask("a"))
    path.at(100_000)
    assert path.last.paused == {"a"} and path.last.grants["muted"].option is not None
    path.at(100_000, 2 * RETRY_NS + 1 * S)
    assert path.last.grants["a"].option is Q


def test_where_nothing_runs_the_most_important_is_tried_again_ever_more_rarely():
    path = Path(ask("a", priority=Priority.SPEAKER), ask("b"))
    path.at(3_000_000)
    path.at(100_000)
    assert path.last.paused == {"a", "b"}
    starts, is_on = [], False
    for _ in range(600):
        found = path.steps(100_000, 100 * MS)
        assert found["b"] is None and found["a"] in (None, Q)
        if found["a"] is Q and not is_on:
            starts.append(path.now_ns)
        is_on = found["a"] is Q
    gaps = [(b - a) // S for a, b in zip(starts, starts[1:], strict=False)]
    assert starts and gaps == sorted(gaps) and gaps[0] >= 6 and gaps[-1] >= 2 * gaps[0]
    # What a trial shows is used.
    while path.steps(100_000, 100 * MS)["a"] is None:
        pass
    path.at(800_000)
    assert path.steps(800_000, HOLD_NS * 40)["a"] is H


def test_sound_is_reserved_before_any_video():
    path = Path(ask("a"))
    assert path.steps(600_000, reserved_bps=0) == {"a": H}
    assert path.steps(600_000, 1, reserved_bps=120_000) == {"a": Q}
    assert path.last.falls_below_bps == Q.bps + 120_000


def test_a_new_speaker_takes_from_who_was_one_after_a_while():
    path = Path(ask("a", priority=Priority.SPEAKER), ask("b"))
    assert path.steps(2_400_000) == {"a": F, "b": H}
    path.asks = [ask("a"), ask("b", priority=Priority.SPEAKER)]
    assert path.steps(2_400_000, 10 * MS) == {"a": F, "b": H}
    assert path.steps(2_400_000, HOLD_NS) == {"a": H, "b": F}


def test_who_asks_for_more_gets_it_without_waiting():
    path = Path(ask("a", (Q,), limit=Reason.REQUESTED))
    path.at(3_000_000)
    path.asks = [ask("a")]
    assert path.steps(3_000_000, 1) == {"a": F}


def test_an_encoding_that_flaps_does_not_make_the_picture_flap():
    path = Path(ask("a"))
    path.at(3_000_000)
    path.asks = [ask("a", (Q, H), limit=Reason.PUBLISHER)]
    assert path.at(3_000_000, 1).grants["a"].reason is Reason.PUBLISHER
    path.asks = [ask("a")]
    assert path.steps(3_000_000, 100 * MS) == {"a": H}
    assert path.steps(3_000_000, SETTLE_NS) == {"a": F}


def test_without_an_estimate_too_a_flapping_encoding_has_to_prove_itself():
    path = Path(ask("a"))
    path.at(None)
    path.asks = [ask("a", (Q, H), limit=Reason.PUBLISHER)]
    path.at(None, 1)
    path.asks = [ask("a")]
    assert path.steps(None, 1) == {"a": H}
    assert path.steps(None, SETTLE_NS) == {"a": F}


def test_nothing_to_send_says_why():
    found = Path(ask("a", (), limit=Reason.POLICY), ask("b", (), limit=Reason.PUBLISHER)).at(1_000_000)
    assert [found.grants[key].reason for key in "ab"] == [Reason.POLICY, Reason.PUBLISHER]
    assert (found.spent_bps, found.wanted_bps, found.again_ns, found.paused) == (0, 0, None, frozenset())


def test_what_all_would_cost_is_said_for_probing():
    found = Path(*map(ask, "ab")).at(750_000)
    assert found.wanted_bps == pytest.approx(2 * F.bps * HEADROOM, abs=1)
    assert found.spent_bps == H.bps + Q.bps


options = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(20_000, 3_000_000)),
    min_size=0,
    max_size=6,
    unique_by=lambda t: t[:2],
)


@st.composite
def asked(draw, key):
    made = [Option(e, temporal=t, bps=bps, height=180 << e, fps=7.5 * 2**t) for e, t, bps in draw(options)]
    steps = Ladder(made).options
    return Ask(key, steps, priority=draw(st.sampled_from([1, 1, 128, 255])), lines=draw(st.integers(0, 720)))


scenes = st.integers(1, 5).flatmap(lambda n: st.tuples(*(asked(key) for key in range(n))))


@settings(max_examples=120, deadline=None)
@given(scenes, st.lists(st.tuples(st.integers(0, 8_000_000), st.integers(0, 3000)), min_size=1, max_size=8))
def test_any_history_keeps_the_rules(asks, history):
    """Within the estimate (after the moment that a dip is given), nobody above the least while somebody of them waits."""
    allocator, now_ns = Allocator(), 0
    for bps, after_ms in history:
        now_ns += after_ms * MS
        allocator.allocate(bps, asks, now_ns)
        # A moment later, which no dip outlives.
        now_ns += PAUSE_HOLD_NS
        found = allocator.allocate(bps, asks, now_ns)
        assert set(found.grants) == {a.key for a in asks}
        granted = {a.key: found.grants[a.key].option for a in asks}
        assert sum(o.bps for o in granted.values() if o) == found.spent_bps
        # A video that is tried, and nothing besides.
        running = [a for a in asks if granted[a.key] is not None]
        assert found.spent_bps <= bps or (len(running) == 1 and granted[running[0].key] is running[0].steps[0])
        for a in asks:
            assert granted[a.key] is None or granted[a.key] in a.steps
            assert (found.grants[a.key].reason is Reason.BANDWIDTH) == (
                granted[a.key] is not (a.steps[-1] if a.steps else None)
            )
        # Whoever waits could not be served even if all others had the least of theirs.
        for _ in range(20):
            found = allocator.allocate(bps, asks, now_ns)
            if found.again_ns is None:
                break
            assert found.again_ns > now_ns
            now_ns = found.again_ns
        assert found.again_ns is None or sum(found.grants[a.key].option is not None for a in asks) <= 1
        least = sum(found.grants[a.key].option is not None and a.steps[0].bps for a in asks)
        for a in asks:
            if a.key in found.paused:
                assert (least + a.steps[0].bps) * HEADROOM > bps


@settings(max_examples=60, deadline=None)
@given(scenes, st.integers(0, 8_000_000))
def test_an_estimate_that_stays_changes_nothing_any_more(asks, bps):
    allocator, now_ns, before = Allocator(), 0, None
    for _ in range(4):
        now_ns += MOST_HOLD_NS
        before = allocator.allocate(bps, asks, now_ns)
    if before.again_ns is not None:
        # Nothing fits: it is tried now and then.
        assert all(bps < a.steps[0].bps * HEADROOM for a in asks if a.steps)
        return
    for _ in range(3):
        now_ns += 100 * MS
        assert allocator.allocate(bps, asks, now_ns).grants == before.grants
