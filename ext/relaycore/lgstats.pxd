"""What load threads counted, as NumPy arrays. Python side: callers hold the GIL and, per thread, its lock."""
from relaycore.lgmodel cimport LoadThread

# Appends one tuple (array of rows, ...) per thread to the lists of `parts`; see lgstats.merge.
cdef object collect(LoadThread* t, dict parts)
cdef void reset_counts(LoadThread* t) noexcept nogil
