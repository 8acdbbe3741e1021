"""DTLS 1.2 of one transport over a memory BIO: handshake, SRTP keys, application data.

Spec: RFC 6347, RFC 5764 (use_srtp and the exporter), RFC 8827 §6.5 (cipher suites), RFC 8122 (fingerprints).
Does not: verify the ICE tuple (the data plane did before a datagram comes here), speak DTLS 1.3 (OpenSSL 4.0 cannot).

A datagram that cannot be DTLS, or that nothing comes of, is counted and ignored. OpenSSL's own timer runs on the machine's clock; ours
(`flight`, the deadline) run on `now_ns`.
"""

from collections.abc import Sequence
from typing import Literal

from cryptography import x509
from OpenSSL import SSL, crypto

from relay.session.certificate import Certificate, Fingerprints
from relay.session.events import SrtpKeys
from relay.session.flight import Flight
from relay.session.records import holds_handshake, looks_like_dtls, pack_datagrams, split_records

Role = Literal["server", "client"]

DTLS_1_2 = 0xFEFD

CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    b"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
)

SRTP_PROFILES = b"SRTP_AEAD_AES_128_GCM:SRTP_AEAD_AES_256_GCM:SRTP_AES128_CM_SHA1_80"
"""Our preference, decided by us when we are the server (DESIGN §4): the cheapest safe one first."""

PROFILES: dict[bytes, tuple[int, int, int]] = {
    b"SRTP_AEAD_AES_128_GCM": (0x0007, 16, 12),
    b"SRTP_AEAD_AES_256_GCM": (0x0008, 32, 12),
    b"SRTP_AES128_CM_SHA1_80": (0x0001, 16, 14),
}
"""OpenSSL's name: registry number, key bytes, salt bytes (RFC 5764 §4.1.2, RFC 7714 §14.2)."""

EXPORTER_LABEL = b"EXTRACTOR-dtls_srtp"

MTU_BYTES = 1200
"""UDP payload; what Chromium uses too. It leaves room for IPv6 and a TURN relay on a 1,280-byte path."""

MAX_DATAGRAM_BYTES = 2048
"""Above any Ethernet datagram; more is not a peer's DTLS."""

MAX_HANDSHAKE_BYTES = 131_072
"""A handshake with a long RSA chain is 6 kB; this bounds what OpenSSL is made to look at under repeats."""

MAX_RECORD_BYTES = 16_384
HANDSHAKE_DEADLINE_NS = 28_000_000_000
"""Just under the 30 s after which ICE calls a silent transport dead (DESIGN §4): the first reason is the right one."""


def make_context(certificate: Certificate) -> SSL.Context:
    """Return the settings that all connections of one certificate share."""
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_min_proto_version(DTLS_1_2)
    context.set_options(
        SSL.OP_NO_QUERY_MTU
        | SSL.OP_NO_RENEGOTIATION
        | SSL.OP_NO_TICKET
        | SSL.OP_NO_COMPRESSION
        | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(CIPHERS)
    context.set_tlsext_use_srtp(SRTP_PROFILES)
    context.use_certificate(certificate.x509)
    context.use_privatekey(certificate.key)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _verify)
    return context


def _verify(connection: SSL.Connection, certificate: crypto.X509, _errno: int, depth: int, _ok: int) -> bool:
    """Decide by fingerprint alone: self-signed and expired are normal here (RFC 8827 §6.5)."""
    check: _PeerCheck = connection.get_app_data()
    return depth > 0 or check.accept(certificate.to_cryptography())


class _PeerCheck:
    """Judges the leaf certificate inside the handshake; apart from `Dtls` so that no reference circle forms."""

    __slots__ = ("_fingerprints", "matched")

    def __init__(self, fingerprints: Fingerprints) -> None:
        self._fingerprints = fingerprints
        self.matched: bool | None = None

    def accept(self, leaf: x509.Certificate) -> bool:
        self.matched = self._fingerprints.match(leaf)
        return self.matched


class Dtls:
    """One DTLS connection. Datagrams in by `receive`, out by draining `outgoing`; never two calls at once.

    `received` holds decrypted application data in order. `failure` is set once, before the handshake is done;
    `closed` once, after it.
    """

    def __init__(self, context: SSL.Context, role: Role, fingerprints: Fingerprints) -> None:
        self._check = _PeerCheck(fingerprints)
        self._connection = SSL.Connection(context, None)
        self._connection.set_app_data(self._check)
        self._connection.set_ciphertext_mtu(MTU_BYTES)
        if role == "server":
            self._connection.set_accept_state()
        else:
            self._connection.set_connect_state()
        self.role: Role = role
        self._flight = Flight()
        self._handshake_bytes = 0
        self._begun = False
        self._deadline_ns: int | None = None
        self._openssl_due_ns: int | None = None
        self.connected = False
        self.keys: SrtpKeys | None = None
        self.failure = ""
        self.closed = ""
        self.outgoing: list[bytes] = []
        self.received: list[bytes] = []
        self.ignored_datagrams = 0

    @property
    def over(self) -> bool:
        """Whether nothing more will come of this connection."""
        return bool(self.failure or self.closed)

    @property
    def next_timeout_ns(self) -> int | None:
        """When `poll` has something to do, or None."""
        if self.over:
            return None
        due = [at for at in (self._flight.due_ns, self._openssl_due_ns, self._deadline_ns) if at is not None]
        return min(due, default=None)

    def receive(self, datagram: bytes, now_ns: int) -> None:
        """Take one datagram as it came. Slow (a signature) while the handshake runs."""
        if self.over:
            self.ignored_datagrams += 1
            return
        if len(datagram) > MAX_DATAGRAM_BYTES or not looks_like_dtls(datagram):
            self.ignored_datagrams += 1
            return
        if self.connected:
            self._receive_connected(datagram)
        else:
            self._handshake_bytes += len(datagram)
            if self._handshake_bytes > MAX_HANDSHAKE_BYTES:
                self._fail(f"more than {MAX_HANDSHAKE_BYTES} bytes of handshake")
                return
            self._begin(now_ns)
            self._connection.bio_write(datagram)
            self._handshake(now_ns)
        self._arm_openssl(now_ns)

    def poll(self, now_ns: int) -> None:
        """Start as client, repeat what is due, give up what took too long."""
        if self.over or self.connected:
            return
        if self.role == "client" and not self._begun:
            self._begin(now_ns)
            self._handshake(now_ns)
        elif self._deadline_ns is not None and now_ns >= self._deadline_ns:
            self._fail("the handshake was not done in time")
        else:
            self.outgoing += self._flight.poll(now_ns)
            if self._openssl_due_ns is not None and now_ns >= self._openssl_due_ns:
                self._repeat_by_openssl(now_ns)
        self._arm_openssl(now_ns)

    def send(self, data: bytes) -> None:
        """Encrypt one packet into one datagram.   Errors: RuntimeError before the handshake is done."""
        if not self.connected:
            raise RuntimeError("application data before the handshake is done")
        if self.over:
            return
        try:
            self._connection.send(data)
        except SSL.Error as error:
            self.closed = _reason(error)
            return
        self.outgoing += split_records(self._written())

    def close(self) -> None:
        """Say close_notify if there is somebody to say it to, and end."""
        if self.over:
            return
        if self.connected:
            self._say_goodbye()
            self.closed = "closed by us"
        else:
            self.failure = "closed by us"
        self._flight.forget()

    def _begin(self, now_ns: int) -> None:
        if not self._begun:
            self._begun = True
            self._deadline_ns = now_ns + HANDSHAKE_DEADLINE_NS

    def _handshake(self, now_ns: int) -> None:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            self._take_flight(now_ns)
        except SSL.Error as error:
            self._take_flight(now_ns)
            self._fail("the certificate is not the one in the description" if self._check.matched is False
                       else _reason(error))
        else:
            self._take_flight(now_ns)
            self._finish(now_ns)

    def _finish(self, now_ns: int) -> None:
        leaf = self._connection.get_peer_certificate(as_cryptography=True)
        if leaf is None or not self._check.accept(leaf):
            # The callback has refused this already; a second look costs nothing and needs no trust in OpenSSL's order.
            self._fail("the certificate is not the one in the description")
            return
        self.keys = self._export_keys()
        self.connected = True
        self._deadline_ns = None
        self._flight.settle()
        # The datagram that completed the handshake may carry application data behind it.
        self._read()

    def _export_keys(self) -> SrtpKeys | None:
        """Return the keys both ways, None if the peer offered no profile of ours (a data-only endpoint)."""
        profile = PROFILES.get(self._connection.get_selected_srtp_profile())
        if profile is None:
            return None
        number, key_bytes, salt_bytes = profile
        material = self._connection.export_keying_material(EXPORTER_LABEL, 2 * (key_bytes + salt_bytes))
        cut = [0, key_bytes, 2 * key_bytes, 2 * key_bytes + salt_bytes, 2 * (key_bytes + salt_bytes)]
        client_key, server_key, client_salt, server_salt = (
            material[start:end] for start, end in zip(cut, cut[1:], strict=False)
        )
        if self.role == "server":
            return SrtpKeys(number, client_key, client_salt, server_key, server_salt)
        return SrtpKeys(number, server_key, server_salt, client_key, client_salt)

    def _receive_connected(self, datagram: bytes) -> None:
        self._connection.bio_write(datagram)
        got_data = self._read()
        answer = self._written()
        if answer:
            self.outgoing += pack_datagrams(split_records(answer), MTU_BYTES)
        elif got_data:
            # Application data proves that the peer has our last flight.
            self._flight.forget()
        elif holds_handshake(datagram) and not self.over:
            self.outgoing += self._flight.answer()
        elif not self.over:
            # OpenSSL says nothing about records that are replayed or were not made with our keys.
            self.ignored_datagrams += 1

    def _read(self) -> bool:
        """Decrypt what the BIO holds; True if there was any application data."""
        before = len(self.received)
        try:
            while True:
                self.received.append(self._connection.recv(MAX_RECORD_BYTES))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            # RFC 5246 §7.2.1: a close_notify is answered with one.
            self._say_goodbye()
            self.closed = "close_notify from the peer"
        except SSL.Error as error:
            self.closed = _reason(error)
        return len(self.received) > before

    def _say_goodbye(self) -> None:
        try:
            self._connection.shutdown()
        except SSL.Error:
            pass  # The alert is a courtesy; ICE tells the other end as well.
        self.outgoing += pack_datagrams(split_records(self._written()), MTU_BYTES)

    def _repeat_by_openssl(self, now_ns: int) -> None:
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error as error:
            self._take_flight(now_ns)
            self._fail(_reason(error))
        else:
            self._take_flight(now_ns)

    def _arm_openssl(self, now_ns: int) -> None:
        remaining_s = None if self.connected or self.over else self._connection.DTLSv1_get_timeout()
        self._openssl_due_ns = None if remaining_s is None else now_ns + int(remaining_s * 1e9)

    def _take_flight(self, now_ns: int) -> None:
        written = self._written()
        if written:
            datagrams = pack_datagrams(split_records(written), MTU_BYTES)
            self.outgoing += datagrams
            self._flight.replace(datagrams, now_ns)

    def _written(self) -> bytes:
        """Return everything OpenSSL wants to send."""
        parts = []
        try:
            while True:
                parts.append(self._connection.bio_read(65_536))
        except SSL.WantReadError:
            return b"".join(parts)

    def _fail(self, reason: str) -> None:
        self.failure = reason
        self._deadline_ns = None
        self._flight.forget()


def _reason(error: SSL.Error) -> str:
    """Return what OpenSSL says, shortened to its innermost sentence."""
    stack: Sequence[object] = error.args[0] if error.args and isinstance(error.args[0], list) else error.args
    last = stack[-1] if stack else "unknown"
    return f"DTLS: {last[-1] if isinstance(last, tuple) and last else last}"
