"""Spatial layers in one stream: who has the Dependency Descriptor gets all of them, who has not gets the lowest of AV1 alone."""

import struct

from tests.support.depdesc_writer import Descriptor, Structure, Template, write_depdesc
from tests.support.engine import MID, URIS, Bench, rtp
from tests.support.peer import MediaPeer, header_bytes

DD = 6
DD_URI = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
AV1 = ((45, "av1", 90_000, 46),)
VP9 = ((98, "vp9", 90_000, None),)
SSRC = 0x88
# Two spatial layers, two decode targets: key picture, then pictures that lean on their own layer.
STRUCTURE = Structure((
    Template(0, 0, (2, 2), ()), Template(0, 0, (2, 3), (2,)), Template(1, 0, (0, 2), (1,)), Template(1, 0, (0, 2), (2,)),
))  # fmt: skip


def number(packet: bytes) -> int:
    return struct.unpack_from("!H", packet, 2)[0]


def has_marker(packet: bytes) -> bool:
    return bool(packet[1] & 0x80)


class LayeredBench(Bench):
    """One encoding of two layers, each frame one packet."""

    def __init__(self, *, has_depdesc: bool, codecs=AV1) -> None:
        super().__init__()
        self.ok("set_extensions", 1, {**URIS, DD_URI: DD})
        if has_depdesc:
            self.ok("set_extensions", 2, {**URIS, DD_URI: DD})
        self.ok("add_receiver", 1, 11, True, "1", codecs, (), (1,))
        self.ok("add_egress", 2, 21, 11, SSRC, 0x99 if codecs[0][3] else None, "6", codecs, "cname", 0)
        self.payload_type = codecs[0][0]
        self.seq = self.frame_number = 0

    def layer(self, spatial_id: int, *, key: bool, held: bool = False) -> bytes:
        """Publish a layer's frame of the present picture, or only return it; the upper layer's ends the picture."""
        self.seq, self.frame_number = self.seq + 1, self.frame_number + 1
        dd = write_depdesc(
            Descriptor(
                2 * spatial_id + (not key), self.frame_number, structure=STRUCTURE if key and not spatial_id else None
            )
        )
        payload = bytes((0x08 if key and not spatial_id else 0, 0x30, spatial_id, self.frame_number)) + bytes(60)
        if self.payload_type == VP9[0][0]:
            payload = bytes((0x2C | (0 if key else 0x40), spatial_id << 1, 0)) + bytes(60)
        packet = rtp(
            1,
            self.seq,
            pt=self.payload_type,
            ts=3000 * ((self.frame_number + 1) // 2),
            marker=spatial_id == 1,
            extensions={MID: b"1", DD: dd},
            payload=payload,
        )
        if not held:
            self.publish(packet)
        return packet

    def pictures(self, count: int) -> None:
        for i in range(count):
            self.layer(0, key=i == 0)
            self.layer(1, key=i == 0)
            self.advance(20)

    def got(self) -> list[tuple[int, bool]]:
        """(spatial layer, marker) of what the subscriber has, by number; the numbers have no hole."""
        packets = sorted((p for p in self.subscriber.rtp if p[8:12] == SSRC.to_bytes(4, "big")), key=number)
        assert [number(p) for p in packets] == list(range(number(packets[0]), number(packets[0]) + len(packets)))
        return [(p[header_bytes(p) + 2], has_marker(p)) for p in packets]


def test_without_the_descriptor_one_layer_of_av1_goes_on_and_its_frames_end():
    bench = LayeredBench(has_depdesc=False)
    bench.pictures(10)
    assert bench.got() == [(0, True)] * 10


def test_with_the_descriptor_all_layers_go_on_as_they_came():
    bench = LayeredBench(has_depdesc=True)
    bench.pictures(10)
    assert bench.got() == [(0, False), (1, True)] * 10


def test_vp9_says_its_layers_itself_so_all_go_on():
    bench = LayeredBench(has_depdesc=False, codecs=VP9)
    bench.pictures(10)
    assert [marker for _, marker in bench.got()] == [False, True] * 10


def test_a_layer_left_out_that_comes_late_leaves_no_number_open():
    """Its number was kept for it, since nothing told that it would not be sent; what fills it is padding."""
    bench = LayeredBench(has_depdesc=False)
    bench.pictures(1)
    late = bench.layer(0, key=False), bench.layer(1, key=False, held=True)
    bench.layer(0, key=False)
    bench.publish(late[1])
    bench.advance(20)
    packets = sorted(bench.subscriber.rtp, key=number)
    assert [bool(p[0] & 0x20) and p[-1] == len(p) - header_bytes(p) for p in packets] == [False, False, True, False]
    bench.got()


def test_padding_for_some_leaves_the_layer_whole_for_others():
    """Whoever is served first: four take turns in having the descriptor."""
    bench = LayeredBench(has_depdesc=False)
    peers = {}
    for i in range(4):
        peers[f"192.0.2.{10 + i}", 42_000] = peer = MediaPeer(bench.rng)
        bench.ok("add_transport", 3 + i, peer.ufrag, peer.password)
        bench.ok("set_srtp", 3 + i, *peer.relay_keys().values())
        bench.ok("set_extensions", 3 + i, {**URIS, DD_URI: DD} if i % 2 else URIS)
        bench.receive(peer.check(), (f"192.0.2.{10 + i}", 42_000))
        bench.ok("add_egress", 3 + i, 30 + i, 11, SSRC + 1 + i, None, "6", AV1, "cname", 0)
    bench.pictures(1)
    bench.layer(0, key=False)
    late = bench.layer(1, key=False, held=True)
    bench.layer(0, key=False)
    bench.publish(late)
    bench.advance(20)
    for datagram, address in bench.other:
        if address in peers:
            peers[address].receive(datagram)
    payload = late[header_bytes(late) :]
    assert [payload in [p[header_bytes(p) :] for p in peer.rtp] for peer in peers.values()] == [False, True] * 2


def test_what_is_sent_again_ends_its_frame_as_the_first_time():
    bench = LayeredBench(has_depdesc=False)
    bench.pictures(3)
    lost = sorted(bench.subscriber.rtp, key=number)[1]
    nack = struct.pack("!BBHIIHH", 0x81, 205, 3, 1, SSRC, number(lost), 0)
    bench.receive(bench.subscriber.protect_rtcp(nack), ("192.0.2.2", 41_000))
    bench.advance(20)
    [again] = [p for p in bench.subscriber.rtp if p[8:12] == (0x99).to_bytes(4, "big")]
    assert has_marker(again) and has_marker(lost)


def test_who_joins_begins_at_a_key_picture_whose_first_packet_has_the_structure():
    bench = LayeredBench(has_depdesc=True)
    bench.ok("select_encoding", 21, None)
    bench.pictures(3)
    bench.ok("drop_keyframe_cache", 11)
    bench.ok("select_encoding", 21, 0)
    bench.layer(0, key=False)
    bench.layer(1, key=False)
    assert not bench.subscriber.rtp
    bench.pictures(1)
    structure = write_depdesc(Descriptor(0, bench.frame_number - 1, structure=STRUCTURE))
    assert structure in bench.subscriber.rtp[0]
