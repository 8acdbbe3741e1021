"""The world of the bandwidth plans: the real engine on virtual time, publishers next to it, and subscribers behind bottlenecks.

A bottleneck is a drop-tail queue of 300 ms, which all its subscribers share. What a subscriber is sent follows the estimate
either by its publishers' rate ("elastic": one encoding that is told what to be) or by the relay's own allocator over real encodings.
"""

from __future__ import annotations

import heapq
import math
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from relay.quality.allocator import Allocation, Allocator, Ask
from relay.quality.ladder import Option
from relaycore.port import EventKind
from relaycore.sansio import SansIoEngine
from tests.sim.bwe_receiver import Guest
from tests.sim.bwe_sources import SOUND_BPS, Sound, Video
from tests.sim.link import Impairment, Link
from tests.support.engine import OPUS, URIS, VP8, rtcp_packets
from tests.support.peer import MediaPeer

MS = 1_000_000
QUEUE_S = 0.3
DELAY_S = 0.02
KEYFRAME_DELAY_NS = 50 * MS
CHECK_NS = 2_000 * MS
LINES = (180, 360, 720)
# What RTCP, STUN and the overhead of repairs take beside what is allocated.
UNSEEN_BPS = 16_000
UNLIMITED_BPS = 100_000_000


class Bottleneck:
    """One direction to all its guests and an unqueued one back, with the same random loss."""

    def __init__(self, rng: random.Random, bps: int, loss: float = 0.0) -> None:
        self.rng, self.down, self.up = rng, Link(rng, Impairment()), Link(rng, Impairment())
        self.bps = bps
        self.set(bps, loss)
        self._under_way: list[tuple[int, int, Guest, bytes]] = []
        self._back: list[tuple[int, int, Guest, bytes]] = []
        self._order = 0
        # (time, ms that a packet will wait) of every packet.
        self.waits: list[tuple[int, float]] = []

    def set(self, bps: int, loss: float = 0.0) -> None:
        self.bps = bps
        self.down.impairment = Impairment(
            loss=loss, delay_s=DELAY_S, jitter_s=0.002, rate_bps=bps, queue_bytes=int(bps * QUEUE_S / 8)
        )
        self.up.impairment = Impairment(loss=loss, delay_s=DELAY_S, jitter_s=0.002)

    def send(self, guest: Guest, datagram: bytes, now_ns: int) -> None:
        guest.offer(datagram)
        self.waits.append((now_ns, self.down.waiting_ns(now_ns) / MS))
        for due_ns in self.down.plan(len(datagram), now_ns):
            self._order += 1
            heapq.heappush(self._under_way, (due_ns, self._order, guest, datagram))

    def send_back(self, guest: Guest, datagram: bytes, now_ns: int) -> None:
        for due_ns in self.up.plan(len(datagram), now_ns):
            self._order += 1
            heapq.heappush(self._back, (due_ns, self._order, guest, datagram))

    def deliver(self, now_ns: int) -> list[tuple[int, Guest, bytes]]:
        """Give guests what is due; return what comes back to the relay by now."""
        while self._under_way and self._under_way[0][0] <= now_ns:
            due_ns, _, guest, datagram = heapq.heappop(self._under_way)
            guest.take(datagram, due_ns)
        back = []
        while self._back and self._back[0][0] <= now_ns:
            due_ns, _, guest, datagram = heapq.heappop(self._back)
            back.append((due_ns, guest, datagram))
        return back


@dataclass
class Subscription:
    egress: int
    video: Video
    sent_encoding: int | None = None


@dataclass
class Viewer:
    """One subscriber: its far end, its way there, and who decides what it is sent."""

    guest: Guest
    way: Bottleneck
    is_elastic: bool
    subscriptions: list[Subscription] = field(default_factory=list)
    sound_sources: list[Sound] = field(default_factory=list)
    allocator: Allocator = field(default_factory=Allocator)
    last: Allocation | None = None
    wanted_bps: int = -1
    # The most that an elastic source ever sends.
    source_limit_bps: float = UNLIMITED_BPS
    follows: bool = True
    # (time, estimate) as told, (time, encodings) as decided.
    estimates: list[tuple[int, int]] = field(default_factory=list)
    choices: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    # (time, bytes offered to the path so far, sound packets offered and published so far), every 10 ms.
    trace: list[tuple[int, int, int, int]] = field(default_factory=list)



class World:
    """`probes` False tells the relay that nothing more is wanted than is sent: the control of all plans that need probing."""

    def __init__(self, seed: int, *, probes: bool = True) -> None:
        self.rng = random.Random(seed)
        self.probes = probes
        self.engine = SansIoEngine(seed=seed, slots=8192)
        self.start_ns = self.now_ns = 5_000 * MS
        self.ways: list[Bottleneck] = []
        self.viewers: list[Viewer] = []
        self.sources: list[tuple[Sound | Video, tuple[str, int]]] = []
        self.publishers: dict[tuple[str, int], tuple[MediaPeer, list[Video]]] = {}
        self._keyframes: list[tuple[int, Video, int]] = []
        self._check_ns = self._trace_ns = self.now_ns
        self._id = 0

    @staticmethod
    def options(bps: Sequence[float]) -> tuple[Option, ...]:
        """What can be sent of a video with encodings of these rates."""
        return tuple(Option(i, bps=round(rate), height=LINES[i], fps=30) for i, rate in enumerate(bps))

    # --- building ---

    def way(self, bps: int, loss: float = 0.0) -> Bottleneck:
        self.ways.append(Bottleneck(self.rng, bps, loss))
        return self.ways[-1]

    def _command(self, name: str, *arguments) -> None:
        number = getattr(self.engine, name)(*arguments)
        self._send()
        codes = [event[2] for event in self._events() if event[0] == EventKind.ACK and event[1] == number]
        assert codes and codes[0] >= 0, f"{name}: {codes}"

    def _transport(self, address: tuple[str, int]) -> tuple[int, MediaPeer]:
        self._id += 1
        peer = MediaPeer(self.rng)
        self._command("add_transport", self._id, peer.ufrag, peer.password)
        self._command("set_srtp", self._id, *peer.relay_keys().values())
        self._command("set_extensions", self._id, URIS)
        self.engine.receive(peer.check(), address, self.now_ns)
        return self._id, peer

    def _publisher(self) -> tuple[int, MediaPeer, tuple[str, int]]:
        address = ("192.0.2.1", 40_000 + self._id)
        transport, peer = self._transport(address)
        self.publishers[address] = peer, []
        return transport, peer, address

    def publish_video(self, *bps: float) -> tuple[int, Video]:
        """One more publisher; bps of its encodings, low to high, on the wire."""
        transport, peer, address = self._publisher()
        video = Video(self.rng, peer, "0", bps)
        self._id += 1
        self._command("add_receiver", transport, self._id, True, "0", VP8, tuple("qhf"[: len(bps)]))
        self.sources.append((video, address))
        self.publishers[address][1].append(video)
        return self._id, video

    def publish_sound(self) -> tuple[int, Sound]:
        transport, peer, address = self._publisher()
        sound = Sound(self.rng, peer, "0")
        self._id += 1
        self._command("add_receiver", transport, self._id, False, "0", OPUS, (), (sound.ssrc,))
        self.sources.append((sound, address))
        return self._id, sound

    def view(self, way: Bottleneck, videos: list[tuple[int, Video]], *, sounds: tuple[tuple[int, Sound], ...] = (),
             elastic: bool = False, rtx: bool = True, reports: bool = True, remb_bps: int = 0) -> Viewer:
        """One more subscriber, of these videos and sounds."""
        address = ("192.0.2.2", 41_000 + self._id)
        transport, peer = self._transport(address)
        guest = Guest(transport, peer, address, reports=reports, remb_bps=remb_bps)
        viewer = Viewer(guest, way, elastic)
        self.viewers.append(viewer)
        for receiver, _ in sounds:
            self._id += 1
            guest.audio_ssrcs.add(0x2000_0000 + self._id)
            self._command("add_egress", transport, self._id, receiver, 0x2000_0000 + self._id, None, f"a{self._id}", OPUS, "c", 0)
        viewer.sound_sources = [sound for _, sound in sounds]
        for receiver, video in videos:
            self._id += 1
            ssrc, repair = 0x1000_0000 + self._id, 0x5000_0000 + self._id
            guest.repairs[repair] = ssrc
            self._command("add_egress", transport, self._id, receiver, ssrc, repair if rtx else None, f"v{self._id}", VP8, "c",
                          0 if elastic else None)
            viewer.subscriptions.append(Subscription(self._id, video, 0 if elastic else None))
        self._decide(viewer)
        return viewer

    # --- running ---

    def _events(self) -> list[tuple]:
        events = self.engine.take_events(10_000)
        for event in events:
            if event[0] == EventKind.ESTIMATE:
                _, transport, bps, lost, rtt_ms = event
                viewer = next(v for v in self.viewers if v.guest.transport == transport)
                viewer.guest.estimate_bps, viewer.guest.loss, viewer.guest.rtt_ms = bps, lost / 1000, rtt_ms
                viewer.estimates.append((self.now_ns, bps))
                self._decide(viewer)
        return events

    def _decide(self, viewer: Viewer) -> None:
        """Let what is sent follow the estimate."""
        guest = viewer.guest
        sound_bps = SOUND_BPS * len(viewer.sound_sources) * 1.1 + UNSEEN_BPS
        if viewer.is_elastic:
            if guest.estimate_bps and viewer.follows:
                for subscription in viewer.subscriptions:
                    share = (guest.estimate_bps - sound_bps) / len(viewer.subscriptions)
                    subscription.video.encodings[0].bps = min(max(share, 30_000), viewer.source_limit_bps)
            wanted = UNLIMITED_BPS if viewer.source_limit_bps == UNLIMITED_BPS else viewer.source_limit_bps + sound_bps
        else:
            asks = [Ask(s.egress, self.options([e.bps for e in s.video.encodings])) for s in viewer.subscriptions]
            estimate = (guest.estimate_bps or None) if viewer.follows else None
            allocation = viewer.last = viewer.allocator.allocate(estimate, asks, self.now_ns, reserved_bps=sound_bps)
            for s in viewer.subscriptions:
                option = allocation.grants[s.egress].option
                encoding = None if option is None else option.encoding
                if encoding != s.sent_encoding:
                    s.sent_encoding = encoding
                    self.engine.select_encoding(s.egress, encoding)
            chosen = tuple(-1 if s.sent_encoding is None else s.sent_encoding for s in viewer.subscriptions)
            if not viewer.choices or viewer.choices[-1][1] != chosen:
                viewer.choices.append((self.now_ns, chosen))
            wanted = allocation.wanted_bps + sound_bps
        wanted = int(wanted) if self.probes else 0
        if wanted != viewer.wanted_bps:
            viewer.wanted_bps = wanted
            self.engine.set_wanted_rate(guest.transport, wanted)

    def _send(self) -> None:
        for datagram, address in self.engine.poll(self.now_ns):
            for viewer in self.viewers:
                if viewer.guest.address == address:
                    viewer.way.send(viewer.guest, datagram, self.now_ns)
                    break
            else:
                if address in self.publishers:
                    self.publishers[address][0].receive(datagram)

    def _heed_keyframe_requests(self) -> None:
        for peer, videos in self.publishers.values():
            if not peer.rtcp:
                continue
            for kind, count, body in rtcp_packets(peer.rtcp):
                if kind == 206 and count == 1:
                    ssrc = struct.unpack_from("!I", body, 4)[0]
                    for video in videos:
                        if video.by_ssrc(ssrc) is not None:
                            self._keyframes.append((self.now_ns + KEYFRAME_DELAY_NS, video, ssrc))
            peer.rtcp.clear()
        while self._keyframes and self._keyframes[0][0] <= self.now_ns:
            _, video, ssrc = self._keyframes.pop(0)
            encoding = video.by_ssrc(ssrc)
            assert encoding is not None
            encoding.keyframe_wanted = True

    def _step(self) -> None:
        now_ns = self.now_ns
        if now_ns >= self._check_ns:
            self._check_ns += CHECK_NS
            for address, (peer, _) in self.publishers.items():
                self.engine.receive(peer.check(), address, now_ns)
            for viewer in self.viewers:
                self.engine.receive(viewer.guest.peer.check(), viewer.guest.address, now_ns)
        for source, address in self.sources:
            for packet in source.packets(now_ns):
                self.engine.receive(packet, address, now_ns)
        for way in self.ways:
            for _, guest, datagram in way.deliver(now_ns):
                self.engine.receive(datagram, guest.address, now_ns)
        for viewer in self.viewers:
            for datagram in viewer.guest.rtcp(now_ns):
                viewer.way.send_back(viewer.guest, datagram, now_ns)
            if viewer.last is not None and viewer.last.again_ns is not None and viewer.last.again_ns <= now_ns:
                self._decide(viewer)
        self._send()
        self._events()
        self._heed_keyframe_requests()
        if now_ns >= self._trace_ns:
            self._trace_ns += 10 * MS
            for viewer in self.viewers:
                published = sum(sound.sent for sound in viewer.sound_sources)
                guest = viewer.guest
                viewer.trace.append((now_ns, guest.offered_bytes, guest.audio_offered, published))

    def run(self, seconds: float) -> None:
        end = self.now_ns + int(seconds * 1e9)
        while self.now_ns < end:
            self._step()
            self.now_ns += MS

    @property
    def second(self) -> float:
        """Since the beginning."""
        return (self.now_ns - self.start_ns) / 1e9

    # --- what was seen; times in seconds since the beginning ---

    def _between(self, begin_s: float, end_s: float) -> tuple[int, int]:
        return self.start_ns + int(begin_s * 1e9), self.start_ns + int(end_s * 1e9)

    def estimate_at(self, viewer: Viewer, second: float) -> float:
        at = self.start_ns + int(second * 1e9)
        return next((bps for when, bps in reversed(viewer.estimates) if when <= at), math.nan)

    def estimates_between(self, viewer: Viewer, begin_s: float, end_s: float) -> list[float]:
        """Every 50 ms."""
        return [self.estimate_at(viewer, begin_s + i * 0.05) for i in range(round((end_s - begin_s) / 0.05))]

    def waits_between(self, way: Bottleneck, begin_s: float, end_s: float) -> list[float]:
        begin, end = self._between(begin_s, end_s)
        return sorted(wait for when, wait in way.waits if begin <= when < end)

    def sent_between(self, viewer: Viewer, begin_s: float, end_s: float) -> float:
        """Bits per second that the relay sent, everything included."""
        begin, end = self._between(begin_s, end_s)
        rows = [row for row in viewer.trace if begin <= row[0] <= end]
        return (rows[-1][1] - rows[0][1]) * 8e9 / (rows[-1][0] - rows[0][0])

    def choices_between(self, viewer: Viewer, begin_s: float, end_s: float) -> list[tuple[int, ...]]:
        """The one at the beginning and those that followed."""
        begin, end = self._between(begin_s, end_s)
        found: list[tuple[int, ...]] = []
        for when, chosen in viewer.choices:
            if when < begin:
                found = [chosen]
            elif when < end:
                found.append(chosen)
        return found

