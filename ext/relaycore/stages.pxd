"""What each stage of the packet path costs, by the CPU's own clock, in every 64th turn of a worker.

A turn without sampling costs one comparison per stage. Stages nest: what `protect` takes inside `route` is not counted twice.
"""
from libc.stdint cimport uint64_t
from relaycore.counters cimport Counters

cdef enum:
    STAGE_RECEIVE = 0              # recvmmsg, per received datagram
    STAGE_DEMUX = 1                # kind and transport, per received datagram
    STAGE_UNPROTECT = 2            # per received RTP packet
    STAGE_ROUTE = 3                # fan-out, projection and header, per forwarded packet
    STAGE_PROTECT = 4              # levelling and encryption, per forwarded packet
    STAGE_SEND = 5                 # sendmmsg, per sent datagram
    STAGE_SAMPLE_TURNS = 64        # power of two

cdef extern from *:
    """
    #include <time.h>
    static inline unsigned long long stage_clock(void)
    {
    #if defined(__x86_64__)
        return __builtin_ia32_rdtsc();
    #elif defined(__aarch64__)
        unsigned long long t;
        __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
        return t;
    #else
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (unsigned long long)t.tv_sec * 1000000000ULL + (unsigned long long)t.tv_nsec;
    #endif
    }
    """
    uint64_t stage_clock() noexcept nogil


cdef inline uint64_t stage_begin(const Counters* c) noexcept nogil:
    return stage_clock() if c.stages_on else 0


cdef inline void stage_end(Counters* c, int stage, uint64_t began, uint64_t packets) noexcept nogil:
    if c.stages_on:
        c.stage_ticks[stage] += stage_clock() - began
        c.stage_packets[stage] += packets


cdef inline void stage_end_inside(Counters* c, int stage, int outer, uint64_t began, uint64_t packets) noexcept nogil:
    """End a stage that ran inside `outer`, which is still to end."""
    cdef uint64_t took
    if c.stages_on:
        took = stage_clock() - began
        c.stage_ticks[stage] += took
        c.stage_packets[stage] += packets
        c.stage_ticks[outer] -= took
