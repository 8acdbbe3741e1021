"""Frames of ICE-TCP (RFC 4571) over real sockets: the same packets however the stream is cut, whole frames however slow it is."""

import select
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaycore.tcp import TcpFace

LONGEST = 1600


def frame(packet: bytes) -> bytes:
    return struct.pack("!H", len(packet)) + packet


class Wire:
    """A connection and its other end."""

    def __init__(self, first: bytes = b"", slots: int = 64) -> None:
        ours, self.far = socket.socketpair()
        self.take_over(ours, first, slots)

    def take_over(self, ours: socket.socket, first: bytes = b"", slots: int = 64) -> None:
        self.face = TcpFace(ours.fileno(), first, slots)
        ours.close()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.face.slots_used() == 0
        self.far.close()

    def arrive(self, data: bytes) -> list[bytes]:
        """Bytes come at once, as many as fit; return the packets."""
        self.far.sendall(data)
        found = []
        while self.face.read() > 0:
            found += self.face.take()
        return found

    def drained(self, already: int = 0) -> bytes:
        """Return all that is under way to the far end, the begun frame too, where it has `already` so many bytes."""
        counters = self.face.counters()
        missing = counters["bytes_sent"] + 2 * counters["sent"] - already
        data = b""
        while len(data) < missing:
            if self.face.has_rest():
                assert self.face.flush() >= 0
            readable, _, _ = select.select([self.far], [], [], 2)
            assert readable, "nothing comes any more"
            data += self.far.recv(65536)
        assert not self.face.has_rest()
        return data


class SlowWire(Wire):
    """TCP itself, whose kernel takes a frame in part; the far end's window is small."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.far = socket.socket()
            self.far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self.far.connect(server.getsockname())
            self.take_over(server.accept()[0])


def frames_of(stream: bytes) -> list[bytes]:
    found = []
    while stream:
        length = int.from_bytes(stream[:2])
        assert len(stream) >= 2 + length, "half a frame"
        found.append(stream[2 : 2 + length])
        stream = stream[2 + length :]
    return found


PACKETS = [bytes([n % 256]) * n for n in (1, 2, 20, 255, 256, 300, LONGEST)]


def test_a_stream_cut_in_two_at_every_byte_carries_the_same_packets():
    stream = b"".join(frame(packet) for packet in PACKETS)
    with Wire() as wire:
        for cut in range(len(stream) + 1):
            assert wire.arrive(stream[:cut]) + wire.arrive(stream[cut:]) == PACKETS, cut


@given(st.lists(st.binary(max_size=LONGEST), max_size=12), st.lists(st.integers(1, 4000), max_size=30), st.integers(0, 8192))
@settings(max_examples=60, deadline=None)
def test_packets_survive_any_cuts_and_any_first_bytes(packets, cuts, first):
    stream = b"".join(frame(packet) for packet in packets)
    with Wire(stream[:first]) as wire:
        found, at = wire.face.take(), min(first, len(stream))
        for cut in [*cuts, len(stream)]:
            found += wire.arrive(stream[at : at + cut])
            at += cut
        assert found == [packet for packet in packets if packet]


@pytest.mark.parametrize("length", [LONGEST + 1, 8191, 8192, 65535])
def test_a_frame_too_long_for_a_packet_is_passed_over_whole(length):
    with Wire() as wire:
        inner = frame(b"not a frame")
        stream = struct.pack("!H", length) + (inner * 6000)[:length] + frame(b"next")
        assert [packet for at in range(0, len(stream), 1000) for packet in wire.arrive(stream[at : at + 1000])] == [b"next"]
        assert wire.face.counters()["too_long"] == 1


def test_without_a_free_slot_a_packet_is_lost_and_not_the_place_in_the_stream():
    with Wire(slots=0) as wire:
        assert wire.arrive(frame(b"one") + frame(b"two")) == []
        assert wire.face.counters()["slots_exhausted"] == 2


def test_what_was_begun_is_finished_and_what_does_not_fit_is_dropped_whole():
    packets = [struct.pack("!I", n) + bytes(n * 37 % 1500) for n in range(2000)]
    with SlowWire() as wire:
        wire.face.send(packets[:1000])
        held = wire.face.counters()
        assert held["dropped"] > 0
        stream = wire.drained()
        got = frames_of(stream)
        assert len(got) == held["sent"] == 1000 - held["dropped"]
        # The way is free again.
        wire.face.send(packets[1000:1010])
        got += frames_of(wire.drained(len(stream)))
        assert got[-10:] == packets[1000:1010]
        assert set(got) <= set(packets) and got == sorted(got, key=lambda packet: packet[:4])


def test_nothing_comes_between_the_halves_of_a_frame_however_much_room_there_is():
    for size in range(700, 1600, 20):
        with SlowWire() as wire:
            wire.face.send([bytes(size)] * 400)
            if not wire.face.has_rest():
                # The kernel's room ended with a frame.
                continue
            stream = wire.far.recv(1 << 20)
            while select.select([wire.far], [], [], 0.05)[0]:
                stream += wire.far.recv(1 << 20)
            wire.face.send([b"between"])
            stream += wire.drained(len(stream))
            assert set(frames_of(stream)) == {bytes(size)}
            return
    raise AssertionError("no frame was ever taken in part")


def test_a_reader_of_one_byte_at_a_time_reads_whole_frames():
    with SlowWire() as wire:
        wire.face.send([bytes([n % 256]) * 1200 for n in range(1000)])
        stream = b""
        for _ in range(4000):
            stream += wire.far.recv(1)
            if wire.face.has_rest():
                wire.face.flush()
            wire.face.send([b"late" * 300])
        frames_of(stream + wire.drained(len(stream)))


def test_what_was_meant_for_who_had_the_place_before_reaches_nobody():
    with Wire() as wire:
        wire.face.send([b"secret"], is_former=True)
        assert not select.select([wire.far], [], [], 0)[0]
        assert wire.face.counters()["send_errors"] == 1


def test_an_end_is_noticed():
    with Wire() as wire:
        wire.far.sendall(frame(b"last"))
        wire.far.shutdown(socket.SHUT_WR)
        assert wire.face.read() > 0
        assert wire.face.take() == [b"last"]
        assert wire.face.read() < 0
