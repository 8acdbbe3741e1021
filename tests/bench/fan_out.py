"""Rooms of one publisher and N subscribers of native media, between what is measured (hosts.py) and a load generator here.

    with FanOut(RelayHost(), [Room(100)]) as bench:
        window = bench.measure(3.0)

The usual load is that of LIMITS section 2: 250 packets/s in bursts of 8, 1,200 B, AES-128-GCM, subscribers drained lazily. The
generator's receivers report as browsers do (RR). A lossy room adds header extensions, transport-wide feedback, NACK with RTX,
and a filter that loses a share of what arrives at either end.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from relaycore.loadgen import EventKind, LoadGenerator
from tests.bench.hosts import GCM, PlainHost, RelayHost, Side, cpu_ns
from tests.bench.loss import lose

VP8, RTX, OPUS = 96, 97, 111
LOSS = 0.01
CONNECT_S = 30.0
# For the last repair, too: a few round trips and the generator's drain interval.
SILENCE_S = 0.05
EXTENSIONS = {
    "urn:ietf:params:rtp-hdrext:sdes:mid": 1,
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01": 2,
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time": 3,
}


@dataclass
class Room:
    """What is published and to how many. kind: burst (video, exact packets), video (frames as an
    encoder makes them) or audio (50 packets/s)."""

    subscribers: int
    kind: str = "burst"
    rate_pps: float = 250.0
    burst: int = 8
    packet_bytes: int = 1200
    bitrate_bps: int = 600_000
    # Filled in when the room is built.
    sender: int = -1
    receivers: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Window:
    """What one measured window gave, over all rooms."""

    cpu_us: float
    wall_s: float
    forwarded: int
    expected: int
    reasons: tuple[str, ...]

    @property
    def us_per_packet(self) -> float:
        """CPU of the whole process, per packet that reached a subscriber."""
        return self.cpu_us / max(1, self.forwarded)

    @property
    def loss(self) -> float:
        return 1 - self.forwarded / max(1, self.expected)

    @property
    def core(self) -> float:
        return self.cpu_us / 1e6 / self.wall_s


class FanOut:
    """The rooms, from entering to leaving the context; the host is ended with them."""

    def __init__(self, host: RelayHost | PlainHost, rooms: Sequence[Room], *, loss: float = 0.0, drain: str = "lazy",
                 seed: int = 1, threads: int = 1, verify_every: int | None = None) -> None:
        self.host, self.rooms = host, list(rooms)
        self._rng = random.Random(seed)
        self._loss = loss
        self._endpoints: list[int] = []
        # Cost runs check one frame in 97, so that the generator leaves its core to nobody's disadvantage.
        if verify_every is None:
            verify_every = 97 if drain == "lazy" else 1
        self.generator = LoadGenerator(seed, threads=threads, drain=drain, verify_every=verify_every, sending=False)

    def __enter__(self) -> FanOut:
        try:
            for number, room in enumerate(self.rooms):
                self._build(number, room)
            self.generator.start()
            self._wait_connected()
            if self._loss:
                lose({self.generator.local_address(endpoint)[1] for endpoint in self._endpoints}, self._loss)
                self.host.lose(self._loss)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.generator.stop()
        self.host.close()

    def _build(self, number: int, room: Room) -> None:
        extensions = EXTENSIONS if self._loss else {}
        rtx_payload_type = RTX if self._loss and room.kind != "audio" else None
        ssrc = 0x1000 + 2 * number
        rtx_ssrc = ssrc + 1 if rtx_payload_type else None
        is_audio = room.kind == "audio"
        kind = "audio" if is_audio else "video"
        codec = (OPUS, "opus", 48_000, None) if is_audio else (VP8, "vp8", 90_000, rtx_payload_type)
        host, rng = self.host, self._rng
        publisher = host.side(rng, "publisher", None, extensions)
        sides = [host.side(rng, "subscriber", publisher, extensions) for _ in range(room.subscribers)]
        first = len(self._endpoints)
        outs = [host.egress_ssrc(ssrc, first + i) for i in range(room.subscribers)]
        ssrcs = [(out, out + 1 if rtx_ssrc else None) for out in outs]
        track = {"kind": kind, "mid": "0", "codec": codec, "ssrc": ssrc, "rtx_ssrc": rtx_ssrc}
        host.build(publisher, track, sides, ssrcs)
        endpoint = self._connect(publisher)
        options: dict[str, Any] = {}
        if room.kind == "burst":
            options = {"packet_bytes": room.packet_bytes, "burst": room.burst, "rate_pps": room.rate_pps,
                       "rtx_ssrc": rtx_ssrc, "rtx_payload_type": rtx_payload_type}  # fmt: skip
        elif room.kind == "video":
            encoding = {"ssrc": ssrc, "rtx_ssrc": rtx_ssrc, "bitrate_bps": room.bitrate_bps}
            options = {"encodings": [encoding], "rtx_payload_type": rtx_payload_type}
        room.sender = self.generator.add_sender(endpoint, room.kind, None if room.kind == "video" else ssrc, codec[0], mid="0", **options)
        for side, (out, rtx) in zip(sides, ssrcs, strict=True):
            endpoint = self._connect(side)
            room.receivers.append(
                self.generator.add_receiver(endpoint, kind, [codec], ssrc=out, rtx_ssrc=rtx, mid="0", nack=self._loss > 0)
            )

    def _connect(self, side: Side) -> int:
        generator = self.generator
        names = side.own_ufrag, side.own_password, side.ufrag, side.password
        endpoint = generator.add_endpoint("127.0.0.1", side.address, *names)
        generator.set_srtp(endpoint, GCM, *side.up, *side.down)
        if side.extensions:
            generator.set_extensions(endpoint, side.extensions)
        self._endpoints.append(endpoint)
        return endpoint

    def _wait_connected(self) -> None:
        waiting = set(self._endpoints)
        until = time.monotonic() + CONNECT_S
        while waiting:
            if time.monotonic() > until:
                raise RuntimeError(f"{len(waiting)} of {len(self._endpoints)} endpoints not connected in {CONNECT_S:.0f} s")
            waiting -= {event[1] for event in self.generator.take_events() if event[0] == EventKind.ICE_CONNECTED}
            time.sleep(0.005)

    def measure(self, window_s: float, *, warm_s: float = 1.0) -> Window:
        """Send for a warm-up and a window; return the window's figures, and keep the generator's in `stats`."""
        generator, pid = self.generator, self.host.pid
        generator.set_sending(True)
        time.sleep(warm_s)
        # Between two silences, so that what was sent inside the window also arrived inside it.
        generator.set_sending(False)
        time.sleep(SILENCE_S)
        generator.reset_stats()
        began_s, before_ns = time.monotonic(), cpu_ns(pid)
        generator.set_sending(True)
        time.sleep(window_s)
        generator.set_sending(False)
        time.sleep(SILENCE_S)
        after_ns, took_s = cpu_ns(pid), time.monotonic() - began_s
        self.stats = stats = generator.stats()
        # The filter that loses packets counts as an overflow of the queue.
        reasons = (reason for reason in stats["verdict"]["reasons"] if not (self._loss and "SO_RXQ_OVFL" in reason))
        sent = dict(zip(stats["senders"]["sender"], stats["senders"]["packets"]))
        return Window(
            cpu_us=(after_ns - before_ns) / 1e3,
            wall_s=took_s,
            # What was repaired came over RTX and counts once.
            forwarded=int(stats["receivers"]["packets"].sum() + stats["receivers"]["recovered"].sum()),
            expected=sum(int(sent[room.sender]) * room.subscribers for room in self.rooms),
            reasons=tuple(reasons),
        )

    def delays(self, room: Room) -> np.ndarray:
        """Return the histogram of the last window's one-way delays over all subscribers of a room."""
        wanted = np.isin(self.stats["receivers"]["receiver"], room.receivers)
        return self.stats["delay"][wanted].sum(axis=0, dtype=np.uint64)
