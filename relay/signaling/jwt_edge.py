"""Reads signed JSON (RFC 7519) with one algorithm, one leeway and one sentence per fault.

HS256 alone: an algorithm taken from the token itself ("none", a public key used as a secret) is the classic hole.
"""

from typing import Any

import jwt

from relay.config import ApiKey
from relay.errors import Refused
from relay.signaling.keyring import Keyring

ALGORITHM = "HS256"
# Clocks of phones differ by about this much; LiveKit servers allow the same.
LEEWAY_S = 60
# A browser sends the token in a URL; the largest real ones (attributes, room configuration) are some kB.
MAX_TOKEN_CHARACTERS = 16_384
_OPTIONS: dict[str, Any] = {"require": ["exp", "iss"], "verify_aud": False}


def read_claims(token: str, keys: Keyring, what: str = "token") -> tuple[ApiKey, dict[str, Any]]:
    """Return the key that signed this token, and its claims.   Errors: Refused 401; no sentence holds a secret."""
    if not token:
        raise Refused(401, f"A {what} is needed.")
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise Refused(401, f"The {what} is longer than {MAX_TOKEN_CHARACTERS} characters.")
    try:
        claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
        key = keys.find(claimed)
        if key is None:
            raise Refused(401, f"The {what} names an API key that this server does not know.")
        claims = jwt.decode(token, key.secret, algorithms=[ALGORITHM], leeway=LEEWAY_S, options=_OPTIONS)
    except jwt.ExpiredSignatureError:
        raise Refused(401, f"The {what} has expired.") from None
    except jwt.ImmatureSignatureError:
        raise Refused(401, f"The {what} is not valid yet.") from None
    except jwt.InvalidSignatureError:
        raise Refused(401, f"The {what} is not signed by the API key it names.") from None
    except jwt.MissingRequiredClaimError as missing:
        raise Refused(401, f"The {what} has no {missing.claim!r} claim.") from None
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise Refused(401, f"The {what} cannot be read.") from None
    return key, claims


def sign_claims(claims: dict[str, Any], key: ApiKey) -> str:
    """Return these claims as a token signed by this key."""
    return jwt.encode({"iss": key.key, **claims}, key.secret, algorithm=ALGORITHM)
