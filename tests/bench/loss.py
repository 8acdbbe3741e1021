"""Random loss on UDP sockets of this process, made by the kernel: a packet filter that refuses a share of what arrives.

The bytes never reach the reader and no process stands in between, so CPU figures stay those of the program; the filter
itself is some 20 ns of the sender's time on loopback.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Collection

SO_ATTACH_FILTER = 26
# Classic BPF: load a random word (SKF_AD_OFF + SKF_AD_RANDOM), refuse below a threshold, else take all.
LOAD_WORD, JUMP_IF_GE, RETURN = 0x20, 0x35, 0x06
RANDOM_WORD = 0xFFFFF000 + 56


def program(share: float) -> list[tuple[int, int, int, int]]:
    threshold = min(int(share * 2**32), 2**32 - 1)
    return [(LOAD_WORD, 0, 0, RANDOM_WORD), (JUMP_IF_GE, 1, 0, threshold), (RETURN, 0, 0, 0), (RETURN, 0, 0, 0xFFFF)]


def lose(ports: Collection[int], share: float) -> int:
    """Make this process's UDP sockets on these ports lose a share of what arrives; return how many there are."""
    instructions = b"".join(struct.pack("HBBI", *step) for step in program(share))
    held = ctypes.create_string_buffer(instructions)
    option = struct.pack("HxxxxxxP", len(instructions) // 8, ctypes.addressof(held))
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as copy:
                if copy.type == socket.SOCK_DGRAM and copy.family == socket.AF_INET and copy.getsockname()[1] in ports:
                    copy.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)
                    found += 1
    return found
