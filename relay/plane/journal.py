"""Events of single transports in the log, for as long as an operator follows them; off, each event costs one look into a dict.

Holds what happened and how often: no keys, no ICE credentials, no payload. Addresses are shown, as everywhere in the log.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from relay.log import get_logger
from relaycore.worker import EventKind

log = get_logger(__name__)

# Of `PlaneSnapshot.transports`, told as differences.
COUNTED = (
    "packets_received",
    "packets_sent",
    "keyframes_asked",
    "keyframes_wanted",
    "nacks_sent",
    "nacks_received",
    "rtx_sent",
    "rtx_recovered",
)


class Owned(Protocol):
    @property
    def transport(self) -> int: ...


class Journal:
    """Which transports are followed, and what is said about them.

    `receivers` and `egresses` are the plane's live tables, by which their events find a transport.
    """

    def __init__(self, receivers: Mapping[int, Owned], egresses: Mapping[int, tuple[int, int]]) -> None:
        self._labels: dict[int, Mapping[str, Any]] = {}
        self._before: dict[int, dict[str, int]] = {}
        self._receivers = receivers
        self._egresses = egresses

    @property
    def followed(self) -> tuple[int, ...]:
        return tuple(self._labels)

    def follow(self, transport: int, **labels: Any) -> None:
        """Log what happens on a transport from now on; the labels (participant, room) stand in every line."""
        self._labels[transport] = labels

    def unfollow(self, transport: int) -> None:
        self._labels.pop(transport, None)
        self._before.pop(transport, None)

    def note(self, transport: int, what: str, **fields: Any) -> None:
        """Log one event if the transport is followed."""
        if (labels := self._labels.get(transport)) is not None:
            log.info(f"transport: {what}", transport=transport, **labels, **fields)

    def on_event(self, event: tuple[Any, ...]) -> None:
        """Note an event of a worker (relaycore/port.pyx)."""
        if not self._labels:
            return
        kind, about = event[0], event[1] if len(event) > 1 else 0
        match kind:
            case EventKind.ICE_CHECK:
                self.note(about, "first ice check")
            case EventKind.ICE_SELECTED:
                self.note(about, "ice pair selected", remote=f"{event[2][0]} port {event[2][1]}")
            case EventKind.ICE_DEAD:
                self.note(about, "ice dead")
            case EventKind.STREAM_BOUND:
                self._of_receiver(about, "stream bound", encoding=event[2], ssrc=event[3])
            case EventKind.ENCODING_ACTIVE | EventKind.ENCODING_SILENT:
                what = "encoding active" if kind == EventKind.ENCODING_ACTIVE else "encoding silent"
                self._of_receiver(about, what, encoding=event[2])
            case EventKind.RECEIVER_STOPPED:
                self._of_receiver(about, "stopped: declared encrypted, but it is not", reason=event[2])
            case EventKind.UNDECLARED_ENCRYPTION:
                self._of_receiver(about, "encrypted, but declared clear")
            case EventKind.EGRESS_SWITCHED:
                if (owners := self._egresses.get(about)) is not None:
                    self.note(owners[0], "encoding switched", egress=about, encoding=event[2])

    def on_figures(self, transports: Any) -> None:
        """Note what was counted since the last time. transports: `PlaneSnapshot.transports`."""
        for number in self._labels:
            rows = transports[transports["transport"] == number]
            if len(rows) == 0:
                continue
            now = {name: int(rows[0][name]) for name in COUNTED}
            before = self._before.get(number)
            self._before[number] = now
            # The first look has nothing to compare with.
            if before is not None:
                self.note(number, "figures", **{name: now[name] - before[name] for name in COUNTED})

    def _of_receiver(self, receiver: int, what: str, **fields: Any) -> None:
        if (owner := self._receivers.get(receiver)) is not None:
            self.note(owner.transport, what, receiver=receiver, **fields)
