"""A relay leaves no core file and is closed to its own user's debuggers; each check is shown a process that is not so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.relay_process import RelayProcess, relay_process

ASK = """import resource
from relay.hardening import harden, is_dumpable
{}
print(is_dumpable(), resource.getrlimit(resource.RLIMIT_CORE)[0])"""
PACKET_BYTES = 1 << 20


@pytest.mark.parametrize(("call", "expected"), [("harden()", "False 0"), ("None", "True")])
def test_a_hardened_process_cannot_be_dumped(call: str, expected: str) -> None:
    done = subprocess.run([sys.executable, "-c", ASK.format(call)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(expected)


def kept_from_dumps(pid: int) -> int:
    """Return the bytes of memory that core files leave out (VmFlags `dd`, proc_pid_smaps(5))."""
    total = size = 0
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"Size: +(\d+) kB", line):
            size = int(found[1]) * 1024
        elif line.startswith("VmFlags:") and " dd" in line and " io" not in line:
            total += size
    return total


def core_limit(pid: int) -> str:
    return re.search(r"Max core file size +(\S+)", Path(f"/proc/{pid}/limits").read_text(encoding="ascii"))[1]


def may_look_into(relay: RelayProcess) -> bool:
    """Whether the user `nobody` may read the relay's memory map."""
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", f"/proc/{relay.pid}/maps"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read the smaps of a process that is not dumpable")
async def test_a_relays_packets_are_left_out_of_dumps() -> None:
    async with relay_process() as relay:
        assert kept_from_dumps(relay.pid) >= PACKET_BYTES
        assert core_limit(relay.pid) == "0"
        assert not may_look_into(relay)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        try:
            assert kept_from_dumps(other.pid) < PACKET_BYTES
        finally:
            other.communicate(b"\n")
