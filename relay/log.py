"""Structured logs, as text for people or JSON for machines, that never show a secret.

Two nets, because either alone has holes: by name (a field called `password`, `token`, `secret` … is hidden
whatever it holds) and by shape (a JWT, an `a=ice-pwd` line, a PEM key inside any string is cut out, also inside
tracebacks, nested containers and messages of other libraries, whose `logging` records take the same road).
What it does not do: hide addresses or identities, which an operator needs to help people.
"""

import logging
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from typing import Any, Literal, TextIO

import structlog

HIDDEN = "[hidden]"

# A field is hidden when its name contains one of these words ("word" = letters between underscores or dashes).
SECRET_WORDS = frozenset(
    "password passwd pwd passphrase token jwt secret secrets authorization cookie credential credentials keybox salt "
    "ufrag invite".split()
)
# `key` alone is too common a word (a mapping key, an API key's public name), so key material goes by whole names.
SECRET_NAMES = frozenset(
    "receive_key send_key master_key srtp_keys session_key private_key key_material frame_key seed tls_key pem "
    "username_fragment api_secret receive_salt send_salt".split()
)

_WORD = re.compile(r"[a-z0-9]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    # A JWT (RFC 7519): base64url of '{"' is always "eyJ". Cut short ones too: the signature may sit in the next line.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){0,2}"), HIDDEN),
    # SDP (RFC 8839 §5.4) and the JSON and Python spellings of the same two names.
    (re.compile(r"(?i)(\bice-(?:pwd|ufrag)\s*[:=]\s*)[^\s\\\"',;]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)(\bufrag\s+)[A-Za-z0-9+/]{4,}"), rf"\1{HIDDEN}"),
    (
        re.compile(
            r"(?i)([\"']?\b(?:access_token|id_token|token|jwt|invite|usernameFragment|ufrag|password|passwd|pwd|passphrase|secret|"
            r"api_?secret|private_key|(?:receive|send|master|session|frame)_(?:key|salt)|key_material|credential)"
            r"[\"']?\s*(?:=|:)\s*)(\[hidden\]|b?\"(?:[^\"\\]|\\.)*\"|b?'(?:[^'\\]|\\.)*'|[^\s\"',;&)}\]]+)"
        ),
        rf"\1{HIDDEN}",
    ),
    (
        re.compile(r"(?i)(\bauthorization[\"']?\s*[:=]\s*[\"']?(?:bearer|basic)?\s*)[A-Za-z0-9._~+/=-]{8,}"),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)(\bbearer\s+)[A-Za-z0-9._~+/=-]{8,}"), rf"\1{HIDDEN}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S), HIDDEN),
    # SDES keys (RFC 4568) are never used by us, but a client may put them into an offer that is logged.
    (re.compile(r"(?i)(\binline:)[A-Za-z0-9+/=]{16,}"), rf"\1{HIDDEN}"),
)

# What every shape above holds somewhere. A record has eight fields and most are short names of things: one search instead
# of six substitutions takes a line from 150 us to 50.
_SUSPICIOUS = re.compile(r"eyJ|[:=]|-----BEGIN|(?i:ufrag|bearer)")

# Made from a clock behind everything that a caller may add, and full of colons.
_TIMESTAMP = "timestamp"

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["console", "json"]


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """True when a field of this name is hidden whatever its value is."""
    lowered = _CAMEL.sub("_", name).lower()
    return lowered.replace("-", "_") in SECRET_NAMES or not SECRET_WORDS.isdisjoint(
        _WORD.findall(lowered.replace("_", " "))
    )


def redact_text(text: str) -> str:
    """Return `text` with everything that has the shape of a secret replaced by `[hidden]`."""
    if _SUSPICIOUS.search(text) is None:
        return text
    for pattern, replacement in _SHAPES:
        text = pattern.sub(replacement, text)
    return text


def redact(value: Any) -> Any:
    """Return `value` fit for a log: containers walked, strings cleaned, bytes by length, the rest by its repr."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        # Raw bytes are datagrams or keys; neither helps a reader of logs, and nobody can tell them apart here.
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return {str(k): HIDDEN if is_secret_name(str(k)) else redact(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item) for item in value]
    return redact_text(repr(value))


def _redact_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Clean one record just before it is rendered, after tracebacks have become text."""
    for name, value in event.items():
        if name != _TIMESTAMP:
            event[name] = HIDDEN if is_secret_name(name) else redact(value)
    return event


class _Handler(logging.StreamHandler[TextIO]):
    """Writes records. What a full disk or a closed pipe does not take is counted: calls go on without a log."""

    lost = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Count the record where writing failed; anything else is a bug of ours and told as one."""
        if isinstance(sys.exc_info()[1], OSError):
            _Handler.lost += 1
        else:
            super().handleError(record)


def lost_records() -> int:
    """Return how many records could not be written since the process began."""
    return _Handler.lost


def reopen_closed_streams() -> None:
    """Open those of the three standard streams that the caller has closed as /dev/null.

    Otherwise their numbers go to the next sockets: libuv ends the process over that, and what C code prints goes to a peer.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken, which is this one.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))


def flush_or_forget(stream: TextIO) -> None:
    """Write out what a stream of the process still holds, or nowhere: Python ends with 120 where it cannot."""
    try:
        stream.flush()
    except OSError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


def configure(level: Level = "info", format: Format = "console", stream: TextIO | None = None) -> None:
    """Send the logs of Veil and of the libraries under it, cleaned, to `stream` (standard error)."""
    out = stream if stream is not None else sys.stderr
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    render: Any
    if format == "json":
        render = structlog.processors.JSONRenderer()
    else:
        # Tracebacks are already plain text here: rich ones print local variables, which hold keys.
        render = structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = _Handler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _redact_event, render],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        if getattr(old, "veil_handler", False):
            root.removeHandler(old)
    handler.veil_handler = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(level.upper())
    # A line per HTTP request at "info" would drown the rest; our own edge logs what matters.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def get_logger(name: str) -> Any:
    """Return a logger: `get_logger(__name__).info("participant joined", room=..., identity=...)`."""
    return structlog.get_logger(name)
