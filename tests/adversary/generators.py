"""Kinds of garbage, each seeded, bounded and with the reason under which the relay has to count it.

A kind is a coroutine `kind(target, rng, count, seconds)` that sends `count` items evenly over `seconds` and returns how
much each counter must have grown: {"dropped:replay": 300}. `dropped` is veil_plane_dropped_total, `refused` is
veil_refused_total, `plane` a counter of the data plane. A sink in place of the relay takes the same bytes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import random
import struct
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from livekit.protocol import rtc

from tests.adversary.attacker import MediaPath, udp_socket
from tests.support.peer import stun_check

Expected = Counter[str]
HOST = "127.0.0.1"
TICK_S = 0.005
# More than the replay window, so that the first of them are too old at the end.
WARM_PACKETS = 1100
REPLAYED_FROM = 64
FORGED_SEQ = 100
# SSRCs a transport may have (MAX_STREAMS in routes.pxd); the warm-up takes them all.
SSRCS = 64
# RTCP_MAX_SOURCES in srtp.pyx.
RTCP_SENDERS = 1024
ANSWER_S = 10.0
BINARY, TEXT, CLOSE, PING = 2, 1, 8, 9
MAX_BAD_FRAMES = 16
SILENT_CONNECTIONS = 1000


@dataclass
class Target:
    """Where garbage goes: a relay's ports and an authenticated path into it, or a sink's."""

    path: MediaPath
    udp_port: int
    http_port: int
    token: Callable[[], str]


Kind = Callable[[Target, random.Random, int, float], Awaitable[Expected]]
KINDS: dict[str, Kind] = {}


def kind(function: Kind) -> Kind:
    """Enter a generator under its name."""
    KINDS[function.__name__] = function
    return function


async def paced(count: int, seconds: float) -> AsyncIterator[int]:
    """Yield 0 to count-1, spread evenly over the time; a late loop catches up."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    for i in range(count):
        if (due := start + i * seconds / count) > loop.time():
            await asyncio.sleep(max(TICK_S, due - loop.time()))
        elif i % 64 == 63:
            # Bounded bursts, or one kind would hold up the others.
            await asyncio.sleep(0)
        yield i


# --- datagrams ------------------------------------------------------------------------------------------------------


def warm_up(target: Target) -> None:
    """Send media that is right: it binds the track, gives replays something to repeat, and uses up the SSRCs
    and the RTCP senders."""
    path = target.path
    for i in range(WARM_PACKETS):
        path.sent.append(path.protect(path.rtp()))
        path.send(path.sent[i])
    for i in range(1, SSRCS):
        path.send(path.protect(path.rtp(ssrc=path.ssrc + i, seq=1)))
    for i in range(RTCP_SENDERS):
        path.send(path.protect_rtcp(struct.pack("!BBHI", 0x80, 201, 1, path.ssrc + i)))


@kind
async def random_datagrams(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """Any bytes at all, from an address nobody knows."""
    expected: Expected = Counter()
    with contextlib.closing(udp_socket(HOST, target.udp_port)) as out:
        async for _ in paced(count, seconds):
            datagram = rng.randbytes(rng.choice((1, 2, 12, 19, 20, 40, 200, 1200)))
            reason = "unknown_peer"
            if len(datagram) > 1 and datagram[0] <= 3:
                reason = "short" if len(datagram) < 20 else "format"
            expected[f"dropped:{reason}"] += 1
            with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                out.send(datagram)
    return expected


@kind
async def forged_stun(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """Checks for a transport that is not there, with the wrong password, and cut short."""
    expected: Expected = Counter()
    with contextlib.closing(udp_socket(HOST, target.udp_port)) as out:
        async for i in paced(count, seconds):
            identifier = rng.randbytes(12)
            if i % 3 == 0:
                check = stun_check(f"{rng.getrandbits(64):016x}", "x" * 22, transaction=identifier)
                reason = "unknown_transport"
            elif i % 3 == 1:
                check, reason = stun_check(target.path.ufrag, "x" * 22, transaction=identifier), "auth"
            else:
                whole = stun_check(target.path.ufrag, target.path.password, transaction=identifier)
                check = whole[: rng.randrange(2, len(whole))]
                reason = "short" if len(check) < 20 else "format"
            expected[f"dropped:{reason}"] += 1
            with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                out.send(check)
    return expected


@kind
async def replayed_srtp(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """Packets that were accepted once, again from the same address; half of them long ago."""
    expected: Expected = Counter()
    path, sent = target.path, target.path.sent
    async for i in paced(count, seconds):
        if i % 100 == 0:
            # The stream goes on meanwhile, or its place would be given to another.
            sent.append(path.protect(path.rtp()))
            path.send(sent[-1])
        is_old = i % 2
        path.send(sent[rng.randrange(REPLAYED_FROM)] if is_old else sent[-1 - rng.randrange(REPLAYED_FROM)])
        expected["dropped:too_old" if is_old else "dropped:replay"] += 1
    return expected


@kind
async def forged_srtp(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """Packets of the authenticated address with one bit of the payload or tag turned."""
    path = target.path
    async for i in paced(count, seconds):
        packet = bytearray(path.protect(path.rtp(ssrc=path.ssrc + 1, seq=FORGED_SEQ + i)))
        packet[rng.randrange(24, len(packet))] ^= 1 << rng.randrange(8)
        target.path.send(bytes(packet))
    return Counter({"dropped:auth": count})


@kind
async def flooded_ssrcs(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """A new SSRC with every packet, authenticated and with the MID of a track that was announced."""
    async for _ in paced(count, seconds):
        target.path.send(target.path.protect(target.path.rtp(ssrc=rng.randrange(1 << 28, 1 << 32), seq=1)))
    return Counter({"dropped:limit": count})


@kind
async def unknown_mids(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """Authenticated packets of tracks that were never announced."""
    async for _ in paced(count, seconds):
        packet = target.path.rtp(ssrc=rng.randrange(1 << 28, 1 << 32), seq=1, mid=f"{rng.getrandbits(32):08x}")
        target.path.send(target.path.protect(packet))
    return Counter({"dropped:unknown_stream": count})


def broken_rtcp(rng: random.Random, ssrc: int) -> tuple[bytes, str]:
    """Return a compound that is right at first, and the reason why it is not."""
    report = struct.pack("!BBHI", 0x80, 201, 1, ssrc)
    tail, reason = rng.choice((
        (rng.randbytes(rng.randrange(1, 4)), "short"),
        (struct.pack("!BBHI", 0x00, 201, 1, 0), "version"),
        (struct.pack("!BBHI", 0x80, 200, rng.randrange(64, 65536), 0), "length"),
        (struct.pack("!BBH", 0xA0, 201, 0), "padding"),
        (struct.pack("!BBHII", 0xA0, 206, 2, 0, rng.randrange(16, 256)), "padding"),
    ))  # fmt: skip
    return report + tail, reason


@kind
async def garbage_rtcp(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """Authenticated RTCP whose inside is broken, and SRTCP cut off before or in its tag."""
    expected: Expected = Counter()
    async for i in paced(count, seconds):
        if i % 2:
            compound, reason = broken_rtcp(rng, target.path.ssrc)
            packet = target.path.protect_rtcp(compound)
        else:
            whole = target.path.protect_rtcp(struct.pack("!BBHI", 0x80, 201, 7, target.path.ssrc) + bytes(24))
            # SRTCP has 8 octets of head, an index of 4 and a tag of 16 (RFC 7714 section 9).
            cut = rng.randrange(8, len(whole))
            packet, reason = whole[:cut], "short" if cut < 8 + 4 + 16 else "auth"
        target.path.send(packet)
        expected[f"dropped:{reason}"] += 1
    return expected


@kind
async def flooded_rtcp_senders(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """Authenticated RTCP, each packet from a sender of its own: each would need a replay window of its own."""
    async for _ in paced(count, seconds):
        target.path.send(target.path.protect_rtcp(struct.pack("!BBHI", 0x80, 201, 1, rng.randrange(1 << 28, 1 << 32))))
    return Counter({"dropped:limit": count})


@kind
async def dtls_noise(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """What claims to be DTLS of the authenticated address, every other one in the form of an encrypted record; it is the
    control plane's to refuse."""
    sent = 0
    async for _ in paced(count, seconds):
        noise = rng.randbytes(rng.randrange(12, 300))
        record = struct.pack("!BHHHIH", 23, 0xFEFD, 1, 0, rng.randrange(1 << 32), len(noise)) + noise
        target.path.send(record if sent % 2 else bytes([rng.randrange(20, 64)]) + noise)
        sent += 1
    return Counter({"plane:dtls_received": count, "refused:dtls": count})


# --- HTTP and WebSocket ---------------------------------------------------------------------------------------------


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A WebSocket frame (RFC 6455 section 5.2) with the mask 0, so that payloads stay readable."""
    head = bytes([fin << 7 | rsv << 4 | opcode])
    mask = masked << 7
    if len(payload) < 126:
        head += bytes([mask | len(payload)])
    elif len(payload) < 65536:
        head += bytes([mask | 126]) + struct.pack("!H", len(payload))
    else:
        head += bytes([mask | 127]) + struct.pack("!Q", len(payload))
    return head + (bytes(4) if masked else b"") + payload


def upgrade(token: str, more: str = "", path: str = "/rtc?protocol=16&auto_subscribe=0") -> bytes:
    """The request that opens a signalling connection."""
    return (
        f"GET {path}&access_token={token} HTTP/1.1\r\nHost: localhost\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    ).encode()


@contextlib.asynccontextmanager
async def connection(target: Target) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A TCP connection whose end, however it comes, is no error."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(HOST, target.http_port)
            try:
                yield reader, writer
            finally:
                writer.close()


async def joined_then(target: Target, data: bytes, more: str = "") -> bytes:
    """Join with a valid token, send bytes on the open WebSocket, read to the end; return the answer's head."""
    head = b""
    async with connection(target) as (reader, writer):
        writer.write(upgrade(target.token(), more))
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()
        writer.write(frame(CLOSE, b"\x03\xe8"))
        await reader.read(1 << 20)
        while await reader.read(1 << 20):
            pass
    return head


@kind
async def http_noise(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """Bytes on the HTTP port that are no request."""
    async for _ in paced(count, seconds):
        async with connection(target) as (reader, writer):
            writer.write(b"\x16" + rng.randbytes(rng.randrange(20, 400)) + b"\r\n\r\n")
            await reader.read()
    return Counter({"refused:http": count})


@kind
async def unauthorised_joins(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """Upgrades with tokens that nobody signed."""
    async for _ in paced(count, seconds):
        async with connection(target) as (reader, writer):
            writer.write(upgrade(f"eyJhbGciOiJIUzI1NiJ9.{rng.getrandbits(256):x}.{rng.getrandbits(256):x}"))
            await reader.readuntil(b"\r\n\r\n")
    return Counter({"refused:join_401": count})


def unreadable(rng: random.Random) -> bytes:
    """Bytes that are no SignalRequest."""
    while True:
        payload = rng.randbytes(rng.randrange(1, 2000))
        try:
            rtc.SignalRequest.FromString(payload)
        except DecodeError:
            return payload


@kind
async def websocket_noise(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """Joined clients that send random binary and text frames, until they are cut off."""
    async for _ in paced(count, seconds):
        binary = [frame(BINARY, unreadable(rng)) for _ in range(MAX_BAD_FRAMES // 2)]
        text = [frame(TEXT, rng.randbytes(200).hex().encode()) for _ in range(MAX_BAD_FRAMES // 2 + 1)]
        await joined_then(target, b"".join(binary + text))
    return Counter({"refused:signal_frame": count * (MAX_BAD_FRAMES + 1)})


@kind
async def control_frame_abuse(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """Pings too long, in pieces or by the hundred, reserved opcodes and bits, text that is no UTF-8."""
    broken = (
        frame(PING, bytes(126)),
        frame(PING, b"", fin=False),
        frame(3, b"x"),
        frame(11, b""),
        frame(BINARY, b"x", rsv=2),
        frame(0, b"a continuation of nothing"),
        frame(TEXT, b"\xff\xfe"),
        frame(BINARY, b"x", fin=False) + frame(BINARY, b"y"),
        frame(CLOSE, b"\x03"),
        frame(CLOSE, b"\x00\x00"),
    )
    async for i in paced(count, seconds):
        await joined_then(target, frame(PING, b"") * 500 + broken[i % len(broken)])
    return Counter({"refused:signal_protocol": count})


@kind
async def big_descriptions(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """Offers of 1 MB."""
    lines = "".join(f"a=candidate:{i} 1 udp 1 192.0.2.1 {i % 65535 + 1} typ host\r\n" for i in range(20_000))
    sdp = ("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n" + lines)[:1_000_000]
    request = rtc.SignalRequest(offer=rtc.SessionDescription(type="offer", sdp=sdp)).SerializeToString()
    async for _ in paced(count, seconds):
        await joined_then(target, frame(BINARY, request))
    return Counter({"refused:offer": count})


def bomb() -> bytes:
    """1 MB of deflate that inflates to 1 GB of zeros: blocks after a full flush do not depend on each other."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = squeeze.compress(bytes(16 << 20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return block * 64


@kind
async def compressed_bombs(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """Compressed frames that inflate to 1 GB, from clients that offered compression."""
    data = frame(BINARY, bomb(), rsv=4)
    async for _ in paced(count, seconds):
        head = await joined_then(target, data, "Sec-WebSocket-Extensions: permessage-deflate\r\n")
        assert b"permessage-deflate" not in head, "compression was agreed"
    return Counter({"refused:signal_protocol": count})


@kind
async def big_frames(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """Frames of 3 MiB, whole and in fragments that are small each."""
    part = bytes(256 << 10)
    whole = frame(BINARY, bytes(3 << 20))
    parts = frame(BINARY, part, fin=False) + frame(0, part, fin=False) * 10 + frame(0, part)
    async for i in paced(count, seconds):
        await joined_then(target, parts if i % 2 else whole)
    return Counter({"refused:signal_size": count})


@kind
async def body_bombs(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """Request bodies that inflate to 1 GB."""
    body = b"\x78\x9c" + bomb()
    head = (
        "POST /client/join HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Encoding: deflate\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    async for _ in paced(count, seconds):
        async with connection(target) as (reader, writer):
            writer.write(head + body)
            await reader.readuntil(b"\r\n\r\n")
    return Counter({"refused:client_413": count})


def join_bomb(inner: bytes) -> str:
    """The path and query of a request to join with this inside."""
    stream = gzip.compress(inner, 9, mtime=0)
    message = rtc.WrappedJoinRequest(compression=rtc.WrappedJoinRequest.Compression.GZIP, join_request=stream)
    return f"/rtc/v1?join_request={base64.urlsafe_b64encode(message.SerializeToString()).decode()}"


@kind
async def join_bombs(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """Requests to join that unfold into 46 MB, or into half a million empty announcements."""
    bombs = join_bomb(bytes(46 << 20)), join_bomb(b"\x2a\x00" * (1 << 19))
    async for i in paced(count, seconds):
        async with connection(target) as (reader, writer):
            writer.write(upgrade(target.token(), path=bombs[i % 2]))
            await reader.readuntil(b"\r\n\r\n")
    return Counter({"refused:join_413": count})


class _Held(asyncio.Protocol):
    """A connection that says what it was given and then nothing, until the other end has enough."""

    def __init__(self, words: bytes, held: set[asyncio.Transport]) -> None:
        self._words = words
        self._held = held

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held.add(transport)
        if self._words:
            transport.write(self._words)

    def connection_lost(self, error: Exception | None) -> None:
        self._held.discard(self._transport)


@kind
async def silent_connections(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """Connections that stay open without a token: a third silent, a third after half a request, a third refused."""
    held: set[asyncio.Transport] = set()
    loop = asyncio.get_running_loop()
    words = (b"", upgrade("nothing")[:40], upgrade("nothing"))
    async for i in paced(count, seconds):
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                await loop.create_connection(lambda i=i: _Held(words[i % 3], held), HOST, target.http_port)
    # A relay that is behind is yet to accept some of them.
    for _ in range(10):
        if len(held) <= SILENT_CONNECTIONS:
            break
        await asyncio.sleep(0.1)
    for transport in tuple(held):
        transport.abort()
    return Counter(
        {"refused:connection_displaced": max(0, count - SILENT_CONNECTIONS), "refused:join_401": count // 3}
    )


@kind
async def slow_requests(target: Target, rng: random.Random, count: int, seconds: float) -> Expected:
    """Requests that never end: a header line a second, on `count` connections."""
    opened = []
    for _ in range(count):
        with contextlib.suppress(OSError):
            opened.append((await asyncio.open_connection(HOST, target.http_port))[1])
            opened[-1].write(b"GET /rtc HTTP/1.1\r\n")
    for i in range(int(seconds)):
        await asyncio.sleep(1)
        for writer in opened:
            if not writer.is_closing():
                writer.write(b"X-%d: %s\r\n" % (i, rng.randbytes(8).hex().encode()))
    for writer in opened:
        writer.close()
    # They count as connections that waited: as long as no more than those, nothing is refused.
    return Counter()

