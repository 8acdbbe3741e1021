"""Each codec's descriptor tells what its specification says, and nothing of the payload behind it."""

import random
import tomllib
from pathlib import Path

import pytest

from relaycore import av1, h264, vp8, vp9
from relaycore.errs import WireError
from relaycore.views import CODECS, StreamView
from tests.support.guard import GuardedBytes

VECTORS = Path(__file__).parents[2] / "vectors/views"
PARSERS = {"vp8": vp8.parse, "vp9": vp9.parse, "h264": h264.parse, "av1": av1.parse}
CASES = [
    pytest.param(codec, case, id=f"{codec}: {case['name']}")
    for codec in PARSERS
    for case in tomllib.loads((VECTORS / f"{codec}.toml").read_text())["cases"]
]
FIELDS = set(StreamView(0).view(b""))


def outcome(parse, payload, marker=False):
    """Return the fields that are not 0, or the error's name."""
    try:
        return {name: value for name, value in parse(payload, marker).items() if value}
    except WireError as error:
        return str(error)


@pytest.mark.parametrize(("codec", "case"), CASES)
def test_the_view_is_what_the_specification_says(codec, case):
    payload, marker = bytes.fromhex(case["payload"]), case.get("marker", False)
    expected = case.get("error") or {"source": 1, **case["view"]}
    if isinstance(expected, dict):
        assert set(expected) <= FIELDS
        expected = {name: value for name, value in expected.items() if value}
    assert outcome(PARSERS[codec], payload, marker) == expected
    assert outcome(StreamView(CODECS[codec]).view, payload, marker) == expected


@pytest.mark.parametrize(("codec", "case"), CASES)
def test_truncated_anywhere_nothing_behind_the_end_is_read(codec, case):
    guard, payload = GuardedBytes(), bytes.fromhex(case["payload"])
    stream = StreamView(CODECS[codec])
    for n in range(len(payload) + 1):
        cut = payload[:n]
        result = outcome(stream.view, guard.place(cut))
        assert result == outcome(stream.view, cut)
        assert isinstance(result, dict) or result in ("E_SHORT", "E_LENGTH", "E_FORMAT")


# How many bytes each payload may show: the descriptor, and for VP8 the frame's first byte.
NAMED = {"vp8": 1, "vp9": 0, "av1": 0}


@pytest.mark.parametrize(("codec", "case"), [c for c in CASES if c.values[0] in NAMED and "error" not in c.values[1]])
def test_payload_behind_the_named_bytes_changes_nothing(codec, case):
    head = bytes.fromhex(case["payload"].rsplit(" ", 1)[0] if codec != "vp8" else case["payload"])
    rng = random.Random(1)
    seen = set()
    for _ in range(200):
        tail = rng.randbytes(rng.randrange(1, 40))
        seen.add(str(outcome(PARSERS[codec], head + tail)))
    assert len(seen) == 1


def test_h264_reads_nal_headers_alone():
    rng = random.Random(2)
    for kind in (0x61, 0x65, 0x67):
        assert len({str(outcome(h264.parse, bytes([kind]) + rng.randbytes(30))) for _ in range(100)}) == 1
    for _ in range(100):
        body = rng.randbytes(20)
        aggregate = b"\x78" + b"\0\x0b\x67" + body[:10] + b"\0\x0b\x68" + body[10:]
        assert outcome(h264.parse, aggregate) == {"source": 1, "start_of_frame": 1, "keyframe": 1, "switch_up": 1}


@pytest.mark.parametrize("codec", PARSERS)
def test_random_bytes_are_parsed_or_refused_and_nothing_else(codec):
    guard, rng, stream = GuardedBytes(), random.Random(3), StreamView(CODECS[codec])
    for _ in range(20_000):
        outcome(stream.view, guard.place(rng.randbytes(rng.randrange(24))), rng.random() < 0.5)
