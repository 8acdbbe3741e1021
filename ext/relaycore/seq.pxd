"""Serial number arithmetic (RFC 1982; RFC 3550 appendix A.1): compare and unwrap numbers that wrap around."""
from libc.stdint cimport uint8_t, int16_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t


cdef inline int32_t diff_u16(uint16_t a, uint16_t b) noexcept nogil:
    """Return a - b in -32768..32767."""
    return <int16_t><uint16_t>((<uint32_t>a - <uint32_t>b) & 0xffffu)


cdef inline int64_t diff_u32(uint32_t a, uint32_t b) noexcept nogil:
    """Return a - b in -2^31..2^31-1."""
    return <int64_t><int32_t>(a - b)


cdef inline int32_t diff_u15(uint16_t a, uint16_t b) noexcept nogil:
    """Return a - b for 15-bit numbers (VP8 picture id)."""
    cdef int32_t d = <int32_t>((<uint32_t>a - <uint32_t>b) & 0x7fffu)
    return <int32_t>(d - 0x8000) if d >= 0x4000 else d


cdef inline int32_t diff_u8(uint8_t a, uint8_t b) noexcept nogil:
    cdef int32_t d = <int32_t>((<uint32_t>a - <uint32_t>b) & 0xffu)
    return <int32_t>(d - 0x100) if d >= 0x80 else d


cdef inline int64_t unwrap_u16(int64_t reference, uint16_t number) noexcept nogil:
    """Return the ext_seq nearest to `reference` whose low 16 bits are `number`; may lie below 0 next to 0."""
    return reference + diff_u16(number, <uint16_t>(<uint64_t>reference & 0xffffu))


cdef inline int64_t unwrap_u32(int64_t reference, uint32_t number) noexcept nogil:
    return reference + diff_u32(number, <uint32_t>(<uint64_t>reference & 0xffffffffu))
