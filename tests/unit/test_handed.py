"""A listening socket from the service manager: taken once, by the process it is meant for, and only if it is one."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.handed import take_listener

ROOT = Path(__file__).resolve().parents[2]
TAKE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
from relay.errors import ConfigError
from relay.handed import take_listener
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": sys.argv[2], "OTHER": "x"}
try:
    taken = take_listener(environ)
except ConfigError as error:
    print("refused:", error)
else:
    print(taken.getsockname()[1], os.get_inheritable(3), take_listener(environ), sorted(environ))
"""


def taken(descriptor: int, count: str = "1") -> str:
    """Return what a process says that was handed this descriptor."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", TAKE, str(descriptor), count],
        pass_fds=(descriptor,), cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    return done.stdout.strip()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


def test_a_listening_socket_is_taken_once_and_kept_from_children(listening: socket.socket) -> None:
    assert taken(listening.fileno()) == f"{listening.getsockname()[1]} False None ['OTHER']"


def test_what_is_meant_for_another_process_is_left_alone(listening: socket.socket) -> None:
    for said in ({}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": "", "LISTEN_FDS": "1"}):
        assert take_listener(said) is None and not said


def test_what_is_not_one_listening_tcp_socket_is_refused(listening: socket.socket) -> None:
    assert "takes one socket" in taken(listening.fileno(), "2")
    with socket.socket() as closed, socket.socket(type=socket.SOCK_DGRAM) as udp, open(os.devnull, "rb") as plain:
        for descriptor in (closed.fileno(), udp.fileno(), plain.fileno()):
            assert taken(descriptor).startswith("refused:")
