"""Bounds the connections that nobody has vouched for yet.

A connection is *waiting* until a request on it showed a valid token. There are only so many of those, and each has
only so long; both bounds are needed, or slow or silent strangers would use up the file descriptors. Connections that
were vouched for are counted per address.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp import web

from relay.config import Limits
from relay.log import get_logger

log = get_logger(__name__)

# A page load and a join take well under a second; mobile networks stall for a few.
WAITING_S = 30.0


class _Closing(asyncio.Protocol):
    """Hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


class Doorman:
    """Makes the protocol of each accepted connection; call it as a protocol factory."""

    def __init__(self, limits: Limits, *, trust_forwarded: bool, waiting_s: float = WAITING_S) -> None:
        self._limits = limits
        self._trust_forwarded = trust_forwarded
        self._waiting_s = waiting_s
        self._waiting: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}
        self._by_address: dict[str, int] = {}
        self.refused = 0

    def factory(self, server: web.Server) -> Callable[[], asyncio.BaseProtocol]:
        """Return a protocol factory over an aiohttp server that stops making them when too many wait."""
        lost = server.connection_lost

        def connection_lost(handler: Any, error: BaseException | None = None) -> None:
            self._forget(handler)
            lost(handler, error)

        # The one place where aiohttp says that a connection is over, whoever ended it.
        server.connection_lost = connection_lost  # type: ignore[method-assign]

        def accept() -> asyncio.BaseProtocol:
            if len(self._waiting) >= self._limits.waiting_connections:
                self.refused += 1
                return _Closing()
            protocol = server()
            loop = asyncio.get_running_loop()
            self._waiting[protocol] = loop.call_later(self._waiting_s, self._give_up, protocol)
            return protocol

        return accept

    @property
    def waiting(self) -> int:
        """How many connections nobody vouched for."""
        return len(self._waiting)

    @contextlib.contextmanager
    def admitted(self, request: web.Request) -> Iterator[bool]:
        """Count a connection whose token was valid, for as long as it lasts; False when its address has too many."""
        address = self.address_of(request)
        count = self._by_address.get(address, 0)
        if count >= self._limits.connections_per_address:
            yield False
            return
        self._forget(request.protocol)
        self._by_address[address] = count + 1
        try:
            yield True
        finally:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def address_of(self, request: web.Request) -> str:
        """Return who is calling; a proxy's word counts only where the settings say so."""
        if self._trust_forwarded:
            # The last hop is what the trusted proxy itself saw; everything before it can be made up.
            forwarded = request.headers.get("X-Forwarded-For", "").rsplit(",", 1)[-1].strip()
            if forwarded:
                return forwarded[:64]
        return request.remote or ""

    def _forget(self, protocol: Any) -> None:
        timer = self._waiting.pop(protocol, None)
        if timer is not None:
            timer.cancel()

    def _give_up(self, protocol: Any) -> None:
        self._waiting.pop(protocol, None)
        transport = getattr(protocol, "transport", None)
        if transport is not None:
            transport.abort()
