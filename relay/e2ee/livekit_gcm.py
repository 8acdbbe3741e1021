"""The frame format of LiveKit's SDKs (Encryption.GCM), measured in LIVEKIT section 4.2; data packets are datapackets.py's.

    +--------------+------------+---------+--------+------+-----------+
    | clear: N     | ciphertext | tag: 16 | IV: 12 | 0x0C | key index |
    +--------------+------------+---------+--------+------+-----------+

The clear bytes are the AAD: audio 1; VP8 10 in keyframes, else 3; VP9 none; H264 up to the first slice's NAL header and one byte
more, behind which everything gets emulation prevention (ITU-T H.264 section 7.4.1). There is no AV1. IV = SSRC | RTP timestamp |
timestamp - counter mod 0xFFFF. Receivers take keys by sender and index, and ratchet forward when one does not fit.
"""

import re
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from relay.e2ee.errors import Malformed, NotAuthentic, UnknownKey

SALT = b"LKFrameEncryptionKey"
ITERATIONS = 100_000
KEY_BYTES, MATERIAL_BYTES, IV_BYTES, TAG_BYTES = 16, 32, 12, 16
TRAILER_BYTES = IV_BYTES + 2
RING = 16
RATCHET_WINDOW = 8
FAILURE_TOLERANCE = 10
"""Frames in a row that may fail before later rungs are no longer tried, as livekit-client gives up a key."""
COUNTER_MODULUS = 0xFFFF
CODECS = ("opus", "vp8", "vp9", "h264")
SLICES = (1, 5)


class Material:
    """What a key comes from: a passphrase (PBKDF2 in every SDK) or raw bytes (HKDF, livekit-client alone)."""

    def __init__(self, secret: str | bytes, *, uses_hkdf: bool | None = None) -> None:
        """Native SDKs run PBKDF2 over raw bytes too: `uses_hkdf=False`."""
        self._uses_hkdf = isinstance(secret, bytes) if uses_hkdf is None else uses_hkdf
        self._secret = secret.encode() if isinstance(secret, str) else secret

    def _derive(self, size: int) -> bytes:
        if self._uses_hkdf:
            return HKDF(SHA256(), size, SALT, bytes(128)).derive(self._secret)
        return PBKDF2HMAC(SHA256(), size, SALT, ITERATIONS).derive(self._secret)

    def key(self) -> bytes:
        """Return the AES-128 key."""
        return self._derive(KEY_BYTES)

    def ratcheted(self) -> "Material":
        """Return the next material in line."""
        return Material(self._derive(MATERIAL_BYTES), uses_hkdf=self._uses_hkdf)


def clear_bytes(codec: str, frame: bytes) -> int:
    """Return how many bytes of a non-empty frame stay readable; the same before and after sealing.

    Errors: Malformed (shorter than that, H264 without a slice), ValueError for a codec the format does not have.
    """
    if codec not in CODECS:
        raise ValueError(f"LiveKit's frame format has {', '.join(CODECS)}, not {codec}")
    if codec == "h264":
        for found in re.finditer(rb"\x00\x00\x01(.)", frame, re.DOTALL):
            if found[1][0] & 0x1F in SLICES:
                size = found.end() + 1
                break
        else:
            raise Malformed("there is no slice in this H264 frame.")
    else:
        size = {"opus": 1, "vp9": 0, "vp8": 3 if frame[0] & 1 else 10}[codec]
    if size > len(frame):
        raise Malformed("the frame is shorter than what stays clear of it.")
    return size


def escape(data: bytes) -> bytes:
    """Return data with emulation prevention bytes."""
    out, zeros = bytearray(), 0
    for byte in data:
        if zeros >= 2 and byte <= 3:
            out.append(3)
            zeros = 0
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(out)


def unescape(data: bytes) -> bytes:
    """Return data without its emulation prevention bytes."""
    out, zeros = bytearray(), 0
    for byte in data:
        if zeros >= 2 and byte == 3:
            zeros = 0
            continue
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(out)


def long_start_codes(data: bytes) -> bytes:
    """Return data with every start code four bytes long, which is what depacketisers write."""
    return re.sub(rb"(?<!\x00)\x00\x00\x01", b"\0\0\0\1", data)


class Sealer:
    """One stream's frames under one key."""

    def __init__(
        self, material: Material, codec: str, ssrc: int, *, key_index: int = 0, counter: int | None = None
    ) -> None:
        """SDKs begin the counter at random, as None does."""
        if not 0 <= key_index < RING:
            raise ValueError(f"a key's index is 0 to {RING - 1}")
        if codec not in CODECS:
            raise ValueError(f"LiveKit's frame format has {', '.join(CODECS)}, not {codec}")
        self._gcm = AESGCM(material.key())
        self._codec, self._ssrc, self._key_index = codec, ssrc, key_index
        self._counter = secrets.randbelow(COUNTER_MODULUS) if counter is None else counter

    def seal(self, frame: bytes, rtp_ts: int) -> bytes:
        """Return the frame sealed; one of no bytes (DTX) passes as it is.   Errors: Malformed."""
        if not frame:
            return frame
        size = clear_bytes(self._codec, frame)
        clear = long_start_codes(frame[:size]) if self._codec == "h264" else frame[:size]
        third = (rtp_ts - self._counter % COUNTER_MODULUS) & 0xFFFFFFFF
        iv = b"".join(word.to_bytes(4, "big") for word in (self._ssrc, rtp_ts, third))
        self._counter += 1
        body = self._gcm.encrypt(iv, frame[size:], clear) + iv + bytes((IV_BYTES, self._key_index))
        return clear + (escape(body) if self._codec == "h264" else body)


class _Rung:
    """A key and, once looked for, the one after it: deriving one from a passphrase takes 200,000 rounds of PBKDF2."""

    def __init__(self, material: Material) -> None:
        self._material = material
        self._after: _Rung | None = None
        self.gcm = AESGCM(material.key())
        self.failures = 0

    def after(self) -> "_Rung":
        if self._after is None:
            self._after = _Rung(self._material.ratcheted())
        return self._after


class KeyRing:
    """A receiver's keys of one sender: 16 places, each ratcheting forward as the sender does."""

    def __init__(self, ratchet_window: int = RATCHET_WINDOW) -> None:
        self._window = ratchet_window
        self._rungs: dict[int, _Rung] = {}

    def set(self, material: Material, key_index: int = 0) -> None:
        """Put a key into its place."""
        if not 0 <= key_index < RING:
            raise ValueError(f"a key's index is 0 to {RING - 1}")
        self._rungs[key_index] = _Rung(material)

    def open_frame(self, codec: str, sealed: bytes) -> bytes:
        """Return the frame.   Errors: Malformed, UnknownKey, NotAuthentic; ValueError for an unknown codec.

        Repeated frames open again: the format has nothing that orders them, and decoders drop what they have.
        """
        if not sealed:
            return sealed
        size = clear_bytes(codec, sealed)
        clear, body = sealed[:size], sealed[size:]
        if codec == "h264":
            body = unescape(body)
        if len(body) < TAG_BYTES + TRAILER_BYTES or body[-2] != IV_BYTES:
            raise Malformed("the frame does not end as LiveKit's frames do.")
        return clear + self.open(body[-1], body[-TRAILER_BYTES:-2], body[:-TRAILER_BYTES], clear)

    def open(self, key_index: int, iv: bytes, sealed: bytes, aad: bytes = b"") -> bytes:
        """Return the plaintext under a key of the ring, which is moved on when a later rung fits.

        Errors: UnknownKey, NotAuthentic (the ring stays as it was).
        """
        if key_index not in self._rungs:
            raise UnknownKey(key_index)
        first = rung = self._rungs[key_index]
        window = self._window if first.failures < FAILURE_TOLERANCE else 0
        for step in range(window + 1):
            try:
                plaintext = rung.gcm.decrypt(iv, sealed, aad)
            except InvalidTag:
                if step < window:
                    rung = rung.after()
                continue
            rung.failures = 0
            self._rungs[key_index] = rung
            return plaintext
        first.failures += 1
        raise NotAuthentic
