"""Our transport against the DTLS and SCTP of real browsers; ICE is aioice's, so that nothing else of ours takes part.

What only browsers do: a ClientHello with an ML-KEM share in two datagrams, dcSCTP, their order of SRTP profiles.
"""

import asyncio
import contextlib
import re

import pytest
from aioice import Candidate, Connection

from relay.clock import monotonic_ns
from relay.session import (
    Certificate,
    ChannelClosedEvent,
    ChannelOpened,
    DatagramReady,
    Event,
    MessageReceived,
    SrtpKeysReady,
    Transport,
    TransportClosed,
)
from tests.support.browsers import blank_site, chromium, firefox

pytestmark = pytest.mark.browser

OFFER = """async () => {
  window.pc = new RTCPeerConnection();
  window.got = [];
  window.shut = [];
  window.keep = (channel) => {
    channel.binaryType = "arraybuffer";
    channel.onmessage = (event) => got.push([channel.label, typeof event.data, event.data.byteLength ?? event.data.length]);
    channel.onclose = () => shut.push(channel.label);
    window[channel.label] = channel;
  };
  keep(pc.createDataChannel("_reliable"));
  keep(pc.createDataChannel("_lossy", {ordered: false, maxRetransmits: 1}));
  pc.ondatachannel = (event) => keep(event.channel);
  await pc.setLocalDescription(await pc.createOffer());
  while (pc.iceGatheringState !== "complete") await new Promise((done) => setTimeout(done, 10));
  return pc.localDescription.sdp;
}"""

ANSWER = """v=0
o=- 1 1 IN IP4 0.0.0.0
s=-
t=0 0
a=group:BUNDLE 0
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:0
a=setup:{setup}
a=ice-ufrag:{ufrag}
a=ice-pwd:{password}
a=fingerprint:{fingerprint}
a=sctp-port:5000
a=max-message-size:65536
{candidates}
a=end-of-candidates
"""


class Wire:
    """Our transport on an aioice connection."""

    def __init__(self) -> None:
        self.transport = Transport(Certificate.generate())
        self.ice = Connection(
            ice_controlling=False, local_username=self.transport.ufrag, local_password=self.transport.password
        )
        self.events: list[Event] = []
        self._wake = asyncio.Event()

    async def connect(self, offer: str, our_role: str) -> None:
        fingerprints = [tuple(row.split(" ", 1)) for row in re.findall(r"a=fingerprint:(\S+ \S+)", offer)]
        self.transport.set_remote(fingerprints, our_role)
        self.transport.enable_sctp()
        self.ice.remote_username = re.search(r"a=ice-ufrag:(\S+)", offer)[1]
        self.ice.remote_password = re.search(r"a=ice-pwd:(\S+)", offer)[1]
        for row in re.findall(r"a=candidate:(.+)", offer):
            with contextlib.suppress(ValueError):
                await self.ice.add_remote_candidate(Candidate.from_sdp(row.strip()))
        await self.ice.add_remote_candidate(None)
        await self.ice.connect()

    async def run(self) -> None:
        """Carry datagrams and time until cancelled."""
        while True:
            await self.drain()
            due_ns = self.transport.next_timeout_ns
            wait_s = 0.05 if due_ns is None else min(0.05, max(0, due_ns - monotonic_ns()) / 1e9)
            with contextlib.suppress(TimeoutError):
                self.transport.receive_dtls(await asyncio.wait_for(self.ice.recv(), wait_s), monotonic_ns())

    async def drain(self) -> None:
        for event in self.transport.poll(monotonic_ns()):
            if isinstance(event, DatagramReady):
                with contextlib.suppress(ConnectionError):
                    await self.ice.send(event.data)
            else:
                self.events.append(event)

    async def until(self, kind: type, how_many: int = 1) -> list:
        async with asyncio.timeout(15):
            while len(found := [event for event in self.events if isinstance(event, kind)]) < how_many:
                await asyncio.sleep(0.01)
        return found


@contextlib.asynccontextmanager
async def joined(page, our_role: str):
    wire = Wire()
    offer = await page.evaluate(OFFER)
    await wire.ice.gather_candidates()
    candidates = "\n".join(f"a=candidate:{candidate.to_sdp()}" for candidate in wire.ice.local_candidates)
    answer = ANSWER.format(
        setup="passive" if our_role == "server" else "active",
        ufrag=wire.transport.ufrag,
        password=wire.transport.password,
        fingerprint=wire.transport.fingerprint,
        candidates=candidates,
    )
    await page.evaluate("async (sdp) => pc.setRemoteDescription({type: 'answer', sdp})", answer.replace("\n", "\r\n"))
    await wire.connect(offer, our_role)
    running = asyncio.ensure_future(wire.run())
    try:
        yield wire
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await running
        wire.transport.close()
        await wire.drain()
        await wire.ice.close()


@pytest.mark.parametrize("our_role", ["server", "client"])
@pytest.mark.parametrize("browser", [chromium, firefox], ids=["chromium", "firefox"])
async def test_a_browser_handshakes_and_exchanges_messages(browser, our_role: str) -> None:
    async with blank_site() as url, browser() as page:
        await page.goto(url)
        async with joined(page, our_role) as wire:
            (ready,) = await wire.until(SrtpKeysReady)
            if our_role == "server":
                assert ready.keys.profile == 0x0007
            opened = {event.label: event for event in await wire.until(ChannelOpened, 2)}
            assert (opened["_lossy"].ordered, opened["_lossy"].max_retransmits) == (False, 1)
            assert (opened["_reliable"].ordered, opened["_reliable"].max_retransmits) == (True, None)
            await page.evaluate(
                """() => {
                     for (const size of [0, 1, 15000, 64000]) _reliable.send(new Uint8Array(size));
                     _reliable.send("grüße");
                   }"""
            )
            got = await wire.until(MessageReceived, 5)
            assert [(len(event.data), event.binary) for event in got] == [
                (0, True), (1, True), (15_000, True), (64_000, True), (7, False),
            ]
            mine = wire.transport.open_channel("mine")
            for size in (0, 1, 15_000, 64_000):
                wire.transport.send(mine, bytes(size))
                wire.transport.send(opened["_lossy"].channel, bytes(size % 1_000))
            theirs = await settled(page, 8)
            assert [row[2] for row in theirs if row[0] == "mine"] == [0, 1, 15_000, 64_000]
            assert sorted(row[2] for row in theirs if row[0] == "_lossy") == [0, 0, 0, 1]
            wire.transport.close_channel(mine)
            await page.evaluate("() => _reliable.close()")
            gone = {event.channel for event in await wire.until(ChannelClosedEvent, 2)}
            assert gone == {mine, opened["_reliable"].channel}
            assert "mine" in await page.evaluate(
                """async () => { while (shut.length < 2) await new Promise((done) => setTimeout(done, 10)); return shut; }"""
            )
            await page.evaluate("() => pc.close()")
            await wire.until(TransportClosed)


async def settled(page, how_many: int) -> list[list]:
    """Return what the page received once it is this many messages."""
    return await page.evaluate(
        """async (many) => {
             const end = Date.now() + 10000;
             while (got.length < many && Date.now() < end) await new Promise((done) => setTimeout(done, 10));
             return got;
           }""",
        how_many,
    )
