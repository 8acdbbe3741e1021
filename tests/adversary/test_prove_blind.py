"""The memory search finds what is there, and a short run of `make prove-blind` holds. Needs to read /proc/PID/mem."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adversary.memory_scan import Finding, Needles, Scanner, round_keys
from tests.adversary.prove_blind import CODECS, LEAST_HITS_IN_CLEAR, PASSPHRASE, Proof, problems, prove
from tests.interop.recorded.formats import CLEAR, Format, LinkKey, Passphrase
from tests.support.relay_process import relay_process

FRAME = os.urandom(400)
HOLDER = """import sys
data = bytes.fromhex(sys.stdin.readline())
print("here", flush=True)
sys.stdin.readline()
"""


def may_read_memory() -> bool:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        try:
            with open(f"/proc/{child.pid}/mem", "rb"):
                return True
        except PermissionError:
            return False
        finally:
            child.communicate(b"\n")


needs_memory = pytest.mark.skipif(not may_read_memory(), reason="another process's memory may be read by root alone here")


def scan_of(held: bytes, needles: Needles) -> Finding:
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin and child.stdout
        child.stdin.write(held.hex() + "\n")
        child.stdin.flush()
        child.stdout.readline()
        try:
            return Scanner(needles).scan_process(child.pid)
        finally:
            child.stdin.close()


@needs_memory
@pytest.mark.parametrize("at", [0, 3, 17])
def test_31_bytes_of_a_frame_are_found_wherever_they_were_cut(at: int) -> None:
    needles = Needles()
    needles.add_frame(FRAME, clear_bytes=0)
    assert scan_of(os.urandom(5) + FRAME[at : at + 31], needles).hits >= 1
    assert scan_of(os.urandom(36), needles).hits == 0


@needs_memory
def test_keys_are_found_in_every_form() -> None:
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    needles = Needles()
    needles.add_aes_key("k", key)
    for held in (key, key.hex().encode(), key.hex().upper().encode(), round_keys(key)[7]):
        # The holder itself read it as hex.
        assert scan_of(held, needles).hits >= 1
    assert scan_of(os.urandom(16), needles).hits == 0


def test_round_keys_are_those_of_the_standard() -> None:
    """FIPS 197, appendix A.1."""
    keys = round_keys(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"))
    assert len(keys) == 11 and keys[1].hex() == "a0fafe1788542cb123a339392a6c7605"
    assert keys[10].hex() == "d014f9a8c9ee2589e13f0cc8b6630ca6"


def test_a_window_that_any_memory_holds_is_no_needle() -> None:
    needles = Needles()
    needles.add_frame(bytes(200), clear_bytes=0)
    assert not needles.windows


def test_a_needle_across_two_pieces_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needles = Needles()
    needles.add_frame(FRAME, clear_bytes=0)
    monkeypatch.setattr("tests.adversary.memory_scan.CHUNK_BYTES", 4096)
    kept = bytearray(os.urandom(64 * 1024))
    kept[4096 * 5 - 100 : 4096 * 5 + 300] = FRAME
    found = Scanner(needles).scan_process(os.getpid())
    assert found.hits >= (400 - 24) // 8 and len(kept)


@needs_memory
@pytest.mark.interop
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["sframe", pytest.param("livekit_gcm", marks=pytest.mark.long), "clear"])
async def test_an_encrypted_call_leaves_nothing_in_the_relay_and_a_clear_one_does(name: str) -> None:
    formats: dict[str, Format] = {"sframe": LinkKey(), "livekit_gcm": Passphrase(PASSPHRASE), "clear": CLEAR}
    async with relay_process() as relay:
        proof = await prove(relay, name, formats[name], CODECS.get(name, CODECS["sframe"])[::3], scans=2, seconds=2)
    if name == "clear":
        assert proof.hits > LEAST_HITS_IN_CLEAR
    else:
        assert proof.hits == 0, proof.scans


def test_a_proof_that_proves_nothing_is_told_apart() -> None:
    good = Proof("sframe", 10, 10, [Finding()], 100)
    clear = Proof("clear", 10, 0, [Finding(hits=101)], 100)
    assert problems([good], clear) == []
    assert problems([good], Proof("clear", 10, 0, [Finding(hits=100)], 100))
    assert problems([Proof("sframe", 10, 10, [Finding(hits=1)], 100)], clear)
    assert problems([Proof("sframe", 10, 10, [Finding()], 0)], clear)
