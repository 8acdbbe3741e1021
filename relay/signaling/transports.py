"""Drives one sans-IO `relay.session.Transport` with the loop's clock and the data plane's datagrams.

DTLS handshakes cost milliseconds of public-key arithmetic, so while one is under way its datagrams are digested in a
small thread pool, one batch of one transport at a time; nothing else touches that transport meanwhile. After the
handshake a datagram is a data channel message and costs microseconds: it is digested on the loop.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from relay.clock import monotonic_ns
from relay.log import get_logger
from relay.plane import Plane, PlaneError, SrtpKeys
from relay.sdp import Role
from relay.session import (
    AssociationClosed,
    Certificate,
    ChannelClosedEvent,
    ChannelDrained,
    ChannelFull,
    ChannelOpened,
    DatagramReady,
    HandshakeFailed,
    MessageReceived,
    SrtpKeysReady,
    Transport,
    TransportClosed,
)
from relay.session.events import Event
from relay.signaling.tasks import Tasks

log = get_logger(__name__)

# DTLS datagrams that came before the description naming the certificate: a client's first flight and its repeats.
MAX_EARLY_DATAGRAMS = 32
# What may wait while a batch is in the thread pool; more is a flood, and DTLS repeats what it needs.
MAX_WAITING_DATAGRAMS = 256
# Two: handshakes come in bursts when a meeting begins, and a third would only take a core from the media.
HANDSHAKE_THREADS = 2


def handshake_pool() -> ThreadPoolExecutor:
    """Return the threads that all transports of the process share."""
    return ThreadPoolExecutor(HANDSHAKE_THREADS, thread_name_prefix="dtls")


class TransportOwner(Protocol):
    """Whom a driver tells what happened; always on the loop."""

    def on_connected(self, driver: "TransportDriver") -> None:
        """Keys are set: media and data flow."""

    def on_estimate(self, driver: "TransportDriver", estimate_bps: int) -> None:
        """The path to the other end carries that much."""

    def on_reachable(self, driver: "TransportDriver", is_reachable: bool) -> None:
        """ICE found or lost the other end."""

    def on_closed(self, driver: "TransportDriver", reason: str) -> None:
        """The transport will carry nothing any more."""

    def on_channel_open(self, driver: "TransportDriver", channel: int, label: str) -> None:
        """A data channel can carry messages."""

    def on_channel_room(self, driver: "TransportDriver", channel: int) -> None:
        """A data channel that was full has room again."""

    def on_channel_closed(self, driver: "TransportDriver", channel: int) -> None:
        """A data channel carries nothing any more."""

    def on_message(self, driver: "TransportDriver", label: str, data: bytes, binary: bool) -> None:
        """A whole message arrived."""


class TransportDriver:
    """One transport on the wire. `open` before anything else, `close` at the end."""

    def __init__(
        self,
        plane: Plane,
        certificate: Certificate,
        pool: ThreadPoolExecutor,
        owner: TransportOwner,
        *,
        max_message_bytes: int,
        group: Hashable,
        refusals: dict[str, int],
        bits_per_s: int = 0,
    ) -> None:
        self.transport = Transport(certificate, max_message_bytes=max_message_bytes)
        self.id = 0
        self.is_connected = False
        self.is_reachable = False
        self.is_closed = False
        self._plane = plane
        self._group = group
        self._bits_per_s = bits_per_s
        self._pool = pool
        self._owner = owner
        self._refusals = refusals
        self._ignored_datagrams = 0
        self._tasks = Tasks()
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[bytes] = deque()
        self._remote_is_known = False
        self._has_sctp = False
        self._in_pool = False
        self._batch: asyncio.Task[None] | None = None
        self._deferred: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Make the transport known to the data plane.   Errors: PlaneError."""
        ufrag, password = self.transport.ufrag, self.transport.password
        self.id = await self._plane.add_transport(
            ufrag, password, self, group=self._group, bits_per_s=self._bits_per_s
        )

    async def restart_ice(self) -> None:
        """Take new ICE credentials; keys and streams stay (RFC 8445 §9)."""
        self.transport.restart_ice()
        await self._plane.restart_ice(self.id, self.transport.ufrag, self.transport.password)

    def set_remote(self, fingerprints: Sequence[tuple[str, str]], role: Role, *, sctp_port: int | None) -> None:
        """Say who the other end is; only the first call counts, a transport never changes its certificate.

        `sctp_port` None: no data channels yet; they may come with a later description.   Errors: FingerprintRefused.
        """
        if self.is_closed:
            return
        if not self._remote_is_known:
            self.transport.set_remote(fingerprints, role)
            self._remote_is_known = True
        if sctp_port is not None and not self._has_sctp:
            self._has_sctp = True
            self._when_free(lambda: self.transport.enable_sctp(remote_port=sctp_port))
        self._pump()
        self._drain()

    def send(self, channel: int, data: bytes) -> bool:
        """Send one binary message; False when the channel is full now.   Errors: ChannelClosed, MessageTooLarge."""
        try:
            self.transport.send(channel, data)
        except ChannelFull:
            return False
        self._drain()
        return True

    async def close(self) -> None:
        """Say goodbye and leave the data plane; further events are not told."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._in_pool and self._batch is not None:
            # A thread is inside OpenSSL with this transport, and cancelling its task would not stop it.
            await asyncio.wait([self._batch])
        # Always: a data channel association that is dropped unclosed would stay until another transport polls.
        self.transport.close()
        if self.id:
            for event in self.transport.poll(monotonic_ns()):
                if isinstance(event, DatagramReady):
                    self._plane.send_dtls(self.id, event.data)
        self._tasks.cancel()
        if self.id:
            try:
                await self._plane.remove_transport(self.id)
            except PlaneError as error:
                log.warning("a transport was gone before it was removed", transport=self.id, why=str(error))

    # From the data plane.

    def on_dtls(self, datagram: bytes) -> None:
        """Digest a datagram, now or as soon as the transport is free."""
        if self.is_closed:
            return
        limit = MAX_WAITING_DATAGRAMS if self._remote_is_known else MAX_EARLY_DATAGRAMS
        if len(self._inbox) < limit:
            self._inbox.append(datagram)
            self._pump()
        else:
            self._refuse("dtls_flood", 1)

    def on_ice_connected(self, remote: tuple[str, int]) -> None:
        """Note that the other end answers checks."""
        if self.is_closed:
            return
        if not self.is_reachable:
            self.is_reachable = True
            self._owner.on_reachable(self, True)
        self._drain()

    def on_ice_dead(self) -> None:
        """Note that the other end is silent."""
        if not self.is_closed and self.is_reachable:
            self.is_reachable = False
            self._owner.on_reachable(self, False)

    def on_estimate(self, estimate_bps: int, loss: float, rtt_ms: int) -> None:
        """Note what the path carries."""
        if not self.is_closed:
            self._owner.on_estimate(self, estimate_bps)

    # Inside.

    def _when_free(self, action: Callable[[], None]) -> None:
        """Touch the transport now, or as soon as the thread pool has let go of it."""
        if self._in_pool:
            self._deferred.append(action)
        else:
            action()

    def _pump(self) -> None:
        while self._inbox and self._remote_is_known and not self._in_pool and not self.is_closed:
            if self.transport.handshaking:
                batch = list(self._inbox)
                self._inbox.clear()
                self._in_pool = True
                self._plane.journal.note(self.id, "dtls handshake", datagrams=len(batch))
                self._batch = self._tasks.spawn(self._digest_in_pool(batch), "handshake")
                return
            self.transport.receive_dtls(self._inbox.popleft(), monotonic_ns())
            self._drain()

    async def _digest_in_pool(self, batch: list[bytes]) -> None:
        try:
            await self._loop.run_in_executor(self._pool, self._digest, batch)
        finally:
            self._in_pool = False
        if self.is_closed:
            return
        deferred, self._deferred = self._deferred, []
        for action in deferred:
            action()
        self._drain()
        self._pump()

    def _digest(self, batch: list[bytes]) -> None:
        for datagram in batch:
            self.transport.receive_dtls(datagram, monotonic_ns())

    def _drain(self) -> None:
        """Carry out what the transport has to say, and arm its next timeout."""
        if self._in_pool or self.is_closed:
            return
        if (ignored := self.transport.ignored_datagrams) != self._ignored_datagrams:
            self._refuse("dtls", ignored - self._ignored_datagrams)
            self._ignored_datagrams = ignored
        for event in self.transport.poll(monotonic_ns()):
            self._carry_out(event)
            if self.is_closed:
                return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_ns = self.transport.next_timeout_ns
        if due_ns is not None:
            self._timer = self._loop.call_later(max(0, due_ns - monotonic_ns()) / 1e9, self._drain)

    def _refuse(self, reason: str, count: int) -> None:
        self._refusals[reason] = self._refusals.get(reason, 0) + count

    def _carry_out(self, event: Event) -> None:
        match event:
            case DatagramReady(data):
                self._plane.send_dtls(self.id, data)
            case MessageReceived(_, label, data, binary):
                self._owner.on_message(self, label, data, binary)
            case SrtpKeysReady(keys):
                self._plane.journal.note(self.id, "dtls connected", profile=keys.profile)
                self._tasks.spawn(self._set_keys(keys), "srtp keys")
            case ChannelOpened():
                self._plane.journal.note(self.id, "data channel open", label=event.label)
                self._owner.on_channel_open(self, event.channel, event.label)
            case ChannelDrained(channel):
                self._owner.on_channel_room(self, channel)
            case ChannelClosedEvent(channel):
                self._owner.on_channel_closed(self, channel)
            case HandshakeFailed(reason) | TransportClosed(reason):
                self._plane.journal.note(self.id, "dtls over", why=reason)
                self.is_connected = False
                self._owner.on_closed(self, reason)
            case AssociationClosed(reason):
                log.info("data channels are over", transport=self.id, why=reason)

    async def _set_keys(self, keys: object) -> None:
        await self._plane.set_srtp(
            self.id, SrtpKeys(keys.profile, keys.receive_key, keys.receive_salt, keys.send_key, keys.send_salt)
        )
        self.is_connected = True
        self._owner.on_connected(self)
