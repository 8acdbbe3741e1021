"""The build stops on what STYLE 3.1 forbids, and one place says which Debian packages it needs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.arch.rules import ROOT


def build(folder: Path, module: str, body: str, command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run Python with this command line beside our setup.py and one planted module."""
    core = folder / "ext" / "relaycore"
    core.mkdir(parents=True)
    (core / "__init__.py").write_text("")
    (core / f"{module}.pyx").write_text(f"# cython: language_level=3\n{body}")
    shutil.copy(ROOT / "setup.py", folder)
    environ = {**os.environ, "RELAY_JOBS": "0", "VEIL_MODULES": module}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def translate(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run our setup.py, up to Cython, over one planted module."""
    # `--name` makes setuptools stop after the translation, which is where hints are printed.
    return build(folder, "planted", body, ("setup.py", "--name"))


def cipher_links(folder: Path, machine: str) -> list[str]:
    """Return what our setup.py links into `cipher` on such a machine."""
    probe = (
        "import platform, runpy, setuptools; "
        f"platform.machine = lambda: {machine!r}; "
        "setuptools.setup = lambda **given: print(*given['ext_modules'][0].extra_link_args); "
        "runpy.run_path('setup.py')"
    )
    done = build(folder, "cipher", "def g():\n    pass\n", ("-c", probe))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()


def packages_for(folder: Path, machine: str) -> list[str]:
    """Return the Debian packages that our script names on such a machine, where it cannot install them itself."""
    (folder / "uname").write_text(f"#!/bin/sh\necho {machine}\n")
    (folder / "python3").symlink_to(sys.executable)
    (folder / "uname").chmod(0o755)
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, ROOT / "scripts" / "system-packages.sh", "run"],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.rpartition(":")[2].split()


@pytest.mark.parametrize(("machine", "has_ipsec_mb"), [("x86_64", True), ("aarch64", False)])
def test_ipsec_mb_is_asked_for_where_it_exists(tmp_path: Path, machine: str, has_ipsec_mb: bool) -> None:
    links = cipher_links(tmp_path, machine)
    assert "-lcrypto" in links and ("-l:libIPSec_MB.a" in links) == has_ipsec_mb
    packages = packages_for(tmp_path, machine)
    assert "libssl-dev" in packages and ("libipsec-mb-dev" in packages) == has_ipsec_mb


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
