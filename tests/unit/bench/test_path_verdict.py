"""When `make bench-path` fails: a goal missed for certain, on a machine that was left alone."""

from __future__ import annotations

import pytest

from tests.bench.bench_path import Load, Run, report
from tests.bench.fan_out import Window

ROUNDS = 10


def run_of(relay_us: dict[Load, float], limit: list[float]) -> Run:
    """A run whose rounds came out so; every load that is not named cost 0.8 us, the limit around 0.4."""
    run = Run([50, 400], window_s=3.0)
    for load in run.loads:
        us = relay_us.get(load, 0.8)
        for i in range(ROUNDS):
            run.relay[load].append(Window(us * (1 + i % 2 / 50) * 1000, 3.0, forwarded=1000, expected=1000, reasons=()))
    for n in run.subscribers:
        run.limit[n] = run.paced[n] = limit
    return run


QUIET = [0.4, 0.41] * (ROUNDS // 2)


def test_all_goals_met(capsys):
    assert report(run_of({}, QUIET), [0.1]) == 0
    assert "MISSED" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("costs", "what"),
    [
        ({Load(50): 1.2}, "N=50 clean, of the limit"),
        ({Load(400, is_lossy=True): 1.2}, "N=400 RTCP, TWCC, 1 % loss, of the limit"),
        ({Load(400): 0.99}, "N=400 of N=50"),
    ],
)
def test_one_missed_goal_fails_and_is_named(costs, what, capsys):
    assert report(run_of(costs, QUIET), [0.1]) == 1
    assert f"MISSED  {what}" in capsys.readouterr().out


def test_a_disturbed_run_fails_nobody(capsys):
    disturbed = [0.4, 0.6] * (ROUNDS // 2)
    assert report(run_of({Load(50): 9.0}, disturbed), [5.0]) == 0
    assert "VOID" in capsys.readouterr().out


def test_a_window_counts_its_losses_and_its_core():
    window = Window(cpu_us=300_000, wall_s=3.0, forwarded=90_000, expected=100_000, reasons=())
    assert window.loss == pytest.approx(0.1)
    assert window.core == pytest.approx(0.1)
    assert window.us_per_packet == pytest.approx(300_000 / 90_000)
