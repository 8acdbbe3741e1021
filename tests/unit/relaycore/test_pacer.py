"""What media leaves to repairs (relaycore.pacer), packet by packet on virtual time."""

import pytest

from relaycore.pacer import PacerFace

MS = 1_000_000
RATE_BPS = 300_000
SOUND_BYTES, SOUND_MS = 290, 20
REPAIR_BYTES = 1100


def repairs_of(pacer: PacerFace, video_bytes: int, *, seconds: int = 5) -> float:
    """Return the bit rate of repairs, of which one always waits, beside sound and thirty pictures of that size a second."""
    sent = 0
    for now_ms in range(1, 1000 * seconds):
        if now_ms % SOUND_MS == 0:
            pacer.pay_media(SOUND_BYTES, now_ms * MS)
        if now_ms % 33 == 0:
            pacer.pay_media(video_bytes, now_ms * MS)
        if not pacer.repair_due(now_ms * MS):
            pacer.pay_repair(REPAIR_BYTES, now_ms * MS)
            sent += REPAIR_BYTES
    return 8 * sent / seconds


@pytest.mark.parametrize("repair_bps", [0, RATE_BPS * 8 // 10])
def test_a_tenth_of_the_estimate_is_left_to_repairs_whatever_media_takes_of_it(repair_bps: int) -> None:
    pacer = PacerFace(RATE_BPS, repair_bps)
    video_bytes = (RATE_BPS - 8 * SOUND_BYTES * 1000 // SOUND_MS) * 33 // 8000
    assert 0.07 * RATE_BPS < repairs_of(pacer, video_bytes) < 0.12 * RATE_BPS


def test_repairs_beside_little_media_take_what_it_leaves() -> None:
    assert 0.55 * RATE_BPS < repairs_of(PacerFace(RATE_BPS), 0) < 0.72 * RATE_BPS
    draining = repairs_of(PacerFace(RATE_BPS, RATE_BPS * 8 // 10), 0)
    assert 0.4 * RATE_BPS < draining < 0.55 * RATE_BPS, "so that the queue gets shorter"
