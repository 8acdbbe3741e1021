"""Looks for secrets in everything a process holds: all readable mappings of its memory, its open files, the files given.

A window of a frame is looked for at every address. Windows begin at every eighth byte of a frame, so whoever holds any 31 bytes
of it in one piece is found; windows with little in them (silence, zeros) are left out, they would be found anywhere.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

WINDOW_BYTES = 24
STRIDE_BYTES = 8
# Of 24 random bytes some 23 differ.
LEAST_DISTINCT_BYTES = 14
CHUNK_BYTES = 32 << 20
PREFIX_BITS = 24


@dataclass
class Needles:
    """What must not be found: windows of frames, and keys with their names."""

    windows: set[bytes] = field(default_factory=set)
    keys: dict[str, bytes] = field(default_factory=dict)

    def add_frame(self, frame: bytes, *, clear_bytes: int) -> None:
        """Take the windows of an encoded frame behind what its format leaves readable."""
        for at in range(clear_bytes, len(frame) - WINDOW_BYTES + 1, STRIDE_BYTES):
            window = frame[at : at + WINDOW_BYTES]
            if len(set(window)) >= LEAST_DISTINCT_BYTES:
                self.windows.add(window)

    def add_key(self, name: str, key: bytes) -> None:
        """Take a key as it is, in hex of either case, and in both alphabets of base64."""
        forms = {
            "raw": key, "hex": key.hex().encode(), "HEX": key.hex().upper().encode(),
            "base64": base64.b64encode(key).rstrip(b"="), "base64url": base64.urlsafe_b64encode(key).rstrip(b"="),
        }  # fmt: skip
        for form, value in forms.items():
            self.keys[f"{name}, {form}"] = value

    def add_aes_key(self, name: str, key: bytes) -> None:
        """Take an AES-128 key and its round keys (FIPS 197 section 5.2), which a cipher keeps when the key itself is gone."""
        self.add_key(name, key)
        for number, round_key in enumerate(round_keys(key)[1:], 1):
            self.keys[f"{name}, round key {number}"] = round_key


def _sbox() -> list[int]:
    """The S-box of FIPS 197 section 5.1.1, computed: the inverse in GF(2^8), then an affine map."""
    box = [0x63] * 256
    p = q = 1
    while True:
        # p runs through all elements by multiplying with 3, q through their inverses by dividing.
        p ^= (p << 1 ^ (0x1B if p & 0x80 else 0)) & 0xFF
        for shift in (1, 2, 4):
            q ^= q << shift & 0xFF
        q ^= 0x09 if q & 0x80 else 0
        rotated = [(q << n | q >> 8 - n) & 0xFF for n in range(5)]
        box[p] = rotated[0] ^ rotated[1] ^ rotated[2] ^ rotated[3] ^ rotated[4] ^ 0x63
        if p == 1:
            return box


SBOX = _sbox()


def round_keys(key: bytes) -> list[bytes]:
    """Return the 11 round keys of an AES-128 key."""
    words = [key[n : n + 4] for n in range(0, 16, 4)]
    factor = 1
    for number in range(4, 44):
        word = words[-1]
        if number % 4 == 0:
            word = bytes(SBOX[byte] for byte in word[1:] + word[:1])
            word = bytes((word[0] ^ factor, *word[1:]))
            factor = (factor << 1 ^ (0x11B if factor & 0x80 else 0)) & 0xFF
        words.append(bytes(a ^ b for a, b in zip(words[-4], word, strict=True)))
    return [b"".join(words[n : n + 4]) for n in range(0, 44, 4)]


@dataclass
class Finding:
    """What one scan saw. `hits`: places where a needle stood; `places`: the first few of them, in words."""

    hits: int = 0
    bytes_read: int = 0
    unreadable: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, where: str, what: str, count: int) -> None:
        self.hits += count
        if count and len(self.places) < 20:
            self.places.append(f"{what} in {where}" + (f", {count} times" if count > 1 else ""))


class Scanner:
    """Looks for one set of needles."""

    def __init__(self, needles: Needles) -> None:
        self._windows = needles.windows
        self._keys = needles.keys
        self._heads = np.zeros(1 << PREFIX_BITS, dtype=bool)
        for window in needles.windows:
            self._heads[int.from_bytes(window[: PREFIX_BITS // 8], "little")] = True
        self._longest = max([WINDOW_BYTES, *(len(key) for key in needles.keys.values())])

    def scan_bytes(self, data: bytes, where: str, found: Finding) -> None:
        """Look through one piece of memory."""
        found.bytes_read += len(data)
        for name, key in self._keys.items():
            count = data.count(key)
            if count:
                found.add(where, name, count)
        if not self._windows:
            return
        count = 0
        mask = (1 << PREFIX_BITS) - 1
        for shift in range(8):
            usable = (len(data) - shift) // 8 * 8
            if usable <= 0:
                break
            words = np.frombuffer(data, dtype="<u8", count=usable // 8, offset=shift)
            for index in np.flatnonzero(self._heads[(words & mask).astype(np.int64)]):
                at = shift + 8 * int(index)
                count += data[at : at + WINDOW_BYTES] in self._windows
        found.add(where, "frame content", count)

    def scan_process(self, pid: int, files: Iterable[Path] = ()) -> Finding:
        """Look through a running process and these files.   Errors: PermissionError where its memory may not be read."""
        found = Finding()
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for start, end, name in mappings(pid):
                overlap = b""
                for at in range(start, end, CHUNK_BYTES):
                    try:
                        piece = os.pread(memory.fileno(), min(CHUNK_BYTES, end - at), at)
                    except OSError:
                        # Device memory and guard pages; the kernel's own [vvar].
                        found.unreadable += min(CHUNK_BYTES, end - at)
                        overlap = b""
                        continue
                    self.scan_bytes(overlap + piece, name or "anonymous memory", found)
                    overlap = b""
                    if at + CHUNK_BYTES < end:
                        # A needle may lie across two pieces; the part twice read can hold a whole one only when it is long.
                        overlap = piece[-(self._longest - 1) :]
        for path in {*files, *open_files(pid)}:
            self.scan_bytes(path.read_bytes(), str(path), found)
        return found


def mappings(pid: int) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, name) of every mapping that can be read."""
    for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
        addresses, permissions, *rest = line.split(maxsplit=5)
        start, end = (int(word, 16) for word in addresses.split("-"))
        name = rest[3] if len(rest) > 3 else ""
        if permissions[0] == "r" and name not in ("[vvar]", "[vvar_vclock]", "[vsyscall]"):
            yield start, end, name


def open_files(pid: int) -> set[Path]:
    """Return the regular files the process has open, deleted ones too (through /proc)."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if link.stat().st_mode & 0o170000 == 0o100000:
                found.add(link)
        except OSError:
            continue
    return found
