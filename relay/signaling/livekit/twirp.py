"""LiveKit's server API over HTTP: Twirp, in protobuf or JSON (LIVEKIT §1.5).

A token is looked at before a byte of the body; it counts in the rooms of its key's customer and nowhere else. Errors are JSON
in either case, with the codes and statuses of Twirp's specification.
"""

import asyncio
import json
import re

from aiohttp import web
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from relay.clock import monotonic_ns
from relay.errors import Refused, VeilError
from relay.log import get_logger
from relay.policy.terms import read_demands
from relay.signaling.data_rules import Rate
from relay.signaling.doorman import Doorman
from relay.signaling.jwt_edge import read_claims
from relay.signaling.keyring import Keyring
from relay.signaling.livekit.http import Handler, cors, token_of
from relay.signaling.livekit.room_service import Caller, RoomService
from relay.signaling.livekit.tokens import NOBODY_HIDDEN, names_hidden

log = get_logger(__name__)

_PATH = re.compile(r"(?:/[^/]+)*/twirp/([^/]*)/([^/]*)")
_SLASHES = re.compile(r"/{2,}")
# A message of 64 kB or metadata of 64 kB, with room for JSON's spelling of bytes.
MAX_BODY_BYTES = 262_144
# Whoever may call at all sends the body at once.
BODY_S = 10.0
# A program that administers a thousand rooms stays far below; each call is well under a millisecond of the loop.
CALLS_PER_S = 100
CALLS_BURST = 500
_CODES = {
    400: "invalid_argument",
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    412: "failed_precondition",
    429: "resource_exhausted",
    501: "unimplemented",
    503: "unavailable",
}
_PROTOBUF, _JSON = "application/protobuf", "application/json"


class _BadRoute(Refused):
    """No such service or method, or not asked for as Twirp is."""

    def __init__(self, sentence: str) -> None:
        super().__init__(404, sentence)


class _Malformed(Refused):
    """A body that cannot be read."""

    def __init__(self, sentence: str) -> None:
        super().__init__(400, sentence)


class Twirp:
    """The handler of one relay."""

    def __init__(self, service: RoomService, keys: Keyring, doorman: Doorman, refusals: dict[str, int]) -> None:
        self._service = service
        self._keys = keys
        self._doorman = doorman
        self._refusals = refusals
        self._rates: dict[str, Rate] = {}

    def handler_of(self, path: str) -> Handler | None:
        """Return who handles this path, None when it is not of this protocol."""
        return self._respond if _PATH.fullmatch(_SLASHES.sub("/", path)) else None

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        if request.method == "OPTIONS":
            return web.Response(status=204, headers=cors(request))
        try:
            answer = await self._call(request)
        except Refused as refused:
            return self._refusal(request, refused)
        except VeilError as error:
            log.error("a call of the server API failed", why=str(error))
            return self._refusal(request, Refused(503, "The server cannot do that now."))
        headers = cors(request)
        if request.content_type == _JSON:
            body = json_format.MessageToJson(
                answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=None
            )
            return web.Response(text=body, content_type=_JSON, headers=headers)
        return web.Response(body=answer.SerializeToString(), content_type=_PROTOBUF, headers=headers)

    async def _call(self, request: web.Request) -> Message:
        match = _PATH.fullmatch(_SLASHES.sub("/", request.path))
        assert match is not None
        service, name = match.groups()
        method = self._service.methods.get(name) if service == "livekit.RoomService" else None
        if method is None:
            raise _BadRoute(f"This server has no {service[:64]}/{name[:64]}.")
        if request.method != "POST":
            raise _BadRoute("Use POST.")
        if request.content_type not in (_PROTOBUF, _JSON):
            raise _BadRoute(f"Send {_PROTOBUF} or {_JSON}.")
        caller = read_caller(token_of(request), self._keys)
        if not self._rates.setdefault(caller.key.key, Rate(CALLS_PER_S, CALLS_BURST)).take(monotonic_ns()):
            raise Refused(429, f"No more than {CALLS_PER_S} calls a second with one API key.")
        with self._doorman.admitted(request) as is_welcome:
            if not is_welcome:
                raise Refused(429, "Too many connections from this address.")
            body = await _read(request)
            message = _parse(body, method.request(), is_json=request.content_type == _JSON)
            # It may have been taken back while the body came.
            if not self._keys.holds(caller.key):
                raise Refused(401, "The token's API key was just taken back.")
            return await method.handle(caller, message)

    def _refusal(self, request: web.Request, refused: Refused) -> web.Response:
        name = f"api_{refused.status}"
        self._refusals[name] = self._refusals.get(name, 0) + 1
        code = {_BadRoute: "bad_route", _Malformed: "malformed"}.get(type(refused)) or _CODES.get(refused.status, "unknown")
        body = {"code": code, "msg": refused.sentence}
        return web.json_response(body, status=refused.status, headers=cors(request))


def read_caller(token: str, keys: Keyring) -> Caller:
    """Return who calls.   Errors: Refused 401, 403 for a token that asks to be hidden."""
    key, claims = read_claims(token, keys)
    video = claims.get("video")
    if not isinstance(video, dict):
        raise Refused(401, "The token grants nothing.")
    if video.get("hidden") or names_hidden(claims.get("roomConfig")):
        raise Refused(403, NOBODY_HIDDEN)
    attributes = claims.get("attributes") or {}
    if not isinstance(attributes, dict) or not all(isinstance(value, str) for value in attributes.values()):
        raise Refused(400, "The token's attributes are not a map of texts.")
    return Caller(key, video, read_demands(attributes.items()))


async def _read(request: web.Request) -> bytes:
    too_long = Refused(400, f"The body is longer than {MAX_BODY_BYTES} bytes.")
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.content.iter_any():
                body += part
                if len(body) > MAX_BODY_BYTES:
                    raise too_long
    except TimeoutError:
        raise _Malformed("The body did not come.") from None
    return bytes(body)


def _parse(body: bytes, message: Message, *, is_json: bool) -> Message:
    try:
        if not is_json:
            message.ParseFromString(body)
            return message
        text = body.decode() or "{}"
        json_format.Parse(text, message, ignore_unknown_fields=True, max_recursion_depth=32)
        # LiveKit's messages have nowhere else a field of this name; a room configuration may carry one that we do not know.
        is_hidden = names_hidden(json.loads(text))
    except (DecodeError, json_format.ParseError, ValueError, RecursionError):
        raise _Malformed("The body cannot be read.") from None
    if is_hidden:
        raise Refused(403, NOBODY_HIDDEN)
    return message
