"""One seed of `make lossy`: a call through 5 % loss each way and 50 ms round trip shows nearly every frame.

`make lossy` asks 97 % of the median of five; a single call, with the rest of the tests on the same cores, is held to less.
Without repair it shows 24 % and freezes for 6 s; with repair but a receiver that does not wait for it, 85 to 90 %.
"""

from __future__ import annotations

import dataclasses

import pytest

from tests.interop.lossy import MAX_FREEZE_S, Call, call, problems, sent_between

MIN_DECODED_ALONE = 0.94

GOOD = Call(
    seed=1, sent=900, decoded=880, buffer_ms=150, freeze_s=1.9, frozen_s=3.0, switches=0, keyframes=5, lost=100,
    repaired=90, nacks=110, plis=3, proxy={},
)  # fmt: skip


@pytest.mark.interop
@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.timeout(150)
async def test_chromium_sees_chromium_through_five_percent_loss(record_property):
    found = await call(1)
    print(f"\n{found}")
    record_property("decoded_share", found.share)
    record_property("longest_gap_s", found.freeze_s)
    # The network was as bad as it should be.
    for side in ("up", "down"):
        assert 0.03 < found.proxy[side]["lost"] / found.proxy[side]["sent"] < 0.07, found.proxy
    # Five percent are more than an excellent connection loses; of five seconds it may be half as many by chance.
    told = [words.split() for words in found.qualities]
    assert {identity for identity, quality in told if quality != "excellent"} == {"one", "two"}, found.qualities
    assert found.share >= MIN_DECODED_ALONE and found.freeze_s <= MAX_FREEZE_S, found


@pytest.mark.parametrize("change", [{"decoded": 870}, {"freeze_s": 2.1}, {"sent": 0, "decoded": 0}])
def test_a_bad_call_is_judged_bad(change):
    assert problems([GOOD]) == []
    assert problems([dataclasses.replace(GOOD, **change)]) != []


def test_the_median_of_the_shares_counts_and_the_worst_of_the_freezes():
    poor, frozen = dataclasses.replace(GOOD, decoded=700), dataclasses.replace(GOOD, freeze_s=2.1)
    assert problems([GOOD, poor, GOOD]) == []
    assert problems([GOOD, poor, poor]) != []
    assert problems([GOOD, GOOD, frozen]) != []


def test_only_the_forwarded_encoding_is_counted():
    before = [{"width": 320, "frames": 100}, {"width": 640, "frames": 50}]
    after = [{"width": 320, "frames": 130}, {"width": 640, "frames": 60}]
    assert sent_between(before, after, 640) == 10
    assert sent_between(before, after, 320) == 30
    # An encoding that has just begun has no count to compare with.
    assert sent_between(before[:1], after, 640) == 0
