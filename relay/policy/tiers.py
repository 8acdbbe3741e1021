"""Whose a room is, and which tier rules it.

A room belongs to (customer, room name): the API key of a token names the customer, so the same room name means
another room for another customer. The room's customer decides the tier; guests inherit it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_TIER = "free"


@dataclass(frozen=True, slots=True, order=True)
class RoomKey:
    """The full name of a room."""

    customer: str
    name: str


@dataclass(frozen=True, slots=True)
class Tier:
    """The rules of one tier. `e2ee` is refused, allowed or required."""

    name: str = DEFAULT_TIER
    e2ee: str = "allowed"

    def refusal(self, *, is_encrypted: bool) -> str | None:
        """Return why a track of this declared encryption may not be published, or None when it may."""
        if is_encrypted and self.e2ee == "refused":
            return f"Calls of the {self.name} tier are not end-to-end encrypted: turn encryption off to publish."
        if not is_encrypted and self.e2ee == "required":
            return f"Calls of the {self.name} tier are end-to-end encrypted: turn encryption on to publish."
        return None


@dataclass(frozen=True, slots=True)
class TierTable:
    """Tiers by customer; a customer that the table does not name is in the default tier."""

    by_customer: Mapping[str, Tier]
    default: Tier = Tier()

    def tier_of(self, room: RoomKey) -> Tier:
        """Return the tier that rules this room."""
        return self.by_customer.get(room.customer, self.default)
