"""One SCTP association: packets in, packets out, messages both ways; time comes from outside.

Spec: RFC 9260, RFC 3758 (partial reliability), RFC 6525 (stream reset), RFC 8261 (over DTLS). The protocol is
usrsctp's. It is global to the process and wants one thread: the event loop's. Every packet is followed by reading
all that came of it, so that a message which is growing too long is noticed before the next packet extends it.

Timers fire by `advance`, but usrsctp looks at the machine's clock too: for round trips, and to leave alone what it sent
less than a retransmission timeout ago. A simulation that runs faster than real time therefore repeats late.
"""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

from relay.session.sctp._usrsctp import ffi, lib

PACKET_BYTES = 1160
"""Largest SCTP packet: 1,200 bytes less DTLS record (13), explicit nonce (8) and tag (16), in whole words."""

STREAMS = 256
"""Streams each way. 64 channels use ids up to 128; usrsctp keeps about 200 bytes for each stream."""

NEW_CLOCK_NS = 1_000_000_000
"""A moment this far back belongs to another simulation; nearer ones are callers that read the clock a little apart."""

_packet = ffi.new("uint8_t[]", lib.VEIL_PACKET_BYTES)
_item = ffi.new("veil_item *")


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message of one stream."""

    stream: int
    ppid: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Up:
    """The association carries data; so many streams may be used each way."""

    outbound_streams: int
    inbound_streams: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The association is over, by the peer or by silence."""

    reason: str


@dataclass(frozen=True, slots=True)
class TooLong:
    """The peer sends a message above the limit; the association must be closed now."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamsReset:
    """Streams start over: `incoming` by the peer's wish, else ours is done. No streams named means all."""

    incoming: bool
    streams: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ResetRefused:
    """The peer did not perform our reset."""

    streams: tuple[int, ...]


Item = Message | Up | Lost | TooLong | StreamsReset | ResetRefused


class AssociationError(Exception):
    """usrsctp refused a call that should work; the association is of no further use."""


class _Clock:
    """The last moment usrsctp was told of, and what was left to free when its owner forgot."""

    def __init__(self) -> None:
        self.now_ns: int | None = None
        self.orphans: list[object] = []

    def advance(self, now_ns: int) -> None:
        while self.orphans:
            lib.veil_sctp_free(self.orphans.pop())
        if self.now_ns is None or now_ns < self.now_ns - NEW_CLOCK_NS:
            self.now_ns = now_ns
            return
        elapsed_ms = (now_ns - self.now_ns) // 1_000_000
        if elapsed_ms > 0:
            lib.veil_sctp_advance(min(elapsed_ms, 0x7FFF_FFFF))
            self.now_ns += elapsed_ms * 1_000_000


_clock = _Clock()


def advance(now_ns: int) -> None:
    """Let usrsctp's timers see `now_ns`. Packets they send wait in the queues of their own associations."""
    _clock.advance(now_ns)


def live() -> int:
    """Return how many established associations usrsctp holds; a check for leaks."""
    return lib.veil_sctp_live()


class Association:
    """One association from its INIT to its ABORT. `close` must be called; dropping it late frees late."""

    def __init__(self, local_port: int, remote_port: int, max_message_bytes: int) -> None:
        """Begin to connect.   Errors: AssociationError when usrsctp has no room for one more."""
        lib.veil_sctp_start()
        handle = lib.veil_sctp_open(local_port, remote_port, PACKET_BYTES, max_message_bytes, STREAMS)
        if handle == ffi.NULL:
            raise AssociationError(os.strerror(ffi.errno))
        self._handle = handle
        self._max_message_bytes = max_message_bytes
        self._buffer = _buffer_of(max_message_bytes + 1)
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self.open = True

    def __del__(self) -> None:
        if getattr(self, "open", False):
            # This may run in any thread, freeing may not.
            _clock.orphans.append(self._handle)

    @property
    def refused_packets(self) -> int:
        """Packets from the peer that were malformed or no business of a WebRTC endpoint."""
        return self._handle.refused if self.open else 0

    @property
    def dropped_packets(self) -> int:
        """Packets to the peer that found the outgoing queue full; SCTP repeats them."""
        return self._handle.dropped if self.open else 0

    def receive(self, packet: bytes) -> Iterator[Item]:
        """Take one packet and yield all that came of it."""
        if self.open and lib.veil_sctp_input(self._handle, packet, len(packet)):
            yield from self.read()

    def read(self) -> Iterator[Item]:
        """Yield what timers or connecting brought about."""
        while self.open:
            lib.veil_sctp_read(self._handle, self._buffer, len(self._buffer), _item)
            kind = _item.kind
            if kind == lib.VEIL_NOTHING:
                return
            item = self._read_message() if kind == lib.VEIL_MESSAGE else self._read_notice(kind)
            if item is not None:
                yield item
            if isinstance(item, Lost | TooLong):
                # Nothing but closing makes sense now, and usrsctp would repeat a loss for ever.
                return

    def _read_message(self) -> Item | None:
        stream, ppid, length = _item.stream, _item.ppid, _item.length
        if self._parts_bytes + length > self._max_message_bytes:
            return TooLong(stream)
        data = ffi.buffer(self._buffer, length)[:]
        if _item.eor and not self._parts:
            return Message(stream, ppid, data)
        self._parts.append(data)
        self._parts_bytes += length
        if not _item.eor:
            return None
        whole = b"".join(self._parts)
        self._forget_parts()
        return Message(stream, ppid, whole)

    def _read_notice(self, kind: int) -> Item | None:
        if kind == lib.VEIL_UP:
            return Up(_item.outbound_streams, _item.inbound_streams)
        if kind == lib.VEIL_LOST:
            return Lost(f"association lost (state {_item.state}, error {_item.error})")
        if kind == lib.VEIL_SHUTDOWN:
            return Lost("association shut down by the peer")
        if kind == lib.VEIL_PARTIAL_ABORTED:
            self._forget_parts()
            return None
        streams = tuple(_item.streams[index] for index in range(_item.stream_count))
        if kind == lib.VEIL_STREAMS_RESET_FAILED:
            return ResetRefused(streams)
        if kind in (lib.VEIL_STREAMS_RESET_IN, lib.VEIL_STREAMS_RESET_OUT):
            return StreamsReset(kind == lib.VEIL_STREAMS_RESET_IN, streams)
        return None

    def _forget_parts(self) -> None:
        self._parts.clear()
        self._parts_bytes = 0

    def send(
        self,
        stream: int,
        ppid: int,
        data: bytes,
        *,
        ordered: bool = True,
        max_retransmits: int | None = None,
        max_lifetime_ms: int | None = None,
    ) -> bool:
        """Queue one message; False if there is no room now.   Errors: AssociationError."""
        policy, value = lib.VEIL_RELIABLE, 0
        if max_retransmits is not None:
            policy, value = lib.VEIL_MAX_RETRANSMITS, max_retransmits
        elif max_lifetime_ms is not None:
            policy, value = lib.VEIL_MAX_LIFETIME, max_lifetime_ms
        taken = lib.veil_sctp_send(self._handle, stream, ppid, not ordered, policy, value, data, len(data))
        if taken < 0:
            raise AssociationError(os.strerror(ffi.errno))
        return bool(taken)

    def reset_streams(self, streams: list[int]) -> bool:
        """Ask to start our half of these streams over; False if an earlier request is still under way.

        Errors: AssociationError, which for a peer without RFC 6525 means that streams never come back.
        """
        if lib.veil_sctp_reset(self._handle, streams, len(streams)) == 0:
            return True
        if ffi.errno in (errno.EALREADY, errno.EAGAIN, errno.EINPROGRESS):
            return False
        raise AssociationError(os.strerror(ffi.errno))

    @property
    def busy(self) -> bool:
        """Whether something waits for an acknowledgement, so that timers matter."""
        return self.open and lib.veil_sctp_outstanding(self._handle) > 0

    def outgoing(self) -> list[bytes]:
        """Take the packets that are to be sent."""
        packets = []
        while self.open and (length := lib.veil_sctp_next_packet(self._handle, _packet)):
            packets.append(ffi.buffer(_packet, length)[:])
        return packets

    def close(self) -> list[bytes]:
        """Abort, free, and return the last packets (an ABORT chunk where there was an association)."""
        if not self.open:
            return []
        lib.veil_sctp_close(self._handle)
        packets = self.outgoing()
        self.open = False
        lib.veil_sctp_free(self._handle)
        return packets


MAX_RESET_STREAMS: int = lib.VEIL_RESET_STREAMS

_buffers: dict[int, object] = {}


def _buffer_of(size: int) -> object:
    """Return the one read buffer of this size; reading is never interleaved, so all associations share it."""
    if size not in _buffers:
        _buffers[size] = ffi.new("uint8_t[]", size)
    return _buffers[size]
