"""DTLS 1.2 of one bot's transport over a memory BIO: handshake in either role, SRTP keys, application data.

Spec: RFC 6347, RFC 5764 (use_srtp, exporter), RFC 8122 (fingerprints). One certificate serves all bots of a process. The
calls of a handshake cost about a millisecond of public-key arithmetic and may run in any thread, one at a time.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

DTLS_1_2 = 0xFEFD
MTU_BYTES = 1200
RECORD_HEADER_BYTES = 13
READ_BYTES = 65_536

PROFILES = {
    b"SRTP_AEAD_AES_128_GCM": (0x0007, 16, 12),
    b"SRTP_AEAD_AES_256_GCM": (0x0008, 32, 12),
    b"SRTP_AES128_CM_SHA1_80": (0x0001, 16, 14),
}
"""OpenSSL's name: registry number, key bytes, salt bytes; in the order of our preference."""


class HandshakeError(Exception):
    """The other end is not the one in the description, or DTLS failed."""


@dataclass(frozen=True)
class Keys:
    """SRTP keys as `LoadGenerator.set_srtp` takes them."""

    profile: int
    send_key: bytes
    send_salt: bytes
    receive_key: bytes
    receive_salt: bytes


class Identity:
    """A P-256 key, its self-signed certificate, and the settings that all transports share."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bot")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
            .not_valid_after(datetime(9999, 12, 31, tzinfo=UTC))
            .sign(key, hashes.SHA256())
        )
        self.fingerprint = f"sha-256 {fingerprint_of(certificate, 'sha-256')}"
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_min_proto_version(DTLS_1_2)
        context.set_options(SSL.OP_NO_QUERY_MTU | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_cipher_list(b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE+AESGCM:ECDHE+CHACHA20")
        context.set_tlsext_use_srtp(b":".join(PROFILES))
        context.use_certificate(certificate)
        context.use_privatekey(key)
        # Self-signed certificates are normal here; the fingerprint decides, before a key is used.
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_unused: True)
        self.context = context


def fingerprint_of(certificate: x509.Certificate, hash_name: str) -> str:
    """Return the hash of the DER certificate as SDP spells it.   Errors: ValueError for an unknown hash."""
    der = certificate.public_bytes(serialization.Encoding.DER)
    return hashlib.new(hash_name.replace("-", ""), der).digest().hex(":").upper()


class Dtls:
    """One connection; `outgoing` is drained by the owner after every call."""

    def __init__(self, identity: Identity, role: str, fingerprints: Sequence[tuple[str, str]]) -> None:
        """`role` is ours: "client" or "server"."""
        self.role = role
        self.outgoing: list[bytes] = []
        self.received: list[bytes] = []
        self.keys: Keys | None = None
        self.is_closed = False
        self._fingerprints = fingerprints
        self._connection = SSL.Connection(identity.context, None)
        self._connection.set_ciphertext_mtu(MTU_BYTES)
        if role == "client":
            self._connection.set_connect_state()
        else:
            self._connection.set_accept_state()

    @property
    def is_connected(self) -> bool:
        return self.keys is not None

    def handshake(self, datagrams: Sequence[bytes] = ()) -> float | None:
        """Go on with what came; return the seconds until `repeat` is due, None when done.   Errors: HandshakeError."""
        try:
            for datagram in datagrams:
                self._connection.bio_write(datagram)
                if not self._step():
                    continue
                self._finish()
            if not datagrams and self._step():
                self._finish()
        except SSL.Error as error:
            raise HandshakeError(f"DTLS: {error.args}") from error
        if self.is_connected:
            self._read()
            return None
        return self._connection.DTLSv1_get_timeout()

    def repeat(self) -> float | None:
        """Send the last flight again if it is due; return as `handshake`.   Errors: HandshakeError."""
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error as error:
            raise HandshakeError(f"DTLS: {error.args}") from error
        self._take_written()
        return self._connection.DTLSv1_get_timeout()

    def receive(self, datagram: bytes) -> None:
        """Take a datagram after the handshake; application data is in `received` then."""
        self._connection.bio_write(datagram)
        self._read()

    def send(self, data: bytes) -> None:
        """Encrypt one packet of application data."""
        if not self.is_closed:
            self._connection.send(data)
            self._take_written()

    def close(self) -> None:
        """Say goodbye."""
        if self.is_connected and not self.is_closed:
            self.is_closed = True
            try:
                self._connection.shutdown()
            except SSL.Error:
                return
            self._take_written()

    def _step(self) -> bool:
        """Return True once the handshake is over."""
        if self.is_connected:
            return False
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        finally:
            self._take_written()
        return True

    def _finish(self) -> None:
        leaf = self._connection.get_peer_certificate(as_cryptography=True)
        actual = [(name, fingerprint_of(leaf, name)) for name, _ in self._fingerprints] if leaf else []
        if not any(pair in self._fingerprints for pair in actual):
            raise HandshakeError("the certificate is not the one in the description")
        chosen = PROFILES.get(self._connection.get_selected_srtp_profile())
        if chosen is None:
            raise HandshakeError("no SRTP profile was agreed on")
        profile, key_bytes, salt_bytes = chosen
        material = self._connection.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (key_bytes + salt_bytes))
        client_key, server_key = material[:key_bytes], material[key_bytes : 2 * key_bytes]
        client_salt, server_salt = material[2 * key_bytes : -salt_bytes], material[-salt_bytes:]
        client, server = (client_key, client_salt), (server_key, server_salt)
        self.keys = Keys(profile, *client, *server) if self.role == "client" else Keys(profile, *server, *client)

    def _read(self) -> None:
        try:
            while True:
                self.received.append(self._connection.recv(READ_BYTES))
        except SSL.WantReadError:
            pass
        except SSL.Error:
            self.is_closed = True
        self._take_written()

    def _take_written(self) -> None:
        """Cut what OpenSSL wrote into datagrams: a memory BIO forgets where one ended."""
        try:
            while True:
                written = self._connection.bio_read(READ_BYTES)
                datagram = b""
                while written:
                    size = RECORD_HEADER_BYTES + int.from_bytes(written[11:13], "big")
                    if datagram and len(datagram) + size > MTU_BYTES:
                        self.outgoing.append(datagram)
                        datagram = b""
                    datagram += written[:size]
                    written = written[size:]
                self.outgoing.append(datagram)
        except SSL.WantReadError:
            return
