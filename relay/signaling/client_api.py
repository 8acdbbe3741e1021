"""What the built-in page asks for besides signalling: an invite becomes a token; with `--dev`, a room name does.

`GET /client/config` → `{"dev"}`: whether a room name is enough here.
`POST /client/join {"invite", "name"}` → `{"token", "url", "room", "identity"}`.
`POST /client/dev-join {"room", "name"}` → the same, only with `--dev`, only on loopback.
Both take `"e2ee_profile"` and `"frame_format"` too, from who has a key: what the first one asks for the room keeps, within
its tier and what the invite says; who asks for nothing takes the call as it is.
"""

import ipaddress
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from relay.errors import Refused
from relay.policy.terms import FRAME_FORMAT, PROFILE, Demands, read_demands
from relay.signaling import invites
from relay.signaling.keyring import Keyring
from relay.signaling.livekit.tokens import MAX_NAME_CHARACTERS

MAX_BODY_BYTES = 32_768
_RIGHTS = {"canPublish": True, "canSubscribe": True, "canPublishData": True}


class ClientApi:
    """The handlers of one relay."""

    def __init__(self, keys: Keyring, refusals: dict[str, int], *, allows_dev_join: bool) -> None:
        self._keys = keys
        self._refusals = refusals
        self.allows_dev_join = allows_dev_join

    async def respond(self, request: web.Request) -> web.Response | None:
        """Return the answer, None when the path is not ours."""
        if request.path == "/client/config" and request.method in ("GET", "HEAD"):
            return _json(200, {"dev": self.allows_dev_join})
        handler = {"/client/join": self._join, "/client/dev-join": self._dev_join}.get(request.path)
        if handler is None or (handler == self._dev_join and not self.allows_dev_join):
            return None
        try:
            if request.method != "POST":
                raise Refused(405, "Use POST.")
            return _json(200, await handler(request))
        except Refused as refused:
            name = f"client_{refused.status}"
            self._refusals[name] = self._refusals.get(name, 0) + 1
            return _json(refused.status, {"error": refused.sentence})

    async def _join(self, request: web.Request) -> dict[str, str]:
        body = await _read(request)
        invite = invites.read(_text(body, "invite"), self._keys)
        token, identity = invites.admit(invite, body.get("name"), _demands(body))
        return {"token": token, "url": _url(request), "room": invite.room.name, "identity": identity}

    async def _dev_join(self, request: web.Request) -> dict[str, str]:
        # A page on another site can reach a server on this machine, by a name of its own that leads here too.
        if not _is_loopback_host(request.host):
            raise Refused(403, "Development tokens are given to pages of this machine only.")
        body = await _read(request)
        room = _text(body, "room").strip()
        if not 0 < len(room) <= MAX_NAME_CHARACTERS:
            raise Refused(400, f"A room name has 1 to {MAX_NAME_CHARACTERS} characters.")
        name = invites.clean_name(body.get("name"))
        key = self._keys.first()
        if key is None:
            raise Refused(503, "This server has no API key.")
        identity = invites.identity_of(name)
        token = invites.join_token(key, room, identity, name, _RIGHTS, _demands(body))
        return {"token": token, "url": _url(request), "room": room, "identity": identity}


def _demands(body: dict[str, Any]) -> Demands:
    asked = ((PROFILE, "e2ee_profile"), (FRAME_FORMAT, "frame_format"))
    return read_demands(((name, _text(body, field)) for name, field in asked if body.get(field) is not None), "request")


async def _read(request: web.Request) -> dict[str, Any]:
    # A JSON body cannot be posted from another site without that site being asked for first.
    if request.content_type != "application/json":
        raise Refused(415, "Send application/json.")
    try:
        # The application's client_max_size bounds what this reads.
        body = json.loads(await request.read() or b"null")
    except web.HTTPRequestEntityTooLarge:
        raise Refused(413, f"The body is longer than {MAX_BODY_BYTES} bytes.") from None
    except (ValueError, RecursionError):
        raise Refused(400, "The body is not JSON.") from None
    if not isinstance(body, dict):
        raise Refused(400, "The body is not a JSON object.")
    return body


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise Refused(400, f"{name} is needed.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(400, f"{name} is not valid text.") from None
    return value


def _url(request: web.Request) -> str:
    is_secure = request.secure or request.headers.get("X-Forwarded-Proto", "") == "https"
    return f"{'wss' if is_secure else 'ws'}://{request.host}"


def _is_loopback_host(host: str) -> bool:
    name = host.rsplit(":", 1)[0].strip("[]") if not host.endswith("]") else host.strip("[]")
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _json(status: int, body: Mapping[str, str | bool]) -> web.Response:
    return web.json_response(
        body, status=status, headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    )
