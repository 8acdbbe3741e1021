"""What is missing of a stream, and when it is asked for."""

import random

from relaycore.nack import NackFace

MS = 1_000_000


def test_a_gap_is_asked_for_at_once_and_again_after_a_round_trip():
    nack = NackFace()
    for number in (10, 11, 14):
        nack.received(number, 5 * MS)
    assert nack.missing == [12, 13] and nack.due_ns == 5 * MS
    assert nack.collect(5 * MS) == [12, 13]
    assert nack.collect(50 * MS) == [] and nack.due_ns == 115 * MS
    assert nack.collect(115 * MS) == [12, 13]


def test_what_arrives_late_is_not_asked_for():
    nack = NackFace()
    for number in (10, 13, 11, 12):
        nack.received(number, MS)
    assert nack.missing == [] and nack.due_ns == 0 and nack.collect(2 * MS) == []


def test_requests_follow_the_time_that_repairs_take():
    nack = NackFace()
    now = 0
    for number in range(0, 400, 2):
        now += 20 * MS
        nack.received(number, now)
        for seq in nack.collect(now):
            nack.received(seq, now + 8 * MS, True)
    assert 7 * MS <= nack.rtt_ns <= 9 * MS
    nack.received(1000, now)
    nack.collect(now)
    nack.received(1003, now)
    assert nack.collect(now) and nack.due_ns == now + 30 * MS, "the floor of 20 ms and 10 ms for pacing"


def test_a_repair_that_was_asked_for_twice_is_no_sample():
    nack = NackFace()
    nack.received(1, 0)
    nack.received(3, 0)
    assert nack.collect(0) == [2] and nack.collect(200 * MS) == [2]
    nack.received(2, 201 * MS)
    assert nack.rtt_ns == 0


def test_ten_times_or_a_second_and_no_more():
    nack = NackFace()
    nack.received(1, 0)
    nack.received(3, 0)
    asked = 0
    for step in range(0, 3000, 5):
        asked += len(nack.collect(step * MS))
    assert 9 <= asked <= 10 and nack.missing == [] and nack.due_ns == 0
    assert nack.take_gave_up() and not nack.take_gave_up()


def test_a_break_is_not_asked_for():
    nack = NackFace()
    nack.received(1, 0)
    nack.received(300, 0)
    assert nack.missing == [] and nack.collect(0) == [] and nack.take_gave_up()
    nack.received(302, 1)
    assert nack.collect(1) == [301]


def test_what_one_request_has_no_room_for_is_due_at_once():
    nack = NackFace()
    nack.received(1, 0)
    nack.received(100, 0)
    assert nack.collect(7, 40) == list(range(2, 42)) and nack.due_ns <= 7
    assert nack.collect(8, 40) == list(range(42, 82))
    assert nack.collect(9, 40) == list(range(82, 100)) and nack.due_ns == 7 + 110 * MS


def test_any_order_keeps_the_list_true():
    rng = random.Random(3)
    for _ in range(200):
        nack, seen = NackFace(), set()
        numbers = list(range(65_400, 65_600))
        lost = set(rng.sample(numbers[1:-1], 40))
        order = sorted((n for n in numbers if n not in lost), key=lambda n: n + rng.random() * 20)
        for number in order:
            nack.received(number, 0)
            seen.add(number)
        first = order[0]
        assert nack.missing == [n for n in numbers if first < n < max(seen) and n not in seen]


def reordering(nack: NackFace, now: int) -> None:
    """A packet that comes 4 ms after its successor."""
    nack.received(1, now)
    nack.received(3, now)
    nack.received(2, now + 4 * MS)


def test_a_path_that_reorders_is_given_a_few_milliseconds():
    nack = NackFace()
    reordering(nack, 0)
    assert nack.reorder_ns == 4 * MS
    nack.received(5, 10 * MS)
    assert nack.due_ns == 14 * MS and nack.collect(13 * MS) == []
    assert nack.collect(14 * MS) == [4]


def test_a_straggler_was_not_lost_and_tells_nothing_of_repairs():
    nack = NackFace()
    nack.received(1, 0)
    nack.received(3, 0)
    assert nack.collect(0) == [2]
    assert not nack.received(2, 2 * MS) and nack.rtt_ns == 0
    nack.received(5, 3 * MS)
    nack.collect(6 * MS)
    assert nack.received(4, 30 * MS, True) and nack.rtt_ns == 24 * MS


def test_what_comes_later_than_any_reordering_is_a_repair_under_its_own_number():
    nack = NackFace()
    nack.received(1, 0)
    nack.received(3, 0)
    nack.collect(0)
    assert nack.received(2, 60 * MS) and nack.rtt_ns == 60 * MS and nack.reorder_ns == 0


def test_the_allowance_is_forgotten_with_losses():
    nack = NackFace()
    reordering(nack, 0)
    now, seq = 100 * MS, 3
    for _ in range(200):
        seq, now = seq + 2, now + 100 * MS
        nack.received(seq, now)
        nack.collect(now + 10 * MS)
        nack.received(seq - 1, now + 40 * MS, True)
    assert nack.reorder_ns < MS // 2


def test_what_stays_lost_is_named():
    nack = NackFace()
    for number in (1, 3, 5, 6):
        nack.received(number, 0)
    for step in range(0, 2_000, 5):
        nack.collect(step * MS)
    assert nack.take_gave_up() and nack.lost_seq == 4
    nack.received(1_000, 0)
    assert nack.take_gave_up() and nack.lost_seq == 999
