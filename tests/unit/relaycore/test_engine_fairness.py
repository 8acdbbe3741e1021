"""A small call beside a room of hundreds on one worker: it has its turn in every slice, and the room loses nothing by it."""

from __future__ import annotations

import random
import struct

import pytest

from relaycore.port import EventKind
from relaycore.sansio import SansIoEngine
from tests.support.engine import MS, OPUS, URIS, VP8, rtp, vp8_payload
from tests.support.peer import MediaPeer

CROWD = 600
SLICE = 100


class Worker:
    """Transports 1 (publishes to a crowd) and 2 and 3 (a call of two)."""

    def __init__(self, crowd: int = CROWD) -> None:
        self.engine = SansIoEngine(seed=1, slots=16_384)
        self.now_ns = 10_000 * MS
        self.rng = random.Random(1)
        self.peers: dict[int, MediaPeer] = {}
        for transport in (1, 2, 3, *range(100, 100 + crowd)):
            peer = self.peers[transport] = MediaPeer(self.rng)
            self.engine.add_transport(transport, peer.ufrag, peer.password)
            self.engine.set_srtp(transport, *peer.relay_keys().values())
            self.engine.set_extensions(transport, URIS)
            self.settle()
            self.engine.receive(peer.check(), self.address(transport), self.now_ns)
        self.engine.add_receiver(1, 10, True, "0", VP8, (), (50,))
        self.engine.add_receiver(2, 11, False, "0", OPUS, (), (60,))
        self.engine.add_egress(3, 1, 11, 0x77, None, "5", OPUS, "c", 0)
        for i in range(crowd):
            self.engine.add_egress(100 + i, 100 + i, 10, 0x88, None, "6", VP8, "c", 0)
            self.settle()
        self.settle()
        self.video_seq = self.audio_seq = 0

    def address(self, transport: int) -> tuple[str, int]:
        return "192.0.2.1", 10_000 + transport

    def settle(self) -> None:
        self.engine.poll(self.now_ns)
        for event in self.engine.take_events(10_000):
            assert event[0] != EventKind.ACK or event[2] >= 0, event

    def receive(self, transport: int, packet: bytes) -> None:
        self.engine.receive(self.peers[transport].protect(packet), self.address(transport), self.now_ns)

    def keyframe(self, packets: int = 40) -> None:
        for i in range(packets):
            self.receive(1, rtp(50, self.video_seq, ts=self.now_ns // MS * 90, marker=i == packets - 1,
                                payload=vp8_payload(i == 0) + bytes(900)))
            self.video_seq += 1

    def speak(self) -> None:
        self.receive(2, rtp(60, self.audio_seq, pt=111, ts=960 * self.audio_seq, payload=bytes(60)))
        self.audio_seq += 1

    def slice(self, packets: int = SLICE) -> list[int]:
        """Transports that one slice sent to, in order."""
        return [address[1] - 10_000 for _, address in self.engine.poll_slice(self.now_ns, packets)]

    def all_slices(self) -> list[list[int]]:
        found = []
        while True:
            found.append(self.slice())
            if self.engine.next_ns is None or self.engine.next_ns > self.now_ns:
                return found


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker()


def test_a_call_of_two_is_served_in_the_next_slice_of_a_burst(worker):
    worker.now_ns += 100 * MS
    worker.keyframe()
    waits = []
    for _ in range(50):
        worker.slice()
        worker.speak()
        sent = worker.slice()
        waits.append(sent.index(3))
    # First in its slice, although tens of thousands of packets wait.
    assert waits == [0] * 50
    assert worker.engine.next_ns <= worker.now_ns
    worker.settle()


def test_slices_are_as_long_as_they_may_be_and_the_crowd_gets_everything(worker):
    worker.now_ns += 100 * MS
    before = {t: len(p.rtp) for t, p in worker.peers.items()}
    worker.keyframe(20)
    numbers: dict[int, list[int]] = {}
    lengths = []
    while True:
        sent = worker.engine.poll_slice(worker.now_ns, SLICE)
        lengths.append(len(sent))
        for datagram, (_, port) in sent:
            plain = worker.peers[port - 10_000].receive(datagram)
            if plain is not None:
                numbers.setdefault(port - 10_000, []).append(struct.unpack_from("!H", plain, 2)[0])
        if worker.engine.next_ns is None or worker.engine.next_ns > worker.now_ns:
            break
    assert max(lengths) <= SLICE
    assert sorted(numbers) == list(range(100, 100 + CROWD))
    assert all(n == list(range(n[0], n[0] + 20)) for n in numbers.values())
    assert all(len(worker.peers[t].rtp) == before[t] + 20 for t in numbers)


def test_a_frames_packets_to_one_subscriber_still_leave_together(worker):
    worker.now_ns += 100 * MS
    worker.keyframe(12)
    sent = [transport for part in worker.all_slices() for transport in part if transport >= 100]
    runs = 1 + sum(a != b for a, b in zip(sent, sent[1:]))
    # One run each, cut once more wherever a slice ends; the first ones begin before all is fanned out.
    assert runs <= CROWD + len(sent) // SLICE + 40


@pytest.mark.parametrize("crowd", [50, 100, 400])
def test_a_stream_of_frames_costs_each_subscriber_one_run_a_frame(crowd):
    worker = Worker(crowd)
    for frame in range(4):
        worker.now_ns += 33 * MS
        worker.keyframe(8)
        runs = 0
        for sent in worker.all_slices():
            crowd_part = [transport for transport in sent if transport >= 100]
            runs += sum(a != b for a, b in zip([None, *crowd_part], crowd_part))
        # Neither the lanes nor a slice's end cut a frame; how large frames are is learnt from the first.
        assert runs == crowd or frame == 0, (frame, runs)


def test_small_calls_do_not_starve_the_crowd(worker):
    worker.now_ns += 100 * MS
    worker.keyframe(10)
    shares = []
    for _ in range(20):
        worker.now_ns += 5 * MS
        for _ in range(2 * SLICE):
            worker.speak()
        sent = worker.slice()
        shares.append(sum(transport >= 100 for transport in sent) / len(sent))
    # Fan-out itself takes the first slices' quarter.
    assert max(shares) <= 0.6 and min(shares[5:]) >= 0.15
    worker.settle()


def test_a_publication_that_goes_in_the_middle_of_its_burst_leaves_nothing():
    worker = Worker(crowd=550)
    worker.keyframe()
    worker.slice()
    worker.engine.remove_receiver(10)
    worker.engine.remove_transport(1)
    worker.settle()
    assert worker.engine.slots_used == 0
    worker.engine.remove_transport(2)
    worker.settle()


def test_an_engine_that_ends_in_the_middle_of_a_burst_keeps_no_packet():
    worker = Worker(crowd=550)
    worker.keyframe()
    worker.slice()
    assert worker.engine.slots_used >= 40
    for transport in list(worker.peers):
        worker.engine.remove_transport(transport)
        worker.settle()
    assert worker.engine.slots_used == 0


def test_a_queue_full_of_video_has_places_left_for_voices():
    worker = Worker(crowd=0)
    worker.engine.add_egress(3, 2, 10, 0x88, None, "6", VP8, "c", 0)
    worker.settle()
    # Slowly enough for the fast lane, and nothing is polled in between.
    for _ in range(11):
        worker.keyframe(100)
        worker.now_ns += 2 * MS
    for _ in range(20):
        worker.speak()
    for datagram, (_, port) in worker.engine.poll(worker.now_ns):
        worker.peers[port - 10_000].receive(datagram)
    ssrcs = [struct.unpack_from("!I", packet, 8)[0] for packet in worker.peers[3].rtp]
    assert ssrcs.count(0x77) == 20
    assert ssrcs.count(0x88) == 1024 - 128
