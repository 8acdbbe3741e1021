"""Keys of the two frame formats for `relaycore.frameseal`: what LiveKit's SDKs and RFC 9605 derive from a secret.

Derivation happens once per key, so it is Python's; the frames are native.
"""

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

KEY_BYTES = 16
SALT_BYTES = 12

LIVEKIT_SALT = b"LKFrameEncryptionKey"
LIVEKIT_ITERATIONS = 100_000
"""What every SDK of LiveKit uses unless its app says otherwise."""

SFRAME_SUITE = 4
"""AES_128_GCM_SHA256_128 (RFC 9605 §4.5)."""


def livekit_key(secret: str | bytes, *, salt: bytes = LIVEKIT_SALT) -> bytes:
    """Return the key for a passphrase (str: PBKDF2, all SDKs) or for raw bytes (HKDF, livekit-client alone)."""
    if isinstance(secret, str):
        return PBKDF2HMAC(SHA256(), KEY_BYTES, salt, LIVEKIT_ITERATIONS).derive(secret.encode())
    return HKDF(SHA256(), KEY_BYTES, salt, bytes(128)).derive(secret)


def sframe_key(base_key: bytes, kid: int) -> tuple[bytes, bytes]:
    """Return (key, salt) of suite 4 for one sender's base key.   Spec: RFC 9605 §4.4.2."""
    # HKDF with an empty salt: RFC 5869 §2.2 reads it as a block of zeros.
    secret = HKDF.extract(SHA256(), None, base_key)
    suffix = kid.to_bytes(8, "big") + SFRAME_SUITE.to_bytes(2, "big")
    key = HKDFExpand(SHA256(), KEY_BYTES, b"SFrame 1.0 Secret key " + suffix).derive(secret)
    salt = HKDFExpand(SHA256(), SALT_BYTES, b"SFrame 1.0 Secret salt " + suffix).derive(secret)
    return key, salt
