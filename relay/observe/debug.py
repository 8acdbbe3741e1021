"""HTTP handlers for an operator who looks for a fault in one participant's transports: /debug/capture, /debug/log, /debug/quality.

All are for the operator alone, bounded in time, and each use is logged with who asked about whom. A capture holds headers,
never a payload; the log holds events, never keys. There is no switch that shows more.
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from relay.clock import monotonic_ns, wall_ms
from relay.errors import VeilError
from relay.log import get_logger
from relay.observe import pcapng
from relay.observe.routes import may_scrape
from relay.version import version

log = get_logger(__name__)

# The data plane keeps 4,096 records: at 16,000 packets a second a quarter of a second's.
TAKE_EVERY_S = 0.1
FIGURES_EVERY_S = 1.0
DEFAULT_SECONDS, MAX_SECONDS = 10.0, 600.0
DEFAULT_PACKETS, MAX_PACKETS = 100_000, 1_000_000
CONTENT_TYPE = "application/x-pcapng"
FORBIDDEN = (
    "Captures and event logs are for the operator: who has server.metrics_token as a bearer token, "
    "or this machine where veil runs with --dev.\n"
)


NOBODY = "There is no such participant in a call now.\n"


class Capture(Protocol):
    """The part of `relay.plane.Capture` that is used here."""

    @property
    def transport(self) -> int: ...
    def take(self) -> Sequence[pcapng.Record]: ...
    async def stop(self) -> Sequence[pcapng.Record]: ...


class Journal(Protocol):
    """The part of `relay.plane.journal.Journal` that is used here."""

    @property
    def followed(self) -> tuple[int, ...]: ...
    def follow(self, transport: int, **labels: Any) -> None: ...
    def unfollow(self, transport: int) -> None: ...
    def on_figures(self, transports: Any) -> None: ...


@dataclass(frozen=True)
class Suspect:
    """A participant and the transports it has now."""

    participant: str
    room: str
    transports: tuple[int, ...]


@dataclass(frozen=True)
class Debugged:
    """One running relay."""

    find: Callable[[str], Suspect | None]
    capture: Callable[[int, float, int], Awaitable[Capture]]
    journal: Journal
    snapshot: Callable[[], Awaitable[Any]]
    # Longest RTCP that a record holds whole is shorter than this.
    kept_bytes: int
    token: str = ""
    # Without a token: whether this machine is believed to be the operator's.
    is_dev: bool = False
    # What is known of the quality of a participant's subscriptions; None when it is in no call.
    explain: Callable[[str], Mapping[str, Any] | None] = lambda _: None


class _Refused(Exception):
    def __init__(self, status: int, sentence: str) -> None:
        self.answer = web.Response(status=status, text=sentence)


class Debugging:
    """The handlers, and who is followed until when."""

    def __init__(self, debugged: Debugged) -> None:
        self._debugged = debugged
        self._until: dict[int, asyncio.TimerHandle] = {}
        self._counting: asyncio.Task[None] | None = None

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of one relay, for `app.add_routes`."""
        return [
            # A HEAD would begin a capture that nobody reads.
            web.get("/debug/capture", self._answered(self._capture), allow_head=False),
            web.get("/debug/quality", self._answered(self._quality)),
            web.get("/debug/log", self._answered(self._show)),
            web.post("/debug/log", self._answered(self._follow)),
        ]

    def stop(self) -> None:
        """Follow nobody any more."""
        for transport in list(self._until):
            self._let_go(transport)

    def _answered(
        self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            if not may_debug(request, self._debugged.token, is_dev=self._debugged.is_dev):
                log.warning("debugging refused", path=request.path, asked_from=request.remote)
                return web.Response(status=403, text=FORBIDDEN)
            try:
                return await handler(request)
            except _Refused as refused:
                return refused.answer

        return answer

    # --- headers ---

    async def _capture(self, request: web.Request) -> web.StreamResponse:
        suspect = self._suspect(request)
        seconds = _number(request, "seconds", DEFAULT_SECONDS, MAX_SECONDS)
        packets = int(_number(request, "packets", DEFAULT_PACKETS, MAX_PACKETS))
        who = self._who(request, suspect)
        captures: list[Capture] = []
        try:
            for transport in suspect.transports:
                captures.append(await self._debugged.capture(transport, seconds, packets))
        except VeilError as error:
            await self._end(captures)
            raise _Refused(409, f"It cannot be captured now: {error}.\n") from None
        log.warning("capture of headers began", seconds=seconds, packets=packets, **who)
        written = 0
        began_ns = monotonic_ns()
        try:
            response = web.StreamResponse(
                headers={
                    "Content-Type": CONTENT_TYPE,
                    "Content-Disposition": f'attachment; filename="{suspect.participant}.pcapng"',
                    "Cache-Control": "no-store",
                }
            )
            await response.prepare(request)
            comment = f"Headers of participant {suspect.participant}; payloads were never recorded."
            await response.write(pcapng.head(comment, f"Veil {version()}"))
            wall_offset_ns = wall_ms() * 1_000_000 - began_ns
            deadline_ns = began_ns + int(seconds * 1e9)
            is_over = False
            while not is_over:
                await asyncio.sleep(min(TAKE_EVERY_S, max(0.0, (deadline_ns - monotonic_ns()) / 1e9)))
                is_over = monotonic_ns() >= deadline_ns or _is_gone(request)
                if is_over:
                    records = await self._end(captures)
                else:
                    records = [record for capture in captures for record in capture.take()]
                records.sort(key=lambda record: record.now_ns)
                written += len(records)
                is_over = is_over or written >= packets * len(suspect.transports)
                if records:
                    blocks = [pcapng.packet(r, wall_offset_ns, self._debugged.kept_bytes) for r in records]
                    await response.write(b"".join(blocks))
            await response.write_eof()
            return response
        except ConnectionError:
            # Who asked has gone away.
            return response
        finally:
            await self._end(captures)
            took_s = round((monotonic_ns() - began_ns) / 1e9, 1)
            log.warning("capture of headers ended", took_s=took_s, records=written, **who)

    async def _end(self, captures: list[Capture]) -> list[pcapng.Record]:
        rest: list[pcapng.Record] = []
        while captures:
            rest += await captures.pop().stop()
        return rest

    # --- quality ---

    async def _quality(self, request: web.Request) -> web.StreamResponse:
        sid = self._participant(request)
        found = self._debugged.explain(sid)
        if found is None:
            raise _Refused(404, NOBODY)
        log.info("quality shown", participant=sid, asked_from=request.remote)
        return web.json_response(found, headers={"Cache-Control": "no-store"})

    # --- events ---

    async def _show(self, _request: web.Request) -> web.StreamResponse:
        followed = self._debugged.journal.followed
        loop = asyncio.get_running_loop()
        lines = [f"transport {t}: {self._until[t].when() - loop.time():.0f} s left\n" for t in followed if t in self._until]
        return web.Response(text="".join(lines) or "No transport is followed.\n")

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        suspect = self._suspect(request)
        seconds = _number(request, "seconds", DEFAULT_SECONDS, MAX_SECONDS, least=0)
        log.warning("event log switched", seconds=seconds, **self._who(request, suspect))
        for transport in suspect.transports:
            self._let_go(transport)
            if seconds:
                self._debugged.journal.follow(transport, participant=suspect.participant, room=suspect.room)
                self._until[transport] = asyncio.get_running_loop().call_later(seconds, self._let_go, transport)
        if self._until and self._counting is None:
            self._counting = asyncio.ensure_future(self._count())
        numbers = ", ".join(str(transport) for transport in suspect.transports)
        return web.Response(text=f"Transports {numbers}: events go to the log for {seconds:g} s.\n")

    def _let_go(self, transport: int) -> None:
        if (timer := self._until.pop(transport, None)) is not None:
            timer.cancel()
        self._debugged.journal.unfollow(transport)
        if not self._until and self._counting is not None:
            self._counting.cancel()
            self._counting = None

    async def _count(self) -> None:
        while True:
            # The plane may be stopping: then there are no figures.
            with contextlib.suppress(VeilError):
                self._debugged.journal.on_figures((await self._debugged.snapshot()).transports)
            await asyncio.sleep(FIGURES_EVERY_S)

    # --- who asks, and about whom ---

    def _suspect(self, request: web.Request) -> Suspect:
        suspect = self._debugged.find(self._participant(request))
        if suspect is None:
            raise _Refused(404, NOBODY)
        if not suspect.transports:
            raise _Refused(409, "The participant has no transport yet.\n")
        return suspect

    @staticmethod
    def _participant(request: web.Request) -> str:
        sid = request.query.get("participant", "")
        if not sid:
            raise _Refused(400, "Say which participant: ?participant=PA_….\n")
        return sid

    def _who(self, request: web.Request, suspect: Suspect) -> dict[str, Any]:
        return {
            "participant": suspect.participant,
            "room": suspect.room,
            "transports": list(suspect.transports),
            "asked_from": request.remote,
            "asked_with": "bearer" if self._debugged.token else "loopback",
        }


def may_debug(request: web.Request, token: str, *, is_dev: bool) -> bool:
    """True for who shows the operator's token; where there is none, for this machine with --dev, and for no web page on it."""
    if token:
        return may_scrape(request, token)
    if not is_dev or request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return False
    # A foreign name that resolves to this machine makes a foreign page's requests look like our own page's.
    name = request.url.host or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback and may_scrape(request, token)
    return name == "localhost" and may_scrape(request, token)


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _number(request: web.Request, name: str, default: float, most: float, *, least: float = 1) -> float:
    text = request.query.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise _Refused(400, f"{name} is a number from {least:g} to {most:g}.\n")
    return value
