"""Whose a room is and which tier rules it."""

import pytest

from relay.policy.tiers import RoomKey, Tier, TierTable


def test_the_customer_of_a_room_decides_its_tier() -> None:
    paid = Tier("paid", "required")
    table = TierTable({"acme": paid})
    assert table.tier_of(RoomKey("acme", "r")) is paid
    assert table.tier_of(RoomKey("other", "r")).name == "free"


@pytest.mark.parametrize(
    ("e2ee", "is_encrypted", "is_refused"),
    [("refused", True, True), ("refused", False, False), ("allowed", True, False), ("allowed", False, False),
     ("required", True, False), ("required", False, True)],
)  # fmt: skip
def test_a_tier_refuses_or_requires_encryption_in_a_sentence_that_names_it(
    e2ee: str, is_encrypted: bool, is_refused: bool
) -> None:
    sentence = Tier("gold", e2ee).refusal(is_encrypted=is_encrypted)
    assert (sentence is not None) == is_refused
    assert sentence is None or "gold tier" in sentence


def test_one_name_means_another_room_for_another_customer() -> None:
    assert RoomKey("acme", "r") != RoomKey("other", "r")
    assert len({RoomKey("acme", "r"), RoomKey("other", "r"), RoomKey("acme", "r")}) == 2
