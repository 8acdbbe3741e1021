"""Policing of one peer: two token buckets, kept as the time up to which they are spent; the contract stands in police.pxd.

What exceeds the limits is dropped before it costs a decryption. Audio, RTCP and DTLS (data channels) then go on from a reserve of
their own: a camera gone wild costs its owner pictures, not the voice. Deliberately absent: any memory of who exceeded.
"""
cimport cython
from libc.stdint cimport uint32_t, int64_t, uint64_t
from libc.string cimport memset
from relaycore.units cimport ms

cdef enum:
    BURST_MS = 500                 # what a radio link that was away for half a second delivers at once
    RESERVE = 8                    # 1 / share of the limits; of the defaults 1,250 packets in a second, 25 voices


cdef void police_set(PoliceLimits* l, uint32_t packets_per_s, uint64_t bits_per_s) noexcept nogil:
    l.packet_ns = <int64_t>(<uint64_t>1000000000u // packets_per_s) if packets_per_s else 0
    police_set_bits(l, bits_per_s)


cdef void police_set_bits(PoliceLimits* l, uint64_t bits_per_s) noexcept nogil:
    l.kilobyte_ns = <int64_t>(<uint64_t>8192000000000u // bits_per_s) if bits_per_s else 0


cdef inline bint _admits(int64_t* packets_paid_ns, int64_t* bytes_paid_ns, int64_t packet_ns, int64_t bytes_ns,
                         int64_t now_ns) noexcept nogil:
    packets_paid_ns[0] = max(packets_paid_ns[0], now_ns - ms(BURST_MS))
    bytes_paid_ns[0] = max(bytes_paid_ns[0], now_ns - ms(BURST_MS))
    if packets_paid_ns[0] + packet_ns > now_ns or bytes_paid_ns[0] + bytes_ns > now_ns:
        return False
    packets_paid_ns[0] += packet_ns
    bytes_paid_ns[0] += bytes_ns
    return True


cdef bint police_admits(Police* p, const PoliceLimits* l, Py_ssize_t n, int64_t now_ns) noexcept nogil:
    return _admits(&p.packets_paid_ns, &p.bytes_paid_ns, l.packet_ns, l.kilobyte_ns * n >> 10, now_ns)


cdef bint police_admits_reserved(Police* p, const PoliceLimits* l, Py_ssize_t n, int64_t now_ns) noexcept nogil:
    return _admits(&p.reserve_packets_paid_ns, &p.reserve_bytes_paid_ns, RESERVE * l.packet_ns, RESERVE * l.kilobyte_ns * n >> 10,
                   now_ns)


@cython.final
cdef class PoliceFace:
    """Test face: one peer and its limits."""
    cdef PoliceLimits limits
    cdef Police police

    def __cinit__(self, uint32_t packets_per_s, uint64_t bits_per_s):
        memset(&self.limits, 0, sizeof(PoliceLimits))
        memset(&self.police, 0, sizeof(Police))
        police_set(&self.limits, packets_per_s, bits_per_s)

    def admits(self, Py_ssize_t n, int64_t now_ns, bint reserved=False):
        if reserved:
            return bool(police_admits_reserved(&self.police, &self.limits, n, now_ns))
        return bool(police_admits(&self.police, &self.limits, n, now_ns))
