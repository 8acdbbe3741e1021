"""Test face of the serial number arithmetic in seq.pxd."""


def diff(a, b, int bits):
    """Return a - b as a signed number of `bits` (8, 15, 16, 32)."""
    if bits == 8:
        return diff_u8(a, b)
    if bits == 15:
        return diff_u15(a, b)
    if bits == 16:
        return diff_u16(a, b)
    if bits == 32:
        return diff_u32(a, b)
    raise ValueError("bits is 8, 15, 16 or 32")


def unwrap(reference, number, int bits):
    """Return the unwrapped number nearest to `reference` whose low `bits` (16 or 32) are `number`."""
    if bits == 16:
        return unwrap_u16(reference, number)
    if bits == 32:
        return unwrap_u32(reference, number)
    raise ValueError("bits is 16 or 32")
