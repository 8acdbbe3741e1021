"""Rooms stay together until their worker is full, then spread over the least loaded."""

import pytest

from relay.plane import placement
from relay.plane.placement import Placement


def fill(places: Placement, worker: int, load: float) -> None:
    """Add audio subscriptions until the predicted load is just above `load`."""
    while places.loads()[worker] < load:
        places.add(worker, "audio", 100)


def test_a_room_stays_on_one_worker():
    places = Placement(3)
    assert len({places.place("room") for _ in range(40)}) == 1


def test_rooms_go_to_the_least_loaded_then_to_the_emptiest():
    places = Placement(2)
    assert [places.place(name) for name in ("a", "b", "c", "d")] == [0, 1, 0, 1]
    fill(places, 0, 0.1)
    assert [places.place(name) for name in ("e", "f", "g")] == [1, 1, 1]


def test_a_full_worker_keeps_whom_it_has_and_newcomers_go_elsewhere():
    places = Placement(2)
    assert places.place("room") == 0
    fill(places, 0, placement.FULL_LOAD - 0.05)
    assert places.place("room") == 0
    fill(places, 0, placement.FULL_LOAD)
    assert [places.place("room") for _ in range(3)] == [1, 1, 1]
    # The room goes on where it last went; all full, the least loaded has it.
    fill(places, 1, placement.FULL_LOAD + 0.2)
    assert places.place("room") == 0


def test_a_room_that_emptied_is_forgotten():
    places = Placement(2)
    assert places.place("room") == 0
    places.leave("room", 0)
    fill(places, 0, 0.1)
    assert places.place("room") == 1


def test_whoever_has_no_group_does_not_bind_others():
    places = Placement(2)
    assert [places.place(None) for _ in range(4)] == [0, 1, 0, 1]
    for worker in (0, 1, 0, 1):
        places.leave(None, worker)
    assert places.place("a") == 0


def test_the_prediction_is_packets_times_their_price():
    places = Placement(1)
    places.add(0, "video", 3)
    for _ in range(10):
        places.add(0, "audio")
    assert places.loads() == pytest.approx([(3 * 260 + 10 * 50) * 1.5e-6])
    places.remove(0, "video", 3)
    for _ in range(10):
        places.remove(0, "audio")
    assert places.loads() == pytest.approx([0])
