"""Test vectors on disk: tests/vectors/<topic>/vectors.toml names each .bin file, its source and what is expected of it."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent / "vectors"


@dataclass(frozen=True)
class Vector:
    name: str
    data: bytes
    expect: dict[str, Any]
    """Keys as the parser's test face gives them, bytes written in hex."""
    error: str | None
    """Name of the error code that a bad vector gives."""

    def __str__(self) -> str:
        return self.name


def load(topic: str) -> list[Vector]:
    """All vectors of a topic, in the order of its table."""
    folder = ROOT / topic
    table = tomllib.loads((folder / "vectors.toml").read_text())
    return [
        Vector(
            name=entry["file"].removesuffix(".bin"),
            data=(folder / entry["file"]).read_bytes(),
            expect=entry.get("expect", {}),
            error=entry.get("error"),
        )
        for entry in table["vector"]
    ]


def good(topic: str) -> list[Vector]:
    return [vector for vector in load(topic) if vector.error is None]


def bad(topic: str) -> list[Vector]:
    return [vector for vector in load(topic) if vector.error is not None]


def plain(value: Any) -> Any:
    """A parser's result in the form of the table: bytes as hex, tuples as lists, absent fields left out."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
