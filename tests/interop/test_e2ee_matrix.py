"""The part of `make e2ee-matrix` that every CI run can afford, and that its arithmetic can fail."""

import pytest

from tests.interop.e2ee_matrix import ROWS, Row, Sample, judge, stage

ROW = Row("chromium", "sframe", "vp8", "simulcast")


def samples(*stretches: tuple[int, float], loses: float = 0.0, seconds: float = 4.0) -> list[Sample]:
    """A receiver that has one width after the other, at 15 frames a second of each encoding."""
    found, at = [], 0.0
    decoded = 0.0
    for width, share in stretches:
        for _ in range(int(seconds / 0.2)):
            found.append(Sample(at, {320: int(at * 15), 640: int(at * 15)}, int(decoded), width))
            at, decoded = at + 0.2, decoded + 3 * share * (1 - loses)
    return found


def test_what_is_missing_at_a_switch_is_left_out_and_elsewhere_not() -> None:
    cell = judge(ROW, "python", samples((320, 1.0), (640, 1.0)), 1.0)
    assert (cell.problem, cell.switches) == ("", 1) and cell.counted > 80
    gap = [Sample(s.at_s, s.sent, s.decoded - (6 if s.at_s > 4.1 else 0), s.width) for s in samples((320, 1.0), (640, 1.0))]
    assert not judge(ROW, "python", gap, 1.0).problem
    later = [Sample(s.at_s, s.sent, s.decoded - (6 if s.at_s > 6 else 0), s.width) for s in samples((320, 1.0), (640, 1.0))]
    assert "% of" in judge(ROW, "python", later, 1.0).problem


def test_lost_frames_silence_and_a_width_that_nobody_sends_are_problems() -> None:
    assert "% of" in judge(ROW, "python", samples((640, 1.0), loses=0.1, seconds=8), 1.0).problem
    assert "of sound" in judge(ROW, "python", samples((640, 1.0), seconds=8), 0.0).problem
    assert "to count" in judge(ROW, "python", samples((160, 1.0), seconds=8), 1.0).problem


@pytest.mark.interop
@pytest.mark.browser
@pytest.mark.long
@pytest.mark.timeout(150)
async def test_layered_av1_reaches_who_has_the_descriptor_and_who_has_not() -> None:
    """Chromium's three layers in SFrame: all of them to Python, the lowest to Firefox, which takes no descriptor."""
    [row] = [row for row in ROWS if (row.codec, row.shape) == ("av1", "L3T3_KEY")]
    async with stage() as calls:
        cells = {cell.receiver: cell for cell in await calls.call(row, ("firefox", "python"))}
    assert [cell.problem for cell in cells.values()] == ["", ""]
    # Chromium halves its picture where it finds little room at first, and then has two layers: 640 and 320 wide.
    assert cells["python"].width in (4 * cells["firefox"].width, 2 * cells["firefox"].width)
