"""A few of the bandwidth plans with one seed each; `make bwe` plays all of them with twenty."""

from __future__ import annotations

import pytest

from tests.sim.bwe_plans import PLANS
from tests.sim.bwe_receiver import write_feedback
from tests.support.feedback import read_feedback

BY_NAME = {plan.name: plan for plan in PLANS}
SHORT = ("elastic, 1 Mbit/s", "one camera, 2.1 Mbit/s", "elastic, 3 Mbit/s to 500 kbit/s and back", "8 % lost at random", "little to send")


@pytest.mark.parametrize("name", SHORT)
def test_a_plan_holds_its_goals_and_its_control_does_not(name):
    plan = BY_NAME[name]
    held = plan.play(1, False)
    assert [goal for goal in plan.goals if not goal.holds(held[goal.figure])] == [], held
    broken = plan.play(1, True)
    assert not all(goal.holds(broken[goal.figure]) for goal in plan.goals), plan.control


def test_the_guest_writes_feedback_that_an_independent_reader_reads():
    ticks = {65_530 + i: 1_000 + i * i for i in range(40) if i % 5}
    ticks[65_540] = 900
    found = read_feedback(write_feedback(65_530, 40, ticks, 3, 9))
    assert (found.base, found.count, found.feedback_count) == (65_530, 40, 3)
    assert dict(found.arrivals) == {number & 0xFFFF: at for number, at in ticks.items()}
