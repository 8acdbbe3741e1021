"""Data packets encrypted as LiveKit's SDKs do it (LIVEKIT section 4.4).

The body (user, chat, RPC, streams) goes as an `EncryptedPacketPayload` under AES-128-GCM with a random IV, the frames' key and no
AAD; destinations, sequence numbers and, from the relay, the sender's identity stay outside. So a receiver takes the key ring of
the identity that the relay names, and a packet can be replayed or given another recipient by the relay.
"""

import secrets

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError
from livekit.protocol import models

from relay.e2ee.errors import Malformed
from relay.e2ee.livekit_gcm import IV_BYTES, RING, KeyRing, Material

BODIES = frozenset(field.name for field in models.EncryptedPacketPayload.DESCRIPTOR.fields)
"""Kinds of packets that are encrypted; the others (speakers, transcription, metrics) stay as they are."""


class DataSealer:
    """Encrypts a sender's packets under one key."""

    def __init__(self, material: Material, *, key_index: int = 0) -> None:
        if not 0 <= key_index < RING:
            raise ValueError(f"a key's index is 0 to {RING - 1}")
        self._gcm = AESGCM(material.key())
        self._key_index = key_index

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
                encryption_type=models.Encryption.GCM, iv=iv, key_index=self._key_index,
                encrypted_value=self._gcm.encrypt(iv, payload, None),
            )
        )  # fmt: skip
        return sealed


def open_packet(ring: KeyRing, packet: models.DataPacket) -> models.DataPacket:
    """Return the packet with its body decrypted; one that is not encrypted as it is, which the caller must not take for safe.

    `encryption_type` is not looked at: livekit-client leaves it at 0.   Errors: UnknownKey, NotAuthentic, Malformed.
    """
    if packet.WhichOneof("value") != "encrypted_packet":
        return packet
    sealed = packet.encrypted_packet
    if len(sealed.iv) != IV_BYTES:
        raise Malformed("the packet's IV has another length.")
    payload = ring.open(sealed.key_index, sealed.iv, sealed.encrypted_value)
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
