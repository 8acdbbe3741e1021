"""The exceptions of the control plane: what people are told when something cannot be done.

A peer's bad bytes never raise in the data plane (they are counted); these are for the edges, where a person or
an SDK waits for an answer. Every message is a sentence that says what to do next where that is known.
"""


class VeilError(Exception):
    """Base of everything Veil raises on purpose; anything else that escapes is our bug."""


class ConfigError(VeilError):
    """A setting that cannot be used. `source` is the file, variable or flag; `line` its line where there is one."""

    def __init__(self, why: str, *, source: str = "", line: int | None = None) -> None:
        where = f"{source}, line {line}" if source and line is not None else source
        super().__init__(f"{where}: {why}" if where else why)
        self.why = why
        self.source = source
        self.line = line


class Refused(VeilError):
    """A request that is answered with an HTTP status and one sentence, and changes nothing."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
