"""`make bwe`: every bandwidth plan with twenty seeds, its goals and figures, and a control of each that must fail.

    python -m tests.sim.bwe_run [--seeds 20] [--plan WORDS]

A goal is held when nine of ten seeds hold it, and those that do not are named; the figures are the median and the 5th to
95th percentile over the seeds.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.sim.bwe_cost import cost
from tests.sim.bwe_plans import PLANS, Goal, Plan, percentile

SEEDS = tuple(range(1, 21))
CONTROL_SEEDS = (1, 2, 3)
MAY_MISS = 0.1


def judge(plan: Plan, seeds: tuple[int, ...]) -> bool:
    """Play and print one plan; return whether all goals are held."""
    begun = time.monotonic()
    played = {seed: plan.play(seed, False) for seed in seeds}
    print(f"{plan.name}   ({time.monotonic() - begun:.1f} s)")
    is_held = True
    for goal in plan.goals:
        values = [figures[goal.figure] for figures in played.values()]
        missed = [seed for seed, figures in played.items() if not goal.holds(figures[goal.figure])]
        misses = len(missed) > len(seeds) * MAY_MISS
        is_held &= not misses
        verdict = f"MISSED by {missed}" if misses else f"held, not by {missed}" if missed else "held"
        verdict = "" if goal.least is None and goal.most is None else verdict
        low, middle, high = (percentile(values, share) for share in (0.05, 0.5, 0.95))
        print(f"  {goal.figure:40} {goal!s:>18}   {middle:8.2f} ({low:.2f} to {high:.2f}) {goal.unit:8} {verdict}")
    if plan.control:
        broken = [_holds(plan.goals, plan.play(seed, True)) for seed in CONTROL_SEEDS]
        is_held &= not any(broken)
        print(f"  control: {plan.control:31} {'must fail':>18}   {'fails' if not any(broken) else 'HOLDS, so the plan proves nothing'}")
    return is_held


def _holds(goals: tuple[Goal, ...], figures: dict[str, float]) -> bool:
    return all(goal.holds(figures[goal.figure]) for goal in goals)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many of the committed seeds")
    parser.add_argument("--plan", default="", help="only plans with these words in their names")
    wanted = parser.parse_args()
    missed = [p.name for p in PLANS if wanted.plan in p.name and not judge(p, SEEDS[: wanted.seeds])]
    cost()
    print("all goals are held" if not missed else f"missed: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
