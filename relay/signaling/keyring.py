"""Looks up what an API key opens."""

from collections.abc import Iterable

from relay.config import ApiKey


class Keyring:
    """The API keys of this relay by name."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = {key.key: key for key in keys}

    def replace(self, keys: Iterable[ApiKey]) -> None:
        """Know these keys and no others from now on."""
        self._keys = {key.key: key for key in keys}

    def holds(self, key: ApiKey) -> bool:
        """True while this key is known with the same secret and customer."""
        return self._keys.get(key.key) == key

    def find(self, name: object) -> ApiKey | None:
        """Return the key of that name; anything that is not a known name is None."""
        return self._keys.get(name) if isinstance(name, str) else None

    def first(self) -> ApiKey | None:
        """Return the first key of the configuration, which signs what the relay itself hands out."""
        return next(iter(self._keys.values()), None)
