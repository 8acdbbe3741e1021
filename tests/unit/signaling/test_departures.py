"""Who left lately: complete for as long as it says so, bounded, and no memory of what somebody said."""

from relay.rooms.endpoint import Description, Endpoint, LeaveReason, State
from relay.rooms.permissions import Permission
from relay.signaling.departures import KEPT_NS, MAX_KEPT, Departures


def left(number: int, reason: LeaveReason = LeaveReason.CLIENT_INITIATED) -> Endpoint:
    description = Description(f"guest {number}", metadata="m" * 60_000)
    return Endpoint(f"PA_{number}", description, Permission(), 1, state=State.DISCONNECTED, leave_reason=reason, version=3)


def test_those_who_left_since_then_are_told_and_nobody_before() -> None:
    departures = Departures()
    for number in range(5):
        departures.add(left(number), number)
    assert [endpoint.sid for endpoint in departures.since(3)] == ["PA_3", "PA_4"]
    assert departures.since(5) == []


def test_what_is_kept_of_them_is_what_clients_need() -> None:
    departures = Departures()
    departures.add(left(1, LeaveReason.PARTICIPANT_REMOVED), 1)
    (gone,) = departures.since(0)
    assert (gone.identity, gone.state, gone.leave_reason, gone.version) == (
        "guest 1", State.DISCONNECTED, LeaveReason.PARTICIPANT_REMOVED, 3
    )  # fmt: skip
    assert not gone.description.metadata
    assert departures.find("PA_1") is gone and departures.find("PA_2") is None


def test_a_list_that_is_not_complete_is_none() -> None:
    departures = Departures()
    for number in range(MAX_KEPT + 2):
        departures.add(left(number), number)
    # Number 1 is forgotten, and whoever asks from there on cannot be told.
    assert departures.since(1) is None
    assert len(departures.since(2)) == MAX_KEPT


def test_old_ones_are_forgotten() -> None:
    departures = Departures()
    departures.add(left(1), 0)
    departures.add(left(2), KEPT_NS + 1)
    assert departures.since(0) is None and departures.find("PA_1") is None
    assert [endpoint.sid for endpoint in departures.since(1)] == ["PA_2"]
