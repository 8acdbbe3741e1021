"""Test face of the big-endian accessors: what the inline functions of be.pxd read and write."""
from libc.stdint cimport uint8_t


def get(bytes data not None, int width):
    """Read one number of `width` bits (16, 24, 32, 64) from the start of `data`; ValueError when it is too short."""
    cdef const uint8_t* p = <const uint8_t*>data
    if width not in (16, 24, 32, 64):
        raise ValueError("width is 16, 24, 32 or 64")
    if not need(len(data), width // 8):
        raise ValueError("too short")
    if width == 16:
        return get_u16(p)
    if width == 24:
        return get_u24(p)
    if width == 32:
        return get_u32(p)
    return get_u64(p)


def put(value, int width):
    """Return the `width` / 8 bytes that the accessors write for `value`."""
    cdef uint8_t[8] buf
    if width == 16:
        put_u16(buf, value)
    elif width == 24:
        put_u24(buf, value)
    elif width == 32:
        put_u32(buf, value)
    elif width == 64:
        put_u64(buf, value)
    else:
        raise ValueError("width is 16, 24, 32 or 64")
    return (<const char*>buf)[:width // 8]
