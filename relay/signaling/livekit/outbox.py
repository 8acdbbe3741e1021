"""The only way a message reaches a LiveKit client: checked, in order, bounded.

`checks` says what must be true of a message by itself; this adds what must be true of the sequence on one connection:
`join`, `reconnect` or `leave` comes first and nothing before it, `version` of a participant never falls, a track is
named before an offer carries it, nothing follows `leave`. A violation is our bug: it raises in tests (`strict`); in
production the message is dropped and logged, since a missing update harms less than an aborted client.
"""

from collections import deque
from collections.abc import Callable

from google.protobuf import json_format
from livekit.protocol import models, rtc

from relay.log import get_logger
from relay.signaling.livekit.checks import FIRST_PROTOCOL, check

log = get_logger(__name__)

OPENING = ("join", "reconnect", "leave")
# LiveKit's protocol number whose `leave` carries an action; older clients read can_reconnect, which is always set too.
NEWEST_PROTOCOL = 17


class OutboxViolation(AssertionError):
    """A message that would have hurt the client; always our own bug."""


class Frame:
    """One message, checked and serialised at most once per encoding, however many connections it goes to."""

    __slots__ = ("_binary", "_text", "kind", "response", "wrong")

    def __init__(self, response: rtc.SignalResponse) -> None:
        self.response = response
        self.kind = response.WhichOneof("message") or ""
        self.wrong = check(response)
        self._binary: bytes | None = None
        self._text: str | None = None

    @property
    def binary(self) -> bytes:
        """The message as protobuf."""
        if self._binary is None:
            self._binary = self.response.SerializeToString()
        return self._binary

    @property
    def text(self) -> str:
        """The message as protobuf-JSON on one line; defaults are left out, names are lowerCamelCase."""
        if self._text is None:
            self._text = json_format.MessageToJson(self.response, indent=None)
        return self._text


class Outbox:
    """Messages waiting for one connection.

    `on_ready` is called when something was put; `on_overflow` once, when more than `max_queued_bytes` wait: the
    connection is then dropped, since a client that slow would act on the past. A message counts as half of that at
    most: the roster of a large room with much metadata is one message, however long, and the first a client reads.
    """

    def __init__(
        self,
        *,
        protocol: int,
        is_text: bool = False,
        strict: bool = False,
        max_queued_bytes: int = 1 << 20,
        on_ready: Callable[[], None] = lambda: None,
        on_overflow: Callable[[], None] = lambda: None,
    ) -> None:
        self.protocol = protocol
        self.is_text = is_text
        self.strict = strict
        self.max_queued_bytes = max_queued_bytes
        self.queued_bytes = 0
        self.violations = 0
        self.on_ready = on_ready
        self.on_overflow = on_overflow
        # Called when another connection has taken this one's place.
        self.on_replaced: Callable[[], None] = lambda: None
        self.is_open = False
        self.is_finished = False
        self._queue: deque[bytes | str] = deque()
        self._versions: dict[str, int] = {}
        self._tracks: dict[str, frozenset[str]] = {}
        self._overflowed = False

    def put(self, message: rtc.SignalResponse | Frame) -> bool:
        """Queue a message; False when it was dropped.   Errors: OutboxViolation when strict."""
        frame = message if isinstance(message, Frame) else Frame(message)
        if self._overflowed:
            return False
        if frame.kind in FIRST_PROTOCOL and self.protocol < FIRST_PROTOCOL[frame.kind]:
            return False
        wrong = frame.wrong or self._wrong_here(frame)
        if wrong:
            self.violations += 1
            if self.strict:
                raise OutboxViolation(wrong)
            log.error("dropped a message that would have hurt a client", kind=frame.kind, why=wrong)
            return False
        self._remember(frame)
        item: bytes | str = frame.text if self.is_text else frame.binary
        self._queue.append(item)
        self.queued_bytes += self._weight(item)
        if self.queued_bytes > self.max_queued_bytes:
            self._overflowed = True
            self._queue.clear()
            self.queued_bytes = 0
            self.on_overflow()
            return False
        self.on_ready()
        return True

    def take(self) -> bytes | str | None:
        """Return the next message to write, None when nothing waits. It counts as queued until `written`."""
        return self._queue.popleft() if self._queue else None

    def written(self, item: bytes | str) -> None:
        """Note that a taken message is in the hands of the kernel."""
        self.queued_bytes = max(0, self.queued_bytes - self._weight(item))

    def finish(self) -> None:
        """Note that nothing more will come; what is queued is still written."""
        self.is_finished = True
        self.on_ready()

    def replace(self) -> None:
        """Write nothing more: the client has another connection now."""
        self.is_finished = True
        self._queue.clear()
        self.on_replaced()

    def knows(self, sid: str) -> bool:
        """True when the client was told of this participant and not of its end."""
        return sid in self._versions

    @property
    def known_participants(self) -> int:
        """How many participants the client was told of that have not left since."""
        return len(self._versions)

    def _weight(self, item: bytes | str) -> int:
        return min(len(item), self.max_queued_bytes // 2)

    def _wrong_here(self, frame: Frame) -> str:
        if self.is_finished:
            return f"{frame.kind} after leave"
        if not self.is_open and frame.kind not in OPENING:
            return f"{frame.kind} before join"
        if self.is_open and frame.kind in ("join", "reconnect"):
            return f"a second {frame.kind}"
        for info in _participants(frame):
            if info.version < self._versions.get(info.sid, 0):
                return f"version of {info.sid} falls from {self._versions[info.sid]} to {info.version}"
        if frame.kind == "offer":
            known = frozenset().union(*self._tracks.values()) if self._tracks else frozenset()
            for track_sid in frame.response.offer.mid_to_track_id.values():
                if track_sid not in known:
                    return f"an offer carries {track_sid} before any roster named it"
        return ""

    def _remember(self, frame: Frame) -> None:
        if frame.kind in ("join", "reconnect"):
            self.is_open = True
        elif frame.kind == "leave":
            self.is_finished = True
        for info in _participants(frame):
            if info.state == models.ParticipantInfo.State.DISCONNECTED:
                # A sid never comes back, and a long call sees many of them.
                self._tracks.pop(info.sid, None)
                self._versions.pop(info.sid, None)
            else:
                self._versions[info.sid] = info.version
                self._tracks[info.sid] = frozenset(track.sid for track in info.tracks)


def _participants(frame: Frame) -> list[models.ParticipantInfo]:
    if frame.kind == "update":
        return list(frame.response.update.participants)
    if frame.kind == "join":
        return [frame.response.join.participant, *frame.response.join.other_participants]
    return []
