"""What is kept of a stream, and what is known of the packets a subscriber got."""

import random

from relaycore.history import SentLogFace, SourceHistoryFace

MS = 1_000_000


def test_the_newest_thousand_packets_are_kept():
    history = SourceHistoryFace()
    for number in range(2000):
        history.keep(number, 5)
    assert [n for n in range(2000) if history.find(n) is not None] == list(range(2000 - 1024, 2000))
    assert history.used() == 1024


def test_packets_older_than_a_second_are_let_go():
    history = SourceHistoryFace()
    for number in range(300):
        history.keep(number, number * 10 * MS)
    kept = [n for n in range(300) if history.find(n) is not None]
    assert kept[-1] == 299 and 100 <= len(kept) <= 101
    history.trim(2_950 * MS)
    assert [n for n in range(300) if history.find(n) is not None] == list(range(295, 300))
    history.trim(10_000 * MS)
    assert history.used() == 0


def test_late_packets_find_their_places_and_ancient_ones_none():
    history = SourceHistoryFace()
    for number in (2000, 2003, 2001, 1999):
        history.keep(number, number)
    assert [history.find(n) for n in (1999, 2000, 2001, 2002, 2003)] == [1999, 2000, 2001, None, 2003]
    history.keep(3, 3)
    assert history.find(3) is None and history.used() == 4


def test_a_leap_starts_anew():
    history = SourceHistoryFace()
    for number in range(10):
        history.keep(number, number)
    history.keep(1_000_000, 7)
    assert history.used() == 1 and history.find(5) is None and history.find(1_000_000) == 7


def test_a_short_slab_shortens_the_history():
    history = SourceHistoryFace(200)
    for number in range(190):
        history.keep(number, number * 5 * MS)
    assert history.used() <= 160 and history.find(189) is not None


def test_any_order_of_numbers_keeps_the_account():
    rng = random.Random(1)
    history = SourceHistoryFace()
    number = 0
    for step in range(5000):
        number += rng.choice((-1500, -40, -1, 0, 1, 1, 1, 2, 3, 40, 1500))
        history.keep(number, step * MS // 4)
    assert history.used() <= 1024
    history.trim(1 << 62)
    assert history.used() == 0


def test_the_log_knows_the_mapping_of_its_time():
    log = SentLogFace()
    log.map(1, 10)
    log.log(5, 500)
    log.map(1, 10)
    log.log(6, 501)
    log.map(2, 20)
    log.log(7, 9)
    assert [log.find(n) for n in (5, 6, 7)] == [(500, 1, 10), (501, 1, 10), (9, 2, 20)]
    assert log.find(8) is None


def test_mappings_that_left_the_log_are_not_mistaken_for_others():
    log = SentLogFace()
    log.map(1)
    log.log(5, 500)
    for serial in range(2, 700):
        log.map(serial)
        found = log.find(5)
        assert found is None or (found[1] == 1 and serial <= 64)
        log.log(1024 + 6, 1)


def test_numbers_wrap_without_being_mistaken():
    log = SentLogFace()
    log.map(1)
    for number in range(65_000, 67_000):
        log.log(number, number + 7)
    assert log.find(67_000 - 1 & 0xFFFF) == (67_006, 1, 0)
    assert log.find(65_100) is None
