"""Which version of Veil this is."""

import contextlib
import functools
import importlib.metadata
import re
from pathlib import Path


@functools.cache
def version() -> str:
    """Return the version of the tree that runs, or of the installed package where there is no tree."""
    with contextlib.suppress(OSError):
        text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
        if found := re.search(r'^version = "([^"]+)"', text, re.M):
            return found[1]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("veil")
    return "unknown"
