"""Rings between workers: order, contents, bounds, and wake-ups that are neither lost nor made in vain."""

import random
import select

import pytest

from relaycore import exchange

RING = 16_384
FRAME_START, FRAME_REST, ALL = 0, 1, 2
SIGNAL_PLACES = 4096
E_NO_SPACE = -12


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


@pytest.fixture
def rings() -> exchange.WorkerExchange:
    return exchange.WorkerExchange(3, RING)


def test_what_is_flushed_arrives_whole_and_in_order_on_its_own_ring(rings):
    rings.put(0, 1, 7, b"one")
    rings.put(0, 2, 8, b"other")
    rings.put(0, 1, 9, b"")
    assert rings.take(1, 0) == []
    rings.flush(0)
    assert rings.take(1, 0) == [(7, b"one"), (9, b"")]
    assert rings.take(2, 0) == [(8, b"other")]
    assert rings.take(1, 2) == [] and rings.take(0, 1) == []


def test_order_and_contents_hold_over_many_turns_of_the_ring(rings):
    rng = random.Random(1)
    sent, seen = [], []
    for number in range(3_000):
        body = rng.randbytes(rng.choice([0, 1, 15, 16, 17, 300, 1_900]))
        while not rings.put(0, 1, number, body):
            rings.flush(0)
            seen += rings.take(1, 0, rng.randrange(1, 6))
        sent.append((number, body))
    rings.flush(0)
    seen += rings.take(1, 0, 10_000)
    assert seen == sent


@pytest.mark.parametrize("fill, share", [(FRAME_START, 1 / 2), (FRAME_REST, 7 / 8), (ALL, 1)])
def test_each_fill_has_its_share_of_the_ring(rings, fill, share):
    count = 0
    while rings.put(0, 1, count, bytes(400), fill):
        count += 1
    # 400 bytes and the head take seven or eight places of 64 bytes.
    assert count in (int(RING * share) // 512, int(RING * share) // 448)
    rings.flush(0)
    assert len(rings.take(1, 0)) == count
    assert rings.put(0, 1, 0, bytes(400), fill)


def test_audio_finds_room_where_video_does_not(rings):
    while rings.put(0, 1, 1, bytes(1_200), FRAME_REST):
        pass
    assert not rings.put(0, 1, 1, bytes(1_200), FRAME_START)
    assert rings.put(0, 1, 2, bytes(120), ALL)


def test_signals_are_bounded_and_in_order(rings):
    for number in range(SIGNAL_PLACES):
        assert rings.signal(1, 0, 2, 5, number) == 0
    assert rings.signal(1, 0, 2, 5, 0) == E_NO_SPACE
    rings.flush(1)
    assert rings.take_signals(0, 1) == [(2, 5, number) for number in range(SIGNAL_PLACES)]
    assert rings.signal(1, 0, 1, 5, 3) == 0
    rings.flush(1)
    assert rings.take_signals(0, 1) == [(1, 5, 3)]


def test_who_is_awake_is_not_woken_and_who_sleeps_is_woken_once(rings):
    rings.put(0, 1, 1, b"x")
    rings.flush(0)
    assert not readable(rings.fd(1)) and rings.wakes(0) == 0
    rings.take(1, 0)
    assert rings.may_sleep(1)
    for _ in range(5):
        rings.put(0, 1, 1, b"x")
    rings.flush(0)
    rings.put(0, 1, 1, b"x")
    rings.flush(0)
    assert readable(rings.fd(1)) and not readable(rings.fd(2))
    assert rings.wakes(0) == 1


def test_nobody_sleeps_over_what_came_meanwhile(rings):
    rings.signal(2, 1, 2, 5, 0)
    assert rings.may_sleep(1)
    rings.awake(1)
    rings.flush(2)
    assert not rings.may_sleep(1)
    # The refusal counts as being awake: nothing rings.
    rings.put(0, 1, 1, b"x")
    rings.flush(0)
    assert not readable(rings.fd(1))


def test_two_threads_at_full_speed_lose_and_damage_nothing():
    assert exchange.stress(200_000) == (0, 0, 0)


def test_descriptors_are_given_back():
    before = exchange.fds_open()
    rings = exchange.WorkerExchange(4)
    assert exchange.fds_open() == before + 4
    del rings
    assert exchange.fds_open() == before


@pytest.mark.parametrize("workers, media_bytes", [(0, RING), (33, RING), (2, 5_000), (2, 2_048)])
def test_impossible_sizes_are_refused(workers, media_bytes):
    with pytest.raises(ValueError):
        exchange.WorkerExchange(workers, media_bytes)
