"""What a subscriber gets whose layers change can be decoded, whatever the codec, and the oracle that says so can say otherwise."""

from __future__ import annotations

import dataclasses

import pytest

from tests.sim import layered
from tests.sim.layered import KINDS, NETWORKS, Scenario, run
from tests.sim.structures import Layout


def scenario(kind: tuple, network: tuple[float, float] = NETWORKS[0]) -> Scenario:
    codec, name, uses_dd, encodings, has_dd = kind
    return Scenario(codec, name, uses_dd, encodings, *network, has_dd=has_dd)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_is_forwarded_can_be_decoded_and_leaves_no_trace_of_the_rest(kind, network):
    call = run(5, scenario(kind, network), 24)
    assert call.violations() == []
    assert len(call.got) > 60


SVC = ("av1", "L3T3", True, 1, True)


def planted(change) -> set[str]:
    """Rules that are broken when one of the packets that a subscriber got is another."""
    call = run(5, scenario(SVC), 8)
    assert call.violations() == []
    change(call)
    return {what.split(":")[0] for what in call.violations()}


def test_the_oracle_sees_what_is_wrong():
    def without_a_base_frame(call):
        at = next(i for i, g in enumerate(call.got) if i > 60 and g.temporal_id == g.spatial_id == 0)
        frame = call.got[at].frame
        call.got[:] = [g for g in call.got if g.frame != frame]

    def without_a_packet(call):
        at = next(i for i, g in enumerate(call.got) if g.count > 1)
        call._seen.discard(call.got.pop(at).seq)

    def without_a_marker(call):
        at = next(i for i, g in enumerate(call.got) if g.marker)
        call.got[at] = dataclasses.replace(call.got[at], marker=False)

    def with_another_number(call):
        at = next(i for i, g in enumerate(call.got) if i > 60 and g.spatial_id)
        call.got[at] = dataclasses.replace(call.got[at], frame_number=call.got[at].frame_number + 1)

    assert "leans" in planted(without_a_base_frame)
    assert {"hole", "cut"} <= planted(without_a_packet)
    assert "marker" in planted(without_a_marker)
    assert planted(with_another_number) <= {"picture"}


def test_a_relay_that_is_told_wrong_indications_is_found_out(monkeypatch):
    """The mutant: as if every frame of a target were a switch to it that leans on nothing."""
    monkeypatch.setattr(Layout, "_dti", lambda self, s, t, key, target: 2 if s <= target[0] and t <= target[1] else 0)
    monkeypatch.setattr(layered.Layout, "descriptor", _without_dependencies)
    call = run(5, scenario(SVC), 24)
    assert any(what.startswith("leans") for what in call.violations())


_descriptor = Layout.descriptor


def _without_dependencies(layout: Layout, frame, start: bool, end: bool) -> bytes:
    return _descriptor(layout, dataclasses.replace(frame, leans=()), start, end)
