"""Big-endian access to packet bytes. Callers have checked the length (`need`) before they read."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef inline bint need(Py_ssize_t have, Py_ssize_t wanted) noexcept nogil:
    return have >= wanted


cdef inline uint16_t get_u16(const uint8_t* p) noexcept nogil:
    return <uint16_t>((<uint16_t>p[0] << 8) | p[1])


cdef inline uint32_t get_u24(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[0] << 16) | (<uint32_t>p[1] << 8) | p[2]


cdef inline uint32_t get_u32(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]


cdef inline uint64_t get_u64(const uint8_t* p) noexcept nogil:
    return (<uint64_t>get_u32(p) << 32) | get_u32(p + 4)


cdef inline void put_u16(uint8_t* p, uint16_t v) noexcept nogil:
    p[0] = <uint8_t>(v >> 8)
    p[1] = <uint8_t>(v & 0xff)


cdef inline void put_u24(uint8_t* p, uint32_t v) noexcept nogil:
    p[0] = <uint8_t>((v >> 16) & 0xff)
    p[1] = <uint8_t>((v >> 8) & 0xff)
    p[2] = <uint8_t>(v & 0xff)


cdef inline void put_u32(uint8_t* p, uint32_t v) noexcept nogil:
    p[0] = <uint8_t>(v >> 24)
    p[1] = <uint8_t>((v >> 16) & 0xff)
    p[2] = <uint8_t>((v >> 8) & 0xff)
    p[3] = <uint8_t>(v & 0xff)


cdef inline void put_u64(uint8_t* p, uint64_t v) noexcept nogil:
    put_u32(p, <uint32_t>(v >> 32))
    put_u32(p + 4, <uint32_t>(v & 0xffffffffu))
