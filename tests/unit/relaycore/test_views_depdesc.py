"""The Dependency Descriptor reader gives back what an independent writer wrote, and bounds what peers may write."""

import random
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaycore.depdesc import DescriptorReader
from relaycore.errs import WireError
from tests.sim.structures import Layout
from tests.support.depdesc_writer import Descriptor, Structure, Template, write_depdesc
from tests.support.guard import GuardedBytes

VECTORS = tomllib.loads((Path(__file__).parents[2] / "vectors/views/depdesc.toml").read_text())
CHROMIUM_VP8 = bytes.fromhex(VECTORS["chromium_vp8"]["dd"])

# Three temporal layers, three decode targets, one chain.
L1T3 = Structure(
    templates=[
        Template(0, 0, (2, 2, 2), (), (0,)),
        Template(0, 0, (2, 2, 2), (4,), (4,)),
        Template(0, 1, (0, 2, 2), (2,), (2,)),
        Template(0, 2, (0, 0, 1), (1,), (1,)),
        Template(0, 2, (0, 0, 1), (1,), (3,)),
    ],
    protected_by=(0, 0, 0),
    resolutions=[(1280, 720)],
)


def refusal(reader, data):
    with pytest.raises(WireError) as caught:
        reader.parse(data)
    return str(caught.value)


def expect_structure(s, raw):
    return {
        "template_id_offset": s.template_id_offset,
        "decode_target_count": s.targets,
        "active_targets": 2**s.targets - 1,
        "templates": [
            {
                "spatial_id": t.spatial_id,
                "temporal_id": t.temporal_id,
                "dtis": list(t.dtis),
                "fdiffs": list(t.fdiffs),
                "chains": list(t.chains),
            }
            for t in s.templates
        ],
        "protected_by": list(s.protected_by),
        "resolutions": list(s.resolutions),
        "raw": raw if len(raw) <= 256 else b"",
    }


def test_chromiums_vp8_structure_is_read_and_written_alike():
    structure = Structure([Template(dtis=(2,)), Template(dtis=(2,), fdiffs=(1,))], resolutions=[(640, 360)])
    assert write_depdesc(Descriptor(frame_number=1, structure=structure)) == CHROMIUM_VP8
    reader = DescriptorReader()
    frame = reader.parse(CHROMIUM_VP8)
    assert [frame[name] for name in ("start_of_frame", "end_of_frame", "frame_number", "has_structure")] == [1] * 4
    assert reader.cached() == expect_structure(structure, CHROMIUM_VP8)


@st.composite
def structures(draw):
    targets, spatial = draw(st.integers(1, 32)), draw(st.integers(1, 4))
    chains = draw(st.integers(0, targets))
    templates = []
    for s in range(spatial):
        for t in range(draw(st.integers(1, 3))):
            for _ in range(draw(st.integers(1, 3))):
                templates.append(
                    Template(
                        s,
                        t,
                        draw(st.lists(st.integers(0, 3), min_size=targets, max_size=targets)),
                        draw(st.lists(st.integers(1, 16), max_size=8)),
                        draw(st.lists(st.integers(0, 15), min_size=chains, max_size=chains)),
                    )
                )
    return Structure(
        templates,
        draw(st.integers(0, 63)),
        draw(st.lists(st.integers(0, chains - 1), min_size=targets, max_size=targets)) if chains else (),
        draw(st.sampled_from(([], [(draw(st.integers(1, 65535)), 720)] * spatial))),
    )


@given(structures(), st.data())
@settings(max_examples=150, deadline=None)
def test_every_structure_and_frame_written_is_read_back(s, data):
    reader = DescriptorReader()
    raw = write_depdesc(Descriptor(template_id=s.template_id_offset, structure=s))
    reader.parse(raw)
    assert reader.cached() == expect_structure(s, raw)
    which = data.draw(st.integers(0, len(s.templates) - 1))
    t = s.templates[which]
    custom = {
        "dtis": data.draw(st.none() | st.lists(st.integers(0, 3), min_size=s.targets, max_size=s.targets)),
        "fdiffs": data.draw(st.none() | st.lists(st.integers(1, 4096), max_size=8)),
        "chains": data.draw(st.none() | st.lists(st.integers(0, 255), min_size=s.chains, max_size=s.chains)),
    }
    active = data.draw(st.none() | st.integers(0, 2**s.targets - 1))
    d = Descriptor((s.template_id_offset + which) % 64, 65535, False, True, None, active, s.targets, **custom)
    frame = reader.parse(write_depdesc(d))
    assert frame == {
        "start_of_frame": 0,
        "end_of_frame": 1,
        "template_id": d.template_id,
        "frame_number": 65535,
        "has_structure": 0,
        "is_known": 1,
        "spatial_id": t.spatial_id,
        "temporal_id": t.temporal_id,
        **{name: list(getattr(t, name) if custom[name] is None else custom[name]) for name in custom},
    }
    assert reader.cached()["active_targets"] == (2**s.targets - 1 if active is None else active)


def test_before_a_structure_only_the_mandatory_fields_are_known():
    reader = DescriptorReader()
    frame = reader.parse(write_depdesc(Descriptor(template_id=3, frame_number=9, end=False)))
    assert (frame["start_of_frame"], frame["end_of_frame"], frame["frame_number"], frame["is_known"]) == (1, 0, 9, 0)
    # Custom fields cannot be read without the counts of a structure; they are not an error.
    assert reader.parse(write_depdesc(Descriptor(dtis=(1, 2, 3), fdiffs=(5,))))["is_known"] == 0
    assert reader.cached() == {}


def test_a_template_of_a_lost_structure_is_unknown_and_no_error():
    reader = DescriptorReader()
    reader.parse(write_depdesc(Descriptor(structure=L1T3)))
    assert reader.parse(write_depdesc(Descriptor(template_id=4)))["is_known"] == 1
    assert reader.parse(write_depdesc(Descriptor(template_id=5)))["is_known"] == 0


def test_template_ids_wrap_at_64():
    reader = DescriptorReader()
    structure = Structure(L1T3.templates, 62, L1T3.protected_by)
    reader.parse(write_depdesc(Descriptor(template_id=62, structure=structure)))
    temporal = [reader.parse(write_depdesc(Descriptor(template_id=i)))["temporal_id"] for i in (62, 63, 0, 1, 2)]
    assert temporal == [0, 0, 1, 2, 2]


def test_a_structure_whose_own_frame_names_no_template_is_refused_and_not_cached():
    reader = DescriptorReader()
    reader.parse(CHROMIUM_VP8)
    before = reader.cached()
    assert refusal(reader, write_depdesc(Descriptor(template_id=5, structure=L1T3))) == "E_FORMAT"
    assert reader.cached() == before


def test_more_templates_or_layers_than_there_may_be_are_refused():
    at_most = Structure([Template(dtis=(2,))] * 64)
    reader = DescriptorReader()
    reader.parse(write_depdesc(Descriptor(structure=at_most)))
    before = reader.cached()
    assert len(before["templates"]) == 64
    for templates in (
        [Template(dtis=(2,))] * 65,
        [Template(s, 0) for s in range(9)],
        [Template(0, t) for t in range(9)],
    ):
        assert refusal(reader, write_depdesc(Descriptor(structure=Structure(templates)))) == "E_FORMAT"
    assert reader.cached() == before


def test_more_fdiffs_than_are_kept_are_read_past():
    many = Structure([Template(dtis=(2,), fdiffs=range(1, 13)), Template(0, 1, dtis=(1,), fdiffs=(3,))])
    reader = DescriptorReader()
    reader.parse(write_depdesc(Descriptor(structure=many)))
    assert [t["fdiffs"] for t in reader.cached()["templates"]] == [list(range(1, 9)), [3]]
    assert reader.parse(write_depdesc(Descriptor(fdiffs=range(100, 120))))["fdiffs"] == list(range(100, 108))


def test_trailing_zero_bits_are_padding():
    assert DescriptorReader().parse(CHROMIUM_VP8 + bytes(9))["is_known"] == 1


def test_truncated_anywhere_it_is_refused_and_the_cache_stays():
    samples = [
        write_depdesc(Descriptor(structure=L1T3)),
        write_depdesc(Descriptor(1, active_targets=5, targets=3, dtis=(1, 1, 1), fdiffs=(300, 1), chains=(200,))),
    ]
    guard = GuardedBytes()
    for data in samples:
        for n in range(len(data)):
            reader = DescriptorReader()
            reader.parse(samples[0])
            before = reader.cached()
            if n == 3:
                assert reader.parse(guard.place(data[:n]))["has_structure"] == 0     # Whole as it is: the short form.
            else:
                assert refusal(reader, guard.place(data[:n])) == "E_SHORT", n
            assert reader.cached() == before


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_bytes_are_parsed_or_refused_and_nothing_else(seed):
    guard, rng, reader = GuardedBytes(), random.Random(seed), DescriptorReader()
    seen = set()
    for _ in range(20_000):
        data = bytearray(rng.randbytes(rng.randrange(60)))
        if len(data) > 3 and rng.random() < 0.5:
            data[0] &= 0xC0          # template 0
            data[3] |= 0x80          # with a structure
        try:
            reader.parse(guard.place(bytes(data)))
            seen.add("parsed")
        except WireError as error:
            seen.add(str(error))
    assert seen == {"parsed", "E_SHORT", "E_FORMAT"}


def keyframe_and_next(layout: Layout) -> list[bytes]:
    return [layout.descriptor(next(layout.next_picture(key)), True, True) for key in (True, False)]


@pytest.mark.parametrize("fallen", [False, True])
def test_a_keyframe_that_comes_late_takes_no_newer_ones_structure(fallen):
    """The numbers of templates change with each keyframe (libwebrtc), and its first packet is the only one that tells them."""
    former, newer = Layout("L1T3", number=20_000), Layout("L1T3", number=100 if fallen else 20_010, templates_begin=20)
    reader, late, (first, second) = DescriptorReader(), keyframe_and_next(former)[0], keyframe_and_next(newer)
    for dd in (late, first) if fallen else (first, late):
        found = reader.parse(dd)
        assert found["is_known"] and found["has_structure"]
    assert reader.parse(second)["is_known"], "an encoder that counts anew" if fallen else "behind a late keyframe"
    assert reader.cached()["template_id_offset"] == 20
