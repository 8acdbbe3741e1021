"""Each goal of `make lossy-audio` can be missed."""

import dataclasses

import pytest

from tests.interop.lossy_audio import Heard, problems

GOOD = Heard(1, True, "audio/red", 0.02, 10, 0.08, 90.0, 1.5, 2.0, {})


@pytest.mark.parametrize("change", [{"concealed": 0.03}, {"mime": "audio/opus"}, {"freeze_s": 2.0}])
def test_a_bad_call_is_judged_bad(change):
    assert problems([GOOD]) == []
    assert len(problems([GOOD, dataclasses.replace(GOOD, **change)])) == 1


def test_without_red_concealment_is_reported_and_not_judged():
    assert problems([dataclasses.replace(GOOD, has_red=False, mime="audio/opus", concealed=0.2)]) == []
