"""The tests of the wire formats, of ICE and of captures turn red when a safeguard is taken out: each mutant is built and must be found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import relaycore

# A compiler run for each.
pytestmark = pytest.mark.matrix

ROOT = Path(__file__).parents[3]
CORE = ROOT / "ext/relaycore"
HERE = Path(__file__).parent
BUILT = ("be", "errs", "seq", "rtp", "hdrext", "rtcp", "stun", "icelite", "twcc")
# Tested through a whole engine.
NEED_ALL = ("capture", "markprobe", "codecheads", "receive", "forward", "engine", "halt", "mirrors", "tcp")

# name: (module, what stands there, what the mutant puts there)
MUTANTS = {
    "MESSAGE-INTEGRITY is not compared": (
        "stun",
        "if CRYPTO_memcmp(digest, buf + offset + 4, SHA1_BYTES) != 0:",
        "if False:",
    ),
    "a request without MESSAGE-INTEGRITY passes": (
        "stun",
        "if offset == 0 or",
        "if offset == 0:\n        return E_OK\n    if",
    ),
    "attributes behind MESSAGE-INTEGRITY count": ("stun", "elif out.integrity_offset == 0:", "else:"),
    "an attribute may overrun": ("stun", "if not need(n - i - 4, (value_bytes + 3) & ~3):", "if False:"),
    "any check selects": (
        "icelite",
        "    if use_candidate:\n        t.nominated = 1",
        "    if True:\n        t.nominated = 1",
    ),
    "a lower priority takes over": ("icelite", "return priority > current.priority or", "return True or"),
    "an unnominated tuple inherits": ("icelite", "not t.used or not t.nominated or", "not t.used or"),
    "a tuple is its address alone": ("icelite", "and ice.tuples[i].socket_index == socket_index", "and True"),
    "the selected tuple makes place": (
        "icelite",
        "if i == ice.selected:\n            continue\n        # An",
        "if False:\n            continue\n        # An",
    ),
    "an extension may overrun": ("hdrext", "if not need(n - i - 1, data_bytes):", "if False:"),
    "padding may be longer than the payload": (
        "rtp",
        "if padding == 0 or padding > payload_bytes:",
        "if padding == 0:",
    ),
    "an RTCP length is believed": ("rtcp", "if not need(left, packet_bytes):", "if False:"),
    "feedback drops a late packet": (
        "twcc",
        "elif extended < r.next_base:\n        r.next_base = extended",
        "elif extended < r.next_base:\n        return",
    ),
    "a capture keeps payloads": (
        "capture",
        "packet, _header_bytes(packet, header_bytes), wire_bytes",
        "packet, wire_bytes, wire_bytes",
    ),
    "a capture keeps what its caller takes for a header": ("capture", "return bytes if n >= bytes else 0", "return n"),
    "a capture has no end": ("capture", "if now_ns >= c.until_ns:", "if False:"),
}


def build_and_test(folder, module, replace, tests=None):
    """Copy the sources and the built modules, change one source, build it, run its tests; return (exit code, output).

    tests: file names without `test_`; as the module's where that has its own.
    """
    core = folder / "ext/relaycore"
    shutil.copytree(CORE, core, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for built in Path(relaycore.__file__).parent.glob("*.so"):
        if built.name.split(".")[0] in BUILT or module in NEED_ALL:
            shutil.copy(built, core)
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    source = core / f"{module}.pyx"
    source.write_text(replace(source.read_text()))
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=folder,
        env=os.environ | {"VEIL_MODULES": module, "RELAY_WERROR": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    path = folder / "ext"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-p",
            "no:cacheprovider",
            # A test that is too slow is no test that found something.
            "--timeout",
            "0",
            "-o",
            f"pythonpath={path} .",
            *(str(HERE / f"test_{name}.py") for name in tests or (module,)),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("module", ["stun", "icelite", "capture"])
def test_the_unchanged_copy_is_green(module, tmp_path):
    code, output = build_and_test(tmp_path, module, lambda text: text)
    assert code == 0, output


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_found(name, tmp_path):
    module, old, new = MUTANTS[name]

    def mutate(text):
        assert text.count(old) == 1, "the mutant no longer fits the source"
        return text.replace(old, new)

    code, output = build_and_test(tmp_path, module, mutate)
    # 1 is failed tests; a mutant that reads out of bounds may also die.
    assert code == 1 or code < 0, output
