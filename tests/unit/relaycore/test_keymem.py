"""Keys and what is computed from them lie in memory that no dump has, and are gone when their context is."""

import ctypes
import hashlib
import hmac
import mmap
import os
import re
from pathlib import Path

import pytest

from relaycore.cipher import Aead, CounterMode, Hmac, backend_name, sha1_tag
from relaycore.keymem import used_bytes
from relaycore.srtp import SrtpSession

IPSEC_MB, OPENSSL = 1, 2
SMAPS = Path("/proc/self/smaps")
HAS_IPSEC_MB = backend_name(IPSEC_MB) != "unavailable"
KEY = bytes(range(1, 33))


def flags_at(address: int) -> set[str]:
    """VmFlags of the mapping that an address lies in (proc_pid_smaps(5))."""
    inside = False
    for line in SMAPS.read_text(encoding="utf-8").splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    raise AssertionError(f"{address:#x} is not mapped")


def holders() -> dict[str, object]:
    found = {"hmac": Hmac(KEY[:20]), "context": SrtpSession(7, KEY[:16], KEY[:12]), "context cm": SrtpSession(1, KEY[:16], KEY[:14])}
    if HAS_IPSEC_MB:
        found |= {"gcm 128": Aead(KEY[:16], IPSEC_MB), "gcm 256": Aead(KEY, IPSEC_MB), "cm": CounterMode(KEY[:16], IPSEC_MB)}
    return found


@pytest.mark.skipif(not SMAPS.exists(), reason="without /proc nobody can be asked what a dump would leave out")
@pytest.mark.skipif(SMAPS.exists() and "VmFlags" not in SMAPS.read_text(), reason="this kernel's smaps has no VmFlags")
def test_no_dump_has_a_key():
    # A mapping of its own: the heap may have been a slab's before.
    with mmap.mmap(-1, mmap.PAGESIZE) as control:
        here = ctypes.c_char.from_buffer(control)
        assert "dd" not in flags_at(ctypes.addressof(here))
        del here
    for name, holder in holders().items():
        assert holder.memory, name
        for address, size in holder.memory:
            assert "dd" in flags_at(address), name
            assert "dd" in flags_at(address + size - 1), name
            assert address % 64 == 0


@pytest.mark.parametrize("name", holders())
def test_a_key_is_wiped_when_nobody_holds_it(name):
    holder = holders()[name]
    memory = holder.memory
    before = [ctypes.string_at(address, size) for address, size in memory]
    assert all(any(data) for data in before)
    del holder
    for address, size in memory:
        # What links free blocks stands in front.
        assert not any(ctypes.string_at(address, size)[8:])


@pytest.mark.parametrize(("profile", "key", "salt"), [(1, 16, 14), (7, 16, 12), (8, 32, 12)])
@pytest.mark.parametrize("backend", [IPSEC_MB, OPENSSL])
def test_contexts_give_back_what_they_took(profile, key, salt, backend):
    if backend == IPSEC_MB and not HAS_IPSEC_MB:
        pytest.skip("this CPU has no AES-NI")
    before = used_bytes()
    for _ in range(3):
        many = [SrtpSession(profile, os.urandom(key), os.urandom(salt), backend) for _ in range(200)]
        assert len({address for s in many for address, _ in s.memory}) == 200
        held = used_bytes()
        assert held > before
        # What another had before is no obstacle.
        packet = bytes([0x80, 0x60]) + bytes(10) + b"text" * 10
        assert len({s.protect(packet) for s in many}) == 200
        del many
        assert used_bytes() == before


@pytest.mark.parametrize("key_bytes", [0, 1, 20, 63, 64, 65, 200])
@pytest.mark.parametrize("data_bytes", [0, 1, 55, 56, 64, 1200])
def test_hmac_is_pythons(key_bytes, data_bytes):
    key, data = os.urandom(key_bytes), os.urandom(data_bytes)
    assert sha1_tag(key, data) == hmac.new(key, data, hashlib.sha1).digest()
