"""What can be sent of a video, in order, and how much of it a size asks for."""

from relay.quality.choice import EncodingShape, Quality, Wanted
from relay.quality.ladder import Ladder, Option

SIZES = ((180, 60_000), (360, 300_000), (720, 900_000))
HD = EncodingShape(1280, 720)


def camera(*, encodings=True, is_screen=False):
    made = [
        Option(
            level if encodings else 0,
            7 if encodings else level,
            t,
            bps=int(bps * (0.6 + 0.2 * t)),
            height=h,
            fps=7.5 * 2**t,
        )
        for level, (h, bps) in enumerate(SIZES)
        for t in range(3)
    ]
    return Ladder(reversed(made), is_screen=is_screen)


def seen(options):
    return [(o.height, o.fps) for o in options]


def test_a_camera_keeps_its_motion_but_at_the_lowest_size():
    expected = [(180, 7.5), (180, 15), (180, 30), (360, 15), (360, 30), (720, 15), (720, 30)]
    assert seen(camera().options) == seen(camera(encodings=False).options) == expected


def test_a_screen_gives_up_motion_before_lines():
    assert len(camera(is_screen=True).options) == 9


def test_what_costs_more_than_something_better_is_left_out():
    large, small = Option(1, bps=300_000, height=720), Option(0, bps=400_000, height=360)
    assert Ladder([small, large]).options == (large,)


def test_what_was_not_measured_leaves_the_rest_in():
    measured = Option(0, bps=150_000, height=180)
    assert Ladder([measured, Option(1, height=360)]).options[0] is measured


def test_the_smallest_level_that_covers_a_box_is_enough():
    ladder = camera()
    assert [
        ladder.level_for(Wanted(width=w, height=h), HD) for w, h in ((160, 90), (320, 180), (640, 360), (641, 400))
    ] == [0, 0, 1, 2]
    assert ladder.level_for(Wanted(width=1920, height=1080), HD) is None
    # A box on its side.
    assert ladder.level_for(Wanted(width=180, height=320), HD) == 0


def test_without_sizes_a_quality_counts():
    ladder = Ladder([Option(0, spatial=s, bps=100_000 * (s + 1)) for s in range(3)])
    assert [ladder.level_for(Wanted(quality=q, width=0), HD) for q in Quality] == [0, 1, None, 1]
    assert ladder.level_for(Wanted(quality=Quality.LOW, width=300, height=200), HD) is None


def test_motion_is_bounded_by_what_was_asked_for():
    assert seen(camera().steps(None, 15)) == [(180, 7.5), (180, 15), (360, 15), (720, 15)]
    assert seen(camera().steps(1, 10)) == [(180, 7.5), (180, 15), (360, 15)]
    assert camera().steps(None) == camera().options


def twice(large_bps, small_height=360):
    """A picture sent twice, the larger encoding's rate as a parameter."""
    return Ladder(
        Option(encoding, 7, t, bps=int(bps * (0.4 + 0.2 * t)), height=height, fps=3.75 * 2**t)
        for encoding, (bps, height) in enumerate(((250_000, small_height), (large_bps, 360)))
        for t in (0, 1, 2)
    )


def test_a_small_picture_sent_twice_keeps_its_motion():
    for large_bps in (200_000, 300_000):
        ladder = twice(large_bps)
        level = ladder.level_for(Wanted(width=640, height=360), EncodingShape(640, 360))
        assert ladder.steps(level)[-1] == ladder.options[-1]
        assert ladder.steps(level)[-1].fps == 15


def test_what_lost_to_a_better_one_comes_back_when_that_one_is_not_asked_for():
    ladder = twice(200_000, small_height=180)
    level = ladder.level_for(Wanted(width=320, height=180), EncodingShape(640, 360))
    assert seen(ladder.steps(level)) == [(180, 3.75), (180, 7.5), (180, 15)]
    assert seen(ladder.steps(None, ceiling=0)) == [(180, 3.75), (180, 7.5), (180, 15)]
    assert seen(ladder.options) == [(180, 3.75), (180, 7.5), (360, 15)]


def test_frame_rates_that_are_made_up_are_not_all_kept() -> None:
    ladder = Ladder(Option(0, 7, t, bps, 180, fps) for t, bps, fps in ((0, 50_000, 8.0), (1, 70_000, 15.0), (7, 100_000, 30.0)))
    for fps in range(5_000):
        assert ladder.steps(None, fps) == ladder.steps(None, 0)[: 3 if fps > 15 or fps == 0 else 2 if fps > 8 else 1]
    assert len(ladder._steps) <= 31
