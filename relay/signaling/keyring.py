"""Looks up what an API key opens."""

from collections.abc import Iterable
from dataclasses import dataclass

from relay.config import ApiKey


@dataclass(frozen=True, slots=True)
class Key:
    """One API key: its secret verifies tokens, its customer owns the rooms."""

    name: str
    secret: str
    customer: str


class Keyring:
    """The API keys of this relay by name."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = {key.key: Key(key.key, key.secret, key.customer) for key in keys}

    def find(self, name: object) -> Key | None:
        """Return the key of that name; anything that is not a known name is None."""
        return self._keys.get(name) if isinstance(name, str) else None

    def first(self) -> Key | None:
        """Return the first key of the configuration, which signs what the relay itself hands out."""
        return next(iter(self._keys.values()), None)
