"""Transport-wide feedback: an independent reader sees every number that came, with its first arrival to a tick."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaycore import rtcp
from relaycore.errs import WireError
from relaycore.twcc import TwccFace
from tests.support import vectors
from tests.support.feedback import read_feedback
from tests.support.wrap import WRAP_STARTS

TICK = 250_000
MS = 1_000_000


def drain(face, cap=1200):
    """All feedback that is pending; every packet is small enough, well-formed, and begins where the last one ended."""
    packets = []
    while packet := face.write_feedback(cap=cap):
        assert len(packet) <= cap and len(packet) % 4 == 0
        assert [part["type"] for part in rtcp.parse(packet)] == [205]
        packets.append(read_feedback(packet))
    for one, other in zip(packets, packets[1:], strict=False):
        assert other.base == (one.base + one.count) % 65536
        assert other.feedback_count == (one.feedback_count + 1) % 256
    assert face.pending == 0
    return packets


def received(packets):
    return {number: ticks for packet in packets for number, ticks in packet.arrivals}


@pytest.mark.parametrize("vector", vectors.good("twcc"), ids=str)
def test_the_reader_of_this_file_reads_what_was_written_by_hand(vector):
    found = read_feedback(vector.data)
    assert (found.count, [list(arrival) for arrival in found.arrivals]) == (
        vector.expect["count"],
        vector.expect["arrivals"],
    )


@pytest.mark.parametrize("vector", vectors.good("twcc"), ids=str)
def test_the_writer_says_the_same_as_the_packet_written_by_hand(vector):
    face = TwccFace()
    by_hand = read_feedback(vector.data)
    # The recorder begins with the first number it hears, so a loss in front is shown by a number reported before.
    numbers = [number for number, _ in by_hand.arrivals]
    if numbers[0] != by_hand.base:
        face.record((by_hand.base - 1) % 65536, 1)
        face.write_feedback()
    for number, ticks in by_hand.arrivals:
        face.record(number, ticks * TICK)
    (packet,) = drain(face)
    assert (packet.base, packet.count, packet.arrivals) == (by_hand.base, by_hand.count, by_hand.arrivals)


def test_nothing_received_nothing_written():
    face = TwccFace()
    assert face.write_feedback() == b""
    face.record(5, MS)
    assert face.write_feedback(sender_ssrc=7, media_ssrc=8) != b""
    assert face.write_feedback() == b""


def test_the_head_says_who_and_about_whom():
    face = TwccFace()
    face.record(5, MS)
    packet = read_feedback(face.write_feedback(sender_ssrc=0xFFFFFFFF, media_ssrc=8))
    assert (packet.sender_ssrc, packet.media_ssrc, packet.feedback_count) == (0xFFFFFFFF, 8, 0)


@pytest.mark.parametrize("start", WRAP_STARTS)
def test_loss_and_reordering_over_the_wrap(start):
    face = TwccFace()
    order = [0, 1, 2, 4, 3, 7, 8, 10, 9, 30, 29, 28]
    for i, offset in enumerate(order):
        face.record((start + offset) % 65536, (100 + i) * MS)
    (packet,) = drain(face)
    assert (packet.base, packet.count) == (start, 31)
    assert dict(packet.arrivals) == {(start + offset) % 65536: (100 + i) * 4 for i, offset in enumerate(order)}


@pytest.mark.parametrize("start", WRAP_STARTS)
def test_feedback_counts_wrap_with_the_numbers(start):
    face = TwccFace()
    told = {}
    for i in range(300):
        face.record((start + i) % 65536, (1000 + i) * MS)
        (packet,) = drain(face)
        assert packet.feedback_count == i % 256
        told |= dict(packet.arrivals)
    assert told == {(start + i) % 65536: (1000 + i) * 4 for i in range(300)}


def test_the_reference_time_wraps_at_24_bits():
    face = TwccFace()
    turn = 2**24 * 64 * MS
    for i, at in enumerate((turn - 64 * MS, turn - MS, turn, turn + 64 * MS)):
        face.record(i, at)
        (packet,) = drain(face)
        # The wire says the time modulo 2^24 references of 256 ticks each.
        assert packet.arrivals == ((i, at // TICK % 2**32),)


def test_deltas_at_the_edges_of_their_sizes():
    face = TwccFace()
    # 0 and 255 ticks are one byte; 256, -1, 32767 and -32768 two.
    at = 10_000 * 256
    times = [at]
    for delta in (0, 255, 256, -1, 32767, -32768):
        times.append(times[-1] + delta)
    for i, ticks in enumerate(times):
        face.record(i, ticks * TICK)
    packet = face.write_feedback()
    assert read_feedback(packet).arrivals == tuple(enumerate(times))
    # Head, one two-bit vector of seven, three small and four large deltas, filled up to a word.
    assert len(packet) == 20 + 2 + 3 + 8 + 3


@pytest.mark.parametrize("gap", [32768, -32769, 10**6])
def test_a_gap_that_no_delta_can_say_begins_a_new_packet(gap):
    face = TwccFace()
    start = 10**7
    face.record(0, start * TICK)
    face.record(1, (start + 1) * TICK)
    face.record(3, (start + 1 + gap) * TICK)
    packets = drain(face)
    assert len(packets) == 2
    assert received(packets) == {0: start, 1: start + 1, 3: start + 1 + gap}
    assert packets[0].lost | packets[1].lost == {2}


def test_rounding_to_ticks_does_not_add_up():
    face = TwccFace()
    times = [10**9 + i * 333_333 for i in range(1000)]
    for i, at in enumerate(times):
        face.record(i, at)
    assert received(drain(face)) == {i: at // TICK for i, at in enumerate(times)}


def test_duplicates_count_once_with_their_first_arrival():
    face = TwccFace()
    face.record(1, 10 * MS)
    face.record(1, 20 * MS)
    assert face.pending == 1
    assert received(drain(face)) == {1: 40}
    face.record(1, 30 * MS)
    assert drain(face) == []


def test_a_late_packet_takes_the_base_back_to_it():
    face = TwccFace()
    for number in (10, 11, 13, 14):
        face.record(number, number * MS)
    (first,) = drain(face)
    assert first.lost == {12}
    face.record(15, 15 * MS)
    face.record(12, 16 * MS)
    (second,) = drain(face)
    assert (second.base, second.lost) == (12, set())
    assert dict(second.arrivals) == {12: 64, 13: 52, 14: 56, 15: 60}


def test_a_late_packet_before_the_first_number_is_told():
    face = TwccFace()
    face.record(0, 5 * MS)
    face.record(65534, 6 * MS)
    (packet,) = drain(face)
    assert (packet.base, packet.count, dict(packet.arrivals)) == (65534, 3, {65534: 24, 0: 20})


def test_a_packet_2048_behind_is_too_late_and_2047_is_not():
    for behind, is_told in ((2047, True), (2048, False), (30000, False)):
        face = TwccFace()
        face.record(40000, 5 * MS)
        drain(face)
        face.record(40000 - behind, 6 * MS)
        assert (40000 - behind in received(drain(face))) is is_told


def test_numbers_that_were_never_asked_for_leave_the_window():
    face = TwccFace()
    for i in range(5000):
        face.record(i, (1000 + i) * MS)
    assert face.pending == 2048
    assert set(received(drain(face))) == set(range(5000 - 2048, 5000))


@pytest.mark.parametrize("jump", [2047, 2048, 2049, 32767])
def test_a_jump_forward_reports_the_hole_as_lost(jump):
    face = TwccFace()
    face.record(60000, MS)
    drain(face)
    face.record((60000 + jump) % 65536, 2 * MS)
    packets = drain(face)
    assert received(packets) == {(60000 + jump) % 65536: 8}
    assert sum(packet.count for packet in packets) == min(jump, 2048)


@pytest.mark.parametrize("cap", [28, 31, 40, 64, 128, 1200])
def test_what_does_not_fit_comes_with_the_next_packet(cap):
    face = TwccFace()
    generator = random.Random(cap)
    expected = {}
    at = 10**9
    for i in range(900):
        at += generator.choice((0, 1, 3, 100)) * MS
        if generator.random() < 0.8:
            face.record(i + 65000 & 0xFFFF, at)
            expected[i + 65000 & 0xFFFF] = at // TICK
    assert received(drain(face, cap)) == expected


@pytest.mark.parametrize("cap", [0, 19, 20, 23])
def test_a_packet_without_place_for_one_arrival_is_refused(cap):
    face = TwccFace()
    face.record(1, MS)
    with pytest.raises(WireError, match="^E_NO_SPACE$"):
        face.write_feedback(cap=cap)
    assert received(drain(face, 24)) == {1: 4}


def test_a_full_window_without_loss_takes_one_chunk():
    face = TwccFace()
    for i in range(1000):
        face.record(i, (1000 + i) * MS)
    packet = face.write_feedback(cap=8192)
    assert len(packet) == 20 + 2 + 1000 + 2
    assert len(read_feedback(packet).arrivals) == 1000


steps = st.lists(
    st.tuples(st.integers(-40, 60), st.integers(-(10**7), 10**10), st.booleans()), min_size=1, max_size=120
)


@given(st.sampled_from(WRAP_STARTS), steps, st.integers(28, 200))
def test_any_arrivals_are_told_as_they_first_were(start, moves, cap):
    face = TwccFace()
    first_arrival, told = {}, {}
    number, now = start, 10**12
    for step, wait, is_time in moves:
        number = (number + step) % 65536
        now += wait
        face.record(number, now)
        first_arrival.setdefault(number, now // TICK % 2**32)
        if is_time:
            told |= received(drain(face, cap))
    told |= received(drain(face, cap))
    assert told == first_arrival
