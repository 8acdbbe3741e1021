"""Encrypted data packets: LiveKit's `encrypted_packet` (LIVEKIT section 4.4), under the frames' key or, with a link key, its own.

The body (user, chat, RPC, streams) goes as an `EncryptedPacketPayload` under AES-128-GCM with a random IV and no AAD;
destinations, sequence numbers and, from the relay, the sender's identity stay outside. So a receiver takes the key of the
identity that the relay names, and a packet can be replayed or given another recipient by the relay.
"""

import secrets
from typing import Protocol, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError
from livekit.protocol import models

from relay.e2ee.errors import Malformed, NotAuthentic, UnknownKey
from relay.e2ee.linkkey import data_key
from relay.e2ee.livekit_gcm import IV_BYTES, RING, Material

BODIES = frozenset(field.name for field in models.EncryptedPacketPayload.DESCRIPTOR.fields)
"""Kinds of packets that are encrypted; the others (speakers, transcription, metrics) stay as they are."""


class DataSealer:
    """Encrypts a sender's packets under one AES-128 key."""

    def __init__(self, key: bytes, *, key_index: int = 0, encryption_type: int = models.Encryption.GCM) -> None:
        if not 0 <= key_index < RING:
            raise ValueError(f"a key's index is 0 to {RING - 1}")
        self._gcm = AESGCM(key)
        self._key_index = key_index
        self._encryption_type = encryption_type

    @classmethod
    def of_material(cls, material: Material, *, key_index: int = 0) -> Self:
        """Return a sealer of LiveKit's format."""
        return cls(material.key(), key_index=key_index)

    @classmethod
    def of_link(cls, link_key: bytes, identity: str) -> Self:
        """Return what encrypts the packets of one person in a call with a link key."""
        return cls(data_key(link_key, identity), encryption_type=models.Encryption.CUSTOM)

    def seal(self, packet: models.DataPacket) -> models.DataPacket:
        """Return the packet with its body encrypted, or as it is when its kind never is."""
        kind = packet.WhichOneof("value")
        if kind not in BODIES:
            return packet
        payload = models.EncryptedPacketPayload(**{kind: getattr(packet, kind)}).SerializeToString()
        iv = secrets.token_bytes(IV_BYTES)
        sealed = models.DataPacket()
        sealed.CopyFrom(packet)
        sealed.encrypted_packet.CopyFrom(
            models.EncryptedPacket(
                encryption_type=self._encryption_type, iv=iv, key_index=self._key_index,
                encrypted_value=self._gcm.encrypt(iv, payload, None),
            )
        )  # fmt: skip
        return sealed


class DataKeys(Protocol):
    """A receiver's keys of one sender, such as a `livekit_gcm.KeyRing`."""

    def open(self, key_index: int, iv: bytes, sealed: bytes) -> bytes:
        """Errors: UnknownKey, NotAuthentic."""


class LinkDataKeys:
    """The one key of one sender in a call with a link key."""

    def __init__(self, link_key: bytes, identity: str) -> None:
        self._gcm = AESGCM(data_key(link_key, identity))

    def open(self, key_index: int, iv: bytes, sealed: bytes) -> bytes:
        """Return the plaintext.   Errors: UnknownKey, NotAuthentic."""
        if key_index != 0:
            raise UnknownKey(key_index)
        try:
            return self._gcm.decrypt(iv, sealed, None)
        except InvalidTag:
            raise NotAuthentic from None


def open_packet(keys: DataKeys, packet: models.DataPacket) -> models.DataPacket:
    """Return the packet with its body decrypted; one that is not encrypted as it is, which the caller must not take for safe.

    `encryption_type` is not looked at: livekit-client leaves it at 0.   Errors: UnknownKey, NotAuthentic, Malformed.
    """
    if packet.WhichOneof("value") != "encrypted_packet":
        return packet
    sealed = packet.encrypted_packet
    if len(sealed.iv) != IV_BYTES:
        raise Malformed("the packet's IV has another length.")
    payload = keys.open(sealed.key_index, sealed.iv, sealed.encrypted_value)
    try:
        body = models.EncryptedPacketPayload.FromString(payload)
    except DecodeError:
        raise Malformed("the encrypted packet holds no packet.") from None
    kind = body.WhichOneof("value")
    if kind is None:
        raise Malformed("the encrypted packet holds nothing that is known.")
    opened = models.DataPacket()
    opened.CopyFrom(packet)
    getattr(opened, kind).CopyFrom(getattr(body, kind))
    return opened
