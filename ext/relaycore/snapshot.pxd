"""Snapshots of a worker's figures as NumPy structured arrays; the buffers are the control plane's, the worker fills them."""
from libc.stdint cimport uint32_t
from relaycore.counters cimport Counters
from relaycore.engine cimport Snapshot

# Makes room for as many entries (never shrinks). E_OK, E_MEMORY. Not while a CMD_SNAPSHOT is unanswered.
cdef int snapshot_reserve(Snapshot* s, uint32_t transports, uint32_t streams, uint32_t egresses, uint32_t layers) noexcept nogil
cdef void snapshot_release(Snapshot* s) noexcept nogil

# Edge: copies, so that the next snapshot may be taken while Python reads the last.
cdef object snapshot_arrays(const Snapshot* s)
cdef object counter_values(const Counters* c)
cdef object stage_values(const Counters* c)
