"""Lets the client that another server hosts, at `server.web_origin`, read what this relay answers it.

Pages of any other origin can ask, and browsers keep the answer from them. `/rtc` and `/rtc/validate` are not meant here:
LiveKit apps come from everywhere, and their token is what lets them in.
"""

from collections.abc import Mapping

from aiohttp import web

from relay.origin import read_origin
from relay.webverify import HASHES

_NOTHING: Mapping[str, str] = {}


class CrossOrigin:
    """What one relay tells browsers about pages of other origins."""

    def __init__(self, web_origin: str) -> None:
        self._origin = read_origin(web_origin) if web_origin else ""

    def headers(self, request: web.Request) -> Mapping[str, str]:
        """Return what to add to the answer; nothing where this page may not read it."""
        if not self._origin or not (request.path.startswith("/client/") or request.path == f"/{HASHES}"):
            return _NOTHING
        # Without it a cache could give one origin what was answered to another.
        headers = {"Vary": "Origin"}
        if request.headers.get("Origin") == self._origin:
            headers["Access-Control-Allow-Origin"] = self._origin
        return headers

    def preflight(self, request: web.Request) -> web.Response | None:
        """Return the answer to a browser that asks before it sends; None where this is no such question, or not allowed."""
        headers = self.headers(request)
        if request.method != "OPTIONS" or "Access-Control-Allow-Origin" not in headers:
            return None
        allowed = {
            "Access-Control-Allow-Methods": "GET, HEAD, POST",
            "Access-Control-Allow-Headers": "Content-Type",
            "Access-Control-Max-Age": "600",
        }
        return web.Response(status=204, headers={**headers, **allowed})
