"""Keys out of an invite link's fragment, which browsers never send to a server.

`#key=<base64url of 32 random bytes>`: everybody with the link can derive every publication's key, so it keeps the relay out and
says nothing about who among those with the link sent a frame. One key per publication, because a base key is one sender's;
and a KID by chance, because identities and sids are the relay's to choose: it could give two publications one name.
"""

import base64
import binascii
import secrets
from urllib.parse import parse_qs, quote

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from relay.e2ee.sframe import FrameKey, Opener

LINK_KEY_BYTES, BASE_KEY_BYTES, KID_BYTES = 32, 16, 5
LABEL, DATA_LABEL = b"Veil link key 1\0", b"Veil data key 1\0"


def new_link_key() -> bytes:
    """Return a key for a new call."""
    return secrets.token_bytes(LINK_KEY_BYTES)


def fragment(link_key: bytes) -> str:
    """Return the link's part from `#` on."""
    return "#key=" + base64.urlsafe_b64encode(link_key).decode().rstrip("=")


def passphrase_fragment(passphrase: str) -> str:
    """Return the fragment that carries a passphrase of LiveKit's format."""
    return "#passphrase=" + quote(passphrase, safe="")


def read_fragment(text: str) -> bytes | str | None:
    """Return the link key (bytes) or passphrase (str) of a link or fragment, None when there is none.

    Errors: ValueError for a key of another size or both at once: a call must not begin with half a key.
    """
    fields = parse_qs(text.partition("#")[2], keep_blank_values=True)
    if "key" in fields and "passphrase" in fields:
        raise ValueError("the link names a key and a passphrase; one of them is meant")
    if "passphrase" in fields:
        return fields["passphrase"][0] or None
    if "key" not in fields:
        return None
    encoded = fields["key"][0]
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError("the key in the link is not base64url") from None
    if len(key) != LINK_KEY_BYTES:
        raise ValueError("the key in the link is not whole; copy the link again")
    return key


def publication_key(link_key: bytes, identity: str, track_sid: str) -> bytes:
    """Return the SFrame base key of one publication."""
    return _derive(link_key, LABEL + identity.encode() + b"\0" + track_sid.encode())


def new_kid() -> int:
    """Return the key id under which a publication's frames are sealed, once. Keys and nonces come from it too."""
    return secrets.randbits(8 * KID_BYTES)


class LinkOpener(Opener):
    """Opens one publication's frames: those of the first KID under which one opens.

    Later ones could be recorded frames of a publication that had the same name.
    """

    def __init__(self, link_key: bytes, identity: str, track_sid: str) -> None:
        super().__init__(limit=1)
        self._base_key = publication_key(link_key, identity, track_sid)

    def _look_ahead(self, kid: int) -> FrameKey | None:
        return None if self._keys else FrameKey(self._base_key, kid)


def data_key(link_key: bytes, identity: str) -> bytes:
    """Return the AES-128 key of one person's data packets."""
    return _derive(link_key, DATA_LABEL + identity.encode())


def _derive(link_key: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), BASE_KEY_BYTES, None, info).derive(link_key)
