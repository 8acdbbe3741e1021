"""Ids that SDKs accept and nobody can guess; a clock that does not step back."""

import re

import pytest

from relay.clock import monotonic_ns, wall_ms, wall_s
from relay.ids import new_sid, new_token


@pytest.mark.parametrize("prefix", ["PA", "TR", "RM"])
def test_a_sid_has_its_prefix_and_twelve_characters(prefix: str) -> None:
    assert re.fullmatch(rf"{prefix}_[0-9A-Za-z]{{12}}", new_sid(prefix))


@pytest.mark.parametrize("prefix", ["", "P", "pa", "PAX", "P_", "ÄÖ"])
def test_a_prefix_no_sdk_would_take_is_our_bug(prefix: str) -> None:
    with pytest.raises(ValueError, match="two capital letters"):
        new_sid(prefix)


def test_ids_differ_and_use_the_whole_alphabet() -> None:
    made = [new_token(12) for _ in range(2000)]
    assert len(set(made)) == 2000
    assert len(set("".join(made))) == 62


def test_clocks() -> None:
    first, second = monotonic_ns(), monotonic_ns()
    assert second >= first
    assert abs(wall_ms() / 1000 - wall_s()) < 2
