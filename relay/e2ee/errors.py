"""What opening a frame may fail with. A frame that came before is no failure: opening it gives None."""

from relay.errors import VeilError


class OpenFailed(VeilError):
    """The frame was not opened, and nothing of it may be shown."""


class Malformed(OpenFailed):
    """These bytes are not of the format."""


class UnknownKey(OpenFailed):
    """No key is known by the number the frame names; it may still be on its way."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"no key is known by number {number}.")


class NotAuthentic(OpenFailed):
    """The key does not fit, or somebody changed the frame."""

    def __init__(self) -> None:
        super().__init__("the frame was not sealed with this key, or was changed on its way.")


class KeyExhausted(VeilError):
    """Every counter of this key was used; another would repeat a nonce."""
