"""The rules of DESIGN §3 over the whole tree, each with a planted violation that its check must find."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.arch import rules
from tests.arch.rules import ROOT

MAX_LINES = 600


def files(*patterns: str) -> Iterator[tuple[str, str]]:
    """Yield (path from the root, text) of the files of the tree, what was built left out."""
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


CORE = ("ext/relaycore/*.pyx", "ext/relaycore/*.pxd", "ext/relaycore/*.py")
CONTROL = ("relay/**/*.py",)
PYTHON = (*CONTROL, "loadtests/**/*.py", "tests/**/*.py")
SOURCES = (*PYTHON, *CORE, "relay/web/**/*.js")

# Rule, files it looks at, a path and a text that must be found guilty, a text that must not.
RULES: list[tuple[str, Callable[[str, str], list[str]], tuple[str, ...], tuple[str, str], tuple[str, str]]] = [
    (
        "relaycore imports nothing of relay",
        lambda _path, source: rules.core_imports_relay(source),
        CORE,
        ("ext/relaycore/a.pyx", "from libc cimport math\nfrom relay.rooms import room\n"),
        ("ext/relaycore/a.pyx", "from relaycore.rtp cimport parse  # from relay.x import y\n"),
    ),
    (
        "only plane, features, loadtests and tests import relaycore",
        rules.imports_core_from_outside,
        PYTHON,
        ("relay/signaling/a.py", "def f():\n    from relaycore import srtp\n"),
        ("relay/plane/a.py", "import relaycore.worker\n"),
    ),
    (
        "sdp, session, rooms, policy and quality are pure",
        rules.impure_imports,
        CONTROL,
        ("relay/rooms/a.py", "from time import monotonic_ns\n"),
        ("relay/rooms/a.py", "import enum\nfrom relay.errors import Refused\nfrom relay.policy.tiers import x\n"),
    ),
    (
        "pure folders look at nothing above them",
        rules.impure_imports,
        CONTROL,
        ("relay/rooms/a.py", "from relay.plane import Plane\n"),
        ("relay/signaling/a.py", "from relay.plane import Plane\nimport time\n"),
    ),
    (
        "only signaling, server, cluster, observe, plane/feed and features touch the event loop",
        rules.touches_the_loop,
        CONTROL,
        ("relay/plane/commands.py", "import asyncio\n"),
        ("relay/plane/feed.py", "import asyncio\n"),
    ),
    (
        "the relay process loads no codec, no test client, no end-to-end key code",
        rules.forbidden_in_the_relay,
        CONTROL,
        ("relay/session/sctp.py", "from aiortc import rtcsctptransport\n"),
        ("relay/session/sctp.py", "import cffi\nfrom livekit.protocol import rtc\n"),
    ),
    (
        "the relay process never holds what opens frames",
        rules.forbidden_in_the_relay,
        CONTROL,
        ("relay/signaling/publishing.py", "def f():\n    from relay.e2ee import sframe\n"),
        ("relay/e2ee/framing.py", "from relay.e2ee.sframe import Opener\n"),
    ),
    (
        "e2ee stands beside the relay",
        rules.e2ee_beside_the_relay,
        CONTROL,
        ("relay/e2ee/a.py", "from relay.rooms.room import Room\n"),
        ("relay/e2ee/a.py", "from relay.errors import VeilError\nfrom livekit.protocol import models\n"),
    ),
    (
        "loadtests know nothing of relay: they drive any server that speaks the protocol",
        rules.loadtests_import_relay,
        ("loadtests/**/*.py",),
        ("loadtests/a.py", "from relay.sdp import parse\n"),
        ("loadtests/a.py", "from relaycore.loadgen import LoadGenerator\n"),
    ),
    (
        "every C function of ext spells noexcept or except",
        lambda _path, source: rules.unspelled_exceptions(source),
        CORE[:2],
        ("ext/relaycore/a.pyx", "cdef int f(int a,\n           int b) nogil:\n    return a\n"),
        (
            "ext/relaycore/a.pyx",
            "cdef int f(\n    int a) noexcept nogil:\n    cdef int b = g(a)\n"
            "    cdef uint8_t c[sizeof(int)]\n    return b\n"
            "cdef class A(B):\n    cdef int g(self) except -1:\n        return 0\n"
            "cdef tuple h():\n    return ()\ncdef A i():\n    return A()\n",
        ),
    ),
    (
        "extern functions and function pointers spell it too",
        lambda _path, source: rules.unspelled_exceptions(source),
        CORE[:2],
        (
            "ext/relaycore/a.pxd",
            'cdef extern from "a.h" nogil:\n    ctypedef struct T:\n        int x\n    int f(const char* s)\n',
        ),
        (
            "ext/relaycore/a.pxd",
            'cdef extern from "a.h" nogil:\n    enum:\n        A\n    int f(const char* s) noexcept\n\n'
            "ctypedef int (*cb)(int) noexcept nogil\n",
        ),
    ),
    (
        "nothing in ext takes the GIL",
        lambda _path, source: rules.takes_the_gil(source),
        CORE[:2],
        ("ext/relaycore/a.pyx", "cdef void f() noexcept nogil:\n    with gil:\n        print(1)\n"),
        (
            "ext/relaycore/a.pyx",
            '"""A worker never says `with gil`."""\ndef f():\n    with nogil:\n        g()  # no with gil\n',
        ),
    ),
    (
        "no unfinished work without an issue number",
        lambda _path, source: rules.unfinished(source),
        tuple(p for p in (*CONTROL, *CORE, "relay/web/**/*.js", "loadtests/**/*.py")),
        ("relay/a.py", "x = 1  # TODO later\n"),
        ("relay/a.py", "x = 1  # TODO #12: later\n"),
    ),
    (
        "every module says what it is for",
        lambda path, source: ["no docstring"] if rules.lacks_docstring(path, source) else [],
        SOURCES,
        ("relay/a.py", "import os\n"),
        ("relay/__init__.py", ""),
    ),
    (
        f"no file is longer than {MAX_LINES} lines",
        lambda _path, source: [f"{n} lines"] if (n := source.count("\n")) > MAX_LINES else [],
        (*SOURCES, "relay/web/**/*.css", "relay/web/**/*.html", "setup.py", "Makefile"),
        ("relay/a.py", "\n" * (MAX_LINES + 1)),
        ("relay/a.py", "\n" * MAX_LINES),
    ),
    (
        "identifiers use our words",
        lambda _path, source: rules.foreign_words(source),
        (*CONTROL, *CORE),
        ("relay/a.py", "down_track = DownTrack()\n"),
        ("relay/a.py", "# what mediasoup calls a producer\npublication = 1\n"),
    ),
]


@pytest.mark.parametrize(("check", "patterns"), [(r[1], r[2]) for r in RULES], ids=[r[0] for r in RULES])
def test_the_tree_keeps(check: Callable[[str, str], list[str]], patterns: tuple[str, ...]) -> None:
    looked_at = list(files(*patterns))
    assert looked_at, "the rule looked at nothing"
    violations = [f"{path}: {what}" for path, source in looked_at for what in check(path, source)]
    assert not violations, "\n".join(violations)


@pytest.mark.parametrize(("check", "guilty"), [(r[1], r[3]) for r in RULES], ids=[r[0] for r in RULES])
def test_a_planted_violation_is_found(check: Callable[[str, str], list[str]], guilty: tuple[str, str]) -> None:
    assert check(*guilty)


@pytest.mark.parametrize(("check", "innocent"), [(r[1], r[4]) for r in RULES], ids=[r[0] for r in RULES])
def test_what_is_allowed_passes(check: Callable[[str, str], list[str]], innocent: tuple[str, str]) -> None:
    assert check(*innocent) == []


def missing_companions(names: set[str]) -> list[str]:
    """Return what each .pyx lacks: the .pxd that is its contract, the .pyi that type checkers read."""
    stems = {Path(name).stem for name in names if name.endswith(".pyx")}
    return sorted(f"{stem}{end}" for stem in stems for end in (".pxd", ".pyi") if f"{stem}{end}" not in names)


def test_the_data_plane_does_not_know_the_load_generator() -> None:
    """Rule 6 among the modules of ext: what a worker is made of pulls nothing of loadgen into its process."""
    core = ROOT / "ext" / "relaycore"
    for path in [*core.glob("*.pyx"), *core.glob("*.pxd")]:
        if not path.name.startswith(("lg", "loadgen")):
            assert not re.search(r"relaycore\.(lg|loadgen)", path.read_text(encoding="utf-8")), path.name


def test_every_pyx_has_its_pxd_and_pyi() -> None:
    assert missing_companions({path.name for path in (ROOT / "ext" / "relaycore").iterdir()}) == []


def test_a_missing_pyi_is_found() -> None:
    assert missing_companions({"srtp.pyx", "srtp.pxd"}) == ["srtp.pyi"]
