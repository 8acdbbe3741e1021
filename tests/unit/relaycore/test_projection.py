"""Output numbers have no hole the source did not have, and time never steps back."""

import random

import pytest

from relaycore.projection import ProjectionMap

SECOND = 1_000_000_000
E_REPLAY, E_TOO_OLD = -8, -9
# A source may begin at any number; the map has to treat each alike, also across 2^16.
STARTS = [0, 1, 127, 128, 511, 512, 513, 32767, 32768, 65534, 65535, 65536, 1 << 40]


@pytest.mark.parametrize("start", STARTS)
def test_in_order_packets_are_numbered_without_holes(start):
    p = ProjectionMap(100)
    p.rebase(start, 0, 0)
    assert [p.map(start + i) for i in range(2000)] == list(range(100, 2100))


@pytest.mark.parametrize("start", STARTS)
def test_a_late_packet_finds_its_reserved_number(start):
    p = ProjectionMap(0)
    p.rebase(start, 0, 0)
    assert p.map(start) == 0
    assert p.map(start + 3) == 3
    assert p.map(start + 2) == 2
    assert p.map(start + 1) == 1
    assert p.map(start + 1) == E_REPLAY
    assert p.map(start + 4) == 4


@pytest.mark.parametrize("start", STARTS)
def test_dropped_packets_leave_no_trace(start):
    p = ProjectionMap(0)
    p.rebase(start, 0, 0)
    assert p.map(start) == 0
    p.drop(start + 1)
    p.drop(start + 2)
    assert p.map(start + 3) == 1
    assert p.map(start + 2) == E_REPLAY


def test_a_late_packet_that_is_dropped_leaves_its_number_unused():
    p = ProjectionMap(0)
    p.rebase(10, 0, 0)
    assert p.map(10) == 0
    assert p.map(12) == 2
    p.drop(11)
    assert p.map(11) == E_REPLAY
    assert p.map(13) == 3


def test_packets_from_before_the_segment_or_the_window_are_too_old():
    p = ProjectionMap(0)
    p.rebase(1000, 0, 0)
    assert p.map(1000) == 0
    assert p.map(999) == E_TOO_OLD
    for i in range(1, 600):
        p.map(1000 + i)
    assert p.map(1600 - 512 - 1) == E_TOO_OLD


def test_a_jump_past_the_window_reserves_nothing():
    p = ProjectionMap(0)
    p.rebase(0, 0, 0)
    assert p.map(0) == 0
    assert p.map(10_000) == 1
    assert p.map(9_999) == E_TOO_OLD


@pytest.mark.parametrize("seed", range(1, 6))
def test_random_loss_reorder_and_drops_never_reuse_a_number(seed):
    rng = random.Random(seed)
    p = ProjectionMap(rng.randrange(1 << 15))
    source, used, dropped = 0, {}, set()
    p.rebase(0, 0, 0)
    pending = []
    for source in range(20_000):
        if rng.random() < 0.05:
            continue
        pending.append((source + rng.randrange(0, 8) if rng.random() < 0.1 else source, source))
    pending.sort()
    for _, number in pending:
        if rng.random() < 0.1:
            p.drop(number)
            dropped.add(number)
            continue
        out = p.map(number)
        assert out >= 0
        assert out not in used.values() if number < 200 else True
        used[number] = out
    outputs = list(used.values())
    assert len(set(outputs)) == len(outputs)
    ordered = sorted(used)
    assert all(used[a] < used[b] for a, b in zip(ordered, ordered[1:]))


def test_timestamps_continue_over_a_switch_with_sender_reports():
    p = ProjectionMap(0)
    p.rebase(0, 1000, 0)
    assert p.send(1000, 1 * SECOND) == 1000
    # The other encoding's clock is 500,000 ahead: offset -500,000 puts its next frame 3,000 ticks on.
    p.rebase(70, 504_000, 1 * SECOND + 33_000_000, ts_offset=(-500_000) % 2**32)
    assert p.send(504_000, 1 * SECOND + 33_000_000) == 4000


def test_an_older_keyframe_never_steps_time_back():
    p = ProjectionMap(0)
    p.rebase(0, 9000, 0)
    assert p.send(9000, SECOND) == 9000
    p.rebase(70, 6000, SECOND, ts_offset=0)
    assert p.send(6000, SECOND) == 9001


@pytest.mark.parametrize("offset", [None, 2**31])
def test_unknown_or_absurd_offsets_fall_back_to_arrival_time(offset):
    p = ProjectionMap(0)
    p.rebase(0, 1000, 0)
    p.send(1000, 10 * SECOND)
    p.rebase(70, 77, 10 * SECOND + 100_000_000, ts_offset=offset)
    assert p.send(77, 10 * SECOND + 100_000_000) == 1000 + 1 + 9000


@pytest.mark.parametrize("first", [2**32 - 10, 2**32 - 1, 0, 2**31])
def test_timestamp_wrap_is_no_step(first):
    p = ProjectionMap(0)
    p.rebase(0, first, 0)
    assert p.send(first, 0) == first
    assert p.send((first + 3000) % 2**32, 33_000_000) == (first + 3000) % 2**32


# --- time over switches ---


def test_a_source_that_is_behind_catches_up_and_keeps_its_true_offset():
    """Ten pictures that were shown already, at 30 a second: each gets a tick or more of its own, then the scale is the true one."""
    p = ProjectionMap(0)
    p.rebase(0, 90_000, 0)
    assert p.send(90_000, SECOND) == 90_000
    p.rebase(70, 60_000, SECOND - SECOND // 3, ts_offset=0)
    shown = [p.send(60_000 + 3_000 * i, SECOND + i) for i in range(20)]
    assert all(90_000 < before < after for before, after in zip(shown, shown[1:]))
    assert shown[10] < 90_100 and shown[11:] == [60_000 + 3_000 * i for i in range(11, 20)]
    assert p.offset == 0


def test_hundreds_of_such_switches_add_up_to_nothing():
    p = ProjectionMap(0)
    p.rebase(0, 0, 0)
    p.send(0, SECOND)
    for i in range(1, 500):
        # Every source is a picture behind the last one.
        p.rebase(1000 * i, 90_000 * i - 3_000, SECOND + SECOND * i, ts_offset=0)
        p.send(90_000 * i - 3_000, SECOND + SECOND * i)
        assert p.send(90_000 * i, SECOND + SECOND * i + 1) - 90_000 * i in (0, 1, 2)


@pytest.mark.parametrize("off", [9_000, -9_000, 200, -5])
def test_a_guess_is_put_right_at_less_than_a_millisecond_a_second(off):
    p = ProjectionMap(0)
    p.rebase(0, 0, 0)
    p.send(0, SECOND)
    assert p.slew(off % 2**32)
    assert p.offset == off % 2**32
    last = 0
    for i in range(1, 30 * 130):
        out = p.send(3_000 * i, SECOND + i)
        step = out - last - 3_000
        assert -3 <= step <= 3, "at most 1 ms/s is 3 ticks in a picture"
        last = out
    assert last == 3_000 * (30 * 130 - 1) + off
    # A late packet of a picture on the way gets what the others of it got.
    assert p.offset == off % 2**32


def test_late_packets_of_a_picture_get_the_same_time_while_the_offset_moves():
    p = ProjectionMap(0)
    p.rebase(0, 0, 0)
    p.send(0, SECOND)
    p.slew(9_000)
    first = [p.send(3_000 * i, SECOND + i) for i in range(1, 60)]
    assert [p.send(3_000 * i, 2 * SECOND) for i in range(1, 60)] == first


def test_a_second_correction_waits_for_the_first():
    p = ProjectionMap(0)
    p.rebase(0, 0, 0)
    p.send(0, SECOND)
    assert p.slew(9_000) and not p.slew(1_000)
    assert p.offset == 9_000
