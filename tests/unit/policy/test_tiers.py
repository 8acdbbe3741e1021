"""Whose a room is and which tier rules it."""

from relay.policy.tiers import RoomKey, TierTable


def test_the_customer_of_a_room_decides_its_tier() -> None:
    table = TierTable({"acme": "paid"})
    assert table.tier_of(RoomKey("acme", "r")) == "paid"
    assert table.tier_of(RoomKey("other", "r")) == "free"


def test_one_name_means_another_room_for_another_customer() -> None:
    assert RoomKey("acme", "r") != RoomKey("other", "r")
    assert len({RoomKey("acme", "r"), RoomKey("other", "r"), RoomKey("acme", "r")}) == 2
