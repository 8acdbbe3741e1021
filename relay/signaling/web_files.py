"""Serves the built-in client: a handful of files, read once at start, by exact path.

Nothing is looked up on disk per request, so no path can lead elsewhere. The content security policy allows this
origin's own scripts and nothing inline: what the page loaded is what was shipped.

The same files can be hosted by any web server: `published` is all that it needs, `headers` is what it should send.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from relay.version import version
from relay.webverify import HASHES, RELAY

FOLDER = Path(__file__).parent.parent / "web"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".txt": "text/plain; charset=utf-8",
}
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(?::\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::\d{1,5})?")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "media-src 'self' blob:; worker-src 'self'; manifest-src 'self'; connect-src {connect}; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; object-src 'none'"
)


@dataclass(frozen=True, slots=True)
class File:
    """One file as it is sent."""

    body: bytes
    content_type: str
    etag: str


def bundle(folder: Path = FOLDER) -> dict[str, bytes]:
    """Return the files of the client by their names below its folder, sorted."""
    paths = sorted(folder.rglob("*")) if folder.is_dir() else ()
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths if p.suffix in TYPES and p.is_file()}


def hashes(folder: Path = FOLDER) -> dict[str, str]:
    """Return the SHA-256 of each file, in hex, by name: what `veil web verify` compares."""
    return {name: hashlib.sha256(body).hexdigest() for name, body in bundle(folder).items()}


def published(server: str = "", folder: Path = FOLDER) -> dict[str, bytes]:
    """Return all files that a web server hosts: the client, the list of its hashes, and where its relay is.

    `server` is the relay's origin, empty for the relay itself. That file is the host's own, so the list leaves it out.
    """
    listed = {"version": version(), "files": hashes(folder)}
    return {**bundle(folder), HASHES: _json(listed), RELAY: _json({"server": server})}


def headers(connect: str) -> dict[str, str]:
    """Return what goes with every file; `connect` are the sources that the page may speak to besides its own origin."""
    return {
        # Always asked for anew, mostly answered by 304: a page and its modules never come from two versions.
        "Cache-Control": "no-cache",
        "Content-Security-Policy": _POLICY.format(connect=connect),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(self), microphone=(self), display-capture=(self), geolocation=()",
    }


class WebFiles:
    """The files of the built-in client by URL path, and the list of their hashes."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = {
            f"/{name}": File(body, TYPES[Path(name).suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
            for name, body in published(folder=folder).items()
        }

    def respond(self, request: web.Request) -> web.Response | None:
        """Return the file of this path, None when there is none.  `/` and `/i/…` are the page itself."""
        if request.method not in ("GET", "HEAD"):
            return None
        path = "/index.html" if request.path == "/" or request.path.startswith("/i/") else request.path
        file = self._files.get(path)
        if file is None:
            # Health checks and LiveKit's own clients ask for `/` and want nothing but a 200.
            return web.Response(text="OK\n") if request.path == "/" else None
        sent = {"Content-Type": file.content_type, "ETag": file.etag, **headers(_connect(request))}
        if request.headers.get("If-None-Match") == file.etag:
            return web.Response(status=304, headers=sent)
        return web.Response(body=file.body, headers=sent)


def _connect(request: web.Request) -> str:
    """Older browsers do not count this host's WebSocket as 'self', so it is named."""
    host = request.headers.get("Host", "")
    return f"'self' ws://{host} wss://{host}" if _HOST.fullmatch(host) else "'self'"


def _json(value: Mapping[str, object]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
