"""What the process holds of things that have to be given back: taken before the relay starts and after it has stopped."""

import asyncio
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

# Libraries keep these as long as the process lives: libuv four threads from the first name resolution and a spare
# descriptor from the first listener, usrsctp one thread from the first association.
LIBRARY_THREADS = frozenset({"libuv-worker", "SCTP iterator"})
LIBUV_SPARE = "/dev/null"
ENDING_S, ENDING_TRIES = 0.5, 25


@dataclass(frozen=True)
class Account:
    """threads and descriptors of the whole process, tasks of the running loop beside the one that asks."""

    threads: int
    descriptors: int
    tasks: int

    def __sub__(self, before: "Account") -> "Account":
        return Account(
            self.threads - before.threads, self.descriptors - before.descriptors, self.tasks - before.tasks
        )


def take_account() -> Account:
    """Return what is held now, without what libraries keep for the process's life."""
    threads = descriptors = 0
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            threads += (task / "comm").read_text().strip() not in LIBRARY_THREADS
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            descriptors += os.readlink(f"/proc/self/fd/{number}") != LIBUV_SPARE
    return Account(threads, descriptors, len(asyncio.all_tasks()) - 1)


async def account_since(before: Account) -> Account:
    """Return what is held now and was not before.

    A thread that was joined may be in the kernel's list a moment longer: Python hears of its last line, not of its end.
    """
    kept = take_account() - before
    for _ in range(ENDING_TRIES):
        if kept.threads <= 0:
            break
        await asyncio.sleep(ENDING_S / ENDING_TRIES)
        kept = take_account() - before
    return kept
