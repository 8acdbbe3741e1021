"""Bytes that end where readable memory ends: one read too many is a crash, not a guess."""

import ctypes
import mmap

PAGE = mmap.PAGESIZE
PROT_NONE = 0
_libc = ctypes.CDLL(None, use_errno=True)


class GuardedBytes:
    """A buffer for inputs of up to one page, each placed so that its last byte is the last before a forbidden page.

    A view from `place` is valid until the next call.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 2 * PAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        if _libc.mprotect(ctypes.c_void_p(start + PAGE), ctypes.c_size_t(PAGE), PROT_NONE) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")

    def place(self, data: bytes) -> memoryview:
        """Return a view of `data` that ends at the guard page; an empty one starts at the forbidden byte."""
        if len(data) > PAGE:
            raise ValueError("at most one page")
        self._memory[PAGE - len(data) : PAGE] = data
        return memoryview(self._memory)[PAGE - len(data) : PAGE]
