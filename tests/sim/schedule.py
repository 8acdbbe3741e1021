"""A call on the sans-IO engine with everything at once that a network and its users do, written down so that it can be
replayed: simulcast and SVC, RED, switches, pauses, loss, disorder, duplicates, padding, repairs on both paths, publishers that
start over, mirrors that come and go.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from relaycore.exchange import WorkerExchange
from relaycore.port import EventKind
from relaycore.sansio import SansIoEngine
from tests.sim.senders import DD, PLAYOUT, RIDS, SENT, TWCC, URIS, VIDEO, Encoding, Sender, Sent
from tests.support.engine import MS, rtcp_packets
from tests.support.peer import MediaPeer

PUBLISHER = ("192.0.2.1", 40_000)
VIDEO_RECEIVER, AUDIO_RECEIVER = 10, 11
# Their ids by subscriber; a subscription made anew has a number of its own, RENEWED further each time.
VIDEO_EGRESSES, AUDIO_EGRESSES, RENEWED = (100, 101, 102, 103), (200, 201, 202, 203), 1_000
STEP_BYTES = 4
OPUS_TAKEN = 120  # the payload type by which subscribers take Opus
CHECK_NS = 1_500 * MS
# Cost in machine time.
NOT_COMPARED = {"stages"}


@dataclass(frozen=True)
class Case:
    """One call: what its video is encoded with and in which shape ("simulcast", "svc", "single"), how its frames are
    declared encrypted, and what happens in it.
    """

    seed: int
    codec: str
    frame_format: str
    uses_dd: bool
    shape: str
    switches: int  # bits: second worker, GSO sockets, short picture ids, SRTP profile (2)
    steps: bytes
    has_red: bool = False

    @property
    def workers(self) -> int:
        return 1 + (self.switches & 1)

    @property
    def profile(self) -> int:
        return (0x0007, 0x0007, 0x0008, 0x0001)[self.switches >> 3 & 3]


@dataclass
class Subscriber:
    transport: int
    engine: int
    peer: MediaPeer
    has_rtx: bool
    has_dd: bool
    codecs: dict[int, str]  # by payload type that this subscriber takes
    numbers: list[int] = field(default_factory=list)
    has_joined: bool = False
    renewals: int = 0  # how often its subscriptions were made anew

    @property
    def address(self) -> tuple[str, int]:
        return ("192.0.2.2", 41_000 + self.transport)

    @property
    def ssrc(self) -> int:
        """Of its video; RTX has the next one, audio the one after that."""
        return 0x1000_0000 + self.transport * 0x1_0000 + self.renewals * 16


@dataclass(frozen=True)
class Media:
    """A packet of a publisher in the record, protected again for every run."""

    sent: Sent


@dataclass(frozen=True)
class Stop:
    """A receiver that was stopped, and how many datagrams had gone out by then."""

    receiver: int
    after: int


class Engines:
    """The engines of one run and what came out of them."""

    def __init__(self, case: Case) -> None:
        exchange = WorkerExchange(case.workers, 1 << 17) if case.workers > 1 else None
        self.engines = [SansIoEngine(seed=case.seed + i, slots=1024, exchange=exchange, index=i, overload_lag_ns=50 * MS)
                        for i in range(case.workers)]  # fmt: skip
        for engine in self.engines:
            engine.takes_gso = bool(case.switches & 2)
        self.out: list[tuple[int, int, tuple[str, int], bytes]] = []
        self.events: list[tuple] = []
        self.stops: list[Stop] = []
        self.wakes: list[int | None] = []

    def poll(self, now_ns: int) -> int:
        """Let every engine do what is due; return where in `out` the new datagrams begin."""
        before = len(self.out)
        while True:
            for i, engine in enumerate(self.engines):
                self.out += [(now_ns, i, address, datagram) for datagram, address in engine.poll(now_ns)]
            if len(self.engines) == 1 or not any(engine.has_mail for engine in self.engines):
                self.wakes += [engine.next_ns for engine in self.engines]
                return before

    def take_events(self) -> list[tuple]:
        fresh = [(i, *event) for i, engine in enumerate(self.engines) for event in engine.take_events(10_000)]
        self.events += fresh
        self.stops += [Stop(event[2], len(self.out)) for event in fresh if event[1] == EventKind.RECEIVER_STOPPED]
        return fresh

    def figures(self, now_ns: int) -> list[dict]:
        found = []
        for engine in self.engines:
            engine.request_snapshot()
            self.poll(now_ns)
            self.take_events()
            snapshot = engine.snapshot()
            found.append({name: value.tobytes() if hasattr(value, "tobytes") else value
                          for name, value in snapshot.items() if name not in NOT_COMPARED})  # fmt: skip
        return found


class Call:
    """The first run: chooses every input by the case's steps, and records it."""

    def __init__(self, case: Case) -> None:
        self.case, self.rng = case, random.Random(case.seed)
        self.run = Engines(case)
        self.record: list[tuple] = []
        self.now_ns = 10_000 * MS
        self.checked_ns = 0
        self.peer = MediaPeer(self.rng, case.profile)
        self.protected: list[bytes] = []
        self.held: list[int] = []
        self.asked: list[tuple[int, int]] = []
        self.lost = self.reds = self.restarts = self.remade_mirrors = self.chosen_layers = 0
        kid = case.seed & (0xFFFF if case.seed & 1 << 31 else 7)
        spatial = 3 if case.shape == "svc" and case.codec in ("vp9", "av1") else 1
        self.video = Sender(
            self.rng,
            case.codec,
            "0",
            case.uses_dd,
            case.shape == "simulcast",
            spatial,
            bool(case.switches & 4),
            case.frame_format,
            kid,
        )
        self.audio = Sender(self.rng, "red" if case.has_red else "opus", "1", frame_format=case.frame_format, kid=kid)
        self._connect()

    # --- into the engines, and into the record ------------------------------------------------------------------------

    def command(self, engine: int, name: str, *arguments) -> None:
        self.record.append(("command", self.now_ns, engine, name, arguments))
        getattr(self.run.engines[engine], name)(*arguments)
        self._poll()

    def raw(self, engine: int, datagram: bytes, address: tuple[str, int]) -> None:
        self.record.append(("raw", self.now_ns, engine, datagram, address))
        self.run.engines[engine].receive(datagram, address, self.now_ns)
        self._poll()

    def feel(self, lag_ns: int) -> None:
        self.record.append(("feel", self.now_ns, lag_ns))
        self.run.engines[0].feel(lag_ns, self.now_ns)

    def make(self, sent: Sent) -> int:
        """Protect a packet in its sender's order; when it arrives is another matter."""
        self.record.append(("make", Media(sent)))
        self.protected.append(self.peer.protect(sent.packet))
        return len(self.protected) - 1

    def deliver(self, number: int) -> None:
        """Give the relay a packet; what it does about it comes with the next poll, so that a frame's packets meet."""
        self.record.append(("deliver", self.now_ns, number))
        self.run.engines[0].receive(self.protected[number], PUBLISHER, self.now_ns)
        self.run.take_events()

    def _poll(self) -> None:
        before = self.run.poll(self.now_ns)
        self.run.take_events()
        for _, _, address, datagram in self.run.out[before:]:
            if address == PUBLISHER:
                self._heed(datagram)
            elif datagram[0] >> 6 == 2 and not 192 <= datagram[1] <= 223:
                subscriber = self.subscribers[address[1] - 41_002]
                if datagram[8:12] == struct.pack("!I", subscriber.ssrc):
                    subscriber.numbers.append(struct.unpack_from("!H", datagram, 2)[0])

    def _heed(self, datagram: bytes) -> None:
        """The publisher does as it is told: keyframes, repairs."""
        self.peer.receive(datagram)
        heard, self.peer.rtcp[:] = list(self.peer.rtcp), []
        by_ssrc = {encoding.ssrc: encoding for encoding in self.video.encodings}
        for kind, count, body in rtcp_packets(heard):
            encoding = by_ssrc.get(struct.unpack_from("!I", body, 4)[0]) if len(body) >= 8 else None
            if kind == 206 and count == 1 and encoding is not None:
                encoding.keyframe_wanted = True
            elif kind == 205 and count == 1 and encoding is not None:
                for first, mask in struct.iter_unpack("!HH", body[8:]):
                    self.asked += [
                        (encoding.index, first + k & 0xFFFF) for k in range(17) if k == 0 or mask >> k - 1 & 1
                    ]

    def _connect(self) -> None:
        case = self.case
        self.subscribers = [
            Subscriber(2, 0, MediaPeer(self.rng, case.profile), True, True, {}),
            Subscriber(3, 0, MediaPeer(self.rng, case.profile), False, False, {}),
            Subscriber(4, case.workers - 1, MediaPeer(self.rng, case.profile), True, case.seed & 1 == 0, {}),
            # Comes later.
            Subscriber(5, case.workers - 1, MediaPeer(self.rng, case.profile), True, case.seed & 2 == 0, {}),
        ]
        self._transport(0, 1, self.peer, URIS)
        rids = RIDS if self.video.uses_rids else ()
        ssrcs = () if rids else (self.video.encodings[0].ssrc,)
        repairs = tuple(ssrc ^ 2 for ssrc in ssrcs)
        codecs = tuple((number, name, 90_000, number + 1) for name, number in VIDEO.items())
        self.command(0, "add_receiver", 1, VIDEO_RECEIVER, True, "0", codecs, rids, ssrcs, repairs)
        voices = ((63, "red", 48_000, None), (111, "opus", 48_000, None))[not case.has_red :]
        self.command(0, "add_receiver", 1, AUDIO_RECEIVER, False, "1", voices, (), ())
        for receiver in (VIDEO_RECEIVER, AUDIO_RECEIVER):
            self.command(0, "set_frame_format", receiver, case.frame_format)
            if case.frame_format == "sframe":
                self.command(0, "announce_keys", receiver, self.video.kid, self.video.kid + 1)
        self._mirror()
        for i, s in enumerate(self.subscribers):
            left_out = set() if s.has_dd else {DD, PLAYOUT, SENT}
            self._transport(
                s.engine,
                s.transport,
                s.peer,
                {uri: n for uri, n in URIS.items() if n not in left_out and (i or n != TWCC)},
            )
            s.codecs = {number - 60 + 2 * i: name for name, number in VIDEO.items()} | {OPUS_TAKEN: "opus"}
            if i != 1:
                s.codecs[121] = "red"
        for s in self.subscribers[:-1]:
            self._subscribe(s)
        self._check()

    def _mirror(self) -> None:
        for worker in range(1, self.case.workers):
            for receiver, is_video in ((VIDEO_RECEIVER, True), (AUDIO_RECEIVER, False)):
                self.command(worker, "add_mirror", receiver, 0, is_video, len(self.video.encodings) if is_video else 1)
                self.command(0, "add_export", receiver, worker)

    def video_egress(self, s: Subscriber) -> int:
        return VIDEO_EGRESSES[self.subscribers.index(s)] + RENEWED * s.renewals

    def _subscribe(self, s: Subscriber) -> None:
        s.has_joined = True
        takes = [(n, name, 90_000, n + 1 if s.has_rtx else None) for n, name in s.codecs.items() if name in VIDEO]
        rtx = s.ssrc + 1 if s.has_rtx else None
        video = self.video_egress(s), VIDEO_RECEIVER, s.ssrc, rtx, "5", tuple(takes), "c", 0
        self.command(s.engine, "add_egress", s.transport, *video)
        egress = AUDIO_EGRESSES[self.subscribers.index(s)] + RENEWED * s.renewals
        hears = tuple((n, name, 48_000, None) for n, name in s.codecs.items() if name not in VIDEO)
        audio = egress, AUDIO_RECEIVER, s.ssrc + 2, None, "6", hears, "c", 0
        self.command(s.engine, "add_egress", s.transport, *audio)

    def _transport(self, engine: int, transport: int, peer: MediaPeer, uris: dict[str, int]) -> None:
        self.command(engine, "add_transport", transport, peer.ufrag, peer.password)
        self.command(engine, "set_srtp", transport, *peer.relay_keys().values())
        self.command(engine, "set_extensions", transport, uris)

    def _check(self) -> None:
        self.checked_ns = self.now_ns
        self.raw(0, self.peer.check(transaction=self.rng.randbytes(12)), PUBLISHER)
        for s in self.subscribers:
            self.raw(s.engine, s.peer.check(transaction=self.rng.randbytes(12)), s.address)

    # --- steps --------------------------------------------------------------------------------------------------------

    def _encoding(self, number: int) -> Encoding:
        return self.video.encodings[number % len(self.video.encodings)]

    def _send(self, packets: list[Sent], fate: int) -> None:
        """fate: below 128 all arrive; else two bits for each of the first four packets, 2 = lost, 3 = held back."""
        for i, sent in enumerate(packets):
            number = self.make(sent)
            verdict = fate >> 2 * i & 3 if fate & 0x80 and i < 4 else 0
            if verdict == 2:
                self.lost += 1
            elif verdict == 3:
                self.held.append(number)
            else:
                self.deliver(number)
        self.poll()

    def poll(self) -> None:
        self.record.append(("poll", self.now_ns))
        self._poll()

    def frames(self, a: int, b: int, fate: int) -> None:
        """A picture of one encoding, or of all; b: packets, size."""
        size = 1_000 - a if b & 0x1F == 0 else 1 + (b >> 2) + (a & 31)
        for encoding in self.video.encodings if a & 3 == 3 else (self._encoding(a),):
            self._send(self.video.frame(encoding, self.now_ns, 1 + (b & 3), size, key=a & 0x3C == 0), fate)

    def voice(self, a: int, b: int, fate: int) -> None:
        for i in range(1 + (a & 1)):
            sent = self.audio.audio(self.now_ns + 20 * MS * i, 1 + b // 3)
            self.reds += sent.codec == "red"
            self._send([sent], fate)

    def repair(self, a: int, b: int, fate: int) -> None:
        """What the relay asked for, or (rarely) anything."""
        wanted, self.asked = self.asked[-8:], []
        if not wanted and a & 3 == 0:
            wanted = [(a % len(self.video.encodings), self._encoding(a).seq - 1 - b % 16)]
        for index, seq in wanted:
            sent = self.video.retransmission(self._encoding(index), seq & 0xFFFF)
            if sent is not None:
                self._send([sent], fate)

    def probe(self, a: int, b: int, fate: int) -> None:
        self._send([self.video.padding(self._encoding(a), self.now_ns, 1 + (b & 0x7F), repair=bool(b & 0x80))], fate)

    def select(self, a: int, b: int, fate: int) -> None:
        i = a % len(self.subscribers)
        if not self.subscribers[i].has_joined:
            self._subscribe(self.subscribers[i])
        wanted = None if b & 15 == 15 else b % len(self.video.encodings)
        s = self.subscribers[i]
        keyframe = []
        if wanted is not None and b & 0x30:
            keyframe = self.video.frame(self.video.encodings[wanted], self.now_ns, 1 + (b >> 6), 20 + a, key=True)
        if b & 0x40:
            # It was there before the subscriber, who is sent it from the cache.
            self._send(keyframe, fate)
            self.frames(wanted or 0, b, 0)
            keyframe = []
        # Half of the time all layers, else some.
        layers = (7, 7) if a & 0x80 else (a >> 2 & 3, a >> 4 & 3)
        self.chosen_layers += layers != (7, 7) and wanted is not None
        self.command(s.engine, "select_layers", self.video_egress(s), wanted, *layers)
        self._send(keyframe, fate)

    def ask(self, a: int, b: int, fate: int) -> None:
        """A subscriber asks again for some of the last packets it was sent."""
        s = self.subscribers[a % len(self.subscribers)]
        if s.numbers:
            first = s.numbers[-1 - b % min(16, len(s.numbers))]
            items = struct.pack("!HH", first, fate if fate & 1 else 0)
            self._rtcp(s, struct.pack("!BBHII", 0x81, 205, 3, 1, s.ssrc) + items)

    def complain(self, a: int, b: int, fate: int) -> None:
        """Reports and requests of a subscriber: PLI, REMB, transport-wide feedback, a receiver report."""
        s = self.subscribers[a % len(self.subscribers)]
        if b & 3 == 0:
            self._rtcp(s, struct.pack("!BBHII", 0x81, 206, 2, 1, s.ssrc))
        elif b & 3 == 1:
            self._rtcp(
                s,
                struct.pack("!BBHIIBBBB", 0x8F, 206, 5, 1, 0, 0x52, 0x45, 0x4D, 0x42)
                + struct.pack("!BBHI", 1, 6, 0xC000 | fate, s.ssrc),
            )
        elif b & 3 == 2:
            # 6 packets, 250 us after each other.
            numbers = struct.pack("!HHI", a, 6, fate << 8 | b) + b"\x20\x06" + b"\x01" * 6
            self._rtcp(s, struct.pack("!BBHII", 0x8F, 205, 6, 1, s.ssrc) + numbers)
        else:
            highest = s.numbers[-1] if s.numbers else 0
            block = struct.pack("!IBBHIIII", s.ssrc, fate, 0, 0, highest, a, 0, 0)
            self._rtcp(s, struct.pack("!BBHI", 0x81, 201, 7, 1) + block)

    def report(self, a: int, b: int, fate: int) -> None:
        for sender in (self.video, self.audio):
            for encoding in sender.encodings:
                self.raw(0, self.peer.protect_rtcp(sender.report(encoding, self.now_ns)), PUBLISHER)

    def wait(self, a: int, b: int, fate: int) -> None:
        self.advance(20 + a % 128)

    def arrive(self, a: int, b: int, fate: int) -> None:
        """What was held back arrives after all, or (b) something arrives twice."""
        if self.held:
            self.deliver(self.held.pop(a % len(self.held)))
        elif self.protected:
            self.deliver(len(self.protected) - 1 - a % min(8, len(self.protected)))
        self.poll()

    def rare(self, a: int, b: int, fate: int) -> None:
        """Overload, pacing, requests of the control plane, keyframe caches dropped, a payload cut short."""
        if a & 3 == 0:
            for _ in range(4):
                self.feel(0 if b & 1 else (100 + b) * MS)
                self.advance(250 if b & 1 else 41)
        elif a & 3 == 1:
            s = self.subscribers[b % len(self.subscribers)]
            self.command(s.engine, "set_pacing", s.transport, 0 if fate & 1 else 200_000 + 10_000 * fate)
        elif a & 3 == 2:
            self.command(0, "request_keyframe", VIDEO_RECEIVER, b % len(self.video.encodings))
            if b & 0x30 == 0:
                for worker in range(self.case.workers):
                    self.command(worker, "drop_keyframe_cache", VIDEO_RECEIVER)
        elif self.case.frame_format == "clear":
            # Cut short; of a publication declared encrypted many of these would be a stop.
            sent = self.video.frame(self._encoding(b), self.now_ns, 1, 30, key=bool(b & 16))[0]
            sent.packet = sent.packet[: sent.payload_at + fate % 12]
            self._send([sent], 0)

    def restart(self, a: int, b: int, fate: int) -> None:
        """A publisher starts over under a new SSRC, while packets of the former one may still be under way."""
        self.restarts += 1
        if a & 3 == 0:
            self.audio.restart(self.audio.encodings[0])
            self.voice(0, b, 0)
        else:
            encoding = self._encoding(b)
            self.video.restart(encoding)
            self._send(self.video.frame(encoding, self.now_ns, 1 + (b & 3), 20 + a, key=True), fate)

    def remake_mirrors(self, a: int, b: int, fate: int) -> None:
        """The last subscriptions of the other worker go, and its mirrors with them; later, or at once, they are made anew."""
        if self.case.workers == 1:
            return
        self.remade_mirrors += 1
        ends = [(0, "remove_export", VIDEO_RECEIVER, 1), (1, "remove_receiver", VIDEO_RECEIVER)]
        if a & 2:
            # What is under way finds nobody.
            ends.reverse()
            for sent in self.video.frame(self._encoding(b), self.now_ns, 2, 40, key=False):
                self.deliver(self.make(sent))
        for end in (*ends, (0, "remove_export", AUDIO_RECEIVER, 1), (1, "remove_receiver", AUDIO_RECEIVER)):
            self.command(*end)
        if a & 1:
            self.frames(a, b, fate)
            self.advance(1 + (a >> 1))
        self._mirror()
        for s in self.subscribers:
            if s.engine == 1 and s.has_joined:
                s.renewals += 1
                s.numbers.clear()
                self._subscribe(s)

    def _rtcp(self, s: Subscriber, packet: bytes) -> None:
        self.raw(s.engine, s.peer.protect_rtcp(packet), s.address)

    def advance(self, milliseconds: int) -> None:
        end = self.now_ns + milliseconds * MS
        while self.now_ns < end:
            due = min((engine.next_ns for engine in self.run.engines if engine.next_ns is not None), default=end)
            self.now_ns = min(end, max(due, self.now_ns + MS))
            self.poll()
        if self.now_ns - self.checked_ns > CHECK_NS:
            self._check()

    OPS: tuple[Callable, ...] = (
        (frames,) * 13
        + (voice,) * 2
        + (repair,) * 4
        + (probe,)
        + (select,) * 4
        + (ask,) * 2
        + (complain, report, wait)
        + (arrive,) * 2
        + (rare, restart, remake_mirrors)
    )

    def play(self) -> None:
        for encoding in self.video.encodings:
            self._send(self.video.frame(encoding, self.now_ns, 2, 40, key=True), 0)
        steps = self.case.steps
        for at in range(0, len(steps) - STEP_BYTES + 1, STEP_BYTES):
            what, a, b, fate = steps[at : at + STEP_BYTES]
            self.OPS[what % len(self.OPS)](self, a, b, fate)
            self.advance(1 + (what >> 5))
        self.advance(60)
        refused = [event for event in self.run.events if event[1] == EventKind.ACK and event[3] < 0]
        assert not refused, refused


def replay(call: Call, substitute: Callable[[Sent], bytes]) -> Engines:
    """Give other engines the record of a call, its media packets as `substitute` has them."""
    rng = random.Random(call.case.seed)
    peer = MediaPeer(rng, call.case.profile)
    run = Engines(call.case)
    protected: list[bytes] = []
    for entry in call.record:
        kind = entry[0]
        if kind == "make":
            protected.append(peer.protect(substitute(entry[1].sent)))
            continue
        now_ns = entry[1]
        if kind == "deliver":
            run.engines[0].receive(protected[entry[2]], PUBLISHER, now_ns)
        elif kind == "feel":
            run.engines[0].feel(entry[2], now_ns)
        else:
            if kind == "raw":
                run.engines[entry[2]].receive(entry[3], entry[4], now_ns)
            elif kind == "command":
                getattr(run.engines[entry[2]], entry[3])(*entry[4])
            run.poll(now_ns)
        # When a receiver was stopped is the one thing that may differ.
        run.take_events()
    return run
