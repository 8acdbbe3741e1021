"""From a tree of values to frozen dataclasses, and from dataclasses to an explained example file.

Knows nothing of any particular setting: `relay.config` says what there is. A value is checked one by one against
the type of its field (msgspec), so that an error can name the setting, its place and what is allowed.
"""

import dataclasses
import difflib
import json
import re
import textwrap
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from msgspec import Meta

from relay.errors import ConfigError
from relay.toml_lines import Path, find_lines

MISSING = dataclasses.MISSING


def option(default: Any, why: str, *, show: bool = True) -> Any:
    """Return a dataclass field with its reason, which the example prints. `show=False` keeps it out of the repr."""
    metadata = {"why": why}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: default, metadata=metadata, repr=show)
    return field(default=default, metadata=metadata, repr=show)


def table(cls: type) -> Any:
    """Return a dataclass field for a table of settings; its reason is the docstring of its class."""
    return field(default_factory=cls, metadata={"why": (cls.__doc__ or "").strip()})


@dataclass
class Tree:
    """Values as they were found, and where: `places` maps a path to (source, line)."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Path, tuple[str, int | None]] = field(default_factory=dict)

    def place(self, path: Path) -> tuple[str, int | None]:
        """Return where the value came from, or the nearest table around it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return "", None

    def wrong(self, path: Path, why: str) -> ConfigError:
        """Return the error for this setting, with its place."""
        source, line = self.place(path)
        return ConfigError(f"{spell(path)} {why}", source=source, line=line)

    def put(self, path: Path, value: Any, source: str) -> None:
        """Set one value over whatever was there, as the environment and flags do."""
        table = self.values
        for end, part in enumerate(path[:-1], 1):
            table = table.setdefault(str(part), {})
            if not isinstance(table, dict):
                raise self.wrong(path[:end], f"is a table, not {shown(table, path[:end])}")
        table[str(path[-1])] = value
        self.places[path] = (source, None)


def spell(path: Path) -> str:
    """Return a path as people write it: server.http_port, keys[0].secret (counted from 1 in the text: `keys #1`)."""
    text = ""
    for part in path:
        text += f" #{part + 1}" if isinstance(part, int) else f".{part}" if text else part
    return text


def parse_toml(text: str, source: str) -> Tree:
    """Return the values of a TOML file with their lines.   Errors: ConfigError with the line of bad syntax."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at (?:line (\d+)|end of document)", str(error))
        line = int(at[1]) if at and at[1] else len(text.splitlines()) if at else None
        why = re.sub(r"\s*\(at .*\)$", "", str(error))
        raise ConfigError(f"this is not TOML: {why}", source=source, line=line) from None
    except (RecursionError, ValueError) as error:
        # Brackets by the thousand; a number of thousands of digits.
        raise ConfigError(f"this cannot be read: {error}", source=source) from None
    return Tree(values, {path: (source, line) for path, line in find_lines(text).items()})


def section_types(cls: type) -> dict[str, Any]:
    """Return the type of each field, constraints included."""
    return typing.get_type_hints(cls, include_extras=True)


def build(cls: type, table: Any, tree: Tree, path: Path = ()) -> Any:
    """Return a `cls` from `table`.   Errors: ConfigError for unknown, missing and wrong settings."""
    if not isinstance(table, Mapping):
        raise tree.wrong(path, f"is a table, not {shown(table, path)}")
    hints = section_types(cls)
    known = {f.name: f for f in dataclasses.fields(cls) if f.init and "why" in f.metadata}
    for name in table:
        if name not in known:
            raise unknown(name, known, tree, (*path, name))
    arguments = {}
    for name, spec in known.items():
        if name in table:
            arguments[name] = convert(table[name], hints[name], tree, (*path, name))
        elif spec.default is MISSING and spec.default_factory is MISSING:
            raise tree.wrong(path, f"lacks {name}. {spec.metadata['why']}")
    return cls(**arguments)


def unknown(name: str, known: typing.Iterable[str], tree: Tree, path: Path) -> ConfigError:
    """Return the error for a name that means nothing here, with what it may have meant."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        hint = f"did you mean {' or '.join(close)}?"
    else:
        hint = f"known here: {', '.join(known)}."
    return tree.wrong(path, f"is not a setting; {hint}")


def convert(value: Any, hint: Any, tree: Tree, path: Path) -> Any:
    """Return `value` as the type of a field wants it; tables and lists of tables are built, the rest is msgspec's."""
    bare = strip(hint)
    origin, arguments = typing.get_origin(bare), typing.get_args(bare)
    if dataclasses.is_dataclass(bare):
        return build(bare, value, tree, path)
    if origin is tuple and dataclasses.is_dataclass(arguments[0]):
        if not isinstance(value, list | tuple):
            raise tree.wrong(path, f"is a list of tables: write [[{spell(path)}]]")
        return tuple(build(arguments[0], item, tree, (*path, index)) for index, item in enumerate(value))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise tree.wrong(path, f"is a table, not {shown(value, path)}")
        return types.MappingProxyType(
            {key: convert(item, arguments[1], tree, (*path, key)) for key, item in value.items()}
        )
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError:
        raise tree.wrong(path, f"cannot be {shown(value, path)}; allowed: {allowed(hint)}.") from None


def shown(value: Any, path: Path) -> str:
    """Return a value as an error may show it: whatever may be, or hold, a secret is not repeated."""
    if path[-1:] == ("secret",) or path[:1] == ("keys",) and len(path) <= 2:
        return "the value given"
    return json.dumps(value, default=str)


def from_text(text: str, hint: Any) -> Any:
    """Return what a variable or flag means for a field of this type; what cannot be read stays text, to be refused."""
    bare = strip(hint)
    origin = typing.get_origin(bare)
    if bare is bool:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower(), text)
    if bare is int:
        return int(text) if re.fullmatch(r"-?\d{1,18}", text) else text
    if origin is tuple:
        return [item.strip() for item in text.split(",") if item.strip()]
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        pairs = [item.partition("=") for item in text.split(",") if item.strip()]
        return {key.strip(): value.strip() for key, _, value in pairs}
    return text


def strip(hint: Any) -> Any:
    """Return the type without its constraints."""
    return typing.get_args(hint)[0] if hasattr(hint, "__metadata__") else hint


def allowed(hint: Any) -> str:
    """Say in words what values a field of this type takes."""
    bare = strip(hint)
    meta = next((m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Meta)), Meta())
    if meta.description:
        return meta.description
    if typing.get_origin(bare) is Literal:
        return ", ".join(json.dumps(choice) for choice in typing.get_args(bare))
    if typing.get_origin(bare) is tuple and typing.get_origin(typing.get_args(bare)[0]) is Literal:
        return f"a list of {allowed(typing.get_args(bare)[0])}"
    if typing.get_origin(bare) is tuple:
        return 'a list of texts, such as ["a", "b"]'
    if bare is bool:
        return "true or false"
    if bare is int:
        low, high = meta.ge, meta.le
        if low is not None and low == high:
            return f"only {low}"
        return f"a whole number from {low} to {high}" if low is not None else "a whole number"
    return "a text"


def render(cls: type, width: int = 116) -> str:
    """Return an example file: every setting at its default with its reason, as comments where no default exists."""
    out: list[str] = []
    for spec in dataclasses.fields(cls):
        if "why" not in spec.metadata:
            continue
        bare = strip(section_types(cls)[spec.name])
        origin, arguments = typing.get_origin(bare), typing.get_args(bare)
        comment = _comment(spec.metadata["why"], width)
        default = spec.default_factory() if spec.default_factory is not MISSING else spec.default
        if dataclasses.is_dataclass(bare):
            out += [*comment, f"[{spec.name}]", *_settings(bare, default, width), ""]
        elif origin is tuple and dataclasses.is_dataclass(arguments[0]):
            body = [f"[[{spec.name}]]", *_settings(arguments[0], None, width)]
            out += [*comment, *(line if line.startswith("#") else f"# {line}" for line in body if line), ""]
        elif origin is not None and issubclass(origin, Mapping):
            out += comment
            for number, (name, item) in enumerate(default.items()):
                lines = _settings(arguments[1], item, width)
                # Explained once.
                lines = [line for line in lines if line and not line.startswith("#")] if number else lines
                out += [f"[{spec.name}.{name}]", *lines, ""]
    return "\n".join(out)


def _settings(cls: type, instance: Any, width: int) -> list[str]:
    lines: list[str] = []
    for spec in dataclasses.fields(cls):
        hint = section_types(cls)[spec.name]
        lines += ["", *_comment(f"{spec.metadata['why']}{_range(hint)}", width)]
        if instance is not None:
            lines.append(f"{spec.name} = {_toml(getattr(instance, spec.name))}")
        elif spec.default is MISSING:
            lines.append(f'{spec.name} = ""')
        else:
            lines.append(f"{spec.name} = {_toml(spec.default)}")
    return lines[1:]


def _range(hint: Any) -> str:
    is_text = strip(hint) is str and not hasattr(hint, "__metadata__")
    is_open = typing.get_origin(strip(hint)) in (tuple, Mapping) or strip(hint) is Mapping
    origin = typing.get_origin(strip(hint))
    if is_text or is_open or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return ""
    return f" Allowed: {allowed(hint)}."


def _comment(text: str, width: int) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, width - 2, break_long_words=False, break_on_hyphens=False)]


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value)
