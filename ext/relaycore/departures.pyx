"""Log of sent packets; the contract stands in departures.pxd."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef enum:
    # What is younger when its place is needed again will still be reported: the log grows.
    STILL_AWAITED_US = 1500000


cdef inline uint32_t _us(int64_t now_ns) noexcept nogil:
    return <uint32_t>(<uint64_t>now_ns // 1000u & 0xffffffffu)


cdef Departures* departures_new() noexcept nogil:
    cdef Departures* d = <Departures*>calloc(1, sizeof(Departures))
    if d == NULL:
        return NULL
    d.places = <Departure*>calloc(DEPARTURES_FIRST, sizeof(Departure))
    if d.places == NULL:
        free(d)
        return NULL
    d.capacity = DEPARTURES_FIRST
    return d


cdef void departures_free(Departures* d) noexcept nogil:
    if d != NULL:
        free(d.places)
        free(d)


cdef void _grow(Departures* d) noexcept nogil:
    """Double the places. Where there is no memory the oldest are forgotten, as at the largest size."""
    cdef Departure* grown = <Departure*>calloc(2 * d.capacity, sizeof(Departure))
    cdef uint16_t number
    cdef uint32_t i
    if grown == NULL:
        return
    for i in range(1, d.capacity + 1):
        number = <uint16_t>((d.next - i) & 0xffffu)
        grown[number & (2 * d.capacity - 1)] = d.places[number & (d.capacity - 1)]
    free(d.places)
    d.places = grown
    d.capacity *= 2


cdef void departures_note(Departures* d, uint16_t number, int64_t size_bytes, uint8_t cluster, int64_t now_ns) noexcept nogil:
    cdef Departure* x
    if d.started and number != d.next:
        # Numbers that were drawn and not sent leave no trace of 65,536 packets ago.
        while d.next != number:
            memset(&d.places[d.next & (d.capacity - 1)], 0, sizeof(Departure))
            d.next = <uint16_t>(d.next + 1u)
    x = &d.places[number & (d.capacity - 1)]
    if x.fate == FATE_UNDER_WAY and d.capacity < DEPARTURES_MOST and _us(now_ns) - x.sent_us < <uint32_t>STILL_AWAITED_US:
        _grow(d)
        x = &d.places[number & (d.capacity - 1)]
    x.sent_us = _us(now_ns)
    x.size_bytes = <uint16_t>size_bytes
    x.fate = FATE_UNDER_WAY
    x.cluster = cluster
    d.next = <uint16_t>(number + 1u)
    d.started = 1


cdef Departure* departures_find(Departures* d, uint16_t number) noexcept nogil:
    cdef uint32_t age = <uint16_t>((<uint32_t>d.next - 1u - number) & 0xffffu)
    cdef Departure* x = &d.places[number & (d.capacity - 1)]
    return x if age < d.capacity and x.fate != FATE_NONE else NULL


cdef int64_t departure_ns(const Departure* x, int64_t now_ns) noexcept nogil:
    return now_ns - <int64_t><int32_t>(_us(now_ns) - x.sent_us) * 1000
