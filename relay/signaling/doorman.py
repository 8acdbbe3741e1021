"""Bounds the connections that nobody has vouched for yet.

A connection is *waiting* until a request on it showed a valid token. There are only so many of those, and each has
only so long; both bounds are needed, or slow or silent strangers would use up the file descriptors. When there are too
many, the one that has waited longest goes: who means to join shows a token at once, and a flood of silent connections
must shut out neither newcomers nor an orchestrator's health check. Connections that were vouched for are counted per
address. What is turned away is counted by reason: `connection_displaced`, `connection_silent`, `http` (bytes that are
no request).
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.http_exceptions import LineTooLong

from relay.config import Limits
from relay.log import get_logger

log = get_logger(__name__)

# A page load and a join take well under a second; mobile networks stall for a few.
WAITING_S = 30.0


class Doorman:
    """Makes the protocol of each accepted connection; call it as a protocol factory."""

    def __init__(
        self,
        limits: Limits,
        *,
        trust_forwarded: bool,
        refusals: dict[str, int] | None = None,
        waiting_s: float = WAITING_S,
    ) -> None:
        self._limits = limits
        self._trust_forwarded = trust_forwarded
        self._refusals = refusals if refusals is not None else {}
        self._waiting_s = waiting_s
        # In the order in which they came.
        self._waiting: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}
        self._by_address: dict[str, int] = {}

    def factory(self, server: web.Server) -> Callable[[], asyncio.BaseProtocol]:
        """Return a protocol factory over an aiohttp server that keeps the number of waiting connections bounded."""
        lost = server.connection_lost
        count = self._count

        class Handler(web.RequestHandler):
            """A connection on which noise is counted; by default each line of it would log a traceback."""

            __slots__ = ()

            def handle_error(
                self,
                request: web.BaseRequest,
                status: int = 500,
                exc: BaseException | None = None,
                message: str | None = None,
            ) -> web.StreamResponse:
                if not isinstance(exc, HttpProcessingError) or request.writer.output_size > 0:
                    return super().handle_error(request, status, exc, message)
                count("http")
                if isinstance(exc, LineTooLong):
                    limit = exc.args[1]
                    response = web.Response(status=431, text=f"Request lines and headers have at most {limit} bytes.\n")
                else:
                    response = web.Response(status=status, text="This is not a valid request.\n")
                response.force_close()
                return response

        def connection_lost(handler: Any, error: BaseException | None = None) -> None:
            self._forget(handler)
            lost(handler, error)

        # The one place where aiohttp says that a connection is over, whoever ended it.
        server.connection_lost = connection_lost  # type: ignore[method-assign]

        def accept() -> asyncio.BaseProtocol:
            if len(self._waiting) >= self._limits.waiting_connections:
                count("connection_displaced")
                self._turn_away(next(iter(self._waiting)))
            protocol = server()
            # The server makes handlers of its own class only; this one adds no state, so that the change is allowed.
            protocol.__class__ = Handler
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
        self._count("connection_silent")
        self._turn_away(protocol)

    def _turn_away(self, protocol: Any) -> None:
        self._forget(protocol)
        transport = getattr(protocol, "transport", None)
        if transport is not None:
            transport.abort()

    def _count(self, reason: str) -> None:
        self._refusals[reason] = self._refusals.get(reason, 0) + 1
