"""Network namespaces of a test: made, joined by veth pairs, entered by commands, and gone afterwards. Needs root.

    with Network() as net:
        net.link("relay", "10.10.0.2/24", "nat", "10.10.0.1/24")
        net.run("relay", "ip", "route", "add", "default", "via", "10.10.0.1")
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from types import TracebackType

_numbers = itertools.count(1)


def is_possible() -> bool:
    """Whether this process may make namespaces."""
    return os.geteuid() == 0 and subprocess.run(["ip", "netns", "list"], capture_output=True).returncode == 0


class Network:
    """A few hosts on one machine. Names are the test's own; the kernel sees them with a prefix that no other run has."""

    def __init__(self, prefix: str = "") -> None:
        """`prefix` is that of a network which another process made and takes down."""
        self.prefix = prefix or f"veil{os.getpid()}"
        self._hosts: set[str] = set()

    def __enter__(self) -> Network:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for host in self._hosts:
            subprocess.run(["ip", "netns", "delete", self.name(host)], check=False, capture_output=True)

    def name(self, host: str) -> str:
        return f"{self.prefix}-{host}"

    def command(self, host: str, *arguments: str) -> list[str]:
        """The command line that runs `arguments` inside a host."""
        return ["ip", "netns", "exec", self.name(host), *arguments]

    def run(self, host: str, *arguments: str, text: str | None = None) -> None:
        """Run a command inside a host.   Errors: RuntimeError with what it said."""
        self._ensure(host)
        done = subprocess.run(self.command(host, *arguments), input=text, text=True, capture_output=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stderr or done.stdout}")

    def link(self, one: str, one_address: str, two: str, two_address: str) -> str:
        """Join two hosts by a cable with these addresses, such as 10.10.0.2/24; return the interface of the first."""
        ends = [f"v{os.getpid() % 100000}x{next(_numbers)}" for _ in (one, two)]
        for host in (one, two):
            self._ensure(host)
        subprocess.run(["ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1]], check=True)
        for host, end, address in ((one, ends[0], one_address), (two, ends[1], two_address)):
            subprocess.run(["ip", "link", "set", end, "netns", self.name(host)], check=True)
            self.run(host, "ip", "address", "add", address, "dev", end)
            self.run(host, "ip", "link", "set", end, "up")
        return ends[0]

    def listener(self, host: str) -> socket.socket:
        """Return a socket of this process that listens on a host's loopback, at any port."""
        ours, theirs = socket.socketpair()
        code = (
            "import socket, sys; s = socket.create_server(('127.0.0.1', 0));"
            " socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b'x'], [s.fileno()])"
        )
        with ours, theirs:
            command = self.command(host, sys.executable, "-c", code, str(theirs.fileno()))
            subprocess.run(command, pass_fds=[theirs.fileno()], check=True)
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        return socket.socket(fileno=descriptors[0])

    def _ensure(self, host: str) -> None:
        if host in self._hosts:
            return
        subprocess.run(["ip", "netns", "add", self.name(host)], check=True)
        self._hosts.add(host)
        self.run(host, "ip", "link", "set", "lo", "up")
