"""DTLS between two transports: loss, roles, fingerprints, keys, hostile datagrams (RFC 6347, 5764, 8122)."""

import hashlib

import pytest
from cryptography.hazmat.primitives import serialization

from relay.session import (
    Certificate,
    DatagramReady,
    FingerprintRefused,
    HandshakeFailed,
    SessionError,
    SrtpKeysReady,
    Transport,
    TransportClosed,
    TransportState,
)
from relay.session.dtls import HANDSHAKE_DEADLINE_NS, MAX_HANDSHAKE_BYTES
from relay.session.flight import MAX_ANSWERS, MAX_REPEATS
from tests.support.session_link import MS, Link, fingerprints


def both_connected(link: Link) -> bool:
    return link.server.state is link.client.state is TransportState.CONNECTED


def keys_of(link: Link, transport: Transport):
    ready = link.of(transport, SrtpKeysReady)
    assert len(ready) == 1
    return ready[0].keys


def test_a_quiet_path_takes_two_round_trips_and_both_ends_hold_the_same_keys() -> None:
    link = Link(delay_ms=20, sctp=False)
    assert link.run(5_000, lambda: both_connected(link)) <= 4 * 20 + 1
    ours, theirs = keys_of(link, link.server), keys_of(link, link.client)
    assert ours.profile == theirs.profile == 0x0007
    assert (ours.receive_key, ours.receive_salt) == (theirs.send_key, theirs.send_salt)
    assert (ours.send_key, ours.send_salt) == (theirs.receive_key, theirs.receive_salt)
    assert ours.send_key != ours.receive_key
    assert (len(ours.send_key), len(ours.send_salt)) == (16, 12)


def test_keys_do_not_show_in_logs() -> None:
    link = Link(sctp=False)
    link.run(1_000)
    keys = keys_of(link, link.server)
    assert str(keys) == "SrtpKeys(profile=7)"


@pytest.mark.parametrize("seed", range(1, 21))
def test_thirty_per_cent_loss_only_delays_the_handshake(seed: int) -> None:
    link = Link(seed=seed, loss=0.3, delay_ms=25, jitter_ms=20, sctp=False)
    link.run(28_000, lambda: both_connected(link))
    assert both_connected(link)
    assert keys_of(link, link.server).send_key == keys_of(link, link.client).receive_key
    assert max(map(len, link.sent[link.server] + link.sent[link.client])) <= 1200


@pytest.mark.parametrize("lost", range(4))
def test_any_one_lost_datagram_costs_a_quarter_of_a_second_at_most(lost: int) -> None:
    link = Link(delay_ms=10, sctp=False)
    seen = 0

    def lose_one(_sender: Transport, datagram: bytes) -> bytes | None:
        nonlocal seen
        seen += 1
        return None if seen == lost + 1 else datagram

    link.on_datagram = lose_one
    assert link.run(5_000, lambda: both_connected(link)) <= 4 * 10 + 250
    assert both_connected(link)


def test_a_peer_that_never_answers_fails_in_time_and_is_not_flooded() -> None:
    link = Link(loss=1.0, sctp=False)
    took_ms = link.run(60_000, lambda: bool(link.of(link.client, HandshakeFailed)))
    assert took_ms == HANDSHAKE_DEADLINE_NS / MS
    assert link.client.state is TransportState.FAILED
    assert not link.client.handshaking
    # Ours and OpenSSL's own repeats together.
    assert len(link.sent[link.client]) <= 1 + MAX_REPEATS + 12


@pytest.mark.parametrize("wrong_at", ["server", "client"])
def test_another_certificate_than_the_described_one_fails_before_anything_is_accepted(wrong_at: str) -> None:
    link = Link(connect=False)
    stranger = fingerprints(Certificate.generate())
    link.server.set_remote(stranger if wrong_at == "server" else fingerprints(link.client), "server")
    link.client.set_remote(stranger if wrong_at == "client" else fingerprints(link.server), "client")
    link.run(40_000)
    judge = link.server if wrong_at == "server" else link.client
    failed = link.of(judge, HandshakeFailed)
    assert [event.reason for event in failed] == ["the certificate is not the one in the description"]
    assert not link.of(link.server, SrtpKeysReady)
    assert judge.state is TransportState.FAILED
    other = link.other(judge)
    if wrong_at == "client":
        assert not link.of(other, SrtpKeysReady)
        assert link.of(other, HandshakeFailed)


def test_the_alert_reaches_the_end_whose_certificate_was_refused() -> None:
    link = Link(connect=False, sctp=False)
    link.server.set_remote(fingerprints(Certificate.generate()), "server")
    link.client.set_remote(fingerprints(link.server), "client")
    link.run(1_000)
    assert link.client.state is TransportState.FAILED


@pytest.mark.parametrize("hash_name", ["sha-256", "SHA-384", "sha-512"])
def test_fingerprints_of_the_strong_hashes_are_taken(hash_name: str) -> None:
    link = Link(connect=False, sctp=False)
    certificate = link.client._certificate
    der = certificate.x509.public_bytes(serialization.Encoding.DER)
    value = hashlib.new(hash_name.lower().replace("-", ""), der).digest().hex(":")
    link.server.set_remote([("sha-1", "00:11"), (hash_name, value)], "server")
    link.client.set_remote(fingerprints(link.server), "client")
    link.run(1_000)
    assert both_connected(link)


def test_of_several_hashes_the_strongest_decides() -> None:
    link = Link(connect=False, sctp=False)
    link.server.set_remote([*fingerprints(link.client), ("sha-512", ":".join(["AB"] * 64))], "server")
    link.client.set_remote(fingerprints(link.server), "client")
    link.run(1_000)
    assert link.server.state is TransportState.FAILED


@pytest.mark.parametrize("named", [[], [("sha-1", "AB:CD")], [("md5", "00")], [("sha-256", "00")] * 33])
def test_fingerprints_that_prove_nothing_are_refused(named: list[tuple[str, str]]) -> None:
    transport = Transport(Certificate.generate())
    with pytest.raises(FingerprintRefused):
        transport.set_remote(named, "server")
    assert transport.state is TransportState.NEW


def test_a_garbled_fingerprint_matches_nothing() -> None:
    link = Link(connect=False, sctp=False)
    link.server.set_remote([("sha-256", "not a fingerprint ü")], "server")
    link.client.set_remote(fingerprints(link.server), "client")
    link.run(1_000)
    assert link.server.state is TransportState.FAILED


def test_saying_the_same_again_is_allowed_and_a_change_is_not() -> None:
    link = Link(sctp=False)
    link.run(1_000)
    link.server.set_remote([(name, value.lower()) for name, value in fingerprints(link.client)], "server")
    with pytest.raises(SessionError):
        link.server.set_remote(fingerprints(link.client), "client")
    with pytest.raises(SessionError):
        link.server.set_remote(fingerprints(Certificate.generate()), "server")
    with pytest.raises(SessionError):
        link.server.set_remote(fingerprints(link.client), "actpass")  # type: ignore[arg-type]
    assert both_connected(link)


def test_a_client_hello_that_overtakes_the_description_is_not_lost() -> None:
    link = Link(connect=False, sctp=False, delay_ms=5)
    link.client.set_remote(fingerprints(link.server), "client")
    link.run(50)
    assert link.server.state is TransportState.NEW
    link.server.set_remote(fingerprints(link.client), "server")
    assert link.run(1_000, lambda: both_connected(link)) <= 20


def test_a_client_hello_in_two_datagrams_is_put_together() -> None:
    """Chromium's with its ML-KEM share is 1,413 bytes, Firefox's 1,461 (E2EE.md §1.6)."""
    link = Link(sctp=False, delay_ms=5)

    def fragment(sender: Transport, datagram: bytes) -> bytes | None:
        if sender is link.client and datagram[0] == 22 and datagram[13] == 1:
            for part in reversed(fragments_of(datagram, 100)):
                link.server.receive_dtls(part, link.now_ns)
            return None
        return datagram

    link.on_datagram = fragment
    assert link.run(1_000, lambda: both_connected(link)) <= 20


def fragments_of(datagram: bytes, first_bytes: int) -> list[bytes]:
    """Cut one handshake message into two records (RFC 6347 §4.2.3); record number 40 is one the client never uses."""
    kind, total, sequence, body = datagram[13:14], datagram[14:17], datagram[17:19], datagram[25:]
    parts = []
    for number, offset, part in ((0, 0, body[:first_bytes]), (40, first_bytes, body[first_bytes:])):
        handshake = kind + total + sequence + offset.to_bytes(3, "big") + len(part).to_bytes(3, "big") + part
        parts.append(datagram[:10] + bytes([number]) + len(handshake).to_bytes(2, "big") + handshake)
    return parts


def test_garbage_is_counted_and_changes_nothing() -> None:
    link = Link(sctp=False, delay_ms=5)
    garbage = [b"", b"\x16", bytes(13), b"\x80" * 50, b"\x16\x03\x01" + bytes(40), b"\x16\xfe\xfd" + b"\xff" * 60,
               b"\x17\xfe\xfd" + bytes(9) + b"\x01" + bytes(3000)]
    for datagram in garbage:
        link.server.receive_dtls(datagram, link.now_ns)
    link.run(1_000)
    for datagram in garbage:
        link.server.receive_dtls(datagram, link.now_ns)
    link.run(100)
    assert both_connected(link)
    assert link.server.counters["ignored_datagrams"] == 2 * len(garbage)


def test_forged_records_inside_a_session_are_dropped_without_an_answer() -> None:
    link = Link(sctp=False, delay_ms=5)
    link.run(1_000)
    before = len(link.sent[link.server])
    for kind in (21, 23):
        forged = bytes([kind]) + b"\xfe\xfd\x00\x01" + bytes(5) + b"\x09\x00\x30" + bytes(48)
        link.server.receive_dtls(forged, link.now_ns)
    link.run(1_000)
    assert both_connected(link)
    assert len(link.sent[link.server]) == before
    assert link.server.ignored_datagrams == 2


def test_replayed_and_late_datagrams_are_counted() -> None:
    link = Link().connected()
    channel = link.client.open_channel("x")
    link.client.send(channel, b"once")
    link.run(1_000)
    assert link.server.ignored_datagrams == 0
    link.server.receive_dtls(link.sent[link.client][-1], link.now_ns)
    assert link.server.ignored_datagrams == 1
    link.close()
    # The client's goodbye may have crossed ours.
    late = link.server.ignored_datagrams
    link.server.receive_dtls(link.sent[link.client][-1], link.now_ns)
    assert link.server.ignored_datagrams == late + 1


@pytest.mark.parametrize("seed", range(1, 6))
def test_nothing_a_good_peer_sends_is_counted_whatever_the_path_does(seed: int) -> None:
    link = Link(seed=seed, loss=0.2, delay_ms=25, jitter_ms=20, sctp=False)
    link.run(28_000, lambda: both_connected(link))
    link.run(2_000)
    assert both_connected(link)
    assert link.server.ignored_datagrams == link.client.ignored_datagrams == 0


def test_a_handshake_has_a_limit_in_bytes() -> None:
    """A stream of plausible fragments that never become a message."""
    link = Link(sctp=False, loss=1.0)
    datagram = b"\x16\xfe\xfd" + bytes(8) + b"\x04\x00" + b"\x01\x00\xff\x00" + bytes(1020)
    for _ in range(MAX_HANDSHAKE_BYTES // len(datagram) + 1):
        link.server.receive_dtls(datagram, link.now_ns)
    link.run(10)
    assert [event.reason for event in link.of(link.server, HandshakeFailed)]
    assert link.server.state is TransportState.FAILED


def test_a_peer_that_repeats_its_flight_gets_a_bounded_number_of_answers() -> None:
    link = Link(sctp=False, delay_ms=5)
    link.run(1_000)
    last = next(d for d in reversed(link.sent[link.client]) if d[0] in (20, 22))
    before = len(link.sent[link.server])
    for _ in range(200):
        link.server.receive_dtls(last, link.now_ns)
        link.run(1)
    assert len(link.sent[link.server]) - before <= MAX_ANSWERS + 1


def test_closing_tells_the_other_end() -> None:
    link = Link(sctp=False, delay_ms=5)
    link.run(1_000)
    link.server.close()
    link.run(100)
    assert [event.reason for event in link.of(link.server, TransportClosed)] == ["closed by us"]
    assert [event.reason for event in link.of(link.client, TransportClosed)] == ["close_notify from the peer"]
    assert link.client.state is TransportState.CLOSED
    assert link.server.next_timeout_ns is None
    link.server.close()
    link.run(100)
    assert len(link.of(link.server, TransportClosed)) == 1


def test_closing_before_or_during_the_handshake_is_quiet() -> None:
    early = Transport(Certificate.generate())
    early.close()
    assert early.poll(0) == [TransportClosed("closed by us")]
    with pytest.raises(SessionError):
        early.set_remote(fingerprints(Certificate.generate()), "client")
    link = Link(sctp=False)
    link.run(5)
    link.client.close()
    link.run(1_000)
    assert link.client.state is TransportState.CLOSED
    assert link.of(link.client, TransportClosed)


def test_nothing_is_sent_before_the_first_poll_and_a_server_waits() -> None:
    client, server = Transport(Certificate.generate()), Transport(Certificate.generate())
    client.set_remote(fingerprints(server), "client")
    server.set_remote(fingerprints(client), "server")
    assert client.next_timeout_ns == 0
    assert [type(event) for event in client.poll(0)] == [DatagramReady]
    assert server.poll(0) == []
    assert server.next_timeout_ns is None


def test_credentials_are_long_enough_and_new_after_a_restart() -> None:
    transport = Transport(Certificate.generate())
    before = (transport.ufrag, transport.password)
    assert len(transport.ufrag) >= 4 and len(transport.password) >= 22
    transport.restart_ice()
    assert transport.ufrag != before[0] and transport.password != before[1]
    assert before[1] not in repr(transport._ice)


def test_a_thread_inside_the_handshake_keeps_poll_and_close_out() -> None:
    """The driver digests handshakes in a thread; what reaches the transport meanwhile must not touch OpenSSL."""
    link = Link(sctp=False, delay_ms=5)
    link.run(1)
    hello = link.sent[link.client][0]
    polled = []

    class Watched(bytes):
        def __len__(self) -> int:
            # OpenSSL's wrapper asks for the length in the middle of receive_dtls.
            polled.append(link.server.poll(link.now_ns))
            link.server.close()
            return bytes.__len__(self)

    link.server.receive_dtls(Watched(hello), link.now_ns)
    assert polled and not any(polled)
    assert TransportClosed("closed by us") in link.server.poll(link.now_ns)
    assert link.server.state is TransportState.CLOSED
