"""`GET /veil/quality`: why what a participant sees looks as it does, for its own client alone.

It takes the token the participant joined with, or a refreshed one, in `Authorization` or `access_token`, and answers

    {"participant": "PA_…", "estimate_bps": 1200000 or null, "spent_bps": …, "wanted_bps": …, "subscriptions": [
      {"track": "TR_…", "participant": "PA_…" (who publishes it), "kind": "video", "source": "camera",
       "current": {"encoding": 1, "rid": "h", "spatial": null, "temporal": null, "width": 640, "height": 360,
                   "fps": 29.9, "bps": 480000} or null while nothing is forwarded,
       "best": the same of the best that its sender sends now, or null,
       "paused": false, "reason": "bandwidth", "sentence": "Your connection carries no more now."}, …]}

reason: none, bandwidth, requested, publisher, keyframe_budget, policy. spatial and temporal: the highest layer that is
sent, null where all are. Errors are `{"error": sentence}` with 401 for a token that does not count and 403 for a
participant that is in no call now.
"""

import json
import weakref
from typing import Any

from aiohttp import web

from relay.clock import monotonic_ns
from relay.errors import Refused
from relay.signaling.conference import Conference
from relay.signaling.keyring import Keyring
from relay.signaling.livekit.http import cors, token_of
from relay.signaling.livekit.tokens import read_grant
from relay.signaling.session import Session

PATH = "/veil/quality"
# The figures are a second's; who asks more often is told the same again.
KEPT_NS = 250_000_000


class QualityApi:
    """The handler of one relay."""

    def __init__(self, conference: Conference, keys: Keyring, refusals: dict[str, int]) -> None:
        self._conference = conference
        self._keys = keys
        self._refusals = refusals
        self._told: weakref.WeakKeyDictionary[Session, tuple[int, str]] = weakref.WeakKeyDictionary()

    def respond(self, request: web.Request) -> web.Response | None:
        """Return the answer, None when the path is not ours."""
        if request.path != PATH:
            return None
        if request.method == "OPTIONS":
            return web.Response(status=204, headers=cors(request))
        try:
            if request.method not in ("GET", "HEAD"):
                raise Refused(405, "Use GET.")
            return self._answer(request, 200, self._tell(self._session(request)))
        except Refused as refused:
            name = f"quality_{refused.status}"
            self._refusals[name] = self._refusals.get(name, 0) + 1
            return self._answer(request, refused.status, json.dumps({"error": refused.sentence}))

    def _session(self, request: web.Request) -> Session:
        grant = read_grant(token_of(request), self._keys)
        hall = self._conference.find(grant.room)
        endpoint = hall.room.by_identity(grant.identity) if hall is not None else None
        session = hall.sessions.get(endpoint.sid) if hall is not None and endpoint is not None else None
        if session is None:
            raise Refused(403, "You are not in this call now: join it first.")
        return session

    def _tell(self, session: Session) -> str:
        now_ns = monotonic_ns()
        told = self._told.get(session)
        if told is None or now_ns - told[0] > KEPT_NS:
            told = self._told[session] = now_ns, json.dumps(explained(session))
        return told[1]

    @staticmethod
    def _answer(request: web.Request, status: int, body: str) -> web.Response:
        headers = {**cors(request), "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        return web.Response(status=status, text=body, content_type="application/json", headers=headers)


def explained(session: Session) -> dict[str, Any]:
    """Return what is known of the quality of a participant's subscriptions, as the API tells it."""
    division = session.division
    return {
        "participant": session.sid,
        "estimate_bps": division.estimate_bps,
        "spent_bps": division.spent_bps,
        "wanted_bps": division.wanted_bps,
        "subscriptions": [explanation.as_json() for explanation in session.explain()],
    }
