"""The self-signed certificate of this process and the fingerprints by which ends know each other.

Spec: RFC 8827 §6.5 (P-256 by default), RFC 8122 §5 (fingerprints). A certificate lives as long as the process:
it is an identifier inside signalling, so keeping it across restarts would only make sessions linkable.
"""

import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from relay.session.errors import FingerprintRefused

HASHES = ("sha-512", "sha-384", "sha-256")
"""Accepted hash functions, strongest first. sha-1 and md5 (RFC 8122 lists both) are no protection any more."""

NOT_BEFORE = datetime(2020, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""RFC 5280 §4.1.2.5: no defined end. Fixed, so that making one needs no clock and tells nothing about the start."""

MAX_FINGERPRINTS = 32
"""A description carries one or two; a longer list is an attempt to make us work."""


class Certificate:
    """A P-256 key with its self-signed certificate. Made once per process, shared by all its transports."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.key = key
        self.x509 = certificate
        self.fingerprint = f"sha-256 {fingerprint_of(certificate, 'sha-256')}"

    @classmethod
    def generate(cls) -> "Certificate":
        """Return a new key and certificate. The subject says nothing about the host."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "webrtc")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOT_BEFORE)
            .not_valid_after(NOT_AFTER)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)


def fingerprint_of(certificate: x509.Certificate, hash_name: str) -> str:
    """Return the hash of the DER certificate as SDP spells it: "AB:CD:…" in capitals."""
    der = certificate.public_bytes(serialization.Encoding.DER)
    return hashlib.new(hash_name.replace("-", ""), der).digest().hex(":").upper()


class Fingerprints:
    """The fingerprints a remote description names, reduced to those that decide.

    Spec: RFC 8122 §5: of several hash functions the strongest one we know decides, and the certificate must match
    one fingerprint made with it. Errors: FingerprintRefused when none is left.
    """

    def __init__(self, named: Sequence[tuple[str, str]]) -> None:
        if len(named) > MAX_FINGERPRINTS:
            raise FingerprintRefused(f"{len(named)} certificate fingerprints, at most {MAX_FINGERPRINTS} may be given")
        by_hash: dict[str, list[str]] = {}
        for hash_name, value in named:
            by_hash.setdefault(hash_name.strip().lower(), []).append(value.strip().upper())
        self.hash_name = next((name for name in HASHES if name in by_hash), "")
        if not self.hash_name:
            offered = ", ".join(sorted(by_hash)) or "none"
            raise FingerprintRefused(f"a fingerprint must be sha-256, sha-384 or sha-512; offered: {offered}")
        self._accepted = tuple(by_hash[self.hash_name])

    def match(self, certificate: x509.Certificate) -> bool:
        """Return whether this certificate is one that the description named."""
        actual = fingerprint_of(certificate, self.hash_name).encode()
        return any(hmac.compare_digest(actual, wanted.encode("utf-8", "replace")) for wanted in self._accepted)
