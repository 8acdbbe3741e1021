"""Headers of a transport's packets, for an operator who looks for a fault. What a record can hold: relaycore/capture.pxd.

Nothing of a payload ever reaches this process's Python side: the worker keeps headers alone, for a bounded time and number of
packets, and counts what nobody took in time.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.plane.commands import PlaneError
from relaycore.worker import CAPTURE_KEPT_BYTES, CAPTURE_LIMITS, Worker

if TYPE_CHECKING:
    from relay.plane.feed import Feed

MAX_SECONDS, MAX_PACKETS = CAPTURE_LIMITS
MAX_KEPT_BYTES: int = CAPTURE_KEPT_BYTES
# By the numbers of relaycore/capture.pxd.
KINDS = {1: "rtp", 2: "rtcp", 3: "stun", 4: "dtls"}
TAKEN_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Captured:
    """What is known of one datagram.

    kept: RTP's header with extensions, the clear RTCP compound (cut at MAX_KEPT_BYTES), nothing of STUN and DTLS.
    missed: datagrams of this transport before it that were not recorded. now_ns: monotonic.
    """

    now_ns: int
    missed: int
    kind: str
    is_sent: bool
    local: tuple[str, int]
    remote: tuple[str, int]
    wire_bytes: int
    kept: bytes


class Captures:
    """The captures of one worker: its ring is one for all of them."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._waiting: dict[int, list[Captured]] = {}

    def begin(self, transport: int) -> bool:
        """Take a transport's records from now on; False when somebody does already."""
        if transport in self._waiting:
            return False
        self._waiting[transport] = []
        return True

    def take(self, transport: int) -> list[Captured]:
        """Return what came since the last time."""
        self._drain()
        taken, self._waiting[transport] = self._waiting[transport], []
        return taken

    def end(self, transport: int) -> None:
        self._waiting.pop(transport, None)

    def _drain(self) -> None:
        locals_ = [(s["ip"], s["port"]) for s in self._worker.sockets]
        more = True
        while more:
            records = self._worker.take_captured(TAKEN_AT_ONCE)
            more = len(records) == TAKEN_AT_ONCE
            for transport, now_ns, missed, kind, direction, remote, socket, wire_bytes, kept in records:
                # What a capture that is over left behind is nobody's.
                if (waiting := self._waiting.get(transport)) is not None:
                    waiting.append(
                        Captured(now_ns, missed, KINDS[kind], bool(direction), locals_[socket], remote, wire_bytes, kept)
                    )


class Capture:
    """One transport's capture, from `Plane.capture` to `stop`. `take` often: the worker keeps 4,096 records for all."""

    def __init__(self, feed: "Feed", transport: int) -> None:
        self.transport = transport
        self._feed = feed

    def take(self) -> list[Captured]:
        """Return what came since the last time."""
        return self._feed.captures.take(self.transport)

    async def stop(self) -> list[Captured]:
        """End it and return the last of it."""
        try:
            await self._feed.call(self._feed.worker.capture, self.transport, 0, 0)
        except PlaneError:
            # The transport is gone, or the worker; so are their captures.
            pass
        rest = self.take()
        self._feed.captures.end(self.transport)
        return rest
