"""Which frames go on by the Dependency Descriptor alone, and never one that lacks what it leans on."""

import random
import tomllib
from pathlib import Path

import pytest

from relaycore.depdesc import DescriptorReader
from relaycore.targets import TargetsFace
from tests.sim.structures import NAMES, Layout

VIEWS = Path(__file__).parents[2] / "vectors/views"


class Viewer:
    """A subscriber of a layout; asserts that each frame it gets leans on frames that it got."""

    def __init__(self, name: str) -> None:
        self.face, self.layout = TargetsFace(), Layout(name)
        self.got: set[int] = set()

    def picture(self, key: bool = False) -> list[tuple[int, int, bool]]:
        """Send a picture; return (spatial id, temporal id, ends the picture) of what goes on."""
        found = []
        for frame in self.layout.next_picture(key):
            result = self.face.take(self.layout.descriptor(frame, True, True), 3000 * frame.picture)
            if result is not None:
                assert set(frame.leans) <= self.got, f"{frame} lacks what it leans on"
                self.got.add(frame.number)
                found.append(result)
        assert [ends for *_, ends in found] == [False] * (len(found) - 1) + [True] * bool(found)
        return found

    def layers(self, count: int) -> list[list[tuple[int, int]]]:
        return [[(s, t) for s, t, _ in self.picture()] for _ in range(count)]


@pytest.mark.parametrize("name", NAMES)
def test_all_layers_go_on_where_nothing_was_chosen(name):
    viewer = Viewer(name)
    viewer.picture(key=True)
    top = viewer.layout.spatial - 1
    lowest = top if viewer.layout.is_key else 0
    for found in viewer.layers(12):
        assert [s for s, _ in found] == list(range(lowest, top + 1))
    assert viewer.face.forwarded == (top, viewer.layout.temporal - 1)
    assert viewer.face.active is None or name.endswith("KEY") or name.endswith("SHIFT")


def test_lower_layers_of_svc_at_once_and_upper_ones_at_a_keyframe():
    viewer = Viewer("L3T3")
    viewer.picture(key=True)
    viewer.layers(3)
    viewer.face.want(1, 7)
    assert viewer.layers(4) == [[(0, t), (1, t)] for t in (0, 2, 1, 2)]
    assert not viewer.face.waits and viewer.face.active == 0b111111
    viewer.face.want(2, 7)
    assert viewer.layers(1) == [[(0, 0), (1, 0)]] and viewer.face.waits
    assert viewer.picture(key=True) == [(0, 0, False), (1, 0, False), (2, 0, True)]
    assert not viewer.face.waits and viewer.face.active is None


def test_k_svc_goes_down_at_a_keyframe_and_slowly_until_then():
    viewer = Viewer("L3T3_KEY")
    viewer.picture(key=True)
    assert viewer.layers(7) == [[(2, t)] for t in (2, 1, 2, 0, 2, 1, 2)]
    viewer.face.want(0, 7)
    assert viewer.layers(5) == [[(2, 0)], [], [], [], [(2, 0)]]
    assert viewer.face.waits
    assert viewer.picture(key=True) == [(0, 0, True)]
    assert viewer.layers(3) == [[(0, t)] for t in (2, 1, 2)]


def test_more_temporal_layers_at_a_switch_indication():
    viewer = Viewer("L2T3")
    viewer.face.want(7, 0)
    viewer.picture(key=True)
    assert viewer.layers(4) == [[], [], [], [(0, 0), (1, 0)]]
    viewer.layers(1)
    viewer.face.want(7, 7)
    assert viewer.layers(5) == [[], [], [(0, 0), (1, 0)], [(0, 2), (1, 2)], [(0, 1), (1, 1)]]
    assert not viewer.face.waits


def test_layers_change_between_pictures_alone():
    viewer = Viewer("L2T1")
    viewer.picture(key=True)
    frames = list(viewer.layout.next_picture(False))
    assert viewer.face.take(viewer.layout.descriptor(frames[0], True, True), 3000) == (0, 0, False)
    viewer.face.want(0, 0)
    assert viewer.face.take(viewer.layout.descriptor(frames[1], True, True), 3000) == (1, 0, True)
    viewer.got |= {frame.number for frame in frames}
    assert viewer.layers(1) == [[(0, 0)]]


def test_a_receiver_of_one_layer_gets_the_lowest():
    face, layout = TargetsFace(), Layout("L3T3_KEY")
    for picture in range(9):
        found = [face.take(layout.descriptor(f, True, True), 3000 * picture, 0) for f in layout.next_picture(picture == 0)]
        assert found[0] == (0, PICTURES[picture % 4] if picture else 0, True) and found[1:] == [None, None]


PICTURES = (0, 2, 1, 2)


def test_frames_of_a_lost_structure_do_not_go_on():
    viewer = Viewer("L2T2")
    viewer.picture(key=True)
    viewer.layout.templates_begin = 30
    lost = list(viewer.layout.next_picture(True))
    assert viewer.face.take(viewer.layout.descriptor(lost[1], True, True), 3000) is None and viewer.face.waits
    assert viewer.layers(2) == [[], []]
    assert viewer.picture(key=True)


def test_a_late_frame_takes_its_place_and_a_packet_its_frames_decision():
    face, layout = TargetsFace(), Layout("L1T3")
    pictures = [list(layout.next_picture(i == 0))[0] for i in range(9)]
    face.want(7, 1)
    order = (0, 1, 2, 4, 3, 6, 5, 5, 6, 8, 7)
    found = [face.take(layout.descriptor(pictures[i], True, True), 3000 * i) is not None for i in order]
    assert found == [i in (0, 2, 4, 6, 8) for i in order]
    face.want(7, 7)
    assert face.take(layout.descriptor(pictures[7], False, True), 21_000) is None, "the rest of what was left out"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_chosen_what_goes_on_can_be_decoded(name, seed):
    rng, viewer = random.Random(f"{name} {seed}"), Viewer(name)
    shown = set()
    for i in range(1200):
        if rng.random() < 0.1:
            viewer.face.want(rng.choice((0, 1, 2, 7)), rng.choice((0, 1, 2, 7)))
        shown |= {(s, t) for s, t, _ in viewer.picture(key=i == 0 or (viewer.face.waits and rng.random() < 0.2))}
    assert {s for s, _ in shown} == set(range(viewer.layout.spatial))
    assert {t for _, t in shown} == set(range(viewer.layout.temporal))


def rows(name: str) -> list[tuple[int, bytes]]:
    table = tomllib.loads((VIEWS / f"{name}.toml").read_text())
    return [(int(row.split()[1]), bytes.fromhex(row.split()[4])) for row in table["packets"]]


@pytest.mark.parametrize("name", ["chromium_vp9_l3t3", "chromium_vp9_l3t3_key", "chromium_av1_l3t3_key"])
def test_what_chromium_sends_is_selected_and_named_so_that_a_receiver_can_read_it(name):
    everything = rows(name)
    for spatial, temporal in ((7, 7), (0, 7), (7, 0), (1, 1)):
        face, there, here = TargetsFace(), DescriptorReader(), DescriptorReader()
        face.want(spatial, temporal)
        reader = DescriptorReader()
        got = 0
        for rtp_ts, dd in everything:
            fields = reader.parse(dd)
            result = face.take(dd, rtp_ts)
            rewritten = here.rewrite(dd, 1000, face.active)
            if result is None:
                continue
            got += 1
            told = there.parse(rewritten)
            assert told == fields | {"frame_number": (fields["frame_number"] + 1000) & 0xFFFF}
            assert result[0] <= spatial and result[1] <= temporal
            if face.active is not None:
                assert there.cached()["active_targets"] == face.active
        assert got >= 4


@pytest.mark.parametrize("name", ["L1T1", "L3T3", "L3T3_KEY"])
def test_an_encoder_that_counts_anew_is_followed_from_its_keyframe(name):
    viewer = Viewer(name)
    viewer.layout.number = 20_000
    viewer.picture(key=True)
    viewer.layers(5)
    viewer.layout.number = 100
    assert viewer.picture(key=True)
    assert all(viewer.layers(5))


@pytest.mark.parametrize("later", [2**31 + 90_000, 2**32 - 5_000_000])
@pytest.mark.parametrize("fallen", [False, True])
def test_a_sender_that_was_silent_for_hours_is_shown_from_its_keyframe(later, fallen):
    face, layout = TargetsFace(), Layout("L1T3", number=20_000)
    for ts in (9_000_000, 9_000_000 + later):
        for i in range(5):
            (frame,) = layout.next_picture(i == 0)
            assert face.take(layout.descriptor(frame, True, True), ts + 3000 * i & 0xFFFF_FFFF) is not None
        layout.number = 100 if fallen else layout.number
