"""Which clients take part, by name; each is started on entering and ended on leaving."""

import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from pathlib import Path

from tests.interop.clients.base import Client
from tests.interop.clients.builtin import built_in
from tests.interop.clients.livekit_js import livekit_js
from tests.interop.clients.livekit_python import livekit_python

ROOT = Path(__file__).resolve().parents[3]
# Two connections, and one for both directions since.
OLD_JS, MIDDLE_JS, NEW_JS = "2.15.8", "2.18.10", "2.23.0"
OLDEST_PYTHON, OLD_PYTHON = "1.0.25", "1.1.21"

Start = Callable[[], AbstractAsyncContextManager[Client]]

CAST: dict[str, Start] = {
    "chromium-old": lambda: livekit_js("chromium", OLD_JS),
    "chromium-middle": lambda: livekit_js("chromium", MIDDLE_JS),
    "chromium-new": lambda: livekit_js("chromium", NEW_JS),
    "firefox-new": lambda: livekit_js("firefox", NEW_JS),
    "python-oldest": lambda: older_python(OLDEST_PYTHON),
    "python-old": lambda: older_python(OLD_PYTHON),
    # The newest SDK is the one of the test environment.
    "python-new": lambda: livekit_python(Path(sys.executable), version("livekit")),
    "built-in": built_in,
}


def older_python(release: str) -> AbstractAsyncContextManager[Client]:
    """Start the Python SDK of an environment of its own."""
    return livekit_python(ROOT / "build" / "venvs" / f"livekit-{release}" / "bin" / "python", release)


# They have one connection for both directions where the server lets them; where it does not, they go back to two unasked.
SINGLE = frozenset({"chromium-middle", "chromium-new", "firefox-new", "python-old", "python-new"})


@contextlib.asynccontextmanager
async def cast(names: list[str]) -> AsyncIterator[dict[str, Client]]:
    """Start these clients."""
    async with contextlib.AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(CAST[name]()) for name in names}
