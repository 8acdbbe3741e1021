"""The state machines of a session, each an enum and a table; a pair that is not in its table is our bug.

`python -m relay.session.states` prints the tables; the docs include that text. The association's states are those
the driver can tell apart, not the eight of RFC 9260 §4; those live inside usrsctp.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar


class TransportState(Enum):
    """One ICE/DTLS bundle, from made to gone. There is no way back: a new session makes a new transport."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    CLOSED = "closed"
    FAILED = "failed"


class TransportTrigger(Enum):
    """What moves a transport."""

    REMOTE_SET = "remote description set"
    HANDSHAKE_DONE = "handshake done, fingerprint matched"
    HANDSHAKE_LOST = "handshake failed or timed out"
    CLOSE = "closed by us"
    REMOTE_CLOSE = "close_notify or fatal alert received"


class AssociationState(Enum):
    """The SCTP association over one transport."""

    OFF = "off"
    WAITING = "waiting"
    CONNECTING = "connecting"
    UP = "up"
    DOWN = "down"


class AssociationTrigger(Enum):
    """What moves an association."""

    ENABLED = "application section agreed"
    DTLS_UP = "DTLS connected"
    COMMUNICATION_UP = "COOKIE exchange done"
    LOST = "aborted, shut down or out of retries"
    BROKEN_RULE = "peer broke a limit"
    CLOSE = "transport closed"


class ChannelState(Enum):
    """One data channel (RFC 8831 §6)."""

    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class ChannelTrigger(Enum):
    """What moves a data channel."""

    ACKNOWLEDGED = "DATA_CHANNEL_ACK or first message received"
    CLOSE = "closed by us"
    REMOTE_RESET = "peer reset its half"
    BOTH_RESET = "both halves reset"
    ASSOCIATION_DOWN = "association down"


State = TypeVar("State", bound=Enum)
Trigger = TypeVar("Trigger", bound=Enum)

TRANSPORT: Mapping[tuple[TransportState, TransportTrigger], TransportState] = {
    (TransportState.NEW, TransportTrigger.REMOTE_SET): TransportState.CONNECTING,
    (TransportState.NEW, TransportTrigger.CLOSE): TransportState.CLOSED,
    (TransportState.CONNECTING, TransportTrigger.HANDSHAKE_DONE): TransportState.CONNECTED,
    (TransportState.CONNECTING, TransportTrigger.HANDSHAKE_LOST): TransportState.FAILED,
    (TransportState.CONNECTING, TransportTrigger.CLOSE): TransportState.CLOSED,
    (TransportState.CONNECTED, TransportTrigger.CLOSE): TransportState.CLOSED,
    (TransportState.CONNECTED, TransportTrigger.REMOTE_CLOSE): TransportState.CLOSED,
    (TransportState.CLOSED, TransportTrigger.CLOSE): TransportState.CLOSED,
    (TransportState.FAILED, TransportTrigger.CLOSE): TransportState.FAILED,
}

ASSOCIATION: Mapping[tuple[AssociationState, AssociationTrigger], AssociationState] = {
    (AssociationState.OFF, AssociationTrigger.ENABLED): AssociationState.WAITING,
    (AssociationState.OFF, AssociationTrigger.CLOSE): AssociationState.DOWN,
    (AssociationState.WAITING, AssociationTrigger.DTLS_UP): AssociationState.CONNECTING,
    (AssociationState.WAITING, AssociationTrigger.CLOSE): AssociationState.DOWN,
    (AssociationState.CONNECTING, AssociationTrigger.COMMUNICATION_UP): AssociationState.UP,
    (AssociationState.CONNECTING, AssociationTrigger.LOST): AssociationState.DOWN,
    (AssociationState.CONNECTING, AssociationTrigger.BROKEN_RULE): AssociationState.DOWN,
    (AssociationState.CONNECTING, AssociationTrigger.CLOSE): AssociationState.DOWN,
    (AssociationState.UP, AssociationTrigger.LOST): AssociationState.DOWN,
    (AssociationState.UP, AssociationTrigger.BROKEN_RULE): AssociationState.DOWN,
    (AssociationState.UP, AssociationTrigger.CLOSE): AssociationState.DOWN,
    (AssociationState.DOWN, AssociationTrigger.CLOSE): AssociationState.DOWN,
}

CHANNEL: Mapping[tuple[ChannelState, ChannelTrigger], ChannelState] = {
    (ChannelState.OPENING, ChannelTrigger.ACKNOWLEDGED): ChannelState.OPEN,
    (ChannelState.OPENING, ChannelTrigger.CLOSE): ChannelState.CLOSING,
    (ChannelState.OPENING, ChannelTrigger.REMOTE_RESET): ChannelState.CLOSING,
    (ChannelState.OPENING, ChannelTrigger.ASSOCIATION_DOWN): ChannelState.CLOSED,
    (ChannelState.OPEN, ChannelTrigger.ACKNOWLEDGED): ChannelState.OPEN,
    (ChannelState.OPEN, ChannelTrigger.CLOSE): ChannelState.CLOSING,
    (ChannelState.OPEN, ChannelTrigger.REMOTE_RESET): ChannelState.CLOSING,
    (ChannelState.OPEN, ChannelTrigger.ASSOCIATION_DOWN): ChannelState.CLOSED,
    (ChannelState.CLOSING, ChannelTrigger.ACKNOWLEDGED): ChannelState.CLOSING,
    (ChannelState.CLOSING, ChannelTrigger.CLOSE): ChannelState.CLOSING,
    (ChannelState.CLOSING, ChannelTrigger.REMOTE_RESET): ChannelState.CLOSING,
    (ChannelState.CLOSING, ChannelTrigger.BOTH_RESET): ChannelState.CLOSED,
    (ChannelState.CLOSING, ChannelTrigger.ASSOCIATION_DOWN): ChannelState.CLOSED,
}


class IllegalTransition(RuntimeError):
    """A trigger reached a state whose table has no row for it: our bug, never a peer's."""


class Machine(Generic[State, Trigger]):
    """The current state of one thing that follows a table."""

    __slots__ = ("_table", "state")

    def __init__(self, table: Mapping[tuple[State, Trigger], State], start: State) -> None:
        self._table = table
        self.state = start

    def fire(self, trigger: Trigger) -> State:
        """Move along `trigger` and return the new state.   Errors: IllegalTransition; the state stays as it was."""
        following = self._table.get((self.state, trigger))
        if following is None:
            raise IllegalTransition(f"{self.state.value!r} has no row for {trigger.value!r}")
        self.state = following
        return following


def printed(title: str, table: Mapping[tuple[State, Trigger], State]) -> str:
    """Return one table as aligned text, a row per legal pair."""
    rows = [("state", "trigger", "next")]
    rows += [(state.value, trigger.value, after.value) for (state, trigger), after in table.items()]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    body = [f"{row[0]:<{first}}  {row[1]:<{second}}  {row[2]}" for row in rows]
    return "\n".join([title, "-" * len(title), *body])


def main() -> None:
    """Print every table of this module."""
    print("\n\n".join(
        printed(title, table)
        for title, table in (("Transport", TRANSPORT), ("Association", ASSOCIATION), ("Data channel", CHANNEL))
    ))


if __name__ == "__main__":
    main()
