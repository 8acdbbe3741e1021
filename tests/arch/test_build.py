"""The build stops on what STYLE 3.1 forbids, and one place says which Debian packages it needs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.arch.rules import ROOT


def translate(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run our setup.py, up to Cython, over one planted module."""
    core = folder / "ext" / "relaycore"
    core.mkdir(parents=True)
    (core / "__init__.py").write_text("")
    (core / "planted.pyx").write_text(f"# cython: language_level=3\n{body}")
    shutil.copy(ROOT / "setup.py", folder)
    environ = {**os.environ, "RELAY_JOBS": "0", "VEIL_MODULES": "planted"}
    # `--name` makes setuptools stop after the translation, which is where hints are printed.
    return subprocess.run(
        [sys.executable, "setup.py", "--name"],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_performance_hint_stops_the_build(tmp_path: Path) -> None:
    done = translate(tmp_path, "cdef void f() nogil:\n    pass\n\ndef g():\n    with nogil:\n        f()\n")
    assert done.returncode != 0
    assert "performance hint" in done.stderr and "planted" in done.stderr.splitlines()[-1]
    # Nothing is left that the next run would take for finished.
    assert not list(tmp_path.rglob("planted.c"))


def test_a_module_without_hints_is_translated(tmp_path: Path) -> None:
    done = translate(tmp_path, "cdef void f() noexcept nogil:\n    pass\n\ndef g():\n    with nogil:\n        f()\n")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("planted.c"))


def unlocked(ranges: list[str], lock: str) -> list[str]:
    """Return the requirements of pyproject.toml that a lock file does not pin."""
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lock.splitlines() if "==" in line}
    names = [re.split(r"[<>=!~\[ ;]", item)[0].lower().replace("_", "-") for item in ranges]
    return [name for name in names if name not in pinned]


def test_locks_pin_everything_pyproject_asks_for() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run = project["build-system"]["requires"] + project["project"]["dependencies"]
    test = run + project["project"]["optional-dependencies"]["test"]
    assert unlocked(run, (ROOT / "requirements.lock").read_text()) == []
    assert unlocked(test, (ROOT / "requirements-test.lock").read_text()) == []


def test_an_unlocked_package_is_found() -> None:
    assert unlocked(["aiohttp>=3", "PyJWT[crypto]>=2"], "aiohttp==3.1\n") == ["pyjwt"]


def test_unknown_package_groups_are_refused() -> None:
    script = ROOT / "scripts" / "system-packages.sh"
    done = subprocess.run([script, "kitchen"], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2 and "kitchen" in done.stderr


def test_no_codec_is_loaded_with_the_server() -> None:
    """Rule 6 seen from the outside: what importing the composition root pulls in."""
    pytest.importorskip("relaycore.worker")
    probe = (
        "import relay.server, sys; "
        "print(' '.join(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'av', 'aiortc', 'pylibsrtp', 'cv2', 'torch', 'faster_whisper', 'playwright', 'locust'})), "
        "*[m for m in sys.modules if m.startswith(('relaycore.lg', 'relaycore.loadgen'))])"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "ext")])}
    done = subprocess.run(
        [sys.executable, "-c", probe], env=environ, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
