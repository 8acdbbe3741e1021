"""What `make bwe-browser` makes of a timeline of frames, with timelines that must not pass."""

from tests.interop.bwe_browser import CASES, Call, judge, problems

CASE = CASES[0]
FELL, ROSE, OVER = 15.0, 35.0, 60.0


def timeline(down: float = 1.0, up: float = 5.0, *, freeze: float = 0.0, best: int = 360) -> list[tuple[float, int]]:
    """Thirty frames a second that fall and rise so long after the path did, with a freeze after the fall."""
    found = []
    for n in range(int(OVER * 30)):
        at = n / 30
        if not FELL < at < FELL + freeze:
            found.append((at, 180 if FELL + down < at < ROSE + up else best))
    return found


def call(**changes) -> Call:
    return judge(CASE, 1, timeline(**changes), FELL, ROSE, OVER)


def test_a_timeline_is_read_as_a_person_sees_it() -> None:
    found = call(down=1.5, up=8.0, freeze=0.6)
    assert 1.5 < found.down_s < 1.55 and 7.99 < found.up_s < 8.05 and 0.59 < found.freeze_s < 0.7
    assert abs(found.freeze_at_s - FELL) < 0.05
    assert (found.best, found.narrow, found.switches, problems([found])) == (360, (180,), 2, [])


def test_what_comes_late_freezes_or_never_was_there_is_a_problem() -> None:
    assert "down" in problems([call(down=2.5)])[0]
    assert "up" in problems([call(up=12.5)])[0]
    assert "freeze (median)" in problems([call(freeze=1.2)])[0]
    assert [p for p in problems([call(), call(), call(freeze=2.7, down=2.8)]) if "worst" in p]
    assert "lines" in problems([call(best=180)])[0]
    assert "down (median) inf" in problems([judge(CASE, 1, timeline(down=99, up=-99), FELL, ROSE, OVER)])[0]


def test_a_picture_that_stops_for_good_is_a_freeze() -> None:
    stopped = [frame for frame in timeline() if frame[0] < 40]
    assert judge(CASE, 1, stopped, FELL, ROSE, OVER).freeze_s > 19
