"""The local ICE credentials of one transport; the checks themselves are the data plane's.

Spec: RFC 8445 §5.3 and RFC 8839 §5.4 (at least 24 bits of ufrag, 128 bits of password; at least 4 and 22
ice-chars). We are ICE-lite: the remote credentials are never needed to answer a check.
"""

import secrets
import string
from dataclasses import dataclass, field

ICE_CHARS = string.ascii_letters + string.digits
"""RFC 8839 allows "+" and "/" too; without them the credentials survive URLs and log filters unescaped."""

UFRAG_CHARS = 8
"""47 bits: the data plane finds a transport by its ufrag, so two live ones must practically never be equal."""

PASSWORD_CHARS = 24
"""142 bits, above the 128 of RFC 8445 §5.3."""


@dataclass(frozen=True)
class IceCredentials:
    """What a remote endpoint must know to have its checks answered. The password does not appear in `repr`."""

    ufrag: str
    password: str = field(repr=False)

    @classmethod
    def fresh(cls) -> "IceCredentials":
        """Return new random credentials, for a new transport or an ICE restart (RFC 8445 §9)."""
        return cls(_random(UFRAG_CHARS), _random(PASSWORD_CHARS))


def _random(length: int) -> str:
    return "".join(secrets.choice(ICE_CHARS) for _ in range(length))
