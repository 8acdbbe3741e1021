"""Names and passwords for a TURN server, made for one participant and good for some hours.

coturn's `use-auth-secret` (draft-uberti-behave-turn-rest-00 §2.2): the name is the second it expires, a colon and any
text; the password is the name's HMAC-SHA1 under the secret that we share with the server, in base64. Nothing is asked
of the server and nothing is kept.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass, field

from relay.config import Turn


@dataclass(frozen=True, slots=True)
class IceServer:
    """One entry of a browser's `iceServers`."""

    urls: tuple[str, ...]
    username: str = ""
    credential: str = field(default="", repr=False)


def ice_servers(turn: Turn, participant_sid: str, now_s: int) -> list[IceServer]:
    """Return what a participant who joins now is told; the sid lets coturn's log be matched with ours."""
    stun = tuple(url for url in turn.urls if url.startswith("stun"))
    relays = tuple(url for url in turn.urls if url.startswith("turn"))
    found = [IceServer(stun)] if stun else []
    if relays:
        username = f"{now_s + turn.lifetime_s}:{participant_sid}"
        digest = hmac.digest(turn.secret.encode(), username.encode(), hashlib.sha1)
        found.append(IceServer(relays, username, base64.b64encode(digest).decode()))
    return found
