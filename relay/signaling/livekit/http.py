"""The HTTP side of the LiveKit protocol: `/rtc`, `/rtc/v1`, and `validate` under each (LIVEKIT §1.1).

Everything that can be refused is refused with a plain status before the upgrade, since a browser cannot see why an
upgrade failed; it asks `/rtc/validate` with the same query instead and shows that body to people.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from aiohttp import web

from relay.clock import wall_ms
from relay.config import ApiKey
from relay.errors import Refused, VeilError
from relay.ids import new_sid
from relay.log import get_logger
from relay.policy.terms import without_reserved
from relay.quality.choice import BEST, Quality, Wanted
from relay.rooms.endpoint import Description, Endpoint, LeaveReason
from relay.signaling.conference import Conference
from relay.signaling.doorman import Doorman
from relay.signaling.keyring import Keyring
from relay.signaling.livekit import ws
from relay.signaling.livekit.client_info import ClientInfo, read_client_info
from relay.signaling.livekit.join_request import Asked, asked_by, read_join_request
from relay.signaling.livekit.outbox import Outbox
from relay.signaling.livekit.participant import LivekitParticipant
from relay.signaling.livekit.tokens import Grant, read_grant
from relay.signaling.session import Joining, Session

log = get_logger(__name__)

# Users write URLs with a slash at the end and with a path before it; clients append `rtc` to what they are given.
_JOIN = re.compile(r"(?:/[^/]+)*/rtc(/v1)?/?")
_VALIDATE = re.compile(r"(?:/[^/]+)*/rtc(/v1)?/validate/?")
_NOT_HERE = re.compile(r"(?:/[^/]+)*/rtc/.*")
_SLASHES = re.compile(r"/{2,}")
_HEADER_VALUE = re.compile(r"[A-Za-z0-9, _-]{1,512}")
# Who is out for one of these is not to come back by itself: it would put out who took its place, or call on after a kick.
_FINAL = frozenset((LeaveReason.CLIENT_INITIATED, LeaveReason.DUPLICATE_IDENTITY, LeaveReason.PARTICIPANT_REMOVED))
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Reader = Callable[[web.Request], Asked]


class LivekitHttp:
    """The handlers of one relay."""

    def __init__(
        self, conference: Conference, keys: Keyring, doorman: Doorman, refusals: dict[str, int], *, strict: bool
    ) -> None:
        self._conference = conference
        self._keys = keys
        self._doorman = doorman
        self._refusals = refusals
        self._strict = strict

    def handler_of(self, path: str) -> Handler | None:
        """Return who handles this path, None when it is not of this protocol."""
        path = _SLASHES.sub("/", path)
        if found := _JOIN.fullmatch(path):
            return partial(self._join, read=_asked_v1 if found[1] else _asked_v0)
        if found := _VALIDATE.fullmatch(path):
            return partial(self._validate, read=_asked_v1 if found[1] else _asked_v0)
        if _NOT_HERE.fullmatch(path):
            return self._not_here
        return None

    async def _not_here(self, request: web.Request) -> web.StreamResponse:
        # Clients take a 404 for "no such version on this server" and try an older one, unless its body speaks of the room.
        return web.Response(status=404, text="Not found.\n", headers=cors(request))

    async def _validate(self, request: web.Request, read: Reader) -> web.StreamResponse:
        if request.method == "OPTIONS":
            return web.Response(status=204, headers=cors(request))
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, text="Use GET.\n", headers=cors(request))
        try:
            self._admit(request)
            read(request)
        except Refused as refused:
            return self._refusal(request, refused)
        return web.Response(text="success", headers=cors(request))

    async def _join(self, request: web.Request, read: Reader) -> web.StreamResponse:
        if request.method == "OPTIONS":
            return web.Response(status=204, headers=cors(request))
        if not is_upgrade(request):
            return await self._not_here(request)
        try:
            grant = self._admit(request)
            asked = read(request)
        except Refused as refused:
            return self._refusal(request, refused)
        with self._doorman.admitted(request) as is_welcome:
            if not is_welcome:
                return self._refusal(request, Refused(429, "Too many connections from this address."))
            socket = ws.new_socket(self._conference.limits.signal_message_bytes)
            outbox = Outbox(
                protocol=asked.client.protocol,
                is_text=asked.client.wants_json,
                strict=self._strict,
                max_queued_bytes=self._conference.limits.signal_queue_bytes,
            )
            if asked.client.reconnect:
                return await self._resume(request, socket, outbox, grant, asked)
            return await self._serve(request, socket, outbox, grant, asked)

    async def _resume(
        self, request: web.Request, socket: web.WebSocketResponse, outbox: Outbox, grant: Grant, asked: Asked
    ) -> web.StreamResponse:
        """Put this connection in the place of the one that a session had, if it is this token's session."""
        found = self._own(grant, asked.client)
        if isinstance(found, LivekitParticipant) and not found.may_resume():
            return self._refusal(request, Refused(429, "The connection is resumed too often."))
        await socket.prepare(request)
        # Its session may have ended while the socket was made, and so may its key.
        found = self._own(grant, asked.client) if self._keys.holds(grant.key) else None
        if isinstance(found, LivekitParticipant) and found.resume(outbox, grant):
            found.session.joining = replace(found.session.joining, key=grant.key, issued_s=grant.issued_s)
            await ws.serve(request, socket, found, asked.first)
            return socket
        self.refuse("resume")
        is_final = isinstance(found, LeaveReason)
        reason = found if isinstance(found, LeaveReason) else LeaveReason.STATE_MISMATCH
        await ws.refuse(request, socket, outbox, reason, come_back=not is_final)
        return socket

    def _own(self, grant: Grant, client: ClientInfo) -> LivekitParticipant | LeaveReason | None:
        """Return the participant that this client was, why it is out for good, or None: it may join anew."""
        found = self._conference.find_own(grant.room, grant.identity, client.participant_sid)
        if isinstance(found, Endpoint):
            return found.leave_reason if found.leave_reason in _FINAL else None
        if found is None or found.joining.is_single != client.is_single:
            # Its connections are of another kind than it would go on with.
            return None
        return found.listener if isinstance(found.listener, LivekitParticipant) else None

    async def _serve(
        self, request: web.Request, socket: web.WebSocketResponse, outbox: Outbox, grant: Grant, asked: Asked
    ) -> web.StreamResponse:
        try:
            who, is_single = endpoint(grant, asked.client), asked.client.is_single
            joining = Joining(who, grant.room, grant.key, grant.demands, grant.issued_s, is_single=is_single)
            session = await self._conference.prepare(joining)
        except Refused as refused:
            return self._refusal(request, refused)
        except VeilError as error:
            log.error("no transport for a participant", why=str(error))
            return self._refusal(request, Refused(503, "The server cannot take more participants now."))
        try:
            # Places and keys go while transports are made; so far a status can still say why.
            self._check_key(grant.key)
            self._conference.check_admission(grant.room, grant.identity, grant.demands, grant.issued_s)
        except Refused as refused:
            await self._conference.abandon(session)
            return self._refusal(request, refused)
        participant = LivekitParticipant(session, outbox, grant, self._refusals)
        if not await self._enter(request, socket, session, participant):
            return socket
        await ws.serve(request, socket, participant, asked.first)
        return socket

    async def _enter(
        self, request: web.Request, socket: web.WebSocketResponse, session: Session, participant: LivekitParticipant
    ) -> bool:
        """Upgrade and enter the room; False when either failed and everything was given back."""
        is_in = False
        try:
            await socket.prepare(request)
            self._check_key(session.joining.key)
            self._conference.enter(session, participant)
            is_in = True
        except Refused as refused:
            log.info("a participant could not enter", why=refused.sentence)
            await ws.refuse(request, socket, participant.outbox, LeaveReason.JOIN_FAILURE, come_back=False)
        finally:
            if not is_in:
                await self._conference.abandon(session)
        return is_in

    def _admit(self, request: web.Request) -> Grant:
        """Return what the request's token allows, now.   Errors: Refused."""
        grant = read_grant(token_of(request), self._keys)
        self._conference.check_admission(grant.room, grant.identity, grant.demands, grant.issued_s)
        return grant

    def _check_key(self, key: ApiKey) -> None:
        """Do nothing while this key counts.   Errors: Refused 401."""
        if not self._keys.holds(key):
            raise Refused(401, "The token's API key was just taken back.")

    def refuse(self, what: str) -> None:
        """Count something that was refused."""
        self._refusals[what] = self._refusals.get(what, 0) + 1

    def _refusal(self, request: web.Request, refused: Refused) -> web.Response:
        self.refuse(f"join_{refused.status}")
        return web.Response(status=refused.status, text=refused.sentence, headers=cors(request))


def endpoint(grant: Grant, client: ClientInfo) -> Endpoint:
    """Return the participant that this grant and this client make; a client cannot name itself what is the relay's."""
    attributes, metadata = dict(grant.attributes), grant.metadata
    if grant.permission.can_update_metadata:
        attributes |= dict(without_reserved(client.attributes))
        metadata = client.metadata or metadata
    return Endpoint(
        sid=new_sid("PA"),
        description=Description(
            identity=grant.identity,
            name=grant.name,
            metadata=metadata,
            attributes=tuple(attributes.items()),
            kind=grant.kind,
            client_protocol=client.client_protocol,
            capabilities=client.capabilities,
        ),
        permission=grant.permission,
        joined_at_ms=wall_ms(),
        auto_subscribe=client.auto_subscribe,
        # It says what it shows as soon as it shows something; until then a small picture is enough.
        default_wanted=Wanted(quality=Quality.LOW) if client.adaptive_stream else BEST,
    )


def _asked_v0(request: web.Request) -> Asked:
    if "join_request" in request.query:
        # livekit-client 2.15.9 to 2.16, where its app wished for one connection.
        return _asked_v1(request)
    return Asked(read_client_info(request.query))


def _asked_v1(request: web.Request) -> Asked:
    """Return what the request's `join_request` says.   Errors: Refused."""
    return asked_by(read_join_request(request.query.get("join_request", "")))


def token_of(request: web.Request) -> str:
    """Return the access token: the header wins over the query, which only browsers need."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return request.query.get("access_token", "")


def is_upgrade(request: web.Request) -> bool:
    """True when the request asks for a WebSocket."""
    return (
        request.method == "GET"
        and request.headers.get("Upgrade", "").lower() == "websocket"
        and "upgrade" in request.headers.get("Connection", "").lower()
    )


def cors(request: web.Request) -> dict[str, str]:
    """Return headers that let every page read the answer: the token is the security, not the origin."""
    headers = {"Access-Control-Allow-Origin": "*"}
    if request.method == "OPTIONS":
        asked = request.headers.get("Access-Control-Request-Headers", "")
        headers["Access-Control-Allow-Methods"] = "GET, POST, HEAD, OPTIONS"
        # `*` would not cover Authorization, so what was asked for is named.
        headers["Access-Control-Allow-Headers"] = asked if _HEADER_VALUE.fullmatch(asked) else "*"
        headers["Access-Control-Max-Age"] = "600"
    return headers
