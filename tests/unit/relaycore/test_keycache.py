"""The cache holds a keyframe and all that came since, or nothing; its bounds hold in time, bytes, packets and slots."""

import random

import pytest

from relaycore.keycache import KeyCacheFace

MS = 1_000_000
STARTS = [0, 1, 511, 32_767, 65_535, 65_536, 1 << 40]


def filled(start: int = 0, packets: int = 10) -> KeyCacheFace:
    cache = KeyCacheFace()
    for i in range(packets):
        cache.take(start + i, i * 3000, i * 33 * MS, starts=i == 0)
    return cache


@pytest.mark.parametrize("start", STARTS)
def test_a_keyframe_and_what_followed_are_kept(start):
    cache = filled(start)
    assert cache.held() == [start + i for i in range(10)]
    assert cache.serves(400 * MS)
    assert cache.used == cache.ledger_slots == 10


def test_nothing_is_kept_before_a_keyframe():
    cache = KeyCacheFace()
    cache.take(5, 0, 0)
    assert not cache.held() and not cache.serves(0) and cache.used == 0


def test_one_missing_packet_is_enough_not_to_serve():
    cache = filled()
    cache.take(11, 33_000, 340 * MS)
    assert not cache.serves(341 * MS)
    cache.take(10, 30_000, 345 * MS)
    assert cache.serves(346 * MS), "repaired"


def test_padding_is_known_but_not_held():
    cache = filled()
    cache.take(10, 30_000, 340 * MS, has_payload=False)
    cache.take(11, 33_000, 341 * MS)
    assert cache.serves(342 * MS) and cache.held() == [*range(10), 11]


def test_a_newer_keyframe_takes_the_place():
    cache = filled()
    cache.take(10, 30_000, 330 * MS, starts=True)
    assert cache.held() == [10] and cache.used == 1


def test_other_starts_of_the_same_picture_do_not():
    cache = KeyCacheFace()
    cache.take(0, 3000, 0, starts=True)
    cache.take(1, 3000, 0, starts=True)
    cache.take(2, 3000, 0)
    assert cache.held() == [0, 1, 2]


def test_a_late_older_keyframe_does_not():
    cache = KeyCacheFace()
    cache.take(10, 30_000, 0, starts=True)
    cache.take(4, 12_000, MS, starts=True)
    assert cache.held() == [10] and cache.serves(MS)


def test_a_duplicate_is_held_once():
    cache = filled()
    cache.take(3, 9000, 340 * MS)
    assert cache.used == 10 and cache.serves(341 * MS)


def test_after_a_second_and_a_half_nobody_begins_at_it():
    cache = filled()
    assert cache.serves(1_500 * MS)
    assert not cache.serves(1_501 * MS)
    assert not cache.serves(400 * MS, most_ms=399)
    cache.trim(1_501 * MS)
    assert cache.used == 0


def test_it_goes_on_while_somebody_is_still_sent_it():
    cache = filled()
    cache.read(1_450 * MS)
    cache.take(10, 30_000, 1_600 * MS)
    assert len(cache.held()) == 11
    cache.trim(1_701 * MS)
    assert cache.used == 0


def test_more_bytes_than_allowed_drop_it_until_the_next_keyframe():
    cache = KeyCacheFace()
    outgrown = [cache.take(i, 3000 * i, 0, starts=i == 0, size_bytes=1500) for i in range(201)]
    assert outgrown == [False] * 200 + [True] and cache.used == 0
    cache.take(201, 3000 * 201, 0)
    assert cache.used == 0
    cache.take(202, 3000 * 202, 0, starts=True)
    assert cache.held() == [202]


def test_more_packets_than_places_drop_it():
    cache = KeyCacheFace()
    outgrown = [cache.take(i, 3000 * i, 0, starts=i == 0, size_bytes=100) for i in range(513)]
    assert outgrown.index(True) == 512 and cache.used == 0


def test_all_streams_together_hold_a_quarter_of_the_slab():
    cache = KeyCacheFace(400)
    for stream in range(4):
        for i in range(60):
            cache.take(i, 3000 * i, 0, starts=i == 0, stream=stream)
    assert cache.used == cache.ledger_slots == 60 <= 100
    assert cache.refused == 3
    assert [len(cache.held(stream)) for stream in range(4)] == [60, 0, 0, 0]


@pytest.mark.parametrize("seed", range(1, 6))
def test_random_packets_never_lose_a_slot(seed):
    rng = random.Random(seed)
    cache = KeyCacheFace(300)
    for i in range(5_000):
        number = i + rng.randrange(-30, 30) if rng.random() < 0.2 else i
        cache.take(number, 3000 * number & 0xFFFFFFFF, i * rng.choice((1, 5)) * MS, starts=rng.random() < 0.01,
                   has_payload=rng.random() > 0.1, size_bytes=rng.randrange(100, 1500), stream=rng.randrange(4))
        held = [n for stream in range(4) for n in cache.held(stream)]
        assert len(held) == cache.used == cache.ledger_slots <= 75
    for stream in range(4):
        cache.clear(stream)
    assert cache.used == 0
