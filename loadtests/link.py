"""One transport of a bot: a native endpoint for ICE and media, DTLS here, data channels on top.

    created ──set_remote──▶ checking ──ICE_CONNECTED──▶ handshaking ──keys──▶ connected ──▶ closed
                                                             └──▶ failed

Handshakes run in the fleet's thread pool, one call of one link at a time; the rest is the loop's.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from google_crc32c import value as crc32c

from loadtests.dtls import Dtls, HandshakeError
from loadtests.sdp import Local

if TYPE_CHECKING:
    from loadtests.channels import Channels
    from loadtests.fleet import Fleet

Receive = Callable[[str, bytes], None]


SCTP_INIT, SCTP_ABORT = 1, 6


def refuse_association(packet: bytes) -> bytes | None:
    """Return the ABORT for an INIT (RFC 9260 §8.4, 3.3.7), else None: a bot without data channels says so once."""
    if len(packet) < 20 or packet[12] != SCTP_INIT:
        return None
    ports, their_tag = packet[2:4] + packet[0:2], packet[16:20]
    chunk = bytes([SCTP_ABORT, 0, 0, 4])
    # RFC 9260 §6.8: CRC32c over the packet with a zero checksum, least significant byte first.
    checksum = crc32c(ports + their_tag + bytes(4) + chunk).to_bytes(4, "little")
    return ports + their_tag + checksum + chunk


class Link:
    """`on_change` is called whenever something a waiter may wait for has happened."""

    def __init__(self, fleet: "Fleet", *, controlling: bool, data: bool, opens_channels: bool,
                 on_change: Callable[[], None], on_message: Receive) -> None:
        self._fleet = fleet
        self._loop = asyncio.get_running_loop()
        self._on_change = on_change
        self._on_message = on_message
        self._with_data = data
        self._opens_channels = opens_channels
        self._dtls: Dtls | None = None
        self._waiting: list[bytes] = []
        self._is_digesting = False
        self._is_closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_remote = False
        self._ice_is_up = False
        self._credentials = ("", "")
        self.channels: Channels | None = None
        self.is_connected = False
        self.failure = ""
        ufrag, password = secrets.token_hex(4), secrets.token_hex(16)
        self.endpoint = fleet.load.add_endpoint(fleet.local_ip, None, ufrag, password, controlling=controlling)
        fleet.links[self.endpoint] = self
        self.local = Local(ufrag, password, fleet.identity.fingerprint, fleet.load.local_address(self.endpoint))

    def set_remote(self, candidates: Sequence[tuple[str, int]], ufrag: str, password: str,
                   fingerprints: Sequence[tuple[str, str]], role: str) -> None:
        """Say who the other end is, and our DTLS role; later calls with other credentials are ICE restarts."""
        if self._dtls is None:
            self._dtls = Dtls(self._fleet.identity, role, fingerprints)
        if (ufrag, password) != self._credentials:
            self._credentials, self._has_remote = (ufrag, password), False
        for candidate in candidates:
            self.add_candidate(candidate)
        self._begin()

    def add_candidate(self, address: tuple[str, int]) -> None:
        """Use the first candidate that can be reached from our socket's family."""
        same_family = (":" in address[0]) == (":" in self._fleet.local_ip)
        if self._has_remote or not same_family or not self._credentials[0]:
            return
        self._has_remote = True
        self._fleet.load.set_ice(self.endpoint, address, *self._credentials)

    def on_ice_connected(self) -> None:
        """The other end answers checks."""
        self._ice_is_up = True
        self._begin()

    def on_datagram(self, datagram: bytes) -> None:
        """Take a DTLS datagram."""
        if self._is_closed or self.failure:
            return
        if not self.is_connected or self._dtls is None:
            self._waiting.append(datagram)
            self._digest()
            return
        self._dtls.receive(datagram)
        self._flush()
        self._pass_on()

    async def close(self) -> None:
        """Say goodbye and free the endpoint."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self.channels is not None:
            await self.channels.stop()
        # A thread inside OpenSSL cannot be cancelled.
        await self._idle.wait()
        if self._dtls is not None:
            self._dtls.close()
            self._flush()
        for task in self._tasks:
            task.cancel()
        self._fleet.links.pop(self.endpoint, None)
        self._fleet.load.remove_endpoint(self.endpoint)

    # Inside.

    def _begin(self) -> None:
        if self._ice_is_up and self._dtls is not None and not self._dtls.is_connected:
            self._digest(starts=self._dtls.role == "client")

    def _digest(self, *, starts: bool = False) -> None:
        """Hand what is waiting to the thread pool, unless a thread is at it."""
        if self._dtls is None or self._is_digesting or self._is_closed or not (self._waiting or starts):
            return
        batch, self._waiting = self._waiting, []
        self._spawn(self._work(lambda dtls: dtls.handshake(batch)))

    def _repeat(self) -> None:
        self._timer = None
        if self._is_digesting or self._is_closed or self.is_connected:
            return
        self._spawn(self._work(lambda dtls: dtls.repeat()))

    async def _work(self, step: Callable[[Dtls], float | None]) -> None:
        dtls = self._dtls
        assert dtls is not None
        try:
            repeat_s = await self._loop.run_in_executor(self._fleet.pool, step, dtls)
        except HandshakeError as error:
            self.failure = str(error)
            self._on_change()
            return
        finally:
            self._is_digesting = False
            self._idle.set()
        self._flush()
        if self._is_closed:
            return
        if dtls.keys is not None and not self.is_connected:
            keys = dtls.keys
            self._fleet.load.set_srtp(
                self.endpoint, keys.profile, keys.send_key, keys.send_salt, keys.receive_key, keys.receive_salt
            )
            self.is_connected = True
            if self._with_data:
                await self._start_channels(dtls)
            for datagram in self._waiting:
                dtls.receive(datagram)
            self._waiting = []
            self._flush()
            self._pass_on()
            self._on_change()
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if repeat_s is not None and not self.is_connected:
            self._timer = self._loop.call_later(repeat_s + 0.01, self._repeat)
        self._digest()

    async def _start_channels(self, dtls: Dtls) -> None:
        from loadtests.channels import Channels

        self.channels = Channels(dtls.role, self._send_data, self._on_message, self._on_change)
        await self.channels.start(opens=self._opens_channels)

    def _send_data(self, data: bytes) -> None:
        if self._dtls is not None:
            self._dtls.send(data)
            self._flush()

    def _pass_on(self) -> None:
        if self._dtls is None or not self._dtls.received:
            return
        received, self._dtls.received = self._dtls.received, []
        if self.channels is not None:
            self._spawn(self._feed(self.channels, received), digests=False)
        else:
            for refusal in filter(None, map(refuse_association, received)):
                self._send_data(refusal)

    @staticmethod
    async def _feed(channels: "Channels", packets: list[bytes]) -> None:
        for packet in packets:
            await channels.receive(packet)

    def _flush(self) -> None:
        assert self._dtls is not None
        outgoing, self._dtls.outgoing = self._dtls.outgoing, []
        for datagram in outgoing:
            self._fleet.load.send_datagram(self.endpoint, datagram)

    def _spawn(self, work: "Awaitable[None]", *, digests: bool = True) -> None:
        if digests:
            self._is_digesting = True
            self._idle.clear()
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
