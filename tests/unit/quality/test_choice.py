"""Which encoding a subscriber is sent, as encodings come and go."""

import pytest

from relay.quality.choice import BEST, SETTLE_NS, Chooser, EncodingShape, Quality, Wanted, target

THREE = (EncodingShape(320, 180), EncodingShape(640, 360), EncodingShape(1280, 720))
UNKNOWN = (EncodingShape(0, 0),) * 3
LOW = Wanted(quality=Quality.LOW)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(width=100, height=80), 0),
        (Wanted(width=320, height=180), 0),
        (Wanted(width=321, height=180), 1),
        (Wanted(width=640, height=361), 2),
        (Wanted(width=4000, height=4000), 2),
        # A portrait box is compared by its longer side, whichever way the picture lies.
        (Wanted(width=180, height=320), 0),
        (Wanted(width=360, height=640), 1),
        # A size says more than a quality.
        (Wanted(quality=Quality.HIGH, width=10, height=10), 0),
        (Wanted(quality=Quality.OFF, width=10, height=10), 0),
        (Wanted(quality=Quality.LOW), 0),
        (Wanted(quality=Quality.MEDIUM), 1),
        (Wanted(quality=Quality.HIGH), 2),
    ],
)
def test_the_smallest_encoding_that_covers_the_box_is_the_target(wanted: Wanted, expected: int) -> None:
    assert target(THREE, wanted) == expected


def test_quality_counts_from_both_ends_of_fewer_encodings() -> None:
    assert [target(THREE[:2], Wanted(quality=q)) for q in (Quality.LOW, Quality.MEDIUM, Quality.HIGH)] == [0, 1, 1]
    assert [target(THREE[:1], Wanted(quality=q)) for q in (Quality.LOW, Quality.MEDIUM, Quality.HIGH)] == [0, 0, 0]


def test_a_size_means_nothing_where_none_was_announced() -> None:
    assert target(UNKNOWN, Wanted(quality=Quality.MEDIUM, width=10, height=10)) == 1


@pytest.mark.parametrize("wanted", [Wanted(disabled=True), Wanted(quality=Quality.OFF), Wanted(disabled=True, width=9)])
def test_nothing_is_sent_to_who_wants_nothing(wanted: Wanted) -> None:
    assert Chooser().choose(THREE, {0, 1, 2}, wanted, 0) is None


@pytest.mark.parametrize(
    ("active", "wanted", "expected"),
    [
        ({0, 1, 2}, BEST, 2),
        ({0, 1}, BEST, 1),
        ({0}, BEST, 0),
        # What is wanted never appeared: the lowest above it, rather than no picture.
        ({2}, LOW, 2),
        ({1, 2}, LOW, 1),
        # Before anything arrives the first to come is waited for.
        (set(), BEST, 0),
        # What the publisher never announced is not chosen.
        ({7}, BEST, 0),
    ],
)
def test_the_best_active_encoding_at_or_below_the_wanted_one(active: set[int], wanted: Wanted, expected: int) -> None:
    assert Chooser().choose(THREE, active, wanted, 0) == expected


def test_first_encodings_are_taken_as_they_come() -> None:
    chooser, active, seen = Chooser(), set(), []
    for now_ns, encoding in ((0, 0), (1, 1), (2, 2)):
        active.add(encoding)
        chooser.on_active(encoding, True, now_ns)
        seen.append(chooser.choose(THREE, active, BEST, now_ns))
    assert seen == [0, 1, 2]


def test_a_fall_is_immediate_and_the_way_back_waits() -> None:
    chooser = Chooser()
    for encoding in (0, 1, 2):
        chooser.on_active(encoding, True, 0)
    assert chooser.choose(THREE, {0, 1, 2}, BEST, 0) == 2
    chooser.on_active(2, False, 100)
    assert chooser.choose(THREE, {0, 1}, BEST, 100) == 1
    chooser.on_active(2, True, 200)
    assert chooser.choose(THREE, {0, 1, 2}, BEST, 200) == 1
    assert chooser.choose(THREE, {0, 1, 2}, BEST, 200 + SETTLE_NS - 1) == 1
    assert chooser.choose(THREE, {0, 1, 2}, BEST, 200 + SETTLE_NS) == 2


def test_a_flapping_encoding_never_makes_the_picture_flap() -> None:
    chooser, now_ns = Chooser(), 0
    for encoding in (0, 1, 2):
        chooser.on_active(encoding, True, now_ns)
    chooser.choose(THREE, {0, 1, 2}, BEST, now_ns)
    switches, last = 0, 2
    for _ in range(20):
        for active in (False, True):
            now_ns += SETTLE_NS // 4
            chooser.on_active(2, active, now_ns)
            choice = chooser.choose(THREE, {0, 1, 2} if active else {0, 1}, BEST, now_ns)
            switches += choice != last
            last = choice
    assert switches == 1


def test_a_new_wish_is_granted_at_once_even_after_a_fall() -> None:
    chooser = Chooser()
    for encoding in (0, 1, 2):
        chooser.on_active(encoding, True, 0)
    chooser.choose(THREE, {0, 1, 2}, BEST, 0)
    chooser.on_active(2, False, 1)
    chooser.choose(THREE, {0, 1}, BEST, 1)
    assert chooser.choose(THREE, {0, 1}, LOW, 2) == 0
    assert chooser.choose(THREE, {0, 1}, Wanted(quality=Quality.MEDIUM), 3) == 1


def test_the_only_active_one_stopping_keeps_the_choice() -> None:
    chooser = Chooser()
    chooser.on_active(0, True, 0)
    assert chooser.choose(THREE[:1], {0}, BEST, 0) == 0
    chooser.on_active(0, False, 1)
    assert chooser.choose(THREE[:1], set(), BEST, 1) == 0


def test_a_camera_that_was_muted_is_seen_at_its_best_as_soon_as_that_comes() -> None:
    chooser, active, now_ns = Chooser(), {0, 1, 2}, 1
    for encoding in (0, 1, 2):
        chooser.on_active(encoding, True, now_ns)
    assert chooser.choose(THREE, active, BEST, now_ns) == 2
    for encoding in (2, 1, 0):
        active.discard(encoding)
        chooser.on_active(encoding, False, now_ns + 1)
        chooser.choose(THREE, active, BEST, now_ns + 1)
    for encoding in (0, 1, 2):
        active.add(encoding)
        now_ns += 1_000_000
        chooser.on_active(encoding, True, now_ns)
        assert chooser.choose(THREE, active, BEST, now_ns) == encoding
