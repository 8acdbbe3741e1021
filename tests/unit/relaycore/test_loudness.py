"""When a stream's packets are speech."""

from relaycore.loudness import Meter

MS = 1_000_000


def windows(levels: list[int], *, frame_ms: int = 20, ticks: int | None = None) -> list[int]:
    """What the meter says of packets at these levels, one every `frame_ms`; what says nothing is left out."""
    meter = Meter()
    ticks = 48 * frame_ms if ticks is None else ticks
    said = (meter.add(level, 0xFFFFFF00 + n * ticks & 0xFFFFFFFF, MS + n * frame_ms * MS) for n, level in enumerate(levels))
    return [level for level in said if level >= 0]


def test_speech_is_told_once_a_window_with_its_mean_level():
    assert windows([10, 20] * 51) == [14, 15, 15, 15, 15]


def test_two_fifths_of_a_window_are_enough_and_less_is_not():
    assert windows([30] * 8 + [127] * 12 + [127]) == [30]
    assert windows([30] * 7 + [127] * 13 + [127]) == []


def test_what_is_quieter_than_speech_is_not_counted():
    assert windows([36] * 100) == []
    assert windows([35] * 21) == [35]


def test_long_frames_count_for_what_they_last():
    """But for the first, whose length nothing tells."""
    assert windows([20] * 4 + [127] * 6, frame_ms=60) == [20]
    assert windows([20] * 3 + [127] * 6, frame_ms=60) == []


def test_a_loud_packet_in_a_pause_is_no_speech():
    """With DTX a pause is a packet every 400 ms, however far apart their times are."""
    assert windows([10] * 10, frame_ms=400) == []


def test_repeated_times_count_as_one_frame_each():
    assert windows([10] * 21, ticks=0) == [10]
