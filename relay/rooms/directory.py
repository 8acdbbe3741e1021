"""All rooms of this relay by (customer, name), and when an empty one is forgotten."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from relay.errors import Refused
from relay.policy.tiers import RoomKey
from relay.rooms.room import Room

NS_PER_S = 1_000_000_000


@dataclass(slots=True)
class Directory:
    """Rooms, kept for a while after the last participant left so that a dropped call finds its room again."""

    rooms_per_customer: int
    never_joined_s: int
    departed_s: int
    _rooms: dict[RoomKey, Room] = field(default_factory=dict)
    _count_of: dict[str, int] = field(default_factory=dict)

    def find(self, key: RoomKey) -> Room | None:
        """Return the room of that full name."""
        return self._rooms.get(key)

    def check_place(self, customer: str, tier: str) -> None:
        """Do nothing when this customer may open one more room.   Errors: Refused 403."""
        if self._count_of.get(customer, 0) >= self.rooms_per_customer:
            raise Refused(
                403, f"No more than {self.rooms_per_customer} calls of a customer of the {tier} tier can be open at once."
            )

    def add(self, room: Room) -> None:
        """Take a new room.   Errors: Refused 403 when its customer has too many."""
        customer = room.key.customer
        self.check_place(customer, room.terms.tier.name)
        self._rooms[room.key] = room
        self._count_of[customer] = self._count_of.get(customer, 0) + 1

    def expire(self, now_ns: int) -> list[Room]:
        """Forget the rooms that were empty for too long, and return them."""
        gone = [room for room in self._rooms.values() if self._is_due(room, now_ns)]
        for room in gone:
            self.remove(room)
        return gone

    def remove(self, room: Room) -> None:
        """Forget a room."""
        del self._rooms[room.key]
        self._count_of[room.key.customer] -= 1
        if not self._count_of[room.key.customer]:
            del self._count_of[room.key.customer]

    def rooms_of(self, customer: str) -> list[Room]:
        """Return the rooms of one customer."""
        return [room for room in self._rooms.values() if room.key.customer == customer]

    def _is_due(self, room: Room, now_ns: int) -> bool:
        if room.endpoints:
            return False
        if room.emptied_ns is None:
            kept_s = self.never_joined_s if room.never_joined_s is None else room.never_joined_s
            return now_ns - room.created_ns >= kept_s * NS_PER_S
        kept_s = self.departed_s if room.departed_s is None else room.departed_s
        return now_ns - room.emptied_ns >= kept_s * NS_PER_S

    def __iter__(self) -> Iterator[Room]:
        return iter(tuple(self._rooms.values()))

    def __len__(self) -> int:
        return len(self._rooms)
