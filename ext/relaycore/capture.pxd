"""Capture of one transport's headers, for a bounded time and number of records, into a ring that the control plane empties.

What a record can hold is decided here, not by its callers: of RTP the header with its extensions and no byte behind it, of
RTCP at most CAPTURE_BYTES of the clear compound, of STUN and DTLS nothing but that a datagram went by, how long it was, and
between which addresses. So there is no place that a payload, a key or an ICE password could be written to.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t
from relaycore.counters cimport Counters
from relaycore.icelite cimport ICE_NO_TUPLE, IceLite, IceTuple
from relaycore.stun cimport SockAddr

cdef enum:
    CAPTURE_BYTES = 256            # kept of one packet: more than any header seen, 4 report blocks and a TWCC report
    CAPTURE_PLACES = 4096          # of a worker's ring, 1.3 MB; power of two. A quarter of a second at 16,000 packets/s
    CAPTURE_RECORDS = 1000000      # that one command may ask for
    CAPTURE_SECONDS = 600

cdef enum CaptureKind:
    CAPTURE_RTP = 1
    CAPTURE_RTCP = 2
    CAPTURE_STUN = 3
    CAPTURE_DTLS = 4

cdef enum CaptureDirection:
    CAPTURE_RECEIVED = 0
    CAPTURE_SENT = 1

ctypedef struct CaptureRecord:
    int64_t now_ns
    uint32_t transport             # id
    uint32_t missed                # records of this transport between the one before and this that found no room
    SockAddr remote
    uint16_t socket_index
    uint16_t wire_bytes            # of the datagram
    uint16_t kept_bytes
    uint8_t kind
    uint8_t direction
    uint8_t kept[256]

cdef struct CaptureRing            # one producer, the worker; one consumer, the control plane

ctypedef struct Capture:           # part of a transport; all zero = off
    uint32_t left                  # records still wanted; 0 = off
    uint32_t missed
    uint32_t transport
    int64_t until_ns
    CaptureRing* ring              # borrowed from the port
    Counters* counters             # borrowed from the engine

cdef CaptureRing* capture_ring_new() noexcept nogil
cdef void capture_ring_free(CaptureRing* ring) noexcept nogil
cdef int capture_take(CaptureRing* ring, CaptureRecord* out) noexcept nogil       # 1 or 0; the place is wiped
# records 0: off.
cdef int capture_set(Capture* c, CaptureRing* ring, Counters* counters, uint32_t transport, uint32_t records,
                     int64_t until_ns) noexcept nogil

cdef void capture_packet(Capture* c, int direction, const IceTuple* pair, const uint8_t* packet, Py_ssize_t header_bytes,
                         Py_ssize_t wire_bytes, int64_t now_ns) noexcept nogil
cdef void capture_compound(Capture* c, int direction, const IceTuple* pair, const uint8_t* compound, Py_ssize_t bytes,
                           Py_ssize_t wire_bytes, int64_t now_ns) noexcept nogil
cdef void capture_datagram(Capture* c, int kind, int direction, const IceTuple* pair, Py_ssize_t wire_bytes,
                           int64_t now_ns) noexcept nogil


# The packet path's hooks. `pair`: index of the tuple it came from or goes to. Off, each costs one comparison.

cdef inline void capture_rtp(Capture* c, int direction, const IceLite* ice, int pair, const uint8_t* packet,
                             Py_ssize_t header_bytes, Py_ssize_t wire_bytes, int64_t now_ns) noexcept nogil:
    if c.left and pair != ICE_NO_TUPLE:
        capture_packet(c, direction, &ice.tuples[pair], packet, header_bytes, wire_bytes, now_ns)


cdef inline void capture_rtcp(Capture* c, int direction, const IceLite* ice, int pair, const uint8_t* compound,
                              Py_ssize_t bytes, Py_ssize_t wire_bytes, int64_t now_ns) noexcept nogil:
    if c.left and pair != ICE_NO_TUPLE:
        capture_compound(c, direction, &ice.tuples[pair], compound, bytes, wire_bytes, now_ns)


cdef inline void capture_note(Capture* c, int kind, int direction, const IceLite* ice, int pair, Py_ssize_t wire_bytes,
                              int64_t now_ns) noexcept nogil:
    """Of STUN and DTLS: nothing but that it was there."""
    if c.left and pair != ICE_NO_TUPLE:
        capture_datagram(c, kind, direction, &ice.tuples[pair], wire_bytes, now_ns)
