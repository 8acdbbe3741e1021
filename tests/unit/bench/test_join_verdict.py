"""Each goal of `make bench-join` can be missed."""

import dataclasses

import pytest

from tests.bench.bench_join import Joined, problems

GOOD = Joined(0.0, [3] * 10, [0.1, 3.9], 0, 0.2, 15.0, 12.5, {})


@pytest.mark.parametrize("change", [{"keyframes": [3, 4]}, {"first_s": [4.1]}, {"unseen": 1}, {"fps_meanwhile": 11.9}])
def test_a_bad_crowd_is_judged_bad(change):
    assert problems(GOOD) == []
    assert len(problems(dataclasses.replace(GOOD, **change))) == 1
