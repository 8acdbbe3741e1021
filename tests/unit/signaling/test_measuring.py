"""What encodings and their layers cost, and the ladders made of it, from figures of a data plane."""

from types import SimpleNamespace

import numpy as np
import pytest

from relay.quality.ladder import ALL
from relay.rooms.publication import Layer, Publication
from relay.signaling import measuring
from relay.signaling.ladders import Ladders
from relay.signaling.measuring import Measuring

STREAM = np.dtype([("receiver", "u4"), ("encoding", "i4"), ("packets", "u8"), ("bytes", "u8"), ("frames", "u8")])
LAYER = np.dtype(
    [
        ("receiver", "u4"),
        ("encoding", "i4"),
        ("spatial", "u4"),
        ("temporal", "u4"),
        ("height", "u4"),
        ("selected_bytes", "u8"),
        ("frames", "u8"),
    ]
)
EGRESS = np.dtype(
    [("egress", "u4"), ("bytes", "u8"), ("frames", "u8"), ("encoding", "i4"), ("spatial", "i4"), ("temporal", "i4")]
)
RECEIVER = 7
# Bytes a second of selecting (spatial, temporal), as of a structure in which layers build on each other.
COSTS = {(s, t): 10_000 * 4**s * (t + 2) for s in range(3) for t in range(3)}
TOP = max(COSTS.values())


class Plane:
    """A second of figures at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.changes: list[set[int]] = []
        self.measuring = Measuring(None, self.changes.append)  # type: ignore[arg-type]
        self.seconds = 0
        self.sums = dict.fromkeys(COSTS, 0)
        self.frames = dict.fromkeys(COSTS, 0)
        self.octets = self.packets = self.sent = 0
        monkeypatch.setattr(measuring, "monotonic_ns", lambda: 1 + self.seconds * 1_000_000_000)

    def second(self, *, scale: float = 1.0, spatials: int = 3) -> None:
        self.seconds += 1
        for (spatial, temporal), cost in COSTS.items():
            if spatial < spatials:
                self.sums[spatial, temporal] += int(cost * scale)
                self.frames[spatial, temporal] += (8, 7, 15)[temporal]
        top = int(COSTS[spatials - 1, 2] * scale)
        self.octets, self.packets, self.sent = self.octets + top, self.packets + top // 1000, self.sent + top // 2
        layers = [(RECEIVER, 0, *key, 90 << key[0], self.sums[key], self.frames[key]) for key in COSTS if self.sums[key]]
        self.measuring.take(
            SimpleNamespace(
                streams=np.array([(RECEIVER, 0, self.packets, self.octets, 30 * self.seconds)], dtype=STREAM),
                layers=np.array(layers, dtype=LAYER),
                egresses=np.array([(3, self.sent, 15 * self.seconds, 0, 1, ALL)], dtype=EGRESS),
            )
        )


def svc() -> Publication:
    sizes = tuple(Layer(q, 160 << q, 90 << q) for q in range(3))
    found = Publication("TR_1", "PA_1", "cid", True, width=640, height=360, layers=sizes, mime_type="video/VP9")
    found.active_encodings.add(0)
    return found


def carried(spatials: int = 3, temporals: int = 3) -> SimpleNamespace:
    return SimpleNamespace(receiver=RECEIVER, layers={0: (spatials, temporals)})


def test_layers_become_options_at_what_selecting_them_costs(monkeypatch) -> None:
    plane = Plane(monkeypatch)
    for _ in range(4):
        plane.second()
    ladder = Ladders(plane.measuring).of(svc(), carried())
    # Of all but the lowest size, motion below half is no option.
    assert [(o.height, round(o.fps)) for o in ladder.options] == [
        (90, 8), (90, 15), (90, 30), (180, 15), (180, 30), (360, 15), (360, 30)
    ]  # fmt: skip
    assert (ladder.options[-1].spatial, ladder.options[-1].temporal) == (ALL, ALL)
    assert (ladder.options[0].spatial, ladder.options[0].temporal) == (0, 0)
    for option in ladder.options:
        cost = COSTS[min(option.spatial, 2), min(option.temporal, 2)]
        # Headers come on top: 40 bytes a packet of 1,000.
        assert option.bps == pytest.approx(8 * 1.04 * cost, rel=0.02)


def test_before_it_was_measured_an_encoding_costs_what_was_announced(monkeypatch) -> None:
    plane = Plane(monkeypatch)
    plane.second()
    (only,) = Ladders(plane.measuring).of(svc(), carried()).options
    assert only.height == 360 and 300_000 < only.bps < 700_000
    assert plane.changes == []


def test_only_what_matters_is_told(monkeypatch) -> None:
    plane = Plane(monkeypatch)
    for _ in range(4):
        plane.second()
    told = len(plane.changes)
    for scale in (1.02, 0.97, 1.03):
        plane.second(scale=scale)
    assert len(plane.changes) == told
    plane.second(scale=1.6)
    assert plane.changes[told:] == [{RECEIVER}]


def test_a_layer_that_was_switched_off_is_no_option(monkeypatch) -> None:
    plane = Plane(monkeypatch)
    for _ in range(4):
        plane.second()
    told = len(plane.changes)
    for _ in range(2):
        plane.second(spatials=2)
    assert plane.changes[told:]
    # Whether its structure still has a place for it or not.
    for spatials in (2, 3):
        assert Ladders(plane.measuring).of(svc(), carried(spatials=spatials)).options[-1].height == 180


def test_a_ladder_is_made_once_for_all_until_a_rate_changes(monkeypatch) -> None:
    plane = Plane(monkeypatch)
    ladders = Ladders(plane.measuring)
    for _ in range(3):
        plane.second()
    first = ladders.of(svc(), carried())
    assert ladders.of(svc(), carried()) is first
    ladders.on_rates({RECEIVER})
    assert ladders.of(svc(), carried()) is not first


def test_what_goes_out_is_measured_too(monkeypatch) -> None:
    plane = Plane(monkeypatch)
    plane.second()
    assert plane.measuring.sent(3).bps == 0
    plane.second()
    sent = plane.measuring.sent(3)
    assert (sent.encoding, sent.spatial, sent.temporal, sent.fps) == (0, 1, ALL, 15)
    assert sent.bps == TOP // 2 * 8
    assert plane.measuring.sent(4) is None


class Screen:
    """A stream of which pictures of 4,000 bytes come at some times, looked at as `Measuring.run` does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gap_s: float) -> None:
        self.changes: list[set[int]] = []
        self.measuring = Measuring(None, self.changes.append)  # type: ignore[arg-type]
        self.now_s, self.pictures, self.due_s, self.gap_s = 0.0, 0, 0.1, gap_s
        monkeypatch.setattr(measuring, "monotonic_ns", lambda: 1 + int(self.now_s * 1e9))

    @property
    def rate(self) -> measuring.Rate:
        return self.measuring.rates_of(RECEIVER)[0]

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s - 1e-6:
            self.now_s += measuring.FIRST_INTERVAL_S if self.measuring._has_news else measuring.INTERVAL_S
            while self.due_s <= self.now_s:
                self.pictures += 1
                self.due_s += self.gap_s
            rows = [(RECEIVER, 0, 4 * self.pictures, 4_000 * self.pictures, self.pictures)]
            self.measuring.take(
                SimpleNamespace(streams=np.array(rows, dtype=STREAM), layers=np.array([], dtype=LAYER),
                                egresses=np.array([], dtype=EGRESS))
            )  # fmt: skip


@pytest.mark.parametrize("gap_s", [0.4, 1.0, 1.3, 4.0])
def test_a_screen_that_stands_still_is_measured_too(monkeypatch, gap_s) -> None:
    screen = Screen(monkeypatch, gap_s)
    screen.run(12)
    assert screen.rate.told_bps == pytest.approx(8 * 4_160 / gap_s, rel=0.5)
    assert screen.changes and not screen.measuring._has_news


def test_a_screen_that_comes_to_rest_is_known_to_cost_less(monkeypatch) -> None:
    screen = Screen(monkeypatch, 0.02)
    screen.run(5)
    assert screen.rate.told_bps > 1_500_000
    screen.gap_s = 2.5
    screen.run(30)
    assert screen.rate.told_bps < 60_000


def test_what_was_silent_costs_what_it_did_when_it_is_back(monkeypatch) -> None:
    screen = Screen(monkeypatch, 0.02)
    screen.run(5)
    before = screen.rate.told_bps
    screen.due_s += 20.85
    screen.run(24)
    assert screen.rate.told_bps > 0.7 * before


def test_a_stream_of_one_packet_is_not_looked_at_for_ever(monkeypatch) -> None:
    screen = Screen(monkeypatch, 1e9)
    screen.run(1)
    assert screen.measuring._has_news
    screen.run(8)
    assert not screen.measuring._has_news
