"""A relay's worker and a load generator brought together by plain parameters: no signalling, no DTLS, no SDP.

`Scene` numbers everything, makes credentials and keys from a seed, tells the relay by the commands of relaycore.port and the
generator by its own. The relay is anything with those commands and `address`: `WorkerRelay` here (a thread of this process),
or a relay in another process (tests/bench/rig.py), whose processor time can be told apart.
"""

from __future__ import annotations

import random
import select
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from relaycore.loadgen import EventKind as LoadEvent
from relaycore.loadgen import LoadGenerator
from relaycore.port import EventKind
from relaycore.worker import Worker

GCM, SHA1 = 0x0007, 0x0001
PROFILES = {0x0001: (16, 14), 0x0007: (16, 12), 0x0008: (32, 12)}
OPUS = ((111, "opus", 48_000, None),)
VP8 = ((96, "vp8", 90_000, 97),)
AV1 = ((45, "av1", 90_000, 46),)
EXTENSIONS = {
    "urn:ietf:params:rtp-hdrext:sdes:mid": 1,
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id": 2,
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id": 3,
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01": 4,
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level": 5,
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time": 6,
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension": 7,
}


class WorkerRelay:
    """A `Worker` of this process whose commands return once they are acknowledged."""

    def __init__(self, ip: str = "127.0.0.1", **options: Any) -> None:
        self._worker = Worker([(ip, 0)], seed=1, **options)
        self._worker.start()
        self.address = (ip, self._worker.sockets[0]["port"])
        self.receive_buffer_bytes: int = self._worker.sockets[0]["receive_buffer_bytes"]
        self.events: list[tuple[Any, ...]] = []

    def command(self, name: str, *arguments: Any) -> None:
        number = getattr(self._worker, name)(*arguments)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            select.select([self._worker.event_fd], [], [], 0.2)
            for event in self._worker.take_events():
                if event[0] == EventKind.ACK and event[1] == number:
                    assert event[2] >= 0, f"{name}: {event[2]}"
                    return
                self.events.append(event)
        raise TimeoutError(name)

    def snapshot(self) -> dict[str, Any]:
        self.command("request_snapshot")
        return self._worker.snapshot()

    def close(self) -> None:
        self._worker.stop()


@dataclass
class Publication:
    """What a subscriber needs to know of something published."""

    receiver: int
    codecs: tuple[tuple[int, str, int, int | None], ...]
    is_video: bool
    sender: int


@dataclass
class Scene:
    """Endpoints of `load` at `relay`. `through` may put something between: it maps the relay's address to another."""

    relay: Any
    load: LoadGenerator
    seed: int = 1
    profile: int = GCM
    extensions: Mapping[str, int] = field(default_factory=lambda: dict(EXTENSIONS))
    ip: str = "127.0.0.1"
    through: Callable[[tuple[str, int]], tuple[str, int]] = lambda address: address
    events: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self._last = 0
        self.transports: dict[int, int] = {}

    def _next(self) -> int:
        self._last += 1
        return self._last

    def ssrc(self) -> int:
        return self.rng.randrange(1, 1 << 32)

    def connect(self, *, thread: int | None = None) -> int:
        """One more transport on both sides, with keys; ICE connects once the generator runs."""
        transport = self._next()
        key_bytes, salt_bytes = PROFILES[self.profile]
        ours, theirs = (f"{who}{self.rng.getrandbits(64):016x}" for who in "cs")
        our_password, their_password = (f"{self.rng.getrandbits(128):032x}" for _ in range(2))
        up, down = ((self.rng.randbytes(key_bytes), self.rng.randbytes(salt_bytes)) for _ in range(2))
        self.relay.command("add_transport", transport, theirs, their_password)
        self.relay.command("set_srtp", transport, self.profile, *up, *down)
        if self.extensions:
            self.relay.command("set_extensions", transport, dict(self.extensions))
        endpoint = self.load.add_endpoint(self.ip, self.through(self.relay.address), ours, our_password, theirs, their_password,
                                          thread=thread)
        self.load.set_srtp(endpoint, self.profile, *up, *down)
        self.load.set_extensions(endpoint, self.extensions)
        self.transports[endpoint] = transport
        return endpoint

    def publish_audio(self, endpoint: int, **spec: Any) -> Publication:
        receiver, ssrc = self._next(), self.ssrc()
        self.relay.command("add_receiver", self.transports[endpoint], receiver, False, "a", OPUS, (), (ssrc,))
        sender = self.load.add_sender(endpoint, "audio", ssrc, 111, mid="a", **spec)
        return Publication(receiver, OPUS, False, sender)

    def publish_video(self, endpoint: int, *, kind: str = "video", codecs: Any = VP8, rids: Iterable[str] = (), mid: str = "v",
                      bitrates: Iterable[int] = (), rtx: bool = True, **spec: Any) -> Publication:
        """Video of one encoding, or simulcast by RIDs."""
        receiver, rids = self._next(), tuple(rids)
        payload_type, codec, _, rtx_payload_type = codecs[0]
        common = dict(mid=mid, codec=codec, rtx_payload_type=rtx_payload_type if rtx else None, **spec)
        if rids:
            encodings = [dict(ssrc=self.ssrc(), rtx_ssrc=self.ssrc() if rtx else None, rid=rid) for rid in rids]
            for encoding, bitrate in zip(encodings, bitrates, strict=False):
                encoding["bitrate_bps"] = bitrate
            self.relay.command("add_receiver", self.transports[endpoint], receiver, True, mid, codecs, rids)
            sender = self.load.add_sender(endpoint, kind, None, payload_type, encodings=encodings, **common)
        else:
            ssrc, rtx_ssrc = self.ssrc(), self.ssrc() if rtx else None
            self.relay.command("add_receiver", self.transports[endpoint], receiver, True, mid, codecs, (), (ssrc,),
                               (rtx_ssrc,) if rtx else ())
            sender = self.load.add_sender(endpoint, kind, ssrc, payload_type, rtx_ssrc=rtx_ssrc, **common)
        return Publication(receiver, codecs, True, sender)

    def subscribe(self, endpoint: int, publication: Publication, *, encoding: int = 0, learn: bool = False, **spec: Any) -> int:
        """An egress of the relay and the receiver that judges it; `learn`: the SSRC is not told."""
        egress, ssrc = self._next(), self.ssrc()
        mid = str(egress)
        rtx_ssrc = self.ssrc() if publication.is_video and publication.codecs[0][3] else None
        receiver = self.load.add_receiver(endpoint, "video" if publication.is_video else "audio", publication.codecs,
                                          ssrc=None if learn else ssrc, rtx_ssrc=None if learn else rtx_ssrc, mid=mid, **spec)
        self.relay.command("add_egress", self.transports[endpoint], egress, publication.receiver, ssrc, rtx_ssrc, mid,
                           publication.codecs, "cname", encoding)
        return receiver

    def wait(self, kind: LoadEvent, count: int, timeout_s: float = 10.0) -> None:
        """Wait until `count` events of a kind came since the scene began."""
        until = time.monotonic() + timeout_s
        while sum(event[0] == kind for event in self.events) < count:
            assert time.monotonic() < until, f"{sum(e[0] == kind for e in self.events)} of {count} {kind.name}"
            select.select([self.load.event_fd], [], [], 0.1)
            self.events += self.load.take_events(10_000)
