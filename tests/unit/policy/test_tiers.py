"""Whose a room is, which tier rules it, and how tiers compare."""

import pytest

from relay.errors import Refused
from relay.policy.tiers import RoomKey, Tier, TierTable

FREE, OPEN, PAID = Tier("free", "refused"), Tier("open", "allowed"), Tier("paid", "required")


def test_the_customer_of_a_room_decides_its_tier() -> None:
    table = TierTable({"acme": PAID})
    assert table.tier_of(RoomKey("acme", "r")) is PAID
    assert table.tier_of(RoomKey("other", "r")).name == "free"
    assert table.tier_of(RoomKey("Acme", "r")).name == "free"


def test_one_name_means_another_room_for_another_customer() -> None:
    assert RoomKey("acme", "r") != RoomKey("other", "r")
    assert len({RoomKey("acme", "r"), RoomKey("other", "r"), RoomKey("acme", "r")}) == 2


def test_tiers_are_as_strict_as_their_word() -> None:
    assert FREE.strictness < OPEN.strictness < PAID.strictness == Tier("gold", "required").strictness


@pytest.mark.parametrize("name", ["", "Paid", "PAID", "paid ", "p\u0430id", "gold"])
def test_a_tier_that_nobody_knows_is_refused(name: str) -> None:
    with pytest.raises(Refused) as refused:
        TierTable({}, by_name={"paid": PAID}).named(name)
    assert refused.value.status == 403


@pytest.mark.parametrize(
    ("tier", "profile", "frame_format", "words"),
    [(FREE, "none", "livekit_gcm", None), (FREE, "shared-passphrase", "sframe", "free tier"), (FREE, "group", "sframe", "free"),
     (OPEN, "none", "sframe", None), (OPEN, "group", "sframe", None), (OPEN, "group", "livekit_gcm", "open tier"),
     (PAID, "none", "livekit_gcm", "paid tier"), (PAID, "shared-passphrase", "livekit_gcm", None)],
)  # fmt: skip
def test_contradictions_are_told_in_a_sentence_that_names_the_tier(tier, profile, frame_format, words) -> None:
    sentence = tier.contradiction(profile, frame_format)
    assert (sentence is None) == (words is None)
    assert sentence is None or (words in sentence and sentence.endswith("."))
