"""Where the words for a connection change."""

import pytest

from relay.quality.connection import ConnectionQuality, Path, rate, score

POOR, GOOD, EXCELLENT = ConnectionQuality.POOR, ConnectionQuality.GOOD, ConnectionQuality.EXCELLENT


@pytest.mark.parametrize(
    ("loss", "rtt_ms", "quality"),
    [
        (0.0, 0, EXCELLENT), (0.0, 150, EXCELLENT), (0.02, 20, EXCELLENT), (0.05, 50, GOOD), (0.0, 600, GOOD),
        (0.09, 50, GOOD), (0.2, 50, POOR), (0.0, 1200, POOR), (1.0, 0, POOR),
    ],
)  # fmt: skip
def test_loss_and_delay_make_the_word(loss: float, rtt_ms: float, quality: ConnectionQuality) -> None:
    assert rate(Path(loss, rtt_ms)).quality is quality


def test_the_worse_path_counts() -> None:
    assert rate(Path(), Path(loss=0.2)) == rate(Path(loss=0.2), Path())


def test_a_score_falls_with_loss_and_delay_and_stays_on_its_scale() -> None:
    falling = [score(Path(loss=n / 100)) for n in range(101)]
    slowing = [score(Path(rtt_ms=20.0 * n)) for n in range(200)]
    for scores in (falling, slowing):
        assert scores == sorted(scores, reverse=True) and 1.0 <= scores[-1] and scores[0] <= 4.5
