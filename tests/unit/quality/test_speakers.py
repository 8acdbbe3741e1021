"""Who is told to speak: begun at once, through short pauses, ended soon, in steps that do not flicker."""

import math

from relay.quality.speakers import SPEECH, Speakers


def told(speakers: Speakers) -> list[tuple[str, float]]:
    return [(change.sid, change.level) for change in speakers.tick()]


def test_a_voice_is_told_with_its_first_window_and_again_only_when_it_changes() -> None:
    speakers = Speakers()
    speakers.heard("a", 6)
    [change] = speakers.tick()
    assert (change.sid, change.active) == ("a", True) and change.level == math.ceil(10 ** (-6 / 20) * 2 / 3 * 8) / 8
    changes = []
    for _ in range(20):
        speakers.heard("a", 6)
        changes += speakers.tick()
    levels = [c.level for c in changes]
    assert levels == sorted(set(levels)) and levels[-1] == math.ceil(10 ** (-6 / 20) * 8) / 8


def test_one_window_that_ends_late_is_no_pause() -> None:
    speakers = Speakers()
    for _ in range(5):
        speakers.heard("a", 10)
        speakers.tick()
    assert told(speakers) == []
    speakers.heard("a", 10)
    assert told(speakers) == []


def test_who_stops_is_told_so_within_four_windows_and_forgotten() -> None:
    speakers = Speakers()
    for _ in range(5):
        speakers.heard("a", 12)
        speakers.tick()
    levels = [level for _ in range(4) for _, level in told(speakers)]
    assert levels[-1] == 0.0
    for _ in range(10):
        assert told(speakers) == []
    assert speakers.is_quiet


def test_the_quietest_speech_is_not_enough_until_it_lasts() -> None:
    speakers = Speakers()
    speakers.heard("a", 35)
    assert told(speakers) == []
    for _ in range(10):
        speakers.heard("a", 34)
        changes = speakers.tick()
        if changes:
            break
    assert changes[0].level == 1 / 8 and SPEECH < 1 / 8


def test_of_several_tracks_the_loudest_counts_and_people_are_told_apart() -> None:
    speakers = Speakers()
    speakers.heard("a", 30)
    speakers.heard("a", 0)
    speakers.heard("b", 20)
    assert dict(told(speakers)) == {"a": math.ceil(2 / 3 * 8) / 8, "b": 1 / 8}


def test_somebody_who_left_is_told_of_no_more() -> None:
    speakers = Speakers()
    speakers.heard("a", 3)
    speakers.tick()
    speakers.forget("a")
    assert told(speakers) == [] and speakers.is_quiet
