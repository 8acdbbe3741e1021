"""Names of the stages, and how long a tick of the CPU's clock is; the contract stands in stages.pxd."""
import time

from libc.stdint cimport uint64_t

STAGES = ("receive", "demux", "unprotect", "route", "protect", "send")

cdef uint64_t first_ticks = stage_clock()
cdef object first_ns = time.monotonic_ns()


def ns_per_tick():
    """Return the length of a tick in ns, measured since this module was loaded; the longer ago, the more exact."""
    elapsed_ns = time.monotonic_ns() - first_ns
    if elapsed_ns < 1_000_000:
        time.sleep(0.001)
        elapsed_ns = time.monotonic_ns() - first_ns
    ticks = stage_clock() - first_ticks
    return elapsed_ns / ticks
