"""How much of each layer a stream has, how large its pictures are, and when a layer counts as gone."""

from relaycore.layers import LayersFace
from tests.support.depdesc_writer import Descriptor, Structure, Template, write_depdesc

VP8, VP9, AV1 = 3, 4, 6
KEY, DELTA = bytes.fromhex("ae"), bytes.fromhex("ec")
SIZES = bytes.fromhex("58014000b40280016805 0002d0".replace(" ", "")) + bytes((1, 0x04, 1))


def vp9(sid: int, tid: int, *, key: bool = False, sizes: bytes = b"", rest: int = 100) -> bytes:
    """A layer frame in one packet, with picture id and TL0."""
    flags = 0xAC | (0 if key else 0x40) | (2 if sizes else 0)
    return bytes((flags, 0x80, 5, tid << 5 | sid << 1, 7)) + sizes + bytes(rest)


def test_vp9_tells_layers_and_sizes_with_its_keyframe():
    face = LayersFace(VP9)
    face.count(vp9(0, 0, key=True, sizes=SIZES))
    assert face.counts == (3, 1)
    face.count(vp9(1, 0))
    face.count(vp9(2, 0), True)
    face.count(vp9(0, 1))
    assert face.counts == (3, 2)
    rows = face.rows()
    assert {layer: row[3:] for layer, row in rows.items()} == {
        (0, 0): (320, 180), (1, 0): (640, 360), (2, 0): (1280, 720), (0, 1): (320, 180),
    }  # fmt: skip
    assert [rows[layer][0] for layer in ((0, 0), (1, 0), (2, 0), (0, 1))] == [121, 105, 105, 105]
    assert [rows[layer][2] for layer in ((0, 0), (1, 0), (2, 0), (0, 1))] == [121, 226, 331, 226]


def test_sizes_that_are_cut_off_are_not_read():
    face = LayersFace(VP9)
    face.count(vp9(0, 0, key=True, sizes=SIZES[:6], rest=0))
    assert face.counts == (0, 0) and face.rows() == {}


def test_layers_by_their_ids_come_at_once_and_go_at_a_keyframe():
    def vp8(tid: int, key: bool = False) -> bytes:
        return bytes((0x90, 0x20, tid << 6, 0x10 if key else 0x11)) + bytes(9)

    face = LayersFace(VP8)
    face.count(vp8(0, True), True)
    face.count(vp8(2), True)
    assert face.counts == (1, 3)
    face.count(vp8(0, True), True)
    assert face.counts == (1, 3), "two frames say too little"
    for _ in range(8):
        face.count(vp8(0), True)
    assert face.counts == (1, 3)
    face.count(vp8(0, True), True)
    assert face.counts == (1, 1)


def test_the_dependency_descriptor_tells_what_a_selection_costs():
    """Two layers, the upper one of which leans on the lower one at the keyframe alone (L2T1_KEY)."""
    structure = Structure(
        (Template(0, 0, (2, 2)), Template(0, 0, (2, 0), (2,)), Template(1, 0, (0, 2), (1,)), Template(1, 0, (0, 2), (2,))),
        resolutions=((320, 180), (640, 360)),
    )
    face = LayersFace(AV1)
    payload = bytes((0x10, 0x30)) + bytes(98)
    for number, (template, extra) in enumerate(((0, structure), (2, None), (1, None), (3, None), (1, None), (3, None))):
        face.count(payload, bool(number & 1), write_depdesc(Descriptor(template, number, structure=extra)))
    assert face.counts == (2, 1)
    assert face.rows() == {(0, 0): (300, 3, 300, 320, 180), (1, 0): (300, 3, 400, 640, 360)}
    # Its sender leaves the upper layer out, and takes it up again.
    for mask, counts in ((1, (1, 1)), (3, (2, 1))):
        face.count(payload, False, write_depdesc(Descriptor(1, 6, active_targets=mask, targets=2)))
        assert face.counts == counts
