"""Targets with a bug on purpose, and one without: they show that the runner notices. Not found by the default search."""

import ctypes

MAGIC = 0xFF


def _is_magic(data: bytes) -> bool:
    return len(data) > 4 and data[:4] == b"VEIL" and data[4] == MAGIC


def seeds_planted_death() -> list[bytes]:
    return [b"VEIL\x00\x00"]


seeds_planted_exception = seeds_planted_hang = seeds_planted_refusal = seeds_planted_death


def fuzz_planted_death(data: bytes) -> None:
    """Reads address 0, as a parser in C might."""
    if _is_magic(data):
        ctypes.string_at(0)


def fuzz_planted_exception(data: bytes) -> None:
    if _is_magic(data):
        raise KeyError("planted")


def fuzz_planted_hang(data: bytes) -> None:
    while _is_magic(data):
        pass


def fuzz_planted_refusal(data: bytes) -> None:
    """Refusing bytes is what parsers are for."""
    if _is_magic(data):
        raise UnicodeError("refused")
