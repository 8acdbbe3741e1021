"""Time units of the data plane: every clock value is nanoseconds of the monotonic clock."""
from libc.stdint cimport int64_t


cdef inline int64_t ms(int64_t count) noexcept nogil:
    """Return `count` milliseconds in nanoseconds."""
    return count * <int64_t>1000000
