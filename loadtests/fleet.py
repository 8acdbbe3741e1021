"""What all bots of a process share: the native load generator and its events, threads for handshakes, HTTP, a certificate."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from loadtests.dtls import Identity
from loadtests.link import Link
from relaycore.loadgen import EventKind, LoadGenerator

HANDSHAKE_THREADS = 2


class Fleet:
    """`async with Fleet("ws://…") as fleet`, then `Bot.join(fleet, …)`."""

    def __init__(self, url: str, *, seed: int = 1, threads: int = 1, drain: str = "eager", load: Any = None, **options: Any) -> None:
        """`options` go to the LoadGenerator. Fleets of several processes need the same seed to check each other's frames.

        `load` is something else that takes a LoadGenerator's calls, for media that are not made up.
        """
        self.url = url.rstrip("/")
        self.local_ip = local_ip_towards(url)
        self.load = LoadGenerator(seed, threads, drain, **options) if load is None else load
        self.pool = ThreadPoolExecutor(HANDSHAKE_THREADS, thread_name_prefix="bot dtls")
        self.identity = Identity()
        self.links: dict[int, Link] = {}
        self.flowing: set[int] = set()
        """Receivers (ids of the LoadGenerator) whose first frame, or packet where no frames are expected, has come."""
        self.bound: set[int] = set()
        self.on_flow: dict[int, Any] = {}
        self._http: aiohttp.ClientSession | None = None

    @property
    def http(self) -> aiohttp.ClientSession:
        assert self._http is not None, "use the fleet as a context manager"
        return self._http

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self.load.start()
        asyncio.get_running_loop().add_reader(self.load.event_fd, self._on_events)
        return self

    async def __aexit__(self, *unused: object) -> None:
        await asyncio.gather(*(link.close() for link in list(self.links.values())))
        asyncio.get_running_loop().remove_reader(self.load.event_fd)
        self.load.stop()
        self.pool.shutdown()
        await self.http.close()

    def forget(self, receiver: int) -> None:
        """Drop what is known of a receiver that was removed."""
        self.flowing.discard(receiver)
        self.bound.discard(receiver)
        self.on_flow.pop(receiver, None)

    def _on_events(self) -> None:
        for kind, endpoint, _now_ns, subject, payload in self.load.take_events():
            link = self.links.get(endpoint)
            if link is None:
                continue
            if kind == EventKind.DATAGRAM:
                assert payload is not None
                link.on_datagram(payload)
            elif kind == EventKind.ICE_CONNECTED:
                link.on_ice_connected()
            elif kind in (EventKind.FIRST_FRAME, EventKind.STREAM_BOUND):
                (self.flowing if kind == EventKind.FIRST_FRAME else self.bound).add(subject)
                if subject in self.on_flow:
                    self.on_flow[subject]()


def local_ip_towards(url: str) -> str:
    """Return the address of this machine that packets to the server's host leave from."""
    parts = urlsplit(url)
    for family, _, _, _, address in socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_DGRAM):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(address)
            except OSError:
                continue
            return probe.getsockname()[0]
    raise OSError(f"no route to {parts.hostname}")
