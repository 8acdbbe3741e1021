"""The records of a capture and the ring they wait in; the contract stands in capture.pxd.

A full ring costs the record, never the packet: it is counted, and the next record says how many are missing before it.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from relaycore.be cimport get_u16
from relaycore.errs cimport E_INVALID, E_OK
from relaycore.icelite cimport IceTuple

cdef extern from *:
    """
    static inline unsigned int capture_load_acquire(const unsigned int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void capture_store_release(unsigned int *p, unsigned int v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    """
    uint32_t capture_load_acquire(const uint32_t* p) noexcept nogil
    void capture_store_release(uint32_t* p, uint32_t v) noexcept nogil

cdef enum:
    RTP_FIXED_BYTES = 12
    RTP_EXT_HEAD_BYTES = 4

cdef struct CaptureRing:
    uint32_t head                  # consumer
    uint8_t between[60]
    uint32_t tail                  # producer
    uint8_t behind[60]
    CaptureRecord records[4096]


cdef CaptureRing* capture_ring_new() noexcept nogil:
    """Return an empty ring or NULL.   Owns: the caller frees it."""
    return <CaptureRing*>calloc(1, sizeof(CaptureRing))


cdef void capture_ring_free(CaptureRing* ring) noexcept nogil:
    free(ring)


cdef int capture_take(CaptureRing* ring, CaptureRecord* out) noexcept nogil:
    cdef CaptureRecord* place
    if ring.head == capture_load_acquire(&ring.tail):
        return 0
    place = &ring.records[ring.head & (CAPTURE_PLACES - 1u)]
    memcpy(out, place, sizeof(CaptureRecord))
    # Who spoke to whom does not linger after it was asked for.
    memset(place, 0, sizeof(CaptureRecord))
    capture_store_release(&ring.head, ring.head + 1)
    return 1


cdef int capture_set(Capture* c, CaptureRing* ring, Counters* counters, uint32_t transport, uint32_t records,
                     int64_t until_ns) noexcept nogil:
    if records and ring == NULL:
        return E_INVALID
    memset(c, 0, sizeof(Capture))
    c.ring = ring
    c.counters = counters
    c.transport = transport
    c.left = records
    c.until_ns = until_ns
    return E_OK


cdef Py_ssize_t _header_bytes(const uint8_t* packet, Py_ssize_t n) noexcept nogil:
    """Length of an RTP header with CSRC list and extension (RFC 3550 section 5.1, 5.3.1); 0 when `n` bytes are no whole one.

    Read out of the packet once more: what a caller takes for the header decides nothing about what is kept.
    """
    cdef Py_ssize_t bytes = RTP_FIXED_BYTES
    if n < bytes or packet[0] >> 6 != 2:
        return 0
    bytes += 4 * (packet[0] & 15)
    if packet[0] & 0x10:
        if n < bytes + RTP_EXT_HEAD_BYTES:
            return 0
        bytes += RTP_EXT_HEAD_BYTES + 4 * <Py_ssize_t>get_u16(packet + bytes + 2)
    return bytes if n >= bytes else 0


cdef void _put(Capture* c, int kind, int direction, const IceTuple* pair, const uint8_t* data, Py_ssize_t bytes,
               Py_ssize_t wire_bytes, int64_t now_ns) noexcept nogil:
    cdef CaptureRing* ring = c.ring
    cdef CaptureRecord* place
    cdef uint32_t tail = ring.tail
    if now_ns >= c.until_ns:
        c.left = 0
        return
    if tail - capture_load_acquire(&ring.head) >= CAPTURE_PLACES:
        c.missed += 1
        c.counters.capture_missed += 1
        return
    place = &ring.records[tail & (CAPTURE_PLACES - 1u)]
    place.now_ns = now_ns
    place.transport = c.transport
    place.missed = c.missed
    place.remote = pair.remote
    place.socket_index = pair.socket_index
    place.wire_bytes = <uint16_t>(<uint64_t>wire_bytes & 0xffffu)
    place.kept_bytes = <uint16_t>(<uint64_t>min(bytes, CAPTURE_BYTES) & 0xffffu)
    place.kind = <uint8_t>(kind & 0xff)
    place.direction = <uint8_t>(direction & 0xff)
    if place.kept_bytes:
        memcpy(place.kept, data, place.kept_bytes)
    c.missed = 0
    c.left -= 1
    c.counters.captured += 1
    capture_store_release(&ring.tail, tail + 1)


cdef void capture_packet(Capture* c, int direction, const IceTuple* pair, const uint8_t* packet, Py_ssize_t header_bytes,
                         Py_ssize_t wire_bytes, int64_t now_ns) noexcept nogil:
    _put(c, CAPTURE_RTP, direction, pair, packet, _header_bytes(packet, header_bytes), wire_bytes, now_ns)


cdef void capture_compound(Capture* c, int direction, const IceTuple* pair, const uint8_t* compound, Py_ssize_t bytes,
                           Py_ssize_t wire_bytes, int64_t now_ns) noexcept nogil:
    _put(c, CAPTURE_RTCP, direction, pair, compound, bytes, wire_bytes, now_ns)


cdef void capture_datagram(Capture* c, int kind, int direction, const IceTuple* pair, Py_ssize_t wire_bytes,
                           int64_t now_ns) noexcept nogil:
    _put(c, kind, direction, pair, NULL, 0, wire_bytes, now_ns)


def kept_of(bytes packet, Py_ssize_t header_bytes):
    """Return what a record keeps of an RTP packet whose header its caller takes to be `header_bytes` long."""
    cdef const uint8_t* data = <const uint8_t*><const char*>packet
    if not 0 <= header_bytes <= len(packet):
        raise ValueError(f"{header_bytes} bytes of {len(packet)}")
    return PyBytes_FromStringAndSize(<const char*>data, min(_header_bytes(data, header_bytes), CAPTURE_BYTES))
