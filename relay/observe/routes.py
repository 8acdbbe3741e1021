"""HTTP handlers for health and metrics.

/healthz says that the process lives: it answers from the loop alone, so that a stuck loop fails it. /readyz says
that calls can be taken now: the data plane answered a snapshot in time and the server is not draining.
"""

import asyncio
import hmac
import ipaddress

from aiohttp import web

from relay.errors import VeilError
from relay.observe import metrics
from relay.observe.watched import Watched
from relay.version import version

# Ten times what a busy worker takes between batches; an orchestrator's probe gives up after 1 s by default.
SNAPSHOT_TIMEOUT_S = 0.5


def routes(watched: Watched) -> list[web.RouteDef]:
    """Return the routes of one relay, for `app.add_routes`."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        why = watched.unready()
        if why is None:
            try:
                await asyncio.wait_for(watched.snapshot(), SNAPSHOT_TIMEOUT_S)
            except TimeoutError:
                why = "the data plane does not answer"
            except VeilError as error:
                why = f"the data plane refuses: {error}"
        return web.Response(text="ready\n") if why is None else web.Response(status=503, text=f"{why}\n")

    async def scrape(request: web.Request) -> web.Response:
        if not may_scrape(request, watched.metrics_token):
            return web.Response(
                status=403,
                text="Metrics are for this machine, or for who has server.metrics_token as a bearer token.\n",
            )
        try:
            snapshot = await asyncio.wait_for(watched.snapshot(), SNAPSHOT_TIMEOUT_S)
        except (TimeoutError, VeilError):
            return web.Response(status=503, text="The data plane does not answer.\n")
        body = metrics.render(version(), watched.totals(), snapshot, watched.refusals, watched.lost_records())
        return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})

    return [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", scrape)]


def may_scrape(request: web.Request, token: str) -> bool:
    """True for a caller on this machine with no proxy between, and for one that shows the token."""
    if token:
        given = request.headers.get("Authorization", "")
        # Bytes that are no UTF-8 come as lone surrogates, which would not encode back by default.
        return hmac.compare_digest(given.encode(errors="surrogateescape"), f"Bearer {token}".encode())
    # How many people are in calls is nobody else's business; a proxy on this machine would hide who asks.
    if any(name in request.headers for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via")):
        return False
    try:
        return ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        return False
