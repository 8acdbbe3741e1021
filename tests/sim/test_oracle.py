"""Every rule of the oracle has a case that it must catch, and a clean stream that it must pass."""

import pytest

from tests.sim.oracle import Oracle
from tests.sim.source import Stamp


def clean(frames: int = 20, per_frame: int = 3) -> list[dict]:
    return [
        dict(seq=(65530 + f * per_frame + i) & 0xFFFF, rtp_ts=(2**32 - 9000 + f * 3000) % 2**32, marker=i == per_frame - 1,
             stamp=Stamp(0, f, i, per_frame, f / 30), picture_id=(32760 + f) & 0x7FFF)
        for f in range(frames) for i in range(per_frame)
    ]


def judge(packets: list[dict], **counts: int) -> list[str]:
    oracle = Oracle()
    for packet in packets:
        oracle.add(**packet)
    return oracle.violations(**counts)


def test_a_clean_stream_passes():
    assert judge(clean()) == []


def test_a_clean_stream_with_its_own_loss_passes():
    packets = clean()
    del packets[10:13]
    assert judge(packets, lost_at_source=3) == []


def change(index: int, **fields) -> list[dict]:
    packets = clean()
    packets[index] |= fields
    return packets


@pytest.mark.parametrize("rule, packets", [
    ("reuse", clean() + clean()[5:6]),
    ("hole", clean()[:10] + clean()[11:]),
    ("backwards", change(30, rtp_ts=0)),
    ("clock", clean()[:30] + [p | dict(rtp_ts=(p["rtp_ts"] + 90_000) % 2**32) for p in clean()[30:]]),
    ("cut", [p | dict(seq=(p["seq"] - (i > 10)) & 0xFFFF) for i, p in enumerate(clean()) if i != 10]),
    ("mixed", change(4, stamp=Stamp(1, 1, 1, 3, 1 / 30))),
    ("picture", [p | dict(picture_id=(p["picture_id"] + 7 * (p["stamp"].frame > 9)) & 0x7FFF) for p in clean()]),
])
def test_each_rule_catches_its_case(rule, packets):
    assert any(v.startswith(rule) for v in judge(packets)), rule
