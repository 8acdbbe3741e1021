"""Encrypted data packets: the body is hidden and whole, what the relay needs stays outside."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from livekit.protocol import models

from relay.e2ee.datapackets import BODIES, DataSealer, LinkDataKeys, open_packet
from relay.e2ee.errors import Malformed, NotAuthentic, UnknownKey
from relay.e2ee.livekit_gcm import KeyRing, Material

RAW = Material(bytes(range(32)))
PACKET = models.DataPacket(
    kind=models.DataPacket.Kind.LOSSY, destination_identities=["bo"], user=models.UserPacket(payload=b"secret words", topic="notes")
)


def ring(material: Material = RAW, key_index: int = 0, **options: int) -> KeyRing:
    keys = KeyRing(**options)
    keys.set(material, key_index)
    return keys


def test_a_body_comes_back_and_the_rest_was_never_hidden():
    sealed = DataSealer.of_material(RAW, key_index=3).seal(PACKET)
    assert b"secret" not in sealed.SerializeToString() and b"notes" not in sealed.SerializeToString()
    assert (sealed.kind, list(sealed.destination_identities)) == (PACKET.kind, ["bo"])
    assert open_packet(ring(key_index=3), sealed) == PACKET


def test_the_bytes_are_a_payload_message_under_the_frames_key():
    first, second = (DataSealer.of_material(RAW).seal(PACKET).encrypted_packet for _ in range(2))
    assert first.iv != second.iv and len(first.iv) == 12
    plain = AESGCM(RAW.key()).decrypt(first.iv, first.encrypted_value, None)
    assert models.EncryptedPacketPayload.FromString(plain).user == PACKET.user


@pytest.mark.parametrize("kind", sorted(BODIES))
def test_every_kind_that_the_sdks_encrypt(kind):
    packet = models.DataPacket()
    getattr(packet, kind).SetInParent()
    sealed = DataSealer.of_material(RAW).seal(packet)
    assert sealed.WhichOneof("value") == "encrypted_packet"
    assert open_packet(ring(), sealed) == packet


def test_kinds_that_are_never_encrypted_stay_as_they_are():
    packet = models.DataPacket(speaker=models.ActiveSpeakerUpdate())
    assert DataSealer.of_material(RAW).seal(packet) is packet
    assert open_packet(ring(), packet) is packet


def test_what_does_not_open():
    sealed = DataSealer.of_material(RAW).seal(PACKET)
    with pytest.raises(UnknownKey):
        open_packet(ring(key_index=1), sealed)
    with pytest.raises(NotAuthentic):
        open_packet(ring(Material(b"another"), ratchet_window=0), sealed)
    changed = models.DataPacket.FromString(sealed.SerializeToString())
    changed.encrypted_packet.encrypted_value = bytes(len(sealed.encrypted_packet.encrypted_value))
    with pytest.raises(NotAuthentic):
        open_packet(ring(ratchet_window=0), changed)


@pytest.mark.parametrize(("iv", "plain"), [(bytes(11), b""), (bytes(12), b"\xff\xff"), (bytes(12), b"")])
def test_what_opens_and_is_no_packet(iv, plain):
    value = AESGCM(RAW.key()).encrypt(iv, plain, None)
    packet = models.DataPacket(encrypted_packet=models.EncryptedPacket(iv=iv, encrypted_value=value))
    with pytest.raises(Malformed):
        open_packet(ring(), packet)


def test_a_key_index_has_its_place():
    with pytest.raises(ValueError, match="0 to 15"):
        DataSealer.of_material(RAW, key_index=16)


def test_a_link_gives_each_person_a_key():
    sealed = DataSealer.of_link(bytes(32), "ana").seal(PACKET)
    assert sealed.encrypted_packet.encryption_type == models.Encryption.CUSTOM
    assert open_packet(LinkDataKeys(bytes(32), "ana"), sealed) == PACKET
    for wrong in (LinkDataKeys(bytes(32), "bo"), LinkDataKeys(bytes(31) + b"x", "ana")):
        with pytest.raises(NotAuthentic):
            open_packet(wrong, sealed)
    sealed.encrypted_packet.key_index = 1
    with pytest.raises(UnknownKey):
        open_packet(LinkDataKeys(bytes(32), "ana"), sealed)
