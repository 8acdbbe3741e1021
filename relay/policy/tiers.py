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
class TierTable:
    """Tier names by customer; a customer that the table does not name is in the default tier."""

    by_customer: Mapping[str, str]
    default: str = DEFAULT_TIER

    def tier_of(self, room: RoomKey) -> str:
        """Return the name of the tier that rules this room."""
        return self.by_customer.get(room.customer, self.default)
