"""Finds the line on which a TOML key is written, because tomllib keeps no positions and an error needs one.

A scan, not a parser: tomllib has already accepted (or refused) the text. It understands table headers, dotted and
quoted keys, arrays of tables, multi-line strings and arrays; an inline table's keys share their owner's line.
"""

import re

Path = tuple[str | int, ...]

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_KEY = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_KEY})\s*\]\]?")
_ASSIGNMENT = re.compile(rf"\s*({_KEY})\s*=\s*(.*)", re.S)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'')


def find_lines(text: str) -> dict[Path, int]:
    """Return the line, from 1, of every table and key; array elements are numbered: ("keys", 0, "secret")."""
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    skip_until = ""  # the closing quotes of a multi-line string
    depth = 0  # open brackets of a multi-line array
    for number, line in enumerate(text.splitlines(), 1):
        if skip_until:
            if skip_until in line:
                skip_until = ""
            continue
        if depth > 0:
            depth += _bracket_balance(line)
            continue
        if header := _HEADER.match(line):
            table = _enter(split_key(header[2]), header[1] == "[[", counts)
            lines.setdefault(table, number)
            # The array itself, for errors about all of it.
            if table and isinstance(table[-1], int):
                lines.setdefault(table[:-1], number)
        elif assignment := _ASSIGNMENT.match(line):
            lines.setdefault(table + tuple(split_key(assignment[1])), number)
            value = assignment[2]
            for quotes in ('"""', "'''"):
                if value.startswith(quotes) and quotes not in value[3:]:
                    skip_until = quotes
            if not skip_until:
                depth = max(0, _bracket_balance(value))
    return lines


def split_key(dotted: str) -> list[str]:
    """Split `a."b.c".d` into its parts, unquoted."""
    return [part[1:-1] if part[0] in "\"'" else part for part in re.findall(_PART, dotted)]


def line_of(path: Path, lines: dict[Path, int]) -> int | None:
    """Return the line of the key, or of the nearest table around it."""
    for end in range(len(path), 0, -1):
        if path[:end] in lines:
            return lines[path[:end]]
    return None


def _enter(parts: list[str], is_array: bool, counts: dict[Path, int]) -> Path:
    """Return the full path of a table header: parts that name an array of tables gain the index of its last element."""
    path: Path = ()
    for position, part in enumerate(parts):
        path += (part,)
        if is_array and position == len(parts) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path += (counts[path],)
    return path


def _bracket_balance(line: str) -> int:
    bare = _STRING.sub("", line).split("#", 1)[0]
    return bare.count("[") - bare.count("]")
