"""The data channels of one transport: opening, messages, closing, limits.

Spec: RFC 8831, RFC 8832. A channel is known to callers by a number that is never used twice in a transport; its
SCTP stream id is chosen when the DTLS role is known (client even, server odd) and may be used again after a reset.
A remote endpoint that breaks a rule loses the channel, or for a message above the limit the association.
"""

from collections import deque
from collections.abc import Iterable

from relay.session import dcep
from relay.session.errors import ChannelClosed, ChannelFull, MessageTooLarge, TooManyChannels
from relay.session.events import (
    AssociationClosed,
    ChannelClosedEvent,
    ChannelDrained,
    ChannelOpened,
    Event,
    MessageReceived,
)
from relay.session.sctp.association import (
    MAX_RESET_STREAMS,
    STREAMS,
    Association,
    AssociationError,
    Item,
    Lost,
    Message,
    ResetRefused,
    StreamsReset,
    TooLong,
    Up,
    advance,
)
from relay.session.states import (
    ASSOCIATION,
    CHANNEL,
    AssociationState,
    AssociationTrigger,
    ChannelState,
    ChannelTrigger,
    Machine,
)

MAX_CHANNELS = 64
"""Open or closing at once. LiveKit clients use three."""

MAX_BUFFERED_BYTES = 1_048_576
"""Per channel, waiting here. At 1 Mbit/s this is 8 s of delay; libwebrtc's 16 MB would be two minutes."""

MAX_BUFFERED_MESSAGES = 8_192
"""Per channel: a message of one byte costs a hundred in Python, so bytes alone would not bound memory."""

MAX_TRANSPORT_BYTES = 4 * MAX_BUFFERED_BYTES
"""Over all channels of a transport, so that many channels are no way around the limit of one."""

LOW_WATER_BYTES = 262_144
"""A full channel reports `ChannelDrained` below this."""

MAX_RESET_ATTEMPTS = 5

TICK_NS = 20_000_000
"""How often usrsctp's timers are looked at while they can matter; its shortest (delayed SACK) is 50 ms."""

SETTLE_NS = 200_000_000
"""After the last packet either way: time for a delayed SACK and a stream reset to go out."""


class Channel:
    """One data channel's state here; private to `DataChannels`."""

    __slots__ = (
        "attempts", "by_remote", "full", "machine", "number", "open", "pending", "pending_bytes", "received_reset",
        "requested_reset", "sent_reset", "stream",
    )

    def __init__(self, number: int, open_message: dcep.Open, *, by_remote: bool, stream: int | None) -> None:
        self.number = number
        self.open = open_message
        self.by_remote = by_remote
        self.stream = stream
        self.machine = Machine(CHANNEL, ChannelState.OPENING)
        self.pending: deque[tuple[int, bytes]] = deque()
        self.pending_bytes = 0
        self.full = False
        self.requested_reset = False
        self.sent_reset = False
        self.received_reset = False
        self.attempts = 0

    @property
    def state(self) -> ChannelState:
        return self.machine.state

    @property
    def has_room(self) -> bool:
        """Whether so little waits that a sender who was refused should try again."""
        return (
            self.pending_bytes <= LOW_WATER_BYTES
            and len(self.pending) <= MAX_BUFFERED_MESSAGES // 4
            and self.state is not ChannelState.CLOSING
        )


class DataChannels:
    """All channels and the association below them. Everything but construction happens on the event loop's thread."""

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._machine = Machine(ASSOCIATION, AssociationState.OFF)
        self._ports = (0, 0)
        self._association: Association | None = None
        self._parity = 0
        self._stream_limit = STREAMS
        self._channels: dict[int, Channel] = {}
        self._by_stream: dict[int, Channel] = {}
        self._sending: deque[Channel] = deque()
        self._resets: dict[int, None] = {}
        self._asked: set[int] = set()
        self._last_number = 0
        self._total_bytes = 0
        self._active_until_ns = 0
        self.events: list[Event] = []
        self.outgoing: list[bytes] = []
        self.next_timeout_ns: int | None = None
        self._counters = dict.fromkeys(
            (
                "unknown_stream", "unknown_ppid", "bad_dcep", "refused_channels", "late_messages", "refused_packets",
                "unsent_packets",
            ),
            0,
        )

    @property
    def state(self) -> AssociationState:
        """Where the association is."""
        return self._machine.state

    @property
    def counters(self) -> dict[str, int]:
        """What the peer sent that was of no use, by reason; `unsent_packets` are ours that found a queue full."""
        self._count_packets()
        return dict(self._counters)

    def _count_packets(self) -> None:
        if self._association is not None:
            self._counters["refused_packets"] = self._association.refused_packets
            self._counters["unsent_packets"] = self._association.dropped_packets

    # The association's life.

    def enable(self, local_port: int, remote_port: int) -> None:
        """The descriptions agree on an application section; connect as soon as DTLS is up."""
        if self.state is AssociationState.OFF:
            self._ports = (local_port, remote_port)
            self._machine.fire(AssociationTrigger.ENABLED)

    def start(self, dtls_client: bool, now_ns: int) -> None:
        """DTLS is up: connect, and give stream ids to the channels that wait (RFC 8832 §6)."""
        self._machine.fire(AssociationTrigger.DTLS_UP)
        self._parity = 0 if dtls_client else 1
        advance(now_ns)
        try:
            self._association = Association(*self._ports, self._max_message_bytes)
        except AssociationError as error:
            self._end(AssociationTrigger.LOST, f"usrsctp: {error}")
            return
        for channel in self._channels.values():
            self._assign_stream(channel)
        self._pump(now_ns)

    def receive(self, packets: Iterable[bytes], now_ns: int) -> None:
        """Take decrypted packets of this transport."""
        if self._association is None:
            return
        advance(now_ns)
        for packet in packets:
            self._active_until_ns = now_ns + SETTLE_NS
            self._handle(self._association.receive(packet))
            if self._association is None:
                return

    def poll(self, now_ns: int) -> None:
        """Run timers, send what fits, and collect packets and events."""
        if self._association is None:
            self.next_timeout_ns = None
            return
        advance(now_ns)
        self._handle(self._association.read())
        if self._association is not None:
            self._pump(now_ns)

    def close(self) -> None:
        """Abort the association; the ABORT waits in `outgoing`."""
        if self.state is not AssociationState.DOWN:
            self._end(AssociationTrigger.CLOSE, "")

    def _handle(self, items: Iterable[Item]) -> None:
        for item in items:
            match item:
                case Message():
                    self._on_message(item)
                case Up():
                    self._on_up(item)
                case StreamsReset():
                    self._on_reset(item)
                case ResetRefused():
                    self._on_reset_refused(item)
                case TooLong():
                    self._end(AssociationTrigger.BROKEN_RULE, f"a message above {self._max_message_bytes} bytes")
                case Lost():
                    self._end(AssociationTrigger.LOST, item.reason)
            if self._association is None:
                return

    def _on_up(self, item: Up) -> None:
        self._machine.fire(AssociationTrigger.COMMUNICATION_UP)
        self._stream_limit = min(item.outbound_streams, item.inbound_streams, STREAMS)
        for channel in list(self._channels.values()):
            if channel.stream is None or channel.stream >= self._stream_limit:
                self._drop(channel)

    def _end(self, trigger: AssociationTrigger, reason: str) -> None:
        """The association is over: every channel with it, one event each, then one for itself."""
        self._machine.fire(trigger)
        if self._association is not None:
            self._count_packets()
            self.outgoing += self._association.close()
            self._association = None
        for channel in list(self._channels.values()):
            channel.machine.fire(ChannelTrigger.ASSOCIATION_DOWN)
            self._forget(channel)
        self._resets.clear()
        self._asked.clear()
        self.next_timeout_ns = None
        if trigger is not AssociationTrigger.CLOSE:
            self.events.append(AssociationClosed(reason))

    def _pump(self, now_ns: int) -> None:
        association = self._association
        if association is None:
            return
        try:
            if self.state is AssociationState.UP:
                self._flush(association)
                self._send_resets(association)
        except AssociationError as error:
            self._end(AssociationTrigger.LOST, f"usrsctp: {error}")
            return
        packets = association.outgoing()
        if packets:
            self.outgoing += packets
            self._active_until_ns = now_ns + SETTLE_NS
        active = (
            self.state is AssociationState.CONNECTING
            or now_ns < self._active_until_ns
            or self._sending
            or self._resets
            or self._asked
            or association.busy
        )
        self.next_timeout_ns = now_ns + TICK_NS if active else None

    # Channels, from our side.

    def open_channel(self, open_message: dcep.Open) -> int:
        """Open a channel, now or once the association is up; returns its number.

        Errors: ChannelClosed when the association is gone, TooManyChannels, ValueError for names above the limit.
        """
        if self.state is AssociationState.DOWN:
            raise ChannelClosed("the association is gone")
        if len(self._channels) >= MAX_CHANNELS:
            raise TooManyChannels(f"a transport has at most {MAX_CHANNELS} data channels")
        wire = open_message.write()
        channel = self._add(open_message, by_remote=False, stream=None)
        if self._association is not None and not self._assign_stream(channel):
            self._discard(channel)
            raise TooManyChannels("the peer allows no further streams")
        self._queue(channel, dcep.PPID_DCEP, wire)
        return channel.number

    def send(self, number: int, data: bytes, *, binary: bool) -> None:
        """Queue one message.   Errors: ChannelClosed, ChannelFull, MessageTooLarge."""
        channel = self._channels.get(number)
        if channel is None or channel.state is ChannelState.CLOSING:
            raise ChannelClosed(f"channel {number} is closed")
        if len(data) > self._max_message_bytes:
            raise MessageTooLarge(f"{len(data)} bytes, at most {self._max_message_bytes} may be sent")
        if (
            channel.pending_bytes + len(data) > MAX_BUFFERED_BYTES
            or len(channel.pending) >= MAX_BUFFERED_MESSAGES
            or self._total_bytes + len(data) > MAX_TRANSPORT_BYTES
        ):
            channel.full = True
            raise ChannelFull(f"{channel.pending_bytes} bytes in {len(channel.pending)} messages wait in channel {number}")
        if data:
            self._queue(channel, dcep.PPID_BINARY if binary else dcep.PPID_TEXT, data)
        else:
            # SCTP has no empty messages: one zero byte under its own identifier (RFC 8831 §6.6).
            self._queue(channel, dcep.PPID_BINARY_EMPTY if binary else dcep.PPID_TEXT_EMPTY, b"\0")

    def close_channel(self, number: int) -> None:
        """Send what waits, then reset the stream (RFC 8831 §6.7). A channel that is gone is no error."""
        channel = self._channels.get(number)
        if channel is None:
            return
        if self.state is not AssociationState.UP:
            self._drop(channel)
        elif channel.state is not ChannelState.CLOSING:
            channel.machine.fire(ChannelTrigger.CLOSE)
            self._reset_when_empty(channel)

    def buffered_bytes(self, number: int) -> int:
        """Return the bytes that wait here; up to 256 KiB more may be on their way inside the association."""
        channel = self._channels.get(number)
        return channel.pending_bytes if channel is not None else 0

    def _queue(self, channel: Channel, ppid: int, data: bytes) -> None:
        if not channel.pending:
            self._sending.append(channel)
        channel.pending.append((ppid, data))
        channel.pending_bytes += len(data)
        self._total_bytes += len(data)

    def _flush(self, association: Association) -> None:
        """Hand messages over until the association is full, a message per channel in turn."""
        while self._sending:
            channel = self._sending[0]
            ppid, data = channel.pending[0]
            # Until the peer has acknowledged the channel, order alone keeps data behind its OPEN (RFC 8832 §6).
            careful = ppid == dcep.PPID_DCEP or channel.state is ChannelState.OPENING
            assert channel.stream is not None
            if not association.send(
                channel.stream,
                ppid,
                data,
                ordered=careful or channel.open.ordered,
                max_retransmits=None if careful else channel.open.max_retransmits,
                max_lifetime_ms=None if careful else channel.open.max_lifetime_ms,
            ):
                return
            channel.pending.popleft()
            channel.pending_bytes -= len(data)
            self._total_bytes -= len(data)
            self._sending.rotate(-1)
            if not channel.pending:
                self._sending.pop()
                self._reset_when_empty(channel)
            if channel.full and channel.has_room:
                channel.full = False
                self.events.append(ChannelDrained(channel.number))

    # Channels, from the peer's side.

    def _on_message(self, message: Message) -> None:
        channel = self._by_stream.get(message.stream)
        if message.ppid == dcep.PPID_DCEP:
            self._on_dcep(message, channel)
        elif channel is None:
            self._counters["unknown_stream"] += 1
        elif channel.state is ChannelState.CLOSING:
            self._counters["late_messages"] += 1
        else:
            self._on_user_message(message, channel)

    def _on_user_message(self, message: Message, channel: Channel) -> None:
        data = message.data
        if message.ppid in (dcep.PPID_TEXT_EMPTY, dcep.PPID_BINARY_EMPTY):
            data = b""
        elif message.ppid not in (dcep.PPID_TEXT, dcep.PPID_BINARY):
            self._counters["unknown_ppid"] += 1
            return
        self._acknowledged(channel)
        binary = message.ppid in (dcep.PPID_BINARY, dcep.PPID_BINARY_EMPTY)
        self.events.append(MessageReceived(channel.number, channel.open.label, data, binary))

    def _on_dcep(self, message: Message, channel: Channel | None) -> None:
        if message.data == dcep.ACK:
            if channel is not None and not channel.by_remote:
                self._acknowledged(channel)
            else:
                self._counters["bad_dcep"] += 1
            return
        opened = dcep.parse_open(message.data)
        if opened is None or message.stream % 2 == self._parity or channel is not None:
            # RFC 8832 §6: a bad message, an id of our parity or one in use closes that channel and is not answered.
            self._counters["bad_dcep"] += 1
            self._refuse(message.stream, channel)
        elif len(self._channels) >= MAX_CHANNELS or message.stream >= self._stream_limit:
            self._counters["refused_channels"] += 1
            self._refuse(message.stream, None)
        else:
            channel = self._add(opened, by_remote=True, stream=message.stream)
            self._by_stream[message.stream] = channel
            self._queue(channel, dcep.PPID_DCEP, dcep.ACK)
            self._acknowledged(channel)

    def _acknowledged(self, channel: Channel) -> None:
        if channel.state is ChannelState.OPENING:
            opened = channel.open
            self.events.append(
                ChannelOpened(
                    channel.number, opened.label, opened.ordered, opened.max_retransmits, opened.protocol,
                    channel.by_remote, opened.max_lifetime_ms,
                )
            )
        channel.machine.fire(ChannelTrigger.ACKNOWLEDGED)

    def _refuse(self, stream: int, channel: Channel | None) -> None:
        if channel is not None:
            self.close_channel(channel.number)
        elif stream < self._stream_limit:
            self._resets[stream] = None

    # Stream resets (RFC 6525).

    def _reset_when_empty(self, channel: Channel) -> None:
        if channel.state is ChannelState.CLOSING and not channel.pending and not channel.requested_reset:
            assert channel.stream is not None
            channel.requested_reset = True
            self._resets[channel.stream] = None

    def _send_resets(self, association: Association) -> None:
        if not self._resets:
            return
        streams = list(self._resets)[:MAX_RESET_STREAMS]
        try:
            if not association.reset_streams(streams):
                return
            self._asked.update(streams)
        except AssociationError:
            # The peer cannot reset streams; then closing is a matter of this end alone and the id is lost.
            for stream in streams:
                if (channel := self._by_stream.get(stream)) is not None:
                    channel.received_reset = True
                    self._on_sent_reset(channel)
        for stream in streams:
            del self._resets[stream]

    def _on_reset(self, item: StreamsReset) -> None:
        if not item.incoming:
            self._asked.difference_update(item.streams or tuple(self._asked))
        for stream in item.streams or tuple(self._by_stream):
            channel = self._by_stream.get(stream)
            if channel is None:
                continue
            if not item.incoming:
                self._on_sent_reset(channel)
                continue
            channel.received_reset = True
            channel.machine.fire(ChannelTrigger.REMOTE_RESET)
            self._unqueue(channel)
            if channel.sent_reset:
                self._finish(channel)
            else:
                self._reset_when_empty(channel)

    def _on_sent_reset(self, channel: Channel) -> None:
        channel.sent_reset = True
        if channel.state is ChannelState.CLOSING and channel.received_reset:
            self._finish(channel)

    def _on_reset_refused(self, item: ResetRefused) -> None:
        self._asked.difference_update(item.streams)
        for stream in item.streams:
            channel = self._by_stream.get(stream)
            if channel is None or channel.state is not ChannelState.CLOSING:
                continue
            channel.attempts += 1
            if channel.attempts < MAX_RESET_ATTEMPTS:
                self._resets[stream] = None
            else:
                self._on_sent_reset(channel)

    # Bookkeeping.

    def _add(self, open_message: dcep.Open, *, by_remote: bool, stream: int | None) -> Channel:
        self._last_number += 1
        channel = Channel(self._last_number, open_message, by_remote=by_remote, stream=stream)
        self._channels[channel.number] = channel
        return channel

    def _assign_stream(self, channel: Channel) -> bool:
        """Give the lowest free stream id of our parity; False if there is none."""
        for stream in range(self._parity, self._stream_limit, 2):
            if stream not in self._by_stream and stream not in self._resets and stream not in self._asked:
                channel.stream = stream
                self._by_stream[stream] = channel
                return True
        return False

    def _finish(self, channel: Channel) -> None:
        channel.machine.fire(ChannelTrigger.BOTH_RESET)
        self._forget(channel)

    def _drop(self, channel: Channel) -> None:
        """Close a channel of which the peer never heard."""
        channel.machine.fire(ChannelTrigger.ASSOCIATION_DOWN)
        self._forget(channel)

    def _forget(self, channel: Channel) -> None:
        self._discard(channel)
        self.events.append(ChannelClosedEvent(channel.number))

    def _discard(self, channel: Channel) -> None:
        self._unqueue(channel)
        del self._channels[channel.number]
        if channel.stream is not None:
            self._by_stream.pop(channel.stream, None)

    def _unqueue(self, channel: Channel) -> None:
        if channel.pending:
            self._sending.remove(channel)
            self._total_bytes -= channel.pending_bytes
            channel.pending.clear()
            channel.pending_bytes = 0
