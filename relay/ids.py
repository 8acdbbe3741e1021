"""Makes the names of things that clients see: `PA_…` participants, `TR_…` tracks, `RM_…` rooms.

Native SDKs refuse a track whose sid does not start with `TR_` and a stream id whose owner does not start with
`PA_`, so a prefix is part of the contract and not decoration. Twelve base62 characters are 71 bits: at a billion
live ids the chance that two are equal is below one in two thousand, and nobody can guess a neighbour's.
"""

import secrets
import string

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
SID_LENGTH = 12


def new_sid(prefix: str) -> str:
    """Return `prefix` + "_" + 12 random base62 characters.   Errors: ValueError for a prefix that is not 2 capitals."""
    if len(prefix) != 2 or not (prefix.isascii() and prefix.isalpha() and prefix.isupper()):
        raise ValueError(f"a sid prefix is two capital letters, not {prefix!r}")
    return f"{prefix}_{new_token(SID_LENGTH)}"


def new_token(length: int) -> str:
    """Return `length` random base62 characters from the system's generator (5.95 bits each)."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
