"""What was sent to one subscriber under which transport-wide number, until its feedback says what became of it."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t

cdef enum:
    DEPARTURES_FIRST = 512         # places at first; 4 kB
    DEPARTURES_MOST = 8192         # a second and a half at 65 Mbit/s

cdef enum DepartureFate:
    FATE_NONE = 0
    FATE_UNDER_WAY = 1
    FATE_MISSING = 2               # reported as not received; may still be reported as received
    FATE_ARRIVED = 3

ctypedef struct Departure:
    uint32_t sent_us               # mod 2^32
    uint16_t size_bytes            # of the datagram with IP and UDP headers
    uint8_t fate
    uint8_t cluster                # of a probe; 0 = none

ctypedef struct Departures:
    Departure* places              # by number mod capacity; capacity a power of two that divides 2^16
    uint32_t capacity
    uint16_t next                  # number behind the newest
    uint8_t started

# NULL where there is no memory.
cdef Departures* departures_new() noexcept nogil
cdef void departures_free(Departures* d) noexcept nogil
# Numbers are noted in order, each once.
cdef void departures_note(Departures* d, uint16_t number, int64_t size_bytes, uint8_t cluster, int64_t now_ns) noexcept nogil
# Borrowed; NULL: never sent, or too long ago.
cdef Departure* departures_find(Departures* d, uint16_t number) noexcept nogil
# When it was sent, on the clock of `now_ns`; good for 35 minutes.
cdef int64_t departure_ns(const Departure* x, int64_t now_ns) noexcept nogil
