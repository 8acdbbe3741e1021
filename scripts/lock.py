"""Writes requirements.lock and requirements-test.lock: the newest versions that pyproject.toml allows, exactly.

Run by `make lock` with the Python of an empty virtual environment. Two files, because `make run` needs no browser
driver; the second names everything of the first, so that both can live in one environment.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEAD = "# Exact versions for repeatable builds. Written by `make lock` from pyproject.toml; do not edit.\n"


def pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    stages = {
        "requirements.lock": project["build-system"]["requires"] + project["project"]["dependencies"],
        "requirements-test.lock": project["project"]["optional-dependencies"]["test"],
    }
    for file, wanted in stages.items():
        pip("install", "--quiet", *wanted)
        frozen = [line for line in pip("freeze", "--all").splitlines() if not line.startswith(("pip=", "veil"))]
        (ROOT / file).write_text(HEAD + "\n".join(frozen) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
