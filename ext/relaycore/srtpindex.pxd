"""Packet indexes of one SSRC (RFC 3711 section 3.3): guess the rollover count, refuse what was seen or is too old.

Receive and send states have the same fields, so that one set of functions serves both.
"""
from libc.stdint cimport uint16_t, int64_t, uint64_t
from libc.string cimport memset
from relaycore.errs cimport E_OK, E_REPLAY, E_TOO_OLD

cdef enum:
    INDEX_WINDOW = 1024            # srtp.SRTP_WINDOW, which cannot be cimported here: srtp imports this file
    WINDOW_MASK = INDEX_WINDOW - 1
    WINDOW_BYTES = INDEX_WINDOW >> 3


cdef inline bint was_seen(const uint64_t* window, int64_t index) noexcept nogil:
    return (window[(index & WINDOW_MASK) >> 6] >> <uint64_t>(index & 63)) & 1u


cdef inline int check_index(int started, int64_t highest, const uint64_t* window, int64_t index) noexcept nogil:
    """Spec: RFC 3711 section 3.3.2. E_OK, E_REPLAY, E_TOO_OLD."""
    if not started or index > highest:
        return E_OK
    if highest - index >= INDEX_WINDOW:
        return E_TOO_OLD
    if was_seen(window, index):
        return E_REPLAY
    return E_OK


cdef inline void mark_index(int* started, int64_t* highest, uint64_t* window, int64_t index) noexcept nogil:
    cdef int64_t i
    if not started[0] or index - highest[0] >= INDEX_WINDOW:
        memset(window, 0, WINDOW_BYTES)
        started[0] = 1
        highest[0] = index
    elif index > highest[0]:
        i = highest[0] + 1
        while i < index:
            if (i & 63) == 0 and index - i >= 64:
                window[(i & WINDOW_MASK) >> 6] = 0
                i += 64
            else:
                window[(i & WINDOW_MASK) >> 6] &= ~(<uint64_t>1 << <uint64_t>(i & 63))
                i += 1
        highest[0] = index
    window[(index & WINDOW_MASK) >> 6] |= <uint64_t>1 << <uint64_t>(index & 63)


cdef inline int64_t guess_index(int started, int64_t highest, uint16_t seq) noexcept nogil:
    """Return the index that a packet with this seq most likely has; below 0 or above 48 bits when none is possible.

    Spec: RFC 3711 section 3.3.1 and appendix A. The first packet of a stream starts at rollover count 0.
    """
    cdef int64_t roc, last
    if not started:
        return seq
    roc = highest >> 16
    last = highest & 0xffff
    if last < 0x8000:
        if <int64_t>seq - last > 0x8000:
            roc -= 1
    elif last - 0x8000 > <int64_t>seq:
        roc += 1
    return roc * 0x10000 + seq
