"""What a relay gives up at its start, so that less of it can be taken: core files, and being looked into by its own user.

A process that is not dumpable leaves no core, and only root may read its memory or attach to it (prctl(2), PR_SET_DUMPABLE).
Packet slots and SRTP keys are left out of dumps by the data plane itself. None of this stops root, who runs the machine.
"""

import ctypes
import os
import resource

PR_GET_DUMPABLE, PR_SET_DUMPABLE = 3, 4


def harden() -> None:
    """Forbid core files of this process, and looking into it.   Errors: OSError, which a Linux with prctl does not give."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_DUMPABLE): {os.strerror(number)}")


def is_dumpable() -> bool:
    """True when a core file could be made of this process."""
    return bool(ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0))
