"""What is measured, each in a process of its own: the relay under test, and the plain forwarder it is compared with."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PLAIN_FORWARDER = ROOT / "build" / "bench" / "plain_forwarder"
GCM = 0x0007
KEY_BYTES, SALT_BYTES = 16, 12
STOP_S = 10.0

Keys = tuple[bytes, bytes]
Address = tuple[str, int]


def cpu_ns(pid: int) -> int:
    """Return the CPU time of all threads of a process so far."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
        except FileNotFoundError:
            # Ended meanwhile.
            continue
    return total


def rss_bytes(pid: int) -> int:
    """Return the memory of a process that is in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Side:
    """One transport: its credentials, and how either end is told. `up` and `down` are keys and salts of each way."""

    def __init__(self, rng: random.Random, *, ufrag: str = "", password: str = "", up: Keys | None = None,
                 down: Keys | None = None, extensions: dict[str, int] | None = None) -> None:
        def keys() -> Keys:
            return rng.randbytes(KEY_BYTES), rng.randbytes(SALT_BYTES)

        self.ufrag = ufrag or f"{rng.getrandbits(40):010x}"
        self.password = password or f"{rng.getrandbits(112):028x}"
        self.own_ufrag, self.own_password = f"{rng.getrandbits(40):010x}", f"{rng.getrandbits(112):028x}"
        self.up, self.down = up or keys(), down or keys()
        self.extensions = extensions or {}
        self.address: Address = ("", 0)

    def for_relay(self) -> dict[str, Any]:
        names = ("receive_key", "receive_salt", "send_key", "send_salt")
        keys = {name: value.hex() for name, value in zip(names, (*self.up, *self.down), strict=True)}
        return {
            "ufrag": self.ufrag,
            "password": self.password,
            "keys": {"profile": GCM, **keys},
            "extensions": self.extensions,
        }


class Process:
    """A child with a pipe; it ends with its standard input."""

    def __init__(self, command: list[str]) -> None:
        environ = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self.child = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.child.pid

    def line(self, wanted: str = "") -> str:
        """Return the next line that begins so.   Errors: RuntimeError when the child ended instead."""
        while line := self.child.stdout.readline():
            if line.startswith(wanted):
                return line
        raise RuntimeError(f"{self.child.args} ended with {self.child.wait()}")

    def close(self) -> None:
        self.child.stdin.close()
        try:
            self.child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()


class RelayHost(Process):
    """The relay under test (relay_host.py)."""

    def __init__(self, *, workers: int = 1) -> None:
        super().__init__([sys.executable, "-m", "tests.bench.relay_host", "--workers", str(workers)])

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        self.child.stdin.write(json.dumps(order) + "\n")
        self.child.stdin.flush()
        # Log lines share its standard output.
        return json.loads(self.line("{"))

    def side(self, rng: random.Random, role: str, publisher: Side | None, extensions: dict[str, int]) -> Side:
        return Side(rng, extensions=extensions)

    def egress_ssrc(self, ssrc: int, number: int) -> int:
        """Return the SSRC under which subscriber `number` gets a stream; RTX has the next one."""
        return 0x100000 + 2 * number

    def build(self, publisher: Side, track: dict[str, Any], sides: list[Side], ssrcs: list[tuple[int, int | None]]) -> None:
        """Add a room and say in each side where it is reached."""
        subscribers = [{**side.for_relay(), "ssrcs": [pair]} for side, pair in zip(sides, ssrcs, strict=True)]
        answer = self.ask({"publisher": publisher.for_relay(), "tracks": [track], "subscribers": subscribers})
        for side, port in zip([publisher, *sides], answer["ports"], strict=True):
            side.address = ("127.0.0.1", port)

    def lose(self, share: float) -> None:
        self.ask({"do": "lose", "share": share})


class PlainHost(Process):
    """The plain forwarder: everybody has the publisher's keys and SSRC, and ICE names say who publishes. One room only."""

    PASSWORD = "a-password-of-the-plain-forwarder"

    def __init__(self) -> None:
        super().__init__([str(PLAIN_FORWARDER), "127.0.0.1", "0", self.PASSWORD])
        self._address = ("127.0.0.1", int(self.line()))

    def side(self, rng: random.Random, role: str, publisher: Side | None, extensions: dict[str, int]) -> Side:
        return Side(rng, ufrag=role, password=self.PASSWORD, down=publisher.up if publisher else None, extensions=extensions)

    def egress_ssrc(self, ssrc: int, number: int) -> int:
        return ssrc

    def build(self, publisher: Side, track: dict[str, Any], sides: list[Side], ssrcs: list[tuple[int, int | None]]) -> None:
        for side in (publisher, *sides):
            side.address = self._address
