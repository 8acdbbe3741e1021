"""What a scenario asks of any client, whatever it is written in.

Counters grow over a client's stay in one room and start anew with the next join; times are milliseconds of the
machine's wall clock, on which all clients of a run sit.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Sent:
    """One encoding a client sends."""

    rid: str
    width: int
    frames: int


@dataclass(frozen=True)
class Received:
    """What a client has of one other participant."""

    audio_packets: int = 0
    # Sum of squared samples times duration, as WebRTC's totalAudioEnergy; 0 is silence.
    audio_energy: float = 0.0
    frames_decoded: int = 0
    width: int = 0


@dataclass(frozen=True)
class Seen:
    """Something a client noticed about another: joined, left, muted, unmuted, data; or, with the number of the reason
    (livekit.models.DisconnectReason) and no identity, that it was itself disconnected."""

    at_ms: float
    what: str
    identity: str
    detail: str = ""


@dataclass(frozen=True)
class State:
    """A client's view of the room at one moment."""

    connection: str
    received: dict[str, Received] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def of(self, identity: str) -> Received:
        return self.received.get(identity, Received())

    def when(self, what: str, identity: str, detail: str = "") -> float | None:
        """Return when this was first seen, or None."""
        return next(
            (s.at_ms for s in self.seen if s.what == what and s.identity == identity and detail in s.detail), None
        )


def read_state(raw: dict[str, Any]) -> State:
    """Return the State that a driver's page or process wrote as JSON."""
    return State(
        raw["connection"],
        {identity: Received(**values) for identity, values in raw["received"].items()},
        [Seen(**seen) for seen in raw["seen"]],
    )


class Client(Protocol):
    """One client program; it joins one room at a time."""

    name: str
    # False for clients that cannot choose (the built-in page sends what it sends).
    chooses_size: bool

    async def join(self, url: str, token: str, *, room: str, identity: str, passphrase: str = "") -> str:
        """Join, encrypting under a passphrase if there is one; return the identity others see (the built-in page is given one)."""

    async def publish(
        self, *, audio: bool, video: bool, width: int = 640, height: int = 360, fps: int = 15
    ) -> None: ...

    async def send_data(self, text: str) -> None:
        """Send the text twice: `r:`text reliably, `l:`text lossily."""

    async def mute(self, muted: bool) -> float:
        """Mute or unmute the microphone; return the time just before."""

    async def sent(self) -> list[Sent]: ...

    async def audio_packets_sent(self) -> int:
        """Packets of the microphone since it was published; few in silence, since browsers then pause (DTX)."""

    async def state(self) -> State: ...

    async def want_quality(self, identity: str, quality: str) -> None:
        """Ask for low, medium or high of the participant's camera."""

    async def leave(self) -> float:
        """Leave the room; return the time just before."""
