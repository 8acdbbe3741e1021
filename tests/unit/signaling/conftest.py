"""A real relay on loopback, in this process and on this loop, with strict outboxes."""

import base64
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from livekit.protocol import rtc

from relay.server import Server
from tests.support.local_relay import SECRET, settings, token

FIRST_S = 5.0


class Signal:
    """A LiveKit client reduced to its WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.join: rtc.JoinResponse = rtc.JoinResponse()
        self.sid = ""

    async def send(self, **request: Any) -> None:
        """Send one request: `send(ping=1)`."""
        await self.socket.send_bytes(rtc.SignalRequest(**request).SerializeToString())

    async def next(self) -> rtc.SignalResponse:
        """Return the next frame.   Errors: TimeoutError."""
        message = await self.socket.receive(timeout=FIRST_S)
        assert message.type is aiohttp.WSMsgType.BINARY, message
        return rtc.SignalResponse.FromString(message.data)

    async def until(self, kind: str, holds: Callable[[Any], bool] = lambda _: True) -> Any:
        """Return the body of the next frame of this kind for which `holds`, leaving out the others."""
        while True:
            response = await self.next()
            if response.WhichOneof("message") == kind and holds(getattr(response, kind)):
                return getattr(response, kind)

    async def kinds_until_pong(self) -> list[str]:
        """Return the kinds of all frames before the answer to a ping: what the relay had to say so far."""
        await self.send(ping=1)
        kinds: list[str] = []
        while (kind := (await self.next()).WhichOneof("message")) != "pong":
            kinds.append(str(kind))
        return kinds

    async def publish(self, cid: str = "cid", **fields: Any) -> rtc.TrackPublishedResponse:
        """Announce a track and return the answer."""
        await self.send(add_track=rtc.AddTrackRequest(cid=cid, **fields))
        return await self.until("track_published")


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Awaitable[Server]]]:
    """Start a relay: `server = await start(participants_per_room=2)`; `tier` changes what all its tiers allow."""
    servers: list[Server] = []

    async def start_one(tier: dict[str, int] | None = None, **limits: int) -> Server:
        config = settings(**limits)
        tiers = {name: dataclasses.replace(rules, **(tier or {})) for name, rules in config.tiers.items()}
        server = Server(dataclasses.replace(config, tiers=tiers), strict=True)
        servers.append(server)
        await server.start()
        return server

    yield start_one
    for server in servers:
        await server.stop()


@pytest.fixture
async def relay(start: Callable[..., Awaitable[Server]]) -> Server:
    """A relay with default limits."""
    return await start()


@pytest.fixture
async def connect(http: aiohttp.ClientSession, relay: Server) -> Callable[..., Awaitable[Signal]]:
    """Join: `ana = await connect("ana")`; the rest are grants, `query` is added to the URL, `single` is what v1 is asked with."""
    # A socket that nobody holds closes by itself.
    held: list[Signal] = []

    async def connect_as(
        identity: str,
        *,
        to: Server | None = None,
        query: str = "",
        secret: str = SECRET,
        key: str = "akey",
        attributes: dict[str, str] | None = None,
        single: rtc.JoinRequest | None = None,
        **video: Any,
    ) -> Signal:
        text = token(secret, iss=key, sub=identity, name=identity, video=video, attributes=attributes or {})
        url = f"ws://127.0.0.1:{(to or relay).http_port}/rtc?protocol=17{query}"
        if single is not None:
            wrapped = rtc.WrappedJoinRequest(join_request=single.SerializeToString()).SerializeToString()
            said = base64.urlsafe_b64encode(wrapped).decode()
            url = f"ws://127.0.0.1:{(to or relay).http_port}/rtc/v1?join_request={said}"
        signal = Signal(await http.ws_connect(url, headers={"Authorization": f"Bearer {text}"}, max_msg_size=0))
        first = await signal.next()
        assert first.WhichOneof("message") == "join", first
        held.append(signal)
        signal.join, signal.sid = first.join, first.join.participant.sid
        return signal

    return connect_as
