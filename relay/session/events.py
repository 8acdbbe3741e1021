"""What a transport tells its driver: facts in the past tense, drained by `Transport.poll`.

The order of a list is the order in which things happened. Nothing here refers back to the transport, so a driver
may keep an event as long as it likes.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SrtpKeys:
    """The master keys and salts of both directions, named from our side (RFC 5764 §4.2). Never in `repr`.

    `profile` is the number of the DTLS use_srtp registry: 1, 7 or 8.
    """

    profile: int
    receive_key: bytes = field(repr=False)
    receive_salt: bytes = field(repr=False)
    send_key: bytes = field(repr=False)
    send_salt: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DatagramReady:
    """One datagram to send to the remote end as it is; at most 1,200 bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class SrtpKeysReady:
    """The handshake is done, the certificate is the one the description named, media may flow."""

    keys: SrtpKeys


@dataclass(frozen=True, slots=True)
class HandshakeFailed:
    """The transport will never carry anything; `reason` is for the log, not for people."""

    reason: str


@dataclass(frozen=True, slots=True)
class TransportClosed:
    """The connected transport is gone; datagrams listed before this event should still be sent."""

    reason: str


@dataclass(frozen=True, slots=True)
class AssociationClosed:
    """Data channels are over for this transport, media is not. Every open channel was closed just before."""

    reason: str


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """A data channel can carry messages: the remote end opened it, or acknowledged ours."""

    channel: int
    label: str
    ordered: bool
    max_retransmits: int | None
    protocol: str
    by_remote: bool
    max_lifetime_ms: int | None = None


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """One whole message. `binary` is False for text, which is not checked to be UTF-8."""

    channel: int
    label: str
    data: bytes
    binary: bool


@dataclass(frozen=True, slots=True)
class ChannelClosedEvent:
    """A data channel is closed at both ends; its number is not used again."""

    channel: int


@dataclass(frozen=True, slots=True)
class ChannelDrained:
    """A channel that was full has room again."""

    channel: int


Event = (
    DatagramReady
    | SrtpKeysReady
    | HandshakeFailed
    | TransportClosed
    | AssociationClosed
    | ChannelOpened
    | MessageReceived
    | ChannelClosedEvent
    | ChannelDrained
)
