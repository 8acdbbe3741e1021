"""What one peer may send in a second: packets and bits, with a reserve for what must not suffer from its own video."""
from libc.stdint cimport uint32_t, int64_t, uint64_t

ctypedef struct PoliceLimits:      # of one peer or of all; zero-initialised: none
    int64_t packet_ns              # the part of a second that one packet takes; 0 = no limit
    int64_t kilobyte_ns            # likewise 1,024 bytes

ctypedef struct Police:            # of one peer; zero-initialise
    int64_t packets_paid_ns        # what came has used the shares up to these times
    int64_t bytes_paid_ns
    int64_t reserve_packets_paid_ns
    int64_t reserve_bytes_paid_ns

cdef void police_set(PoliceLimits* l, uint32_t packets_per_s, uint64_t bits_per_s) noexcept nogil       # 0 = no limit
cdef void police_set_bits(PoliceLimits* l, uint64_t bits_per_s) noexcept nogil                          # 0 = no limit
# Whether one more datagram is within the limits; it is paid for if so.
cdef bint police_admits(Police* p, const PoliceLimits* l, Py_ssize_t n, int64_t now_ns) noexcept nogil
# The same for the reserve, an eighth of the limits on top of them.
cdef bint police_admits_reserved(Police* p, const PoliceLimits* l, Py_ssize_t n, int64_t now_ns) noexcept nogil
