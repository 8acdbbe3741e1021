"""SFrame (RFC 9605): header, key schedule, all five cipher suites, the ratchet, a receiver's table of keys.

     0 1 2 3 4 5 6 7
    +-+-+-+-+-+-+-+-+------------------+------------------+----------------+-----+
    |X| KKK |Y| CCC | KID if X: K+1 B  | CTR if Y: C+1 B  | ciphertext     | tag |
    +-+-+-+-+-+-+-+-+------------------+------------------+----------------+-----+

A base key belongs to one sender, and a (KID, CTR) pair is used once. How codecs' packetisers are satisfied
is framing.py's; numbers of sender keys that ratchet are senderkeys.py's.
Does not: agree on keys, delete Python's copies of them (the interpreter gives no such promise).
"""

import hmac
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from relay.e2ee.errors import KeyExhausted, Malformed, NotAuthentic, UnknownKey

MAX_U64 = (1 << 64) - 1
REPLAY_WINDOW = 1024
"""Counters below the highest that are still told apart. RTX brings copies within a second, which is 60 video or 50 audio frames."""


# --- header (section 4.3) -----------------------------------------------------------------------------------------


def write_header(kid: int, ctr: int) -> bytes:
    """Return the header of a key's number and a counter, both below 2^64, 1 to 17 bytes."""
    config, tail = 0, b""
    for value, shift in ((kid, 4), (ctr, 0)):
        if not 0 <= value <= MAX_U64:
            raise ValueError("a KID and a CTR have 64 bits")
        if value < 8:
            config |= value << shift
        else:
            field = value.to_bytes((value.bit_length() + 7) // 8, "big")
            config |= (8 | len(field) - 1) << shift
            tail += field
    return bytes((config,)) + tail


def parse_header(data: bytes | memoryview) -> tuple[int, int, int]:
    """Return (kid, ctr, header bytes).

    Errors: Malformed; also for a value in a longer form than it needs, which would give one nonce two headers.
    """
    if not len(data):
        raise Malformed("there is no SFrame header in no bytes.")
    at, values = 1, []
    for half in (data[0] >> 4, data[0] & 0x0F):
        if half < 8:
            values.append(half)
            continue
        size = (half & 7) + 1
        value = int.from_bytes(data[at : at + size], "big")
        at += size
        if at > len(data):
            raise Malformed("the SFrame header is cut.")
        if value < 8 or (value.bit_length() + 7) // 8 != size:
            raise Malformed("the SFrame header has a longer form than it needs.")
        values.append(value)
    return values[0], values[1], at


# --- cipher suites (section 4.5) ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Suite:
    """Sizes in bytes. `aes_bytes`: the part of the key that is AES's; CTR suites authenticate with the rest of it."""

    number: int
    hash: HashAlgorithm
    key_bytes: int
    aes_bytes: int
    tag_bytes: int
    is_ctr: bool

    @property
    def hash_bytes(self) -> int:
        return self.hash.digest_size


NONCE_BYTES = 12
SUITES = {
    suite.number: suite
    for suite in (
        Suite(1, SHA256(), 48, 16, 10, True),
        Suite(2, SHA256(), 48, 16, 8, True),
        Suite(3, SHA256(), 48, 16, 4, True),
        Suite(4, SHA256(), 16, 16, 16, False),
        Suite(5, SHA512(), 32, 32, 16, False),
    )
}
DEFAULT_SUITE = 4
"""AES_128_GCM_SHA256_128: what browsers have natively. Suites with 4-byte tags are for audio alone (section 7.5)."""


def _suite(number: int) -> Suite:
    try:
        return SUITES[number]
    except KeyError:
        raise ValueError(f"SFrame has cipher suites {min(SUITES)} to {max(SUITES)}, not {number}") from None


class _Aead(Protocol):
    def seal(self, nonce: bytes, aad: bytes, plaintext: bytes) -> bytes: ...
    def open(self, nonce: bytes, aad: bytes, sealed: bytes) -> bytes: ...


class _Gcm:
    def __init__(self, key: bytes) -> None:
        self._gcm = AESGCM(key)

    def seal(self, nonce: bytes, aad: bytes, plaintext: bytes) -> bytes:
        return self._gcm.encrypt(nonce, plaintext, aad)

    def open(self, nonce: bytes, aad: bytes, sealed: bytes) -> bytes:
        try:
            return self._gcm.decrypt(nonce, sealed, aad)
        except InvalidTag:
            raise NotAuthentic from None


class AesCtrHmac:
    """AES in counter mode, then HMAC over lengths, nonce, AAD and ciphertext (section 4.5.1)."""

    def __init__(self, suite: Suite, key: bytes) -> None:
        self._suite = suite
        self._aes, self._auth = key[: suite.aes_bytes], key[suite.aes_bytes :]

    def seal(self, nonce: bytes, aad: bytes, plaintext: bytes) -> bytes:
        sealed = self._crypt(nonce, plaintext)
        return sealed + self._tag(nonce, aad, sealed)

    def open(self, nonce: bytes, aad: bytes, sealed: bytes) -> bytes:
        body, tag = sealed[: -self._suite.tag_bytes], sealed[-self._suite.tag_bytes :]
        if not hmac.compare_digest(tag, self._tag(nonce, aad, body)):
            raise NotAuthentic
        return self._crypt(nonce, body)

    def _crypt(self, nonce: bytes, data: bytes) -> bytes:
        return Cipher(algorithms.AES(self._aes), modes.CTR(nonce + bytes(4))).encryptor().update(data)

    def _tag(self, nonce: bytes, aad: bytes, sealed: bytes) -> bytes:
        lengths = b"".join(n.to_bytes(8, "big") for n in (len(aad), len(sealed), self._suite.tag_bytes))
        return hmac.digest(self._auth, lengths + nonce + aad + sealed, self._suite.hash.name)[: self._suite.tag_bytes]


# --- keys (sections 4.4.2 and 5.1) ----------------------------------------------------------------------------------


def derive(base_key: bytes, kid: int, suite_number: int = DEFAULT_SUITE) -> tuple[bytes, bytes]:
    """Return (key, salt) of a base key for one KID."""
    suite = _suite(suite_number)
    # HKDF with an empty salt: RFC 5869 section 2.2 reads it as a block of zeros.
    secret = HKDF.extract(suite.hash, None, base_key)
    suffix = kid.to_bytes(8, "big") + suite.number.to_bytes(2, "big")

    def expand(label: bytes, size: int) -> bytes:
        return HKDFExpand(suite.hash, size, b"SFrame 1.0 Secret " + label + b" " + suffix).derive(secret)

    return expand(b"key", suite.key_bytes), expand(b"salt", NONCE_BYTES)


def ratchet(base_key: bytes, suite_number: int = DEFAULT_SUITE) -> bytes:
    """Return the sender's next base key; from it the present one cannot be found (section 5.1)."""
    suite = _suite(suite_number)
    secret = HKDF.extract(suite.hash, None, base_key)
    return HKDFExpand(suite.hash, suite.hash_bytes, b"SFrame 1.0 Ratchet").derive(secret)


class FrameKey:
    """A base key under one KID and suite, ready for use in either direction."""

    def __init__(self, base_key: bytes, kid: int, suite: int = DEFAULT_SUITE) -> None:
        self.kid = kid
        self.suite = _suite(suite)
        key, self._salt = self._derived = derive(base_key, kid, suite)
        self._aead: _Aead = AesCtrHmac(self.suite, key) if self.suite.is_ctr else _Gcm(key)

    def is_same(self, other: "FrameKey") -> bool:
        """Whether both come from the same base key, KID and suite."""
        return self._derived == other._derived

    def seal(self, ctr: int, plaintext: bytes, metadata: bytes = b"") -> bytes:
        """Return header, ciphertext and tag. The caller never uses a counter twice."""
        header = write_header(self.kid, ctr)
        return header + self._aead.seal(self._nonce(ctr), header + metadata, plaintext)

    def open(self, header: bytes, ctr: int, sealed: bytes, metadata: bytes = b"") -> bytes:
        """Return the plaintext of what stands behind the header.   Errors: Malformed, NotAuthentic."""
        if len(sealed) < self.suite.tag_bytes:
            raise Malformed("the frame is shorter than its tag.")
        return self._aead.open(self._nonce(ctr), header + metadata, sealed)

    def _nonce(self, ctr: int) -> bytes:
        return (int.from_bytes(self._salt, "big") ^ ctr).to_bytes(NONCE_BYTES, "big")


# --- the two ends -------------------------------------------------------------------------------------------------


class Sealer:
    """One sender's frames under one key, each with the next counter."""

    def __init__(self, key: FrameKey, first_ctr: int = 0) -> None:
        self._key = key
        self.next_ctr = first_ctr

    def seal(self, plaintext: bytes, metadata: bytes = b"") -> bytes:
        """Return the frame sealed.   Errors: KeyExhausted after counter 2^64 - 1."""
        if self.next_ctr > MAX_U64:
            raise KeyExhausted("every counter of this key was used.")
        ctr, self.next_ctr = self.next_ctr, self.next_ctr + 1
        return self._key.seal(ctr, plaintext, metadata)


class ReplayWindow:
    """Which counters of one key have come, exactly within a window below the highest; what is older counts as come."""

    def __init__(self, size: int = REPLAY_WINDOW) -> None:
        self._size = size
        self._highest = -1
        self._seen = 0

    def has(self, ctr: int) -> bool:
        behind = self._highest - ctr
        return behind >= 0 and (behind >= self._size or bool(self._seen >> behind & 1))

    def add(self, ctr: int) -> None:
        behind = self._highest - ctr
        if behind < 0:
            # A jump beyond the window leaves nothing of it.
            self._seen = (self._seen << -behind if -behind < self._size else 0) & (1 << self._size) - 1 | 1
            self._highest = ctr
        elif behind < self._size:
            self._seen |= 1 << behind


class Opener:
    """A receiver's keys of one sender, by KID; at most `limit`, the oldest goes first."""

    def __init__(self, limit: int = 16) -> None:
        self._limit = limit
        self._keys: dict[int, tuple[FrameKey, ReplayWindow]] = {}

    def add(self, key: FrameKey) -> None:
        """Take a key. The same key again changes nothing: what came under it came."""
        known = self._keys.get(key.kid)
        if known is not None and known[0].is_same(key):
            return
        self._keys.pop(key.kid, None)
        self._keys[key.kid] = key, ReplayWindow()
        while len(self._keys) > self._limit:
            del self._keys[next(iter(self._keys))]

    def forget(self, kid: int) -> None:
        """Open nothing under this KID any more."""
        self._keys.pop(kid, None)

    def open(self, frame: bytes, metadata: bytes = b"") -> bytes | None:
        """Return the plaintext, or None when this frame came before: RTX and probing repeat packets (E2EE.md section 1.3).

        Errors: Malformed, UnknownKey, NotAuthentic. A forged counter is never remembered.
        """
        kid, ctr, size = parse_header(frame)
        if kid not in self._keys:
            key = self._look_ahead(kid)
            if key is None:
                raise UnknownKey(kid)
            plaintext = key.open(frame[:size], ctr, frame[size:], metadata)
            self._move_to(key)
            self._keys[kid][1].add(ctr)
            return plaintext
        key, window = self._keys[kid]
        if window.has(ctr):
            return None
        plaintext = key.open(frame[:size], ctr, frame[size:], metadata)
        window.add(ctr)
        return plaintext

    def _look_ahead(self, kid: int) -> FrameKey | None:
        """Return a key that may be meant by an unknown number; `senderkeys` finds those of later steps."""
        return None

    def _move_to(self, key: FrameKey) -> None:
        """A frame opened under this key, which was looked ahead for."""
        self.add(key)
