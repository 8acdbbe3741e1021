"""The text of a session description: lines in, lines out, nothing interpreted beyond the shape of each line.

RFC 8866 §5 and §9 for the lines, with what RFC 9429 §5 narrows for WebRTC. What an attribute means is media.py's;
unknown attributes are kept as they came. Order inside a block is read liberally, since clients edit descriptions by
hand, and written as RFC 8866 asks; a line letter that RFC 8866 does not know is refused, as it demands.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from relay.sdp.errors import SdpError

# A browser in a call with a hundred others writes about 150 kB.
MAX_BYTES = 262_144
# Longest line seen is a Chromium candidate or extmap below 200 bytes; eight thousand leave room for long fmtp values.
MAX_LINE_CHARACTERS = 8_192
# An m-line is a track; nobody can show more than a few dozen, and removed ones stay as dead lines.
MAX_SECTIONS = 256

# Attributes of one block; Chromium writes up to 200 for a video section. It bounds the time that a hostile description
# of the largest size costs, since a session's attributes are looked through once per section.
MAX_ATTRIBUTES = 1_024

# Order in which RFC 8866 §5 wants the lines of each block; `a=` comes after all of these.
SESSION_ORDER = "iuepcbtrzk"
SECTION_ORDER = "icbk"
REPEATABLE = "epbtrca"

_TOKEN = frozenset("!#$%&'*+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz{|}~")


@dataclass(frozen=True, slots=True)
class Attribute:
    """One `a=` line; `value` is None for a flag. `line` counts from 1, 0 for lines of our own making."""

    name: str
    value: str | None = None
    line: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"a={self.name}" if self.value is None else f"a={self.name}:{self.value}"


@dataclass(frozen=True, slots=True)
class Origin:
    """The `o=` line (RFC 8866 §5.2). The session id is kept as digits: browsers write up to 20 of them."""

    username: str
    session_id: str
    version: str
    network: str
    address_type: str
    address: str

    def __str__(self) -> str:
        return " ".join((self.username, self.session_id, self.version, self.network, self.address_type, self.address))


class _Attributes:
    """Look-ups both blocks share; expects `attributes`."""

    __slots__ = ()

    attributes: tuple[Attribute, ...]

    def all(self, name: str) -> Iterator[Attribute]:
        """Yield every attribute of that name, in order."""
        return (attribute for attribute in self.attributes if attribute.name == name)

    def first(self, name: str) -> Attribute | None:
        """Return the first attribute of that name. Repetition of one that stands once is ignored, as browsers do."""
        return next(self.all(name), None)

    def has(self, name: str) -> bool:
        return self.first(name) is not None


@dataclass(frozen=True, slots=True)
class MediaSection(_Attributes):
    """One `m=` line and what follows it. `lines` are its i, c, b and k lines as (letter, value)."""

    media: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    attributes: tuple[Attribute, ...] = ()
    lines: tuple[tuple[str, str], ...] = ()
    port_count: int | None = None
    line: int = field(default=0, compare=False)

    def __str__(self) -> str:
        ports = str(self.port) if self.port_count is None else f"{self.port}/{self.port_count}"
        head = " ".join((f"m={self.media}", ports, self.protocol, *self.formats))
        return _joined([head, *_ordered(self.lines, SECTION_ORDER), *map(str, self.attributes)])


@dataclass(frozen=True, slots=True)
class SessionDescription(_Attributes):
    """A whole description. `lines` are the session's lines between `s=` and its attributes as (letter, value).

    `str()` gives the text with CRLF line ends; parse(str(d)) == d for every description whose lines are in order.
    """

    origin: Origin
    name: str = "-"
    lines: tuple[tuple[str, str], ...] = (("t", "0 0"),)
    attributes: tuple[Attribute, ...] = ()
    sections: tuple[MediaSection, ...] = ()

    def __str__(self) -> str:
        head = ["v=0", f"o={self.origin}", f"s={self.name}"]
        session = _joined([*head, *_ordered(self.lines, SESSION_ORDER), *map(str, self.attributes)])
        return session + "".join(map(str, self.sections))


def parse(text: str | bytes) -> SessionDescription:
    """Read a description.

    Spec: RFC 8866 §9.   Shape: lines end in CRLF or LF; blank lines only at the end.
    Errors: SdpError with the line and what it may be; beyond the limits above without reading further.
    """
    return _Reader(_numbered_lines(text)).description()


def is_token(text: str) -> bool:
    """True for RFC 8866's `token`: visible ASCII without separators."""
    return bool(text) and _TOKEN.issuperset(text)


def read_number(text: str, most: int, what: str, line: int | None = None) -> int:
    """Return a decimal from 0 to `most`.   Errors: SdpError; only ASCII digits, and not more than fit."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and int(text) <= most):
        raise SdpError(f"{what} is a number from 0 to {most}, not {shortened(text)}", line or None)
    return int(text)


def shortened(text: str) -> str:
    """Return a peer's text fit for a message of ours."""
    return repr(text) if len(text) <= 40 else repr(text[:37] + "...")


def _joined(lines: list[str]) -> str:
    return "".join(line + "\r\n" for line in lines)


def _ordered(lines: tuple[tuple[str, str], ...], order: str) -> list[str]:
    # t= and r= stay as they stand: an r= belongs to the t= before it (RFC 8866 §5.10).
    def rank(entry: tuple[str, str]) -> int:
        return order.index("t" if entry[0] == "r" and "t" in order else entry[0])

    return [f"{letter}={value}" for letter, value in sorted(lines, key=rank)]


def _numbered_lines(text: str | bytes) -> list[tuple[int, str, str]]:
    if isinstance(text, bytes):
        # Bytes first: what is refused for its size should not be decoded.
        _refuse_size(len(text))
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise SdpError("a description is UTF-8 text") from None
    else:
        # Characters bound bytes from below, and encoding is only worth it for what may pass.
        _refuse_size(len(text))
        try:
            _refuse_size(len(text.encode()))
        except UnicodeEncodeError:
            raise SdpError("a description is UTF-8 text") from None
    lines = []
    blank = 0
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if not line:
            blank = blank or number
            continue
        if blank:
            raise SdpError("an empty line stands only at the end", blank)
        if len(line) > MAX_LINE_CHARACTERS:
            raise SdpError(f"a line has at most {MAX_LINE_CHARACTERS} characters", number)
        if len(line) < 2 or line[1] != "=":
            raise SdpError(f"a line is a letter, '=' and a value, not {shortened(line)}", number)
        if "\0" in line or "\r" in line:
            raise SdpError("a line has no NUL and no CR inside", number)
        lines.append((number, line[0], line[2:]))
    return lines


def _refuse_size(size: int) -> None:
    if size > MAX_BYTES:
        raise SdpError(f"a description has at most {MAX_BYTES} bytes, not {size}")


class _Reader:
    """Walks the lines once, front to back."""

    def __init__(self, lines: list[tuple[int, str, str]]) -> None:
        self._lines = lines
        self._next = 0

    def description(self) -> SessionDescription:
        line, version = self._take("v")
        if version != "0":
            raise SdpError(f"the version is 0, not {shortened(version)}", line)
        origin = _read_origin(*self._take("o"))
        _, name = self._take("s")
        lines, attributes = self._block(SESSION_ORDER)
        if not any(letter == "t" for letter, _ in lines):
            raise SdpError("a t= line is missing", self._line())
        sections = []
        while self._letter() == "m":
            if len(sections) == MAX_SECTIONS:
                raise SdpError(f"a description has at most {MAX_SECTIONS} m= lines", self._line())
            sections.append(self._section())
        return SessionDescription(origin, name, lines, attributes, tuple(sections))

    def _section(self) -> MediaSection:
        line, value = self._take("m")
        parts = value.split(" ")
        if len(parts) < 4 or not all(parts):
            raise SdpError("an m= line is: media port protocol format…, one space between", line)
        media, ports, protocol, *formats = parts
        if not (is_token(media) and all(map(is_token, protocol.split("/"))) and all(map(is_token, formats))):
            raise SdpError("media, protocol and formats of an m= line are tokens", line)
        port, slash, count = ports.partition("/")
        lines, attributes = self._block(SECTION_ORDER)
        return MediaSection(
            media,
            read_number(port, 65_535, "a port", line),
            protocol,
            tuple(formats),
            attributes,
            lines,
            read_number(count, 65_535, "a number of ports", line) if slash else None,
            line,
        )

    def _block(self, letters: str) -> tuple[tuple[tuple[str, str], ...], tuple[Attribute, ...]]:
        lines: list[tuple[str, str]] = []
        attributes = []
        seen = set()
        while (letter := self._letter()) not in ("m", ""):
            line, value = self._line(), self._lines[self._next][2]
            self._next += 1
            if letter == "a":
                if len(attributes) == MAX_ATTRIBUTES:
                    raise SdpError(f"a block has at most {MAX_ATTRIBUTES} attributes", line)
                attributes.append(_read_attribute(value, line))
                continue
            if letter not in letters:
                raise SdpError(f"{letter}= does not stand here; allowed are {_listed(letters + 'am')}", line)
            if letter in seen and letter not in REPEATABLE:
                raise SdpError(f"{letter}= stands once", line)
            seen.add(letter)
            lines.append((letter, value))
        return tuple(lines), tuple(attributes)

    def _take(self, letter: str) -> tuple[int, str]:
        if self._letter() != letter:
            found = f"not {self._letter()}=" if self._letter() else "but the description ends"
            raise SdpError(f"{letter}= has to stand here, {found}", self._line())
        line, _, value = self._lines[self._next]
        self._next += 1
        return line, value

    def _letter(self) -> str:
        return self._lines[self._next][1] if self._next < len(self._lines) else ""

    def _line(self) -> int:
        if self._next < len(self._lines):
            return self._lines[self._next][0]
        return len(self._lines) + 1


def _read_origin(line: int, value: str) -> Origin:
    parts = value.split(" ")
    if len(parts) != 6 or not all(parts):
        raise SdpError("an o= line is: user id version IN IP4|IP6 address", line)
    origin = Origin(*parts)
    for number in (origin.session_id, origin.version):
        if not (number.isascii() and number.isdigit()):
            raise SdpError("session id and version of an o= line are numbers", line)
    return origin


def _read_attribute(text: str, line: int) -> Attribute:
    name, colon, value = text.partition(":")
    if not is_token(name):
        raise SdpError(f"an attribute's name is a token, not {shortened(name)}", line)
    return Attribute(name, value if colon else None, line)


def _listed(letters: str) -> str:
    return " ".join(f"{letter}=" for letter in letters)
