"""Sends messages to one participant over whichever data channel of that label is open.

Lossy messages are dropped when the channel is full or not open yet. Reliable ones wait, in order and bounded: a
participant that cannot keep up is told to come back rather than left with a hole it cannot see.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from relay.session import ChannelClosed, MessageTooLarge

# As much as may wait on the signalling socket; some seconds of the fastest data stream.
MAX_WAITING_BYTES = 1 << 20


class Sender(Protocol):
    """What carries channels: a transport's driver."""

    def send(self, channel: int, data: bytes) -> bool:
        """Send one message; False when the channel is full now.   Errors: ChannelClosed, MessageTooLarge."""


class DataPipe:
    """The data channels towards one participant, by label; the transport that is preferred wins."""

    def __init__(self, on_overflow: Callable[[], None], *, reliable_label: str) -> None:
        self.dropped = 0
        self._reliable_label = reliable_label
        self._on_overflow = on_overflow
        self._channels: dict[str, list[tuple[Sender, int]]] = {}
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._overflowed = False

    def opened(self, driver: Sender, channel: int, label: str, *, preferred: bool) -> None:
        """Note an open channel."""
        channels = self._channels.setdefault(label, [])
        if preferred:
            channels.insert(0, (driver, channel))
        else:
            channels.append((driver, channel))
        if label == self._reliable_label:
            self.has_room()

    def closed(self, driver: Sender, channel: int) -> None:
        """Note that a channel is gone."""
        for label, channels in list(self._channels.items()):
            if (driver, channel) in channels:
                channels.remove((driver, channel))
            if not channels:
                # Labels are the client's words, and it may make up ever new ones.
                del self._channels[label]

    @property
    def labels(self) -> frozenset[str]:
        """The labels with an open channel."""
        return frozenset(self._channels)

    def send(self, label: str, data: bytes) -> None:
        """Send one message, now or when there is room."""
        channels = self._channels.get(label)
        is_reliable = label == self._reliable_label
        if not channels:
            if is_reliable:
                self._keep_for_opening(data)
            else:
                self.dropped += 1
            return
        if is_reliable and self._waiting:
            self._wait(data)
            return
        driver, channel = channels[0]
        try:
            if driver.send(channel, data):
                return
        except (ChannelClosed, MessageTooLarge):
            self.dropped += 1
            return
        if is_reliable:
            self._wait(data)
        else:
            self.dropped += 1

    def has_room(self) -> None:
        """Send what waits, until a channel is full again."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, deque(), 0
        while waiting:
            self.send(self._reliable_label, waiting.popleft())

    def _keep_for_opening(self, data: bytes) -> None:
        """Keep the newest messages for somebody who has joined but whose channels are not open yet."""
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        while self._waiting_bytes > MAX_WAITING_BYTES:
            self._waiting_bytes -= len(self._waiting.popleft())
            self.dropped += 1

    def _wait(self, data: bytes) -> None:
        if self._overflowed:
            return
        if self._waiting_bytes + len(data) > MAX_WAITING_BYTES:
            self._overflowed = True
            self._waiting.clear()
            self._on_overflow()
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
