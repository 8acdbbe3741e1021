"""Our transport against aiortc's DTLS and SCTP, over two UDP sockets of this machine.

aiortc's SCTP is an independent implementation of RFC 9260, its DTLS another user of OpenSSL; ICE is not part of this.
"""

import asyncio
import contextlib
import os

import pytest
from aiortc import RTCCertificate, RTCDataChannel, RTCDataChannelParameters, RTCDtlsTransport, RTCSctpTransport
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters
from aiortc.rtcsctptransport import RTCSctpCapabilities
from pyee.asyncio import AsyncIOEventEmitter

from relay.clock import monotonic_ns
from relay.session import (
    Certificate,
    ChannelClosedEvent,
    ChannelOpened,
    DatagramReady,
    Event,
    HandshakeFailed,
    MessageReceived,
    SrtpKeysReady,
    Transport,
    TransportClosed,
)

pytestmark = pytest.mark.interop


class Path(AsyncIOEventEmitter):
    """Stands where aiortc expects its ICE transport: a UDP socket whose far end is known."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role
        self.state = "completed"
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._socket: asyncio.DatagramTransport | None = None

    async def open(self, remote: tuple[str, int]) -> tuple[str, int]:
        inbox = self._inbox

        class Protocol(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, _address: object) -> None:
                inbox.put_nowait(data)

        self._remote = remote
        self._socket, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            Protocol, local_addr=("127.0.0.1", 0)
        )
        return self._socket.get_extra_info("sockname")

    async def _recv(self) -> bytes:
        return await self._inbox.get()

    async def _send(self, data: bytes) -> None:
        assert self._socket is not None
        self._socket.sendto(data, self._remote)

    def close(self) -> None:
        assert self._socket is not None
        self._socket.close()


class Driver(asyncio.DatagramProtocol):
    """The smallest driver of our transport: a socket and a timer."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.events: list[Event] = []
        self.remote: tuple[str, int] | None = None
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._socket: asyncio.DatagramTransport | None = None

    async def open(self) -> tuple[str, int]:
        loop = asyncio.get_running_loop()
        self._socket, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        return self._socket.get_extra_info("sockname")

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.remote = address
        self.transport.receive_dtls(data, monotonic_ns())
        self.drain()

    def drain(self) -> None:
        for event in self.transport.poll(monotonic_ns()):
            if isinstance(event, DatagramReady):
                assert self._socket is not None and len(event.data) <= 1200
                if self.remote is not None:
                    self._socket.sendto(event.data, self.remote)
            else:
                self.events.append(event)
        self._changed.set()
        if self._timer is not None:
            self._timer.cancel()
        due_ns = self.transport.next_timeout_ns
        if due_ns is not None:
            delay_s = max(0, due_ns - monotonic_ns()) / 1e9
            self._timer = asyncio.get_running_loop().call_later(delay_s, self.drain)

    async def until(self, kind: type, how_many: int = 1) -> list:
        async with asyncio.timeout(10):
            while len(found := [event for event in self.events if isinstance(event, kind)]) < how_many:
                self._changed.clear()
                await self._changed.wait()
        return found

    def close(self) -> None:
        self.transport.close()
        self.drain()
        if self._timer is not None:
            self._timer.cancel()
        assert self._socket is not None
        self._socket.close()


class Pair:
    """Both ends, connected or about to be."""

    def __init__(self, our_role: str) -> None:
        self.our_role = our_role
        self.ours = Driver(Transport(Certificate.generate()))
        # aiortc takes the DTLS role of the server where ICE is controlling.
        self.path = Path("controlled" if our_role == "server" else "controlling")
        self.certificate = RTCCertificate.generateCertificate()
        self.theirs = RTCDtlsTransport(self.path, [self.certificate])
        self.sctp = RTCSctpTransport(self.theirs)
        self.stopped = False
        self.channels: list[RTCDataChannel] = []
        self.messages: list[str | bytes] = []
        self.sctp.on("datachannel", self._on_channel)

    def _on_channel(self, channel: RTCDataChannel) -> None:
        self.channels.append(channel)
        channel.on("message", self.messages.append)

    async def start(self, *, fingerprint: str | None = None) -> None:
        our_address = await self.ours.open()
        self.ours.remote = await self.path.open(our_address)
        named = [(f.algorithm, f.value) for f in self.certificate.getFingerprints()]
        self.ours.transport.set_remote(named, self.our_role)
        self.ours.transport.enable_sctp()
        hash_name, value = self.ours.transport.fingerprint.split(" ")
        self.ours.drain()
        await self.theirs.start(
            RTCDtlsParameters(fingerprints=[RTCDtlsFingerprint(algorithm=hash_name, value=fingerprint or value)])
        )

    async def start_sctp(self) -> None:
        await self.sctp.start(RTCSctpCapabilities(maxMessageSize=65_536), 5000)

    async def stop_theirs(self) -> None:
        if not self.stopped:
            self.stopped = True
            await self.sctp.stop()
            await self.theirs.stop()

    async def until(self, holds) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def connected(our_role: str):
    pair = Pair(our_role)
    try:
        await pair.start()
        await pair.start_sctp()
        await pair.ours.until(SrtpKeysReady)
        yield pair
    finally:
        await pair.stop_theirs()
        pair.ours.close()
        pair.path.close()


@pytest.mark.parametrize("our_role", ["server", "client"])
async def test_both_derive_the_same_srtp_keys(our_role: str) -> None:
    async with connected(our_role) as pair:
        (ready,) = await pair.ours.until(SrtpKeysReady)
        keys = ready.keys
        if our_role == "server":
            # Our preference decides, not the client's order.
            assert keys.profile == 0x0007
        size = len(keys.send_key) + len(keys.send_salt)
        material = pair.theirs._ssl.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * size)
        assert {keys.send_key, keys.receive_key} == {
            material[: len(keys.send_key)], material[len(keys.send_key) : 2 * len(keys.send_key)]
        }
        first_key = keys.receive_key if our_role == "server" else keys.send_key
        assert material.startswith(first_key)


@pytest.mark.parametrize("our_role", ["server", "client"])
async def test_messages_of_every_size_pass_both_ways(our_role: str) -> None:
    async with connected(our_role) as pair:
        channel = pair.ours.transport.open_channel("_reliable", protocol="veil")
        sizes = (0, 1, 1_000, 16_000, 65_536)
        for size in sizes:
            pair.ours.transport.send(channel, os.urandom(size))
        pair.ours.transport.send(channel, "grüße".encode(), binary=False)
        pair.ours.drain()
        await pair.until(lambda: len(pair.messages) == len(sizes) + 1)
        assert [len(message) for message in pair.messages[:-1]] == list(sizes)
        assert pair.messages[-1] == "grüße"
        (opened,) = await pair.ours.until(ChannelOpened)
        assert (opened.label, opened.protocol, opened.by_remote) == ("_reliable", "veil", False)
        (theirs,) = pair.channels
        assert (theirs.label, theirs.protocol, theirs.ordered) == ("_reliable", "veil", True)
        for size in sizes:
            theirs.send(bytes(size))
        theirs.send("")
        got = await pair.ours.until(MessageReceived, len(sizes) + 1)
        assert [(len(event.data), event.binary) for event in got] == [*((size, True) for size in sizes), (0, False)]


@pytest.mark.parametrize("our_role", ["server", "client"])
async def test_a_channel_they_open_is_ours_too_and_closing_is_mutual(our_role: str) -> None:
    async with connected(our_role) as pair:
        theirs = RTCDataChannel(pair.sctp, RTCDataChannelParameters(label="_lossy", ordered=False, maxRetransmits=1))
        (opened,) = await pair.ours.until(ChannelOpened)
        assert (opened.label, opened.ordered, opened.max_retransmits, opened.by_remote) == ("_lossy", False, 1, True)
        await pair.until(lambda: theirs.readyState == "open")
        for number in range(50):
            theirs.send(b"%d" % number)
        await pair.ours.until(MessageReceived, 50)
        theirs.close()
        await pair.ours.until(ChannelClosedEvent)
        await pair.until(lambda: theirs.readyState == "closed")


async def test_a_channel_we_close_closes_there() -> None:
    async with connected("server") as pair:
        channel = pair.ours.transport.open_channel("c")
        pair.ours.transport.send(channel, b"hello")
        pair.ours.drain()
        await pair.until(lambda: pair.messages == [b"hello"])
        pair.ours.transport.close_channel(channel)
        pair.ours.drain()
        await pair.ours.until(ChannelClosedEvent)
        await pair.until(lambda: pair.channels[0].readyState == "closed")


async def test_a_wrong_fingerprint_fails_at_the_end_that_checks_it() -> None:
    pair = Pair("server")
    await pair.start(fingerprint=":".join(["00"] * 32))
    assert pair.theirs.state == "failed"
    await pair.theirs.stop()
    pair.ours.close()
    pair.path.close()


async def test_their_goodbye_closes_ours() -> None:
    async with connected("server") as pair:
        await pair.stop_theirs()
        (closed,) = await pair.ours.until(TransportClosed)
        assert closed.reason == "close_notify from the peer"
        assert not [event for event in pair.ours.events if isinstance(event, HandshakeFailed)]
