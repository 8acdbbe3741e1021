"""Data packets: the relay says who sent them, and changes nothing else."""

import pytest
from livekit.protocol import models

from relay.signaling.livekit.data import stamp

P = models.DataPacket
RELIABLE, LOSSY = P.Kind.RELIABLE, P.Kind.LOSSY


def through(packet: P | bytes, *, reliable: bool = True, **options) -> P:
    raw = packet if isinstance(packet, bytes) else packet.SerializeToString()
    stamped = stamp(raw, reliable=reliable, sid="PA_me", identity="me", **options)
    assert stamped is not None
    return P.FromString(stamped.payload)


def test_the_sender_is_who_sent_it_whatever_it_says() -> None:
    forged = P(
        participant_sid="PA_boss",
        participant_identity="boss",
        user=models.UserPacket(payload=b"x", topic="t", participant_sid="PA_boss", participant_identity="boss"),
    )
    packet = through(forged)
    assert (packet.participant_sid, packet.participant_identity) == ("PA_me", "me")
    assert (packet.user.participant_sid, packet.user.participant_identity) == ("PA_me", "me")
    assert (packet.user.payload, packet.user.topic) == (b"x", "t")


@pytest.mark.parametrize(("reliable", "kind"), [(True, RELIABLE), (False, LOSSY)])
def test_the_kind_is_the_channel_it_came_on(reliable: bool, kind: int) -> None:
    for claimed in (RELIABLE, LOSSY):
        assert through(P(kind=claimed, user=models.UserPacket(payload=b"x")), reliable=reliable).kind == kind


def test_sequence_numbers_are_kept_for_receivers_that_drop_repeats() -> None:
    assert through(P(sequence=77, chat_message=models.ChatMessage(message="m"))).sequence == 77


@pytest.mark.parametrize("inside", [True, False])
def test_destinations_are_read_in_both_places_and_written_to_both(inside: bool) -> None:
    packet = P(user=models.UserPacket(payload=b"x"))
    (packet.user if inside else packet).destination_identities.extend(["bo", "cy"])
    stamped = stamp(packet.SerializeToString(), reliable=True, sid="PA_me", identity="me")
    assert stamped is not None and stamped.identities == ("bo", "cy")
    sent = P.FromString(stamped.payload)
    assert list(sent.destination_identities) == list(sent.user.destination_identities) == ["bo", "cy"]


def test_old_clients_name_sids() -> None:
    packet = P(user=models.UserPacket(payload=b"x", destination_sids=["PA_bo"]))
    stamped = stamp(packet.SerializeToString(), reliable=True, sid="PA_me", identity="me")
    assert stamped is not None and (stamped.identities, stamped.sids) == ((), ("PA_bo",))


def test_members_of_newer_clients_survive() -> None:
    # Field 200 of the packet and field 99 of the user packet do not exist yet.
    user = models.UserPacket(payload=b"x").SerializeToString() + b"\x9a\x06\x02hi"
    raw = b"\x12" + bytes([len(user)]) + user + b"\xc2\x0c\x04\x0a\x02ab"
    stamped = stamp(raw, reliable=True, sid="PA_me", identity="me")
    assert stamped is not None
    assert b"\x9a\x06\x02hi" in stamped.payload and b"\xc2\x0c\x04\x0a\x02ab" in stamped.payload


def test_a_packet_of_a_kind_we_do_not_know_is_passed_on() -> None:
    assert through(b"\xc2\x0c\x04\x0a\x02ab").participant_identity == "me"


def test_encrypted_packets_are_passed_on_untouched() -> None:
    sealed = models.EncryptedPacket(encryption_type=1, iv=b"i" * 12, key_index=3, encrypted_value=b"\x00\xff" * 50)
    assert through(P(encrypted_packet=sealed)).encrypted_packet == sealed


@pytest.mark.parametrize(
    "packet",
    [P(speaker=models.ActiveSpeakerUpdate()), P(metrics={}), P(transcription=models.Transcription()), b"\xff\xff"],
)
def test_what_clients_may_not_say_is_dropped(packet) -> None:
    raw = packet if isinstance(packet, bytes) else packet.SerializeToString()
    assert stamp(raw, reliable=True, sid="PA_me", identity="me") is None


def test_agents_may_transcribe() -> None:
    assert through(P(transcription=models.Transcription()), is_agent=True).HasField("transcription")


# The sender's name behind ours, in a wire type that Python takes for an unknown field and livekit-client does not.
FORGED_NAME = bytes([4 << 3, 5]) + b"admin" + b"\xc2\x0c\x01x"


@pytest.mark.parametrize(
    "raw",
    [
        P(user=models.UserPacket(payload=b"x")).SerializeToString() + FORGED_NAME,
        P(encrypted_packet=models.EncryptedPacket(iv=b"i" * 12)).SerializeToString() + FORGED_NAME,
        P(rpc_request=models.RpcRequest(id="1", method="m")).SerializeToString() + FORGED_NAME,
        # participant_sid in eight bytes, and the sender inside of the user packet.
        P(user=models.UserPacket(payload=b"x")).SerializeToString() + bytes([0x89, 1]) + bytes(8),
        b"\x12\x0f\x12\x02hi" + bytes([5 << 3, 5]) + b"admin" + b"\xc2\x0c\x01x",
    ],
)  # fmt: skip
def test_a_sender_is_not_forged_behind_the_relays_word(raw: bytes) -> None:
    P.FromString(raw)
    assert stamp(raw, reliable=True, sid="PA_me", identity="me") is None


@pytest.mark.parametrize("topic", ["veil.notice", "Veil.Notice", "veil.keys", "veil.\u200bnotice"])
def test_nobody_speaks_for_the_relay_in_a_stream(topic: str) -> None:
    raw = P(stream_header=models.DataStream.Header(topic=topic)).SerializeToString()
    assert stamp(raw, reliable=True, sid="PA_me", identity="me") is None
    through(P(stream_header=models.DataStream.Header(topic="lk.chat")))
