"""What a session description can be refused for, and what our own callers can do out of turn."""

from relay.errors import VeilError


class SdpError(VeilError):
    """A description that cannot be used. `line` counts from 1, None where the fault is in no single line."""

    def __init__(self, why: str, line: int | None = None) -> None:
        super().__init__(why if line is None else f"line {line}: {why}")
        self.why = why
        self.line = line


class InvalidState(VeilError):
    """Our own mistake in the order of calls: a second offer before the answer, an answer without an offer."""
