"""Which layers go on, picture by picture, by what packets say of themselves; and what VP8's picture ids make of it."""

import struct

import pytest

from relaycore.port import EventKind
from relaycore.selection import SelectionFace
from tests.support.engine import MID, RID, SUBSCRIBER, Bench, rtp
from tests.support.peer import header_bytes

VP8, VP9 = 3, 4
# Temporal ids and layer syncs of libwebrtc's three layers of VP8.
PATTERN = ((0, False), (2, True), (1, True), (2, False), (0, False), (2, False), (1, False), (2, False))


def run(face: SelectionFace, pictures: range, start: int = 0, spatial: int = 1) -> list[int]:
    """Feed a pattern; return the temporal ids that went on."""
    found = []
    for i in pictures:
        tid, sync = PATTERN[i % len(PATTERN)]
        tops = [face.take(3000 * i, spatial_id=s, temporal_id=tid, switch_up=sync, picture_id=i)[0] for s in range(spatial)]
        if any(top is not None for top in tops):
            found.append(tid)
    return found


def test_fewer_temporal_layers_from_the_next_picture_on():
    face = SelectionFace(VP8)
    assert run(face, range(4)) == [0, 2, 1, 2]
    face.want(temporal=1, shown_ts=9000)
    assert face.take(9000, temporal_id=2, picture_id=3) == (7, 3), "what has begun is sent to its end"
    assert run(face, range(4, 12)) == [0, 1, 0, 1]
    face.want(temporal=0)
    assert run(face, range(12, 20)) == [0, 0]


def test_more_temporal_layers_at_their_sync_one_after_the_other():
    face = SelectionFace(VP8)
    face.want(temporal=0)
    assert run(face, range(8)) == [0, 0]
    face.want(temporal=7)
    # The sync of layer 1 comes behind that of layer 2, which is too early for its first one.
    assert run(face, range(8, 16)) == [0, 1, 0, 1]
    assert run(face, range(16, 24)) == [0, 2, 1, 2, 0, 2, 1, 2]


def test_a_layer_that_the_source_has_not_is_not_waited_for():
    face = SelectionFace(VP8)
    face.want(temporal=0)
    for i in range(4):
        face.take(3000 * i, temporal_id=2 * (i & 1), picture_id=i)
    face.want(temporal=7)
    assert face.take(30_000, temporal_id=2, switch_up=True, picture_id=9)[0] is not None


def test_vp9_goes_up_behind_a_switching_point_of_a_lower_layer():
    face = SelectionFace(VP9)
    face.want(temporal=0)
    assert face.take(0, temporal_id=1) == (None, None)
    face.want(temporal=2)
    assert face.take(3000, temporal_id=2) == (None, None)
    assert face.take(6000, temporal_id=0, switch_up=True)[0] is not None
    assert face.take(9000, temporal_id=2)[0] is not None


def test_a_keyframe_brings_all_that_is_wanted():
    face = SelectionFace(VP9)
    face.want(spatial=0, temporal=0)
    assert [face.take(0, spatial_id=s) for s in range(3)] == [(0, None), (None, None), (None, None)]
    face.want(spatial=1, temporal=1)
    assert [face.take(3000, spatial_id=s)[0] for s in range(3)] == [0, None, None]
    assert face.take(6000, keyframe=True) == (1, None)
    assert [face.take(6000, spatial_id=s)[0] for s in (1, 2)] == [1, None]
    assert face.take(9000, temporal_id=1)[0] == 1
    assert face.forwarded == (1, 1)


def test_fewer_spatial_layers_from_the_next_picture_on():
    face = SelectionFace(VP9)
    face.want(spatial=2)
    assert [face.take(0, spatial_id=s, keyframe=s == 0)[0] for s in range(3)] == [2, 2, 2]
    assert face.take(3000, spatial_id=0)[0] == 2
    face.want(spatial=0)
    assert [face.take(3000, spatial_id=s)[0] for s in (1, 2)] == [2, 2], "its first layer bore no marker"
    assert [face.take(6000, spatial_id=s)[0] for s in range(3)] == [0, None, None]


def test_picture_ids_of_vp8_close_up_and_those_of_vp9_do_not():
    for codec, expected in ((VP8, [0x7FFE, 0x7FFF, 0, 1]), (VP9, [0x7FFE, 0, 2, 4])):
        face = SelectionFace(codec)
        face.want(temporal=0)
        ids = [face.take(3000 * i, temporal_id=i & 1, picture_id=0x7FFE + i & 0x7FFF)[1] for i in range(8)]
        assert ids[::2] == expected
        assert ids[1::2] == [None] * 4


def test_a_picture_that_comes_late_has_the_id_that_was_left_for_it():
    face = SelectionFace(VP8)
    face.want(temporal=1)
    order = ((0, 0), (1, 2), (2, 1), (3, 2), (5, 2), (6, 1), (4, 0), (7, 2), (8, 0))
    ids = {i: face.take(3000 * i, temporal_id=tid, picture_id=i)[1] for i, tid in order}
    assert ids == {0: 0, 1: None, 2: 1, 3: None, 4: 2, 5: None, 6: 3, 7: None, 8: 4}


def test_what_comes_late_is_judged_as_at_its_time():
    face = SelectionFace(VP8)
    face.want(temporal=0)
    for i in (0, 2, 3):
        face.take(3000 * i, temporal_id=0, picture_id=i)
    face.want(temporal=7)
    assert face.take(12_000, temporal_id=1, switch_up=True, picture_id=4)[1] is not None
    assert face.take(3000, temporal_id=1, picture_id=1) == (None, None)
    assert face.take(1, temporal_id=0, picture_id=0)[0] is not None
    assert face.take(0x9000_0000, temporal_id=0, picture_id=0) == (None, None), "older than all that is remembered"


# --- in the engine ---

def vp8(tid: int, sync: bool, key: bool, picture_id: int, tl0: int, *, start: bool = True) -> bytes:
    head = bytes((0x90 if start else 0x80, 0xE0)) + struct.pack("!H", 0x8000 | picture_id)
    return head + bytes((tl0, tid << 6 | sync << 5, (0x10 if key else 0x11) if start else 0xAA)) + bytes(30)


class Temporal(Bench):
    """Three temporal layers in one encoding, two packets a frame."""

    def __init__(self, encoding: int = 0) -> None:
        super().__init__()
        self.video(encoding=encoding)
        self.rid = (b"q", b"h", b"f")[encoding]
        self.seq, self.picture, self.tl0 = 65_530, 0x7FFC, 254

    def frames(self, count: int, *, key_at: int | None = None, select_within: tuple | None = None) -> None:
        for _ in range(count):
            key = self.picture - 0x7FFC == key_at
            tid, sync = PATTERN[(self.picture - 0x7FFC) % 8]
            self.tl0 += tid == 0
            for index in range(2):
                self.seq += 1
                payload = vp8(tid, sync, key, self.picture & 0x7FFF, self.tl0 & 0xFF, start=index == 0)
                self.publish(rtp(1, self.seq, ts=3000 * self.picture, marker=index == 1, extensions={MID: b"1", RID: self.rid},
                                 payload=payload))  # fmt: skip
                if select_within and index == 0:
                    self.ok("select_layers", 21, *select_within)
            self.picture += 1
            self.advance(10)

    def got(self) -> list[tuple[int, int, int, bool]]:
        """(number, picture id, temporal id, marker) from the subscriber's first number on."""
        found = []
        first = struct.unpack_from("!H", self.subscriber.rtp[0], 2)[0]
        for packet in self.subscriber.rtp:
            at = header_bytes(packet)
            picture = struct.unpack_from("!H", packet, at + 2)[0] & 0x7FFF
            found.append((struct.unpack_from("!H", packet, 2)[0] - first, picture, packet[at + 5] >> 6, bool(packet[1] & 0x80)))
        return found


def test_frames_left_out_leave_no_trace():
    bench = Temporal()
    bench.frames(3, key_at=0)
    bench.frames(1, select_within=(0, 7, 0))
    bench.frames(12)
    bench.ok("select_layers", 21, 0)
    bench.frames(16)
    got = bench.got()
    assert [number for number, *_ in got] == list(range(len(got)))
    assert [marker for *_, marker in got] == [False, True] * (len(got) // 2)
    assert [(b[1] - a[1]) & 0x7FFF for a, b in zip(got[1::2], got[3::2])] == [1] * (len(got) // 2 - 1)
    assert [tid for _, _, tid, _ in got[::2]] == [0, 2, 1, 2, *[0] * 3, 0, 1, 0, 1, 0, 2, 1, 2, 0, 2, 1, 2]


def test_on_the_way_down_the_lowest_frame_rate_goes_on_until_the_keyframe():
    bench = Temporal(encoding=1)
    bench.frames(4, key_at=0)
    bench.ok("select_layers", 21, 0)
    bench.frames(12)
    assert [tid for _, _, tid, _ in bench.got()[::2]] == [0, 2, 1, 2, 0, 0, 0]
    for number, (tid, sync) in enumerate(PATTERN[:4]):
        payload = vp8(tid, sync, number == 0, number, tid == 0)
        bench.publish(rtp(2, 1 + number, ts=3000 * number, marker=True, extensions={MID: b"1", RID: b"q"}, payload=payload))
    bench.frames(4)
    got = bench.got()
    assert [tid for _, _, tid, _ in got[14:]] == [0, 2, 1, 2], "all of the lower encoding, nothing of the higher one"
    assert [number for number, *_ in got] == list(range(len(got)))


def test_who_need_not_go_down_after_all_gets_full_motion_again():
    bench = Temporal(encoding=1)
    bench.frames(4, key_at=0)
    bench.ok("select_layers", 21, 0)
    bench.frames(4)
    bench.ok("select_layers", 21, 1)
    bench.frames(16)
    assert [tid for _, _, tid, _ in bench.got()[8::2]] == [0, 0, 1, 0, 1, 0, 2, 1, 2, 0, 2, 1, 2]


def test_what_is_sent_again_has_the_picture_id_it_had():
    bench = Temporal()
    bench.frames(1, key_at=0)
    bench.ok("select_layers", 21, 0, 7, 1)
    bench.frames(20)
    lost = bench.subscriber.rtp[-8:-6]
    for packet in lost:
        nack = struct.pack("!BBHIIHH", 0x81, 205, 3, 1, 0x88, struct.unpack_from("!H", packet, 2)[0], 0)
        bench.receive(bench.subscriber.protect_rtcp(nack), SUBSCRIBER)
    bench.ok("remove_egress", 21)
    bench.ok("add_egress", 2, 22, 11, 0x99, 0xAA, "6", ((96, "vp8", 90_000, 97),), "cname", 0)
    bench.frames(1, key_at=bench.picture - 0x7FFC)
    bench.ok("select_layers", 22, 0, 7, 1)
    before = len(bench.subscriber.rtp)
    bench.frames(20)
    sent = [p for p in bench.subscriber.rtp[before:] if p[8:12] == (0x99).to_bytes(4, "big")]
    for packet in sent[4:-1]:
        nack = struct.pack("!BBHIIHH", 0x81, 205, 3, 1, 0x99, struct.unpack_from("!H", packet, 2)[0], 0)
        bench.receive(bench.subscriber.protect_rtcp(nack), SUBSCRIBER)
    bench.advance(50)
    again = {struct.unpack_from("!H", p, header_bytes(p))[0]: p for p in bench.subscriber.rtp if p[8:12] == (0xAA).to_bytes(4, "big")}
    for packet in sent[4:-1]:
        repair = again[struct.unpack_from("!H", packet, 2)[0]]
        assert repair[header_bytes(repair) + 2 :] == packet[header_bytes(packet) :]
        assert repair[1] & 0x80 == packet[1] & 0x80


def test_the_control_plane_hears_of_layers_and_sees_how_much_they_are():
    bench = Temporal()
    bench.frames(1, key_at=0)
    bench.frames(8)
    rows = {int(row["temporal"]): row for row in bench.snapshot()["layers"]}
    assert {tid: int(row["frames"]) for tid, row in rows.items()} == {0: 3, 1: 2, 2: 4}
    per_frame = 2 * (37)
    assert [int(rows[tid]["bytes"]) for tid in range(3)] == [3 * per_frame, 2 * per_frame, 4 * per_frame]
    assert [int(rows[tid]["selected_bytes"]) for tid in range(3)] == [3 * per_frame, 5 * per_frame, 9 * per_frame]
    bench.ok("select_layers", 21, 0, 2, 0)
    bench.frames(4)
    [egress] = bench.snapshot()["egresses"]
    assert (int(egress["spatial"]), int(egress["temporal"])) == (2, 0)
    told = [event[1:] for event in bench.taken(EventKind.LAYERS)]
    assert told == [(11, 0, 1, 1), (11, 0, 1, 3)]


@pytest.mark.parametrize("layers", [(8, 0), (0, 8), (-1, 0)])
def test_layers_that_cannot_be_are_refused(layers):
    bench = Bench()
    bench.video()
    with pytest.raises(ValueError):
        bench.engine.select_layers(21, 0, *layers)


@pytest.mark.parametrize("later", [2**31 + 90_000, 2**32 - 5_000_000])
def test_a_sender_that_was_silent_for_hours_or_begins_its_time_anew_is_shown_from_its_keyframe(later):
    face = SelectionFace(VP8)
    face.want(temporal=0)
    assert face.take(9_000_000, keyframe=True) != (None, None)
    assert face.take(9_000_000 + 3_000) != (None, None)
    begin = 9_000_000 + later & 0xFFFF_FFFF
    assert face.take(begin, keyframe=True) != (None, None)
    assert face.take(begin + 3_000) != (None, None)
    assert face.take(begin + 6_000, temporal_id=1) == (None, None)
