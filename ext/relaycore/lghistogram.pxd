"""Log-linear histograms of durations (in the manner of HdrHistogram): 32 steps per octave from 1 us, so within 3.2 %.

Values are nanoseconds, counted in units of 1,024 ns. Below 32 units every unit has its bucket; above, each octave has 32.
"""
from libc.stdint cimport uint32_t, int64_t, uint64_t

cdef enum:
    HISTOGRAM_UNIT_BITS = 10
    HISTOGRAM_STEP_BITS = 5
    HISTOGRAM_STEPS = 32
    HISTOGRAM_BUCKETS = 704        # up to 2^26 units = 68 s; what is longer counts in the last one

cdef extern from *:
    """
    static inline int lg_octave(unsigned long long units) { return 63 - __builtin_clzll(units | 1ULL); }
    """
    int lg_octave(uint64_t units) noexcept nogil


cdef inline uint32_t histogram_bucket(int64_t value_ns) noexcept nogil:
    cdef uint64_t units
    cdef int shift
    cdef uint64_t bucket
    if value_ns <= 0:
        return 0
    units = <uint64_t>value_ns >> HISTOGRAM_UNIT_BITS
    if units < HISTOGRAM_STEPS:
        return <uint32_t>units
    shift = lg_octave(units) - HISTOGRAM_STEP_BITS
    bucket = <uint64_t>HISTOGRAM_STEPS * <uint64_t>(shift + 1) + (units >> shift) - HISTOGRAM_STEPS
    return <uint32_t>min(bucket, <uint64_t>(HISTOGRAM_BUCKETS - 1))


cdef inline void histogram_add(uint32_t* counts, int64_t value_ns) noexcept nogil:
    counts[histogram_bucket(value_ns)] += 1


cdef inline int64_t histogram_lower_ns(uint32_t bucket) noexcept nogil:
    """Return the smallest value that falls into a bucket."""
    cdef uint32_t octave = bucket >> HISTOGRAM_STEP_BITS
    cdef int64_t step = bucket & (HISTOGRAM_STEPS - 1)
    if octave == 0:
        return step << HISTOGRAM_UNIT_BITS
    return ((HISTOGRAM_STEPS + step) << (octave - 1)) << HISTOGRAM_UNIT_BITS
