"""Captures and event logs over real HTTP, a real data plane behind them: what they hold, who gets them, what is logged."""

import asyncio
import contextlib
import io
import json
import logging
import random
import socket
import struct
from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import ClientSession, ClientTimeout, web

from relay import log
from relay.observe import Debugged, Debugging, Suspect, pcapng
from relay.plane import (
    MAX_KEPT_BYTES,
    Captured,
    Codec,
    EgressSpec,
    ListenAddress,
    Plane,
    PlaneError,
    ReceiverSpec,
    SrtpKeys,
)
from tests.support.captured import Packet, found_in, read_pcapng
from tests.support.engine import LEVEL, rtp
from tests.support.peer import MediaPeer, header_bytes

OPUS = Codec(111, "opus", 48000, None)
URIS = {"urn:ietf:params:rtp-hdrext:ssrc-audio-level": LEVEL}
# No run of four bytes of it occurs by chance in headers of these tests.
SECRET = random.Random(9).randbytes(160)
PACKETS = 5


class Listener:
    def on_dtls(self, datagram: bytes) -> None: ...
    def on_ice_connected(self, remote: tuple[str, int]) -> None: ...
    def on_ice_dead(self) -> None: ...
    def on_estimate(self, estimate_bps: int, loss: float, rtt_ms: int) -> None: ...
    def on_stream_bound(self, encoding: int, ssrc: int) -> None: ...
    def on_encoding_active(self, encoding: int, active: bool) -> None: ...
    def on_stopped(self, reason: str) -> None: ...
    def on_undeclared_encryption(self) -> None: ...

    def on_speaking(self, dbov: int) -> None: ...

    def on_layers(self, encoding: int, spatial_count: int, temporal_count: int) -> None: ...


class Call:
    """One publishes to the other over a real plane; both on this loop."""

    def __init__(self, plane: Plane, rng: random.Random) -> None:
        self.plane = plane
        self.peers = MediaPeer(rng), MediaPeer(rng)
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in self.peers]
        self.transports: list[int] = []
        self.sent: list[bytes] = []
        for one in self.sockets:
            one.bind(("127.0.0.1", 0))
            one.setblocking(False)

    async def open(self) -> None:
        for peer, ours in zip(self.peers, self.sockets, strict=True):
            transport = await self.plane.add_transport(peer.ufrag, peer.password, Listener())
            await self.plane.set_srtp(transport, SrtpKeys(**peer.relay_keys()))
            await self.plane.set_extensions(transport, URIS)
            self.transports.append(transport)
            await self.check(peer, ours)
        spec = ReceiverSpec(kind="audio", mid="0", codecs=(OPUS,), rids=(), ssrcs=(1234,), rtx_ssrcs=())
        receiver = await self.plane.add_receiver(self.transports[0], spec, Listener())
        await self.plane.add_egress(EgressSpec(self.transports[1], receiver, "0", 77, None, (OPUS,), "c", 0))

    @property
    def relay(self) -> tuple[str, int]:
        return self.plane.addresses[0].ip, self.plane.addresses[0].port

    async def check(self, peer: MediaPeer, ours: socket.socket) -> None:
        ours.sendto(peer.check(), self.relay)
        while peer.receive(await self.next(ours)) is not None or not peer.stun:
            pass

    async def next(self, ours: socket.socket) -> bytes:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(ours, 2000), 5)

    async def talk(self) -> None:
        """Publish packets of SECRET and wait until the other end has them."""
        got = len(self.peers[1].rtp)
        for _ in range(PACKETS):
            packet = rtp(1234, len(self.sent), pt=111, extensions={LEVEL: b"\x85"}, payload=SECRET)
            self.sent.append(packet)
            self.sockets[0].sendto(self.peers[0].protect(packet), self.relay)
        while len(self.peers[1].rtp) < got + PACKETS:
            self.peers[1].receive(await self.next(self.sockets[1]))

    def close(self) -> None:
        for one in self.sockets:
            one.close()


@pytest.fixture
async def call() -> AsyncIterator[Call]:
    plane = Plane([ListenAddress("127.0.0.1", 0, "127.0.0.1")], seed=1)
    await plane.start()
    made = Call(plane, random.Random(3))
    await made.open()
    yield made
    made.close()
    await plane.stop()


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged, as JSON."""
    out = io.StringIO()
    level = logging.getLogger().level
    log.configure("info", "json", out)
    yield out
    root = logging.getLogger()
    for handler in [h for h in root.handlers if getattr(h, "veil_handler", False)]:
        root.removeHandler(handler)
    root.setLevel(level)


def records(lines: io.StringIO, event: str) -> list[dict]:
    return [r for r in map(json.loads, lines.getvalue().splitlines()) if r["event"] == event]


@contextlib.asynccontextmanager
async def served(call: Call, **changes) -> AsyncIterator[str]:
    def find(sid: str) -> Suspect | None:
        return Suspect("PA_a", "RM_r", tuple(call.transports)) if sid == "PA_a" else None

    plane = call.plane
    options = {"find": find, "capture": plane.capture, "journal": plane.journal, "snapshot": plane.snapshot,
               "kept_bytes": MAX_KEPT_BYTES, "is_dev": True, **changes}
    debugging = Debugging(Debugged(**options))
    app = web.Application()
    app.add_routes(debugging.routes())
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/debug"
    finally:
        debugging.stop()
        await runner.cleanup()


async def ask(url: str, headers: dict[str, str] | None = None, method: str = "GET") -> tuple[int, bytes]:
    async with ClientSession(timeout=ClientTimeout(20)) as session, session.request(method, url, headers=headers) as answer:
        return answer.status, await answer.read()


async def captured(call: Call, url: str) -> bytes:
    """Capture a second of the call."""
    asking = asyncio.ensure_future(ask(f"{url}/capture?participant=PA_a&seconds=1"))
    while not (await call.plane.snapshot()).counters["captured"]:
        await call.talk()
        assert not asking.done()
    status, blob = await asking
    assert status == 200
    return blob


def of_rtp(packets: list[Packet], *, is_sent: bool) -> list[Packet]:
    return [p for p in packets if p.is_sent == is_sent and p.data and 128 <= p.data[0] <= 191 and not p.comment]


async def test_a_capture_holds_headers_and_no_byte_of_a_payload(call: Call, lines: io.StringIO) -> None:
    async with served(call) as url:
        blob = await captured(call, url)
    comment, packets = read_pcapng(blob)
    assert "PA_a" in comment
    received, sent = of_rtp(packets, is_sent=False), of_rtp(packets, is_sent=True)
    headers = [packet[: header_bytes(packet)] for packet in call.sent]
    assert received and {p.data for p in received} <= set(headers)
    assert sent and {p.data for p in sent} <= {p[: header_bytes(p)] for p in call.peers[1].rtp}
    # Truncated, and the file says so.
    assert all(p.payload_bytes == len(call.sent[0]) + 16 and len(p.data) < p.payload_bytes for p in received)
    assert {p.source for p in received} == {call.sockets[0].getsockname()}
    assert {p.target for p in received} == {call.relay}
    assert {p.target for p in sent} == {call.sockets[1].getsockname()}
    secrets = [SECRET]
    for peer in call.peers:
        secrets += [peer.password.encode(), peer.send_key, peer.send_salt, peer.receive_key, peer.receive_salt]
    assert [found_in(blob, secret) for secret in secrets] == [None] * len(secrets)
    (began,), (ended,) = records(lines, "capture of headers began"), records(lines, "capture of headers ended")
    for line in (began, ended):
        assert (line["participant"], line["room"], line["transports"]) == ("PA_a", "RM_r", call.transports)
        assert (line["asked_from"], line["asked_with"]) == ("127.0.0.1", "loopback")
    assert began["seconds"] == 1 and 1 <= ended["took_s"] < 5 and ended["records"] == len(packets)


@pytest.mark.parametrize("kept", [4, 160])
async def test_control_a_capture_that_kept_payload_would_be_found(call: Call, kept: int) -> None:
    """The same file with only a few bytes behind one header: the search above finds them."""
    async with served(call) as url:
        blob = await captured(call, url)
    assert found_in(blob, SECRET) is None
    packet = call.sent[0]
    longer = packet[: header_bytes(packet) + kept]
    ends = call.relay, call.sockets[0].getsockname()
    leak = Captured(0, 0, "rtp", False, *ends, len(packet) + 16, longer)
    assert found_in(blob + pcapng.packet(leak, 0, MAX_KEPT_BYTES), SECRET) is not None


async def test_a_capture_ends_with_its_packets_and_can_be_had_again(call: Call) -> None:
    async with served(call) as url:
        for _ in range(2):
            asking = asyncio.ensure_future(ask(f"{url}/capture?participant=PA_a&seconds=60&packets=3"))
            while not asking.done():
                await call.talk()
                await asyncio.sleep(0.01)
            status, blob = await asking
            assert status == 200 and len(read_pcapng(blob)[1]) == 3 * len(call.transports)


async def test_one_capture_at_a_time(call: Call) -> None:
    under_way = await call.plane.capture(call.transports[1], 10, 100)
    async with served(call) as url:
        status, text = await ask(f"{url}/capture?participant=PA_a&seconds=1")
        assert status == 409 and b"E_STATE" in text
        await under_way.stop()
        assert (await ask(f"{url}/capture?participant=PA_a&seconds=1"))[0] == 200
    with pytest.raises(PlaneError):
        await call.plane.capture(999, 1, 1)
    for seconds, packets in ((0, 1), (601, 1), (1, 0), (1, 1_000_001)):
        with pytest.raises(ValueError):
            await call.plane.capture(call.transports[0], seconds, packets)


async def test_who_goes_away_ends_the_capture(call: Call, lines: io.StringIO) -> None:
    async with served(call) as url, ClientSession() as session:
        answer = await session.get(f"{url}/capture?participant=PA_a&seconds=600")
        answer.close()
        async with asyncio.timeout(5):
            while not records(lines, "capture of headers ended"):
                await call.talk()
                await asyncio.sleep(0.02)
        (await call.plane.capture(call.transports[0], 1, 1)).take()


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("participant=PA_b", 404),
        ("participant=PA_a&seconds=x", 400),
        ("participant=PA_a&seconds=nan", 400),
        ("participant=PA_a&seconds=601", 400),
        ("participant=PA_a&seconds=1&packets=0", 400),
    ],
)
async def test_a_wrong_question_is_answered_with_a_sentence(call: Call, query: str, status: int) -> None:
    async with served(call) as url:
        for path, method in (("capture", "GET"), ("log", "POST")):
            if "packets" in query and path == "log":
                continue
            got, text = await ask(f"{url}/{path}?{query}", method=method)
            assert got == status and text.endswith(b".\n")


async def test_only_the_operator_may(call: Call, lines: io.StringIO) -> None:
    bearer = {"Authorization": "Bearer t"}
    everything = (("capture", "GET"), ("log", "GET"), ("log", "POST"))

    async def statuses(headers: dict[str, str] | None = None, **changes) -> set[int]:
        async with served(call, **changes) as url:
            # Of nobody: who may ask gets 404 or a list.
            return {(await ask(f"{url}/{path}?participant=PA_b", headers, method))[0] for path, method in everything}

    assert 403 not in await statuses()
    assert await statuses(is_dev=False) == {403}
    assert await statuses({"X-Forwarded-For": "198.51.100.7"}) == {403}
    assert await statuses({"Sec-Fetch-Site": "cross-site"}) == {403}
    assert await statuses({"Host": "rebound.example"}) == {403}
    assert await statuses(token="t") == {403}
    assert await statuses({"Authorization": "Bearer x"}, token="t") == {403}
    assert 403 not in await statuses({**bearer, "X-Forwarded-For": "198.51.100.7"}, token="t", is_dev=False)
    assert len(records(lines, "debugging refused")) == 6 * len(everything)


async def test_followed_transports_tell_what_happens(call: Call, lines: io.StringIO) -> None:
    async with served(call) as url:
        status, text = await ask(f"{url}/log?participant=PA_a&seconds=30", method="POST")
        assert status == 200 and b"30 s" in text
        assert (await ask(f"{url}/log"))[1].count(b"transport ") == 2
        await call.talk()
        nack = struct.pack("!BBHIIHH", 0x81, 205, 3, 99, 77, 1, 0)
        call.sockets[1].sendto(call.peers[1].protect_rtcp(nack), call.relay)
        async with asyncio.timeout(5):
            while sum(r["nacks_received"] for r in records(lines, "transport: figures")) < 1:
                await asyncio.sleep(0.05)
        assert (await ask(f"{url}/log?participant=PA_a&seconds=0", method="POST"))[0] == 200
        assert call.plane.journal.followed == ()
    (bound,) = records(lines, "transport: stream bound")
    assert (bound["transport"], bound["ssrc"], bound["participant"], bound["room"]) == (
        call.transports[0], 1234, "PA_a", "RM_r",
    )
    (switched,) = records(lines, "transport: encoding switched")
    assert (switched["transport"], switched["encoding"]) == (call.transports[1], 0)
    (line,) = records(lines, "event log switched")[:1]
    assert (line["participant"], line["seconds"], line["asked_from"]) == ("PA_a", 30, "127.0.0.1")
    text = lines.getvalue()
    for peer in call.peers:
        assert not any(word in text for word in (peer.password, peer.ufrag, peer.send_key.hex()))


async def test_nobody_is_followed_unasked(call: Call, lines: io.StringIO) -> None:
    await call.talk()
    assert "transport:" not in lines.getvalue()


async def test_following_ends_by_itself_and_with_the_transport(call: Call) -> None:
    async with served(call) as url:
        await ask(f"{url}/log?participant=PA_a&seconds=1", method="POST")
        await call.plane.remove_transport(call.transports[0])
        assert call.plane.journal.followed == (call.transports[1],)
        async with asyncio.timeout(5):
            while call.plane.journal.followed:
                await asyncio.sleep(0.05)
        assert (await ask(f"{url}/log"))[1] == b"No transport is followed.\n"


def test_ipv6_and_missing_records_are_written() -> None:
    ends = ("2001:db8::1", 7882), ("2001:db8::2", 40000)
    one = Captured(5, 3, "rtp", True, *ends, 100, rtp(1, 2))
    whole = Captured(6, 0, "rtcp", False, *ends, 28, b"\x80\xc9\x00\x01\x00\x00\x00\x07")
    blob = pcapng.head("c", "v") + b"".join(pcapng.packet(r, 10**18, MAX_KEPT_BYTES) for r in (one, whole))
    comment, (sent, heard) = read_pcapng(blob)
    assert comment == "c"
    assert (sent.at_ns, sent.is_sent, sent.missed, sent.source, sent.target) == (10**18 + 5, True, 3, *ends)
    assert (sent.payload_bytes, sent.original_bytes, sent.data) == (100, 148, rtp(1, 2))
    assert (heard.source, heard.payload_bytes, heard.comment) == (ends[1], 8, "rtcp, 28 bytes on the wire")
