"""The direction and house rules as plain functions of source text: each returns the violations it sees.

They take text, not files, so that every rule's test can show a planted violation being found. Cython is not parsed
but scanned: comments and strings are blanked first, then statements are joined over their brackets.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Rule 3: what pure code may not import. `relay.clock` is here because a hidden clock is a clock.
IMPURE = frozenset(
    {"asyncio", "socket", "time", "random", "selectors", "threading", "uvloop", "aiohttp", "relay.clock"}
)
PURE_FOLDERS = ("sdp", "session", "rooms", "policy", "quality")
# What pure code may see of the rest of relay.
PURE_MAY_IMPORT = frozenset({"errors", "ids", "events", "config", *PURE_FOLDERS})
# Rule 4: where the event loop may be touched.
LOOP_MODULES = frozenset({"asyncio", "uvloop", "aiohttp"})
LOOP_PLACES = ("signaling/", "server.py", "cluster/", "observe/", "plane/feed.py", "features/")
# Rule 2 and rule 6.
CORE_IMPORTERS = ("relay/plane/", "relay/features/", "loadtests/", "tests/")
NEVER_IN_THE_RELAY = frozenset(
    {"aiortc", "av", "livekit.rtc", "locust", "playwright", "relay.e2ee", "relaycore.frameseal", "relaycore.loadgen"}
)
# DESIGN §10: words of other projects that would blur ours.
FOREIGN_WORDS = re.compile(r"(?i)(downtrack|uptrack|munger|forwarder|sniff|producer)")


def imported(source: str) -> list[tuple[int, str]]:
    """Return (line, module) of every import of a Python file; `from a import b` gives both a and a.b."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append((node.lineno, node.module))
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.lineno, f"relative import of {alias.name}") for alias in node.names]
    return found


def is_within(module: str, package: str) -> bool:
    """True when `module` is `package` or lies in it."""
    return module == package or module.startswith(package + ".")


def core_imports_relay(source: str) -> list[str]:
    """Rule 1: the data plane knows nothing of the control plane (.pyx, .pxd or .py text)."""
    pattern = re.compile(r"^\s*(?:from|import|cimport)\s+relay(?:\.|\s|$)", re.M)
    return [f"line {line_at(source, m.start())}: {m[0].strip()}" for m in pattern.finditer(blank(source))]


def imports_core_from_outside(path: str, source: str) -> list[str]:
    """Rule 2: only the plane, the features, load tests and tests import relaycore."""
    if path.startswith(CORE_IMPORTERS):
        return []
    return [f"line {line}: {module}" for line, module in imported(source) if is_within(module, "relaycore")]


def impure_imports(path: str, source: str) -> list[str]:
    """Rules 3 and 5: pure folders import no clock, loop, socket or chance, and nothing above themselves."""
    parts = path.split("/")
    if parts[0] != "relay" or parts[1] not in PURE_FOLDERS:
        return []
    wrong = []
    for line, module in imported(source):
        is_above = is_within(module, "relay") and module != "relay" and module.split(".")[1] not in PURE_MAY_IMPORT
        if is_above or any(is_within(module, name) for name in IMPURE):
            wrong.append(f"line {line}: {module}")
    return wrong


def touches_the_loop(path: str, source: str) -> list[str]:
    """Rule 4: who may touch the event loop."""
    inside = path.removeprefix("relay/")
    if inside == path or inside.startswith(LOOP_PLACES):
        return []
    return [
        f"line {line}: {module}" for line, module in imported(source) if any(is_within(module, m) for m in LOOP_MODULES)
    ]


def forbidden_in_the_relay(path: str, source: str) -> list[str]:
    """Rule 6: no codec, no test client, no end-to-end key code in the relay process."""
    if not path.startswith("relay/") or path.startswith(("relay/features/", "relay/e2ee/")):
        return []
    return [
        f"line {line}: {module}"
        for line, module in imported(source)
        if any(is_within(module, m) for m in NEVER_IN_THE_RELAY)
    ]


def e2ee_beside_the_relay(path: str, source: str) -> list[str]:
    """What clients encrypt with is theirs: it needs nothing of the relay but the base of its errors, and no codec."""
    if not path.startswith("relay/e2ee/"):
        return []
    theirs = NEVER_IN_THE_RELAY - {"relay.e2ee"}
    return [
        f"line {line}: {module}"
        for line, module in imported(source)
        if is_within(module, "relay") and module != "relay" and module.split(".")[1] not in ("e2ee", "errors")
        or is_within(module, "relaycore")
        or any(is_within(module, m) for m in theirs)
    ]


def loadtests_import_relay(path: str, source: str) -> list[str]:
    """Load tests judge servers from outside, so nothing of ours may help them or be tested by itself."""
    if not path.startswith("loadtests/"):
        return []
    return [
        f"line {line}: {module}"
        for line, module in imported(source)
        if is_within(module, "relay") or is_within(module, "tests")
    ]


# --- Cython -----------------------------------------------------------------------------------------------------


def blank(source: str) -> str:
    """Return the source with comments and the inside of strings replaced by blanks, line numbers kept."""
    token = re.compile(
        r'"""(?:[^\\]|\\.)*?"""|\'\'\'(?:[^\\]|\\.)*?\'\'\'|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|#[^\n]*', re.S
    )
    return token.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), source)


def line_at(source: str, offset: int) -> int:
    """Return the line, from 1, of an offset."""
    return source.count("\n", 0, offset) + 1


def statements(source: str) -> Iterator[tuple[int, int, str]]:
    """Yield (line, indent, text) of every statement, joined over open brackets."""
    held, start, indent, depth = "", 0, 0, 0
    for number, line in enumerate(blank(source).splitlines(), 1):
        if not held:
            if not line.strip():
                continue
            start, indent = number, len(line) - len(line.lstrip())
        held += " " + line.strip().rstrip("\\")
        depth = sum(held.count(c) for c in "([{") - sum(held.count(c) for c in ")]}")
        if depth <= 0 and not line.rstrip().endswith("\\"):
            yield start, indent, held.strip()
            held = ""


# A C function's head: a type, a name, an opening bracket, with no `=` or `[` before it.
_FUNCTION = re.compile(
    r"^(?:cdef|cpdef)\s+(?!class\b|struct\b|enum\b|union\b|extern\b|cppclass\b)[\w\s.*&,]*?\b\w+\s*\("
)
_POINTER = re.compile(r"^(?:ctypedef|cdef)\b.*\(\s*\*\s*\w*\s*\)\s*\(")
_EXTERN_FUNCTION = re.compile(r"^(?!struct\b|enum\b|union\b|ctypedef\b|cdef\b)[\w\s.*&]+?\b\w+\s*\(.*\)")
_CLAUSE = re.compile(r"\)\s*(?:noexcept\b|except\b)")
# A function that returns a Python object tells an exception by NULL; Cython forbids the clause there.
_RETURNS_OBJECT = re.compile(
    r"^(?:cdef|cpdef)\s+(?:inline\s+)?(?:object|bytes|bytearray|str|tuple|list|dict|set|memoryview|type)\s+\w+\s*\("
)


def unspelled_exceptions(source: str) -> list[str]:
    """Rule 7: every C function says noexcept or except, in extern blocks too."""
    wrong = []
    classes = set(re.findall(r"^cdef class (\w+)", blank(source), re.M))
    extern_indent: int | None = None
    for line, indent, text in statements(source):
        if extern_indent is not None and indent <= extern_indent:
            extern_indent = None
        if re.match(r"cdef\s+extern\b", text):
            extern_indent = indent
            continue
        is_function = _FUNCTION.match(text) or _POINTER.match(text)
        if extern_indent is not None and not is_function:
            is_function = _EXTERN_FUNCTION.match(text)
        words = re.findall(r"\w+", text.split("(")[0])
        returns_object = _RETURNS_OBJECT.match(text) or (len(words) >= 3 and words[-2] in classes)
        if is_function and not returns_object and not _CLAUSE.search(text):
            wrong.append(f"line {line}: {text[:100]}")
    return wrong


def takes_the_gil(source: str) -> list[str]:
    """Rule 8: nothing in ext asks for the GIL."""
    pattern = re.compile(r"\bwith\s+gil\b|\bPyGILState_\w+|\bPyEval_\w+")
    # C text inside `cdef extern from *` is a string to Cython, so the raw source counts; comments do not.
    bare = re.sub(r"#(?!\s*include)[^\n]*", lambda m: " " * len(m[0]), source)
    in_prose = [m.span() for m in re.finditer(r'"""(?!\s*\n?\s*[#/a-z{]).*?"""', source, re.S)]
    hits = [m for m in pattern.finditer(bare) if not any(a <= m.start() < b for a, b in in_prose)]
    return [f"line {line_at(source, m.start())}: {m[0]}" for m in hits]


# --- house ------------------------------------------------------------------------------------------------------


def unfinished(source: str) -> list[str]:
    """Return markers of unfinished work that name no issue."""
    pattern = re.compile(r"\b(?:TODO|FIXME|XXX)\b(?![^\n]*#\d+)|\bNotImplementedError\b")
    return [f"line {line_at(source, m.start())}: {m[0]}" for m in pattern.finditer(source)]


def lacks_docstring(path: str, source: str) -> bool:
    """True for a module that does not begin with a sentence about its purpose; an empty __init__ needs none."""
    body = source.lstrip()
    if not body:
        return not path.endswith(("__init__.py", "__init__.pxd"))
    if path.endswith(".js"):
        return not body.startswith(("/*", "//"))
    body = re.sub(r"\A(?:#[^\n]*\n\s*)+", "", body)
    opening = re.match(r'[rR]?"""(.{12,})', body)
    return opening is None


def foreign_words(source: str) -> list[str]:
    """DESIGN §10: identifiers in the words of other projects."""
    names = re.finditer(r"\b[A-Za-z_]\w*\b", blank(source))
    return [f"line {line_at(source, m.start())}: {m[0]}" for m in names if FOREIGN_WORDS.search(m[0])]
