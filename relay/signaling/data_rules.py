"""Which data messages of a participant go on, and what the relay reads in them: nothing but announcements of key ids.

In an encrypted room clear messages go to nobody. Those on topic `veil.keys` do, up to 64 kB and a few a second: clients
tell each other there what they need to decrypt, sealed by themselves. One kind the relay reads too:
`{"track_sid": "TR_…", "kids": [first, last]}` says which SFrame key ids the frames of the sender's own track will carry.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.clock import monotonic_ns

if TYPE_CHECKING:
    from relay.signaling.session import Session

KEYS_TOPIC = "veil.keys"
MAX_KEYS_BYTES = 65_536
# An epoch of group keys is at most one message in 2 s, a publication's announcement one in its life.
KEYS_PER_S = 10
KEYS_BURST = 50
# A file in pieces of 15 kB at 50 Mbit/s is 416 a second. Each message is some work for every one who gets it, on the loop that all
# calls share, and a packet holds dozens of small ones, so that a limit of bits alone does not bound it.
MESSAGES_PER_S = 1000
MESSAGES_BURST = 5000
NS_PER_S = 1_000_000_000
MAX_KID = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Announcement:
    """Key ids first to last will be used for frames of this track."""

    track_sid: str
    first: int
    last: int


def read_announcement(payload: bytes) -> Announcement | None:
    """Return what this message announces, None when it is of another kind.   Errors: ValueError for a wrong one."""
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError):
        # Sealed boxes need not be JSON.
        return None
    if not isinstance(said, dict) or "kids" not in said:
        return None
    track_sid, kids = said.get("track_sid"), said["kids"]
    if not isinstance(track_sid, str) or not isinstance(kids, list) or [type(kid) for kid in kids] != [int, int]:
        raise ValueError("not a track and two numbers")
    if not 0 <= kids[0] <= kids[1] <= MAX_KID:
        raise ValueError("not a range of key ids")
    return Announcement(track_sid, kids[0], kids[1])


class Rate:
    """So many a second with a burst; `take` is False above that."""

    __slots__ = ("_burst_ns", "_paid_ns", "_step_ns")

    def __init__(self, per_s: int, burst: int) -> None:
        self._step_ns = NS_PER_S // per_s
        self._burst_ns = self._step_ns * burst
        self._paid_ns = 0

    def take(self, now_ns: int) -> bool:
        """Take one, if one is left."""
        paid_ns = max(self._paid_ns, now_ns - self._burst_ns) + self._step_ns
        if paid_ns > now_ns:
            return False
        self._paid_ns = paid_ns
        return True

    def owe(self, count: int, now_ns: int, *, most_s: float) -> float:
        """Take so many, left or not; return how many seconds to wait until they are, `most_s` at most."""
        paid_ns = max(self._paid_ns, now_ns - self._burst_ns) + count * self._step_ns
        self._paid_ns = min(paid_ns, now_ns + int(most_s * NS_PER_S))
        return max(0, self._paid_ns - now_ns) / NS_PER_S


class DataRules:
    """The rules for the messages of one session, in its room."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._keys_rate = Rate(KEYS_PER_S, KEYS_BURST)
        self._rate = Rate(MESSAGES_PER_S, MESSAGES_BURST)
        self._told: set[str] = set()

    def admits_one_more(self) -> bool:
        """True while its sender keeps to the rate; asked before anything is read in a message."""
        hall = self._session.hall
        if self._rate.take(monotonic_ns()) or hall is None:
            return True
        tier = hall.room.terms.tier.name
        self._tell(f"In calls of the {tier} tier a participant sends {MESSAGES_PER_S} messages a second at most.")
        return False

    def refusal(self, *, is_encrypted: bool, keys: bytes | None) -> str | None:
        """Return the reason (a counter's name) for which this message goes to nobody, None when it goes on.

        `keys` is what a message on topic veil.keys says. The first message of the wrong kind is told its sender.
        """
        if keys is not None:
            return self._keys_refusal(keys)
        hall = self._session.hall
        sentence = hall.room.terms.data_refusal(is_encrypted=is_encrypted) if hall is not None else None
        if sentence is None:
            return None
        self._tell(sentence)
        return "data_encrypted" if is_encrypted else "data_clear"

    def _tell(self, sentence: str) -> None:
        """Tell the sender, once."""
        if sentence not in self._told and self._session.listener is not None:
            self._told.add(sentence)
            self._session.listener.on_notice(sentence)

    def _keys_refusal(self, payload: bytes) -> str | None:
        if len(payload) > MAX_KEYS_BYTES:
            return "keys_size"
        if not self._keys_rate.take(monotonic_ns()):
            return "keys_rate"
        try:
            announcement = read_announcement(payload)
        except ValueError:
            return "keys_malformed"
        if announcement is not None and not self._session.publisher.announce_keys(announcement):
            return "keys_of_no_own_track"
        return None
