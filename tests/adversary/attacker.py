"""An authenticated publisher who chooses every byte: a valid token, a real handshake, then whatever it likes.

Signalling goes over aiohttp in binary protobuf, media over one plain UDP socket. `MediaPath` is that socket with its
SRTP keys; the control run uses one whose keys are made up and whose far end is a sink.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from livekit.protocol import models, rtc

from relay.clock import monotonic_ns
from relay.session import Certificate, DatagramReady, HandshakeFailed, SrtpKeysReady, Transport
from relaycore.srtp import SrtpSession
from tests.support.peer import header_bytes, stun_check
from tests.support.sdp_text import MID_URI, VP8

CONNECT_S = 15.0
CHECK_INTERVAL_S = 2.0
PAYLOAD_TYPE = 96
PROFILE_GCM_128 = 0x0007


@dataclass
class MediaPath:
    """A UDP socket towards a media port, and the keys of the transport it belongs to."""

    socket: socket.socket
    session: SrtpSession
    ufrag: str
    password: str
    mid: str = "0"
    mid_extension: int = 1
    ssrc: int = 0x0BADCAFE
    next_seq: int = 1
    sent: list[bytes] = field(default_factory=list)

    @classmethod
    def made_up(cls, host: str, port: int, rng: random.Random) -> MediaPath:
        """A path to a port where nobody knows these keys, for control runs."""
        return cls(
            udp_socket(host, port),
            SrtpSession(PROFILE_GCM_128, rng.randbytes(16), rng.randbytes(12)),
            f"{rng.getrandbits(64):016x}",
            f"{rng.getrandbits(128):032x}",
        )

    def send(self, datagram: bytes) -> None:
        """Send; a full buffer drops, as a network would."""
        try:
            self.socket.send(datagram)
        except (BlockingIOError, ConnectionRefusedError):
            pass

    def rtp(self, *, ssrc: int | None = None, seq: int | None = None, mid: str | None = None) -> bytes:
        """Return a plain RTP packet with the MID extension in the one-byte form (RFC 8285 section 4.2).

        Without `seq` it is the next of the stream that goes on.
        """
        name = (self.mid if mid is None else mid).encode()
        element = bytes([self.mid_extension << 4 | len(name) - 1]) + name
        element += bytes(-len(element) % 4)
        if seq is None:
            seq, self.next_seq = self.next_seq, self.next_seq + 1 & 0xFFFF
        head = struct.pack("!BBHII", 0x90, PAYLOAD_TYPE, seq, seq * 3000 & 0xFFFFFFFF, self.ssrc if ssrc is None else ssrc)
        return head + struct.pack("!HH", 0xBEDE, len(element) // 4) + element + bytes(40)

    def protect(self, packet: bytes) -> bytes:
        """Return the packet as SRTP."""
        protected = self.session.protect(packet, header_bytes=header_bytes(packet))
        assert isinstance(protected, bytes), protected
        return protected

    def protect_rtcp(self, packet: bytes) -> bytes:
        """Return any bytes as SRTCP."""
        protected = self.session.protect_rtcp(packet)
        assert isinstance(protected, bytes), protected
        return protected

    def check(self) -> bytes:
        """Return an ICE check that is right."""
        return stun_check(self.ufrag, self.password)


def udp_socket(host: str, port: int) -> socket.socket:
    """Return a non-blocking UDP socket of 127.0.0.1 that talks to one address."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    made.connect((host, port))
    made.setblocking(False)
    return made


class Attacker:
    """One participant with a valid token. `join`, then `signal` and `path` are free to use; `close` at the end."""

    def __init__(self) -> None:
        self.path: MediaPath
        self.media_port = 0
        self.join: rtc.JoinResponse | None = None
        self.leave: rtc.LeaveRequest | None = None
        self.answer = ""
        self.secrets: list[str] = []
        self._http = aiohttp.ClientSession()
        self._signal: aiohttp.ClientWebSocketResponse
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._transport = Transport(Certificate.generate())
        self._keys: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._socket: socket.socket | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self, ws_url: str, token: str) -> Attacker:
        """Join the room and publish a video track over a connected transport; return self."""
        async with asyncio.timeout(CONNECT_S):
            await self.enter(ws_url, token)
            await self._ask("track_published", rtc.SignalRequest(add_track=rtc.AddTrackRequest(
                cid="cam", name="cam", type=models.TrackType.VIDEO, width=320, height=180)))  # fmt: skip
            offer = rtc.SessionDescription(type="offer", sdp=self._offer())
            answer = await self._ask("answer", rtc.SignalRequest(offer=offer))
            self.answer = answer.sdp
            await self._connect_media()
        return self

    async def enter(self, ws_url: str, token: str) -> None:
        """Join the room, nothing more."""
        url = f"{ws_url}/rtc?access_token={token}&protocol=16&sdk=python&version=1&auto_subscribe=0"
        self._signal = await self._http.ws_connect(url, max_msg_size=0)
        joined = asyncio.get_running_loop().create_future()
        self._answers["join"] = joined
        self._tasks.append(asyncio.create_task(self._read()))
        self.join = await joined

    async def signal(self, request: rtc.SignalRequest) -> None:
        """Send one request."""
        await self._signal.send_bytes(request.SerializeToString())

    async def wait_closed(self) -> None:
        """Return when the relay has closed the signalling connection."""
        await self._tasks[0]

    async def close(self) -> None:
        """Leave."""
        for task in self._tasks[1:]:
            task.cancel()
        self._transport.close()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
        if hasattr(self, "_signal"):
            await self._signal.close()
        await self._http.close()
        for task in self._tasks:
            task.cancel()

    # Inside.

    async def _ask(self, kind: str, request: rtc.SignalRequest) -> Any:
        self._answers[kind] = asyncio.get_running_loop().create_future()
        await self.signal(request)
        return await self._answers[kind]

    async def _read(self) -> None:
        async for message in self._signal:
            if message.type is not aiohttp.WSMsgType.BINARY:
                continue
            response = rtc.SignalResponse.FromString(message.data)
            kind = response.WhichOneof("message") or ""
            if kind == "leave":
                self.leave = response.leave
            waiting = self._answers.pop(kind, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(getattr(response, kind))

    def _offer(self) -> str:
        ours = self._transport
        self.secrets += [ours.password]
        lines = [
            "v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0",
            f"m=video 9 UDP/TLS/RTP/SAVPF {PAYLOAD_TYPE}", "c=IN IP4 0.0.0.0",
            f"a=ice-ufrag:{ours.ufrag}", f"a=ice-pwd:{ours.password}", f"a=fingerprint:{ours.fingerprint}",
            "a=setup:actpass", "a=mid:0", f"a=extmap:1 {MID_URI}", "a=sendonly", "a=msid:- cam", "a=rtcp-mux", *VP8,
        ]  # fmt: skip
        return "".join(line + "\r\n" for line in lines)

    def _described(self, pattern: str) -> str:
        found = re.search(pattern, self.answer, re.M)
        assert found is not None, f"the answer has no {pattern}:\n{self.answer}"
        return found[1]

    async def _connect_media(self) -> None:
        loop = asyncio.get_running_loop()
        self.media_port = int(self._described(r"^a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 (\d+) typ host"))
        ufrag, password = self._described(r"^a=ice-ufrag:(\S+)"), self._described(r"^a=ice-pwd:(\S+)")
        self.secrets += [password]
        extension = int(self._described(r"^a=extmap:(\d+) " + re.escape(MID_URI)))
        self._socket = udp_socket("127.0.0.1", self.media_port)
        reached = loop.create_future()
        loop.add_reader(self._socket, self._on_readable, reached)
        while not reached.done():
            self._socket.send(stun_check(ufrag, password))
            await asyncio.wait([reached], timeout=0.2)
        name, value = self._described(r"^a=fingerprint:(.+?)\s*$").split(" ", 1)
        self._transport.set_remote([(name, value)], "client")
        while not self._keys.done():
            self._poll()
            await asyncio.wait([self._keys], timeout=0.05)
        keys = (await self._keys).keys
        self.secrets += [part.hex() for part in (keys.send_key, keys.receive_key)]
        session = SrtpSession(keys.profile, keys.send_key, keys.send_salt)
        self.path = MediaPath(self._socket, session, ufrag, password, mid_extension=extension)
        self._tasks.append(asyncio.create_task(self._keep_alive()))
        # The keys reach the data plane by a command: packets before that are refused as E_STATE.
        await asyncio.sleep(0.3)

    async def _keep_alive(self) -> None:
        while True:
            self.path.send(self.path.check())
            await self.signal(rtc.SignalRequest(ping=1))
            await asyncio.sleep(CHECK_INTERVAL_S)

    def _on_readable(self, reached: asyncio.Future[None]) -> None:
        assert self._socket is not None
        for _ in range(64):
            try:
                datagram = self._socket.recv(2048)
            except (BlockingIOError, ConnectionRefusedError):
                return
            if datagram[:1] < b"\x04" and not reached.done():
                reached.set_result(None)
            elif datagram and 20 <= datagram[0] <= 63:
                self._on_dtls(datagram)

    def _on_dtls(self, datagram: bytes) -> None:
        self._transport.receive_dtls(datagram, monotonic_ns())
        self._poll()

    def _poll(self) -> None:
        for event in self._transport.poll(monotonic_ns()):
            if isinstance(event, DatagramReady):
                assert self._socket is not None
                self._socket.send(event.data)
            elif isinstance(event, SrtpKeysReady) and not self._keys.done():
                self._keys.set_result(event)
            elif isinstance(event, HandshakeFailed) and not self._keys.done():
                self._keys.set_exception(RuntimeError(event.reason))
