"""The bots' handshake: both roles agree on keys, wrong certificates do not, lost flights are repeated."""

import time

import pytest

from loadtests.dtls import Dtls, HandshakeError, Identity


def named(identity: Identity) -> list[tuple[str, str]]:
    hash_name, value = identity.fingerprint.split(" ")
    return [(hash_name, value)]


def take(end: Dtls) -> list[bytes]:
    out, end.outgoing = end.outgoing, []
    return out


def shake(client: Dtls, server: Dtls) -> None:
    client.handshake()
    for _ in range(6):
        for there, back in ((client, server), (server, client)):
            if flight := take(there):
                assert all(len(datagram) <= 1200 for datagram in flight)
                back.handshake(flight)


@pytest.fixture(scope="module")
def identities() -> tuple[Identity, Identity]:
    return Identity(), Identity()


def test_both_ends_get_the_same_keys_the_other_way_round(identities: tuple[Identity, Identity]) -> None:
    ours, theirs = identities
    client, server = Dtls(ours, "client", named(theirs)), Dtls(theirs, "server", named(ours))
    shake(client, server)
    assert client.keys is not None and server.keys is not None
    assert client.keys.profile == 0x0007
    assert (client.keys.send_key, client.keys.send_salt) == (server.keys.receive_key, server.keys.receive_salt)
    assert (client.keys.receive_key, client.keys.receive_salt) == (server.keys.send_key, server.keys.send_salt)
    assert (len(client.keys.send_key), len(client.keys.send_salt)) == (16, 12)
    client.send(b"sctp")
    for datagram in take(client):
        server.receive(datagram)
    assert server.received == [b"sctp"]
    client.close()
    for datagram in take(client):
        server.receive(datagram)
    assert server.is_closed


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_certificate_that_the_description_does_not_name_ends_it(identities: tuple[Identity, Identity], role: str) -> None:
    ours, theirs = identities
    wrong = [("sha-256", ":".join(["00"] * 32))]
    client = Dtls(ours, "client", wrong if role == "client" else named(theirs))
    server = Dtls(theirs, "server", wrong if role == "server" else named(ours))
    with pytest.raises(HandshakeError, match="certificate"):
        shake(client, server)
    assert (client if role == "client" else server).keys is None


def test_a_lost_first_flight_is_sent_again(identities: tuple[Identity, Identity]) -> None:
    ours, theirs = identities
    client, server = Dtls(ours, "client", named(theirs)), Dtls(theirs, "server", named(ours))
    due_s = client.handshake()
    assert due_s is not None and due_s <= 1.0
    lost = take(client)
    time.sleep(due_s + 0.01)
    client.repeat()
    again = take(client)
    assert len(again) == len(lost)
    server.handshake(again)
    client.handshake(take(server))
    shake(client, server)
    assert client.is_connected and server.is_connected
