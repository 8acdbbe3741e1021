"""Stamps data packets with who really sent them (LIVEKIT §2.11).

The relay does not read what is inside; it overwrites the sender, keeps everything it does not know, and returns who
is meant. Encrypted packets depend on it: receivers look keys up by the sender's identity.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from livekit.protocol import models

from relay.policy.terms import is_reserved
from relay.signaling.data_rules import KEYS_TOPIC

RELIABLE = "_reliable"
LOSSY = "_lossy"
DATA_TRACK = "_data_track"
# What only a server or an agent may say: a client could fake a speaker or words somebody never said.
_NOT_FROM_CLIENTS = frozenset({"speaker", "metrics"})
_FROM_AGENTS_ONLY = frozenset({"transcription"})


@dataclass(frozen=True, slots=True)
class Stamped:
    """A packet ready to be delivered, and whom it names (none: everybody)."""

    payload: bytes
    identities: tuple[str, ...]
    sids: tuple[str, ...]
    # Whether clients encrypted what is inside.
    is_encrypted: bool
    # What a packet on topic veil.keys says.
    keys: bytes | None
    # The number that its client gave a reliable packet, from 1 up; 0: none.
    sequence: int


def _is_ambiguous(message: Message) -> bool:
    """True when a field that is known here comes in another wire type.

    For us that is an unknown field, kept as it is; browsers' protobuf goes by the number alone, and would take such a one
    behind ours for the sender.
    """
    known = message.DESCRIPTOR.fields_by_number
    return any(field.field_number in known for field in UnknownFieldSet(message))


def stamp(data: bytes, *, reliable: bool, sid: str, identity: str, is_agent: bool = False) -> Stamped | None:
    """Return the packet with its sender overwritten, None when it is not one a client may send."""
    packet = models.DataPacket()
    try:
        packet.ParseFromString(data)
    except DecodeError:
        return None
    kind = packet.WhichOneof("value")
    if _is_ambiguous(packet) or (kind == "user" and _is_ambiguous(packet.user)):
        return None
    # Other topics of this name are the relay's own words.
    topic = packet.user.topic if kind == "user" else packet.stream_header.topic
    if is_reserved(topic) and not (kind == "user" and topic == KEYS_TOPIC):
        return None
    if kind in _NOT_FROM_CLIENTS or (kind in _FROM_AGENTS_ONLY and not is_agent):
        return None
    packet.kind = models.DataPacket.Kind.RELIABLE if reliable else models.DataPacket.Kind.LOSSY
    packet.participant_sid = sid
    packet.participant_identity = identity
    sids: Sequence[str] = ()
    if kind == "user":
        user = packet.user
        user.participant_sid = sid
        user.participant_identity = identity
        sids = user.destination_sids
        # Old clients name receivers inside the user packet, new ones outside; receivers may read either.
        if user.destination_identities and not packet.destination_identities:
            packet.destination_identities.extend(user.destination_identities)
        elif packet.destination_identities and not user.destination_identities:
            user.destination_identities.extend(packet.destination_identities)
    return Stamped(
        packet.SerializeToString(),
        tuple(packet.destination_identities),
        tuple(sids),
        is_encrypted=kind == "encrypted_packet",
        keys=packet.user.payload if kind == "user" and packet.user.topic == KEYS_TOPIC else None,
        sequence=packet.sequence if reliable else 0,
    )
