"""What all tests share: ports that are free, random numbers that repeat, and the debug twin's account at the end."""

import os
import random
import socket
from collections.abc import Callable, Iterator

import pytest

# Fixed, so that a failure can be repeated; VEIL_SEED=7 draws other numbers on purpose.
SEED = int(os.environ.get("VEIL_SEED", "1"))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers that depend on the test's own name and VEIL_SEED only, not on the order of tests."""
    return random.Random(f"{SEED}:{request.node.nodeid}")


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A function that returns a port free for TCP and UDP on 127.0.0.1, never the same one twice in a test."""
    given: set[int] = set()

    def find() -> int:
        for _ in range(100):
            with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
                tcp.bind(("127.0.0.1", 0))
                port = tcp.getsockname()[1]
                try:
                    udp.bind(("127.0.0.1", port))
                except OSError:
                    continue
            if port not in given:
                given.add(port)
                return port
        raise RuntimeError("no port is free on 127.0.0.1")

    return find


@pytest.fixture(scope="session", autouse=True)
def debug_twin_leaves_nothing() -> Iterator[None]:
    """On the debug twin, fail the run when a slot, thread, socket or timer of the data plane is left at its end."""
    yield
    try:
        from relaycore import worker
    except ImportError:
        # A build of a few modules only (VEIL_MODULES).
        return
    leaks = getattr(worker, "leaks", None)
    if leaks is None or not getattr(worker, "is_debug", lambda: False)():
        return
    left = {name: count for name, count in leaks().items() if count}
    assert not left, f"the data plane left behind: {left}"
