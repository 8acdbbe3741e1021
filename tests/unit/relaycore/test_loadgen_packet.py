"""Descriptors of generated video say to the relay's readers what was meant."""

import pytest

from relaycore import av1, depdesc, lgpacket, vp8, vp9
from relaycore.port import CODECS
from tests.support.depdesc_writer import Descriptor, Structure, Template, write_depdesc

S, D, N = 2, 1, 0
STRUCTURES = {
    1: [Template(0, 0, (S,), (), (0,)), Template(0, 0, (S,), (1,), (1,))],
    2: [Template(0, 0, (S, S), (), (0,)), Template(0, 0, (S, S), (2,), (2,)), Template(0, 1, (N, D), (1,), (1,))],
    3: [
        Template(0, 0, (S, S, S), (), (0,)),
        Template(0, 0, (S, S, S), (4,), (4,)),
        Template(0, 1, (N, D, S), (2,), (2,)),
        Template(0, 2, (N, N, D), (1,), (1,)),
        Template(0, 2, (N, N, D), (1,), (3,)),
    ],
}


@pytest.mark.parametrize("layers", STRUCTURES)
def test_the_structure_goes_with_the_first_packet_of_a_keyframe(layers):
    structure = Structure(STRUCTURES[layers], protected_by=(0,) * layers, resolutions=((640, 360),))
    made = lgpacket.depdesc(layers, 0, 77, is_first=True, is_last=False, is_keyframe=True)
    assert made == write_depdesc(Descriptor(0, 77, True, False, structure))
    for is_last in (False, True):
        made = lgpacket.depdesc(layers, 0, 77, is_first=False, is_last=is_last, is_keyframe=True)
        assert made == write_depdesc(Descriptor(0, 77, False, is_last))


@pytest.mark.parametrize("layers", STRUCTURES)
def test_delta_frames_name_their_template(layers):
    for template in range(1, len(STRUCTURES[layers])):
        made = lgpacket.depdesc(layers, template, 65535, is_first=True, is_last=True, is_keyframe=False)
        assert made == write_depdesc(Descriptor(template, 65535))


def test_the_relay_reads_layers_out_of_it():
    reader = depdesc.DescriptorReader()
    reader.parse(lgpacket.depdesc(3, 0, 1, is_first=True, is_last=True, is_keyframe=True))
    for template, temporal_id in ((1, 0), (2, 1), (3, 2), (4, 2)):
        frame = reader.parse(lgpacket.depdesc(3, template, 2, is_first=True, is_last=True, is_keyframe=False))
        assert frame["is_known"] and frame["temporal_id"] == temporal_id


@pytest.mark.parametrize("layers, temporal_id", [(1, 0), (2, 0), (2, 1), (3, 2)])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_vp8_and_vp9_descriptors(layers, temporal_id, place):
    options = dict(picture_id=0x7FFE, tl0=200, temporal_id=temporal_id, temporal_layers=layers, is_sync=temporal_id > 0)
    for name, reader, first_byte in (("vp8", vp8, b"\x11"), ("vp9", vp9, b"\x86")):
        made, taken, starts = lgpacket.descriptor(CODECS[name], place, 3, **options)
        view = reader.parse(made + first_byte, place == 2)
        assert (taken, starts) == (len(made), place == 0)
        assert bool(view["start_of_frame"]) == (place == 0)
        assert view["picture_id"] == 0x7FFE and view["temporal_id"] == temporal_id
        assert view["tl0_bytes"] == (layers > 1) and (layers == 1 or view["tl0"] == 200)
        assert bool(view["discardable"]) == (layers > 1 and temporal_id == layers - 1) or name == "vp9"


@pytest.mark.parametrize("is_keyframe", [False, True])
def test_av1_aggregation_header(is_keyframe):
    for place in range(3):
        made, taken, starts = lgpacket.descriptor(CODECS["av1"], place, 3, is_keyframe=is_keyframe)
        view = av1.parse(made + b"\x30", place == 2)
        assert (taken, starts) == (1, place == 0)
        assert bool(view["start_of_frame"]) == (place == 0)
        assert bool(view["keyframe"]) == (place == 0 and is_keyframe)
