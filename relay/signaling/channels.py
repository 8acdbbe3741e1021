"""Sends messages to one participant over whichever data channel of that label is open.

Lossy messages are dropped when the channel is full or not open yet. Reliable ones wait, in order and bounded: a
participant that cannot keep up is told to come back rather than left with a hole it cannot see.

A data channel delivers what it took, however long its client's signalling is away, unless it is lost itself. Of the
messages that clients number (LIVEKIT §2.11) the last ones are kept therefore, with the channel that took them: what a
lost one took goes out again over the next, before anything newer. Clients drop what they had already, by its number.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from relay.clock import monotonic_ns
from relay.session import ChannelClosed, MessageTooLarge

# As much as may wait on the signalling socket; some seconds of the fastest data stream.
MAX_WAITING_BYTES = 1 << 20
# The last ones that went out. Clients forget what they had of a sender after 30 s, and would take an older one twice.
MAX_KEPT_BYTES = 1 << 20
KEPT_NS = 20_000_000_000
# What a short message costs here, beside its bytes, which all its receivers share.
KEPT_COST_BYTES = 256


class Sender(Protocol):
    """What carries channels: a transport's driver."""

    def send(self, channel: int, data: bytes) -> bool:
        """Send one message; False when the channel is full now.   Errors: ChannelClosed, MessageTooLarge."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose message it is, and the number that its client gave it, from 1 up."""

    sid: str
    sequence: int


@dataclass(frozen=True, slots=True)
class _Kept:
    """A message that a channel took."""

    at_ns: int
    origin: Origin
    data: bytes
    channel: tuple[Sender, int]

    @property
    def cost_bytes(self) -> int:
        return len(self.data) + KEPT_COST_BYTES


class DataPipe:
    """The data channels towards one participant, by label; the transport that is preferred wins."""

    def __init__(
        self,
        on_overflow: Callable[[], None],
        *,
        reliable_label: str,
        clock_ns: Callable[[], int] = monotonic_ns,
    ) -> None:
        self.dropped = 0
        self._reliable_label = reliable_label
        self._on_overflow = on_overflow
        self._clock_ns = clock_ns
        self._channels: dict[str, list[tuple[Sender, int]]] = {}
        self._waiting: deque[tuple[bytes, Origin | None]] = deque()
        self._waiting_bytes = 0
        self._overflowed = False
        self._kept: deque[_Kept] = deque()
        self._kept_bytes = 0

    def opened(self, driver: Sender, channel: int, label: str, *, preferred: bool) -> None:
        """Note an open channel."""
        channels = self._channels.setdefault(label, [])
        if preferred:
            channels.insert(0, (driver, channel))
        else:
            channels.append((driver, channel))
        if label == self._reliable_label:
            self.replay({})
            self.has_room()

    def closed(self, driver: Sender, channel: int) -> None:
        """Note that a channel is gone."""
        for label, channels in list(self._channels.items()):
            if (driver, channel) in channels:
                channels.remove((driver, channel))
            if not channels:
                # Labels are the client's words, and it may make up ever new ones.
                del self._channels[label]
            elif label == self._reliable_label:
                self.replay({})

    @property
    def labels(self) -> frozenset[str]:
        """The labels with an open channel."""
        return frozenset(self._channels)

    def send(self, label: str, data: bytes, origin: Origin | None = None) -> None:
        """Send one message, now or when there is room."""
        channels = self._channels.get(label)
        is_reliable = label == self._reliable_label
        if not channels:
            if is_reliable:
                self._keep_for_opening(data, origin)
            else:
                self.dropped += 1
            return
        if is_reliable and self._waiting:
            self._wait(data, origin)
            return
        driver, channel = channels[0]
        try:
            if driver.send(channel, data):
                if is_reliable and origin is not None:
                    self._keep(_Kept(self._clock_ns(), origin, data, (driver, channel)))
                return
        except ChannelClosed:
            self.closed(driver, channel)
            self.send(label, data, origin)
            return
        except MessageTooLarge:
            self.dropped += 1
            return
        if is_reliable:
            self._wait(data, origin)
        else:
            self.dropped += 1

    def has_room(self) -> None:
        """Send what waits, until a channel is full again."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, deque(), 0
        while waiting:
            self.send(self._reliable_label, *waiting.popleft())

    def replay(self, last_sequences: Mapping[str, int]) -> int:
        """Send again what channels took that are lost, but for what the client says it has had; return how many.

        `last_sequences` holds the highest number that the client had of each sender, by sid.
        """
        open_now = set(self._channels.get(self._reliable_label, ()))
        if not open_now:
            return 0
        self._forget_old()
        lost = [kept for kept in self._kept if kept.channel not in open_now]
        if not lost:
            return 0
        self._kept = deque(kept for kept in self._kept if kept.channel in open_now)
        self._kept_bytes = sum(kept.cost_bytes for kept in self._kept)
        missing = [kept for kept in lost if kept.origin.sequence > last_sequences.get(kept.origin.sid, 0)]
        # They come before what has waited for the channel, and its sender numbered later.
        waiting, self._waiting, self._waiting_bytes = self._waiting, deque(), 0
        for kept in missing:
            self.send(self._reliable_label, kept.data, kept.origin)
        for data, origin in waiting:
            self.send(self._reliable_label, data, origin)
        return len(missing)

    def _keep(self, kept: _Kept) -> None:
        self._kept.append(kept)
        self._kept_bytes += kept.cost_bytes
        self._forget_old()

    def _forget_old(self) -> None:
        too_old_ns = self._clock_ns() - KEPT_NS
        while self._kept and (self._kept_bytes > MAX_KEPT_BYTES or self._kept[0].at_ns < too_old_ns):
            self._kept_bytes -= self._kept.popleft().cost_bytes

    def _keep_for_opening(self, data: bytes, origin: Origin | None) -> None:
        """Keep the newest messages for somebody who has joined but whose channels are not open yet."""
        self._waiting.append((data, origin))
        self._waiting_bytes += len(data)
        while self._waiting_bytes > MAX_WAITING_BYTES:
            self._waiting_bytes -= len(self._waiting.popleft()[0])
            self.dropped += 1

    def _wait(self, data: bytes, origin: Origin | None) -> None:
        if self._overflowed:
            return
        if self._waiting_bytes + len(data) > MAX_WAITING_BYTES:
            self._overflowed = True
            self._waiting.clear()
            self._on_overflow()
            return
        self._waiting.append((data, origin))
        self._waiting_bytes += len(data)
