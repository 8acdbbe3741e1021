"""The last flight of a DTLS handshake, sent again before OpenSSL's own timer would.

OpenSSL waits one second before it repeats a flight and doubles from there: a call that starts over a lossy path
then starts seconds late. Until the handshake is over we repeat the very same datagrams, as a network may
(RFC 6347 §3.1): records already seen fall to the replay window, the missing ones get through. OpenSSL's timer stays
in force behind this one and repeats with fresh record numbers. libwebrtc starts at 50 ms in the same spirit; 200 ms
is above the round trip of most calls, so a loss-free handshake is sent once.
"""

FIRST_REPEAT_NS = 200_000_000
LONGEST_REPEAT_NS = 1_600_000_000
MAX_REPEATS = 20
"""0.2 + 0.4 + 0.8 + 17 × 1.6 s reach just past the 28 s after which the handshake as a whole is given up."""

MAX_ANSWERS = 32
"""Repeats of the last flight that a peer may ask for by repeating its own: it must not become an amplifier."""


class Flight:
    """Datagrams of the newest flight and when to send them again."""

    __slots__ = ("_answers", "_datagrams", "_interval_ns", "_repeats", "due_ns")

    def __init__(self) -> None:
        self._datagrams: tuple[bytes, ...] = ()
        self._interval_ns = FIRST_REPEAT_NS
        self._repeats = 0
        self._answers = 0
        self.due_ns: int | None = None

    def replace(self, datagrams: list[bytes], now_ns: int) -> None:
        """Remember a new flight, sent just now."""
        self._datagrams = tuple(datagrams)
        self._interval_ns = FIRST_REPEAT_NS
        self._repeats = 0
        self.due_ns = now_ns + FIRST_REPEAT_NS

    def settle(self) -> None:
        """The handshake is over at this end: repeat only when the peer shows that it misses something."""
        self.due_ns = None

    def forget(self) -> None:
        """The peer has shown that it needs nothing of this flight any more, or the transport is gone."""
        self._datagrams = ()
        self.due_ns = None

    def poll(self, now_ns: int) -> tuple[bytes, ...]:
        """Return the datagrams to repeat now, usually none."""
        if self.due_ns is None or now_ns < self.due_ns:
            return ()
        self._repeats += 1
        self._interval_ns = min(self._interval_ns * 2, LONGEST_REPEAT_NS)
        self.due_ns = now_ns + self._interval_ns if self._repeats < MAX_REPEATS else None
        return self._datagrams

    def answer(self) -> tuple[bytes, ...]:
        """Return the settled flight once more, because the peer repeated the flight before it."""
        if self._answers >= MAX_ANSWERS:
            return ()
        self._answers += 1
        return self._datagrams
