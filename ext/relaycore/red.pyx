"""Redundant audio; the contract stands in red.pxd.

Spec: RFC 2198 section 3. A header for each block, the primary's last; then the blocks in the same order.

     0                   1                    2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3  4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |1|   block PT  |  timestamp offset         |   block length    |   redundant
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |0|   block PT  |                                                   primary
    +-+-+-+-+-+-+-+-+
"""
from libc.stdint cimport uint8_t, uint16_t
from relaycore.be cimport get_u16, need
from relaycore.errs cimport E_FORMAT, E_LENGTH, E_OK, E_SHORT
from relaycore.errs import raise_for
from relaycore.markprobe cimport FRAMES_CLEAR
from relaycore.routes cimport PacketFacts, Receiver
from relaycore.slab cimport Slot
from relaycore.views cimport CODEC_OPUS

cdef enum:
    HEADER_BYTES = 4
    BLOCKS_MAX = 16                # redundant ones: libwebrtc sends at most 9


cdef int red_primary(const uint8_t* payload, Py_ssize_t n, uint8_t* payload_type) noexcept nogil:
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t redundant = 0
    cdef int blocks = 0
    while need(n, at + 1) and payload[at] & 0x80:
        if not need(n, at + HEADER_BYTES):
            return E_SHORT
        # Of one codec, as every RED for Opus is.
        if blocks == BLOCKS_MAX or payload[at] != payload[0]:
            return E_FORMAT
        redundant += get_u16(payload + at + 2) & 0x3ff
        at += HEADER_BYTES
        blocks += 1
    if not need(n, at + 1):
        return E_SHORT
    if (payload[at] ^ payload[0]) & 0x7f:
        return E_FORMAT
    payload_type[0] = payload[at] & 0x7f
    at += 1 + redundant
    return <int>at if need(n, at + 1) else E_LENGTH


cdef int red_read(const Receiver* r, const Slot* slot, PacketFacts* f) noexcept nogil:
    cdef uint8_t payload_type = 0
    cdef int skipped, i
    if r.probe == NULL or r.probe.kind != FRAMES_CLEAR:
        return E_OK
    skipped = red_primary(slot.data + f.rtp.payload_offset, f.rtp.payload_bytes, &payload_type)
    if skipped < 0:
        return skipped
    for i in range(r.spec.codec_count):
        if r.spec.codecs[i].payload_type == payload_type and r.spec.codecs[i].codec == CODEC_OPUS:
            f.red_bytes = <uint16_t>skipped
            return E_OK
    return E_FORMAT


cdef void red_rewrite(uint8_t* payload, uint8_t payload_type) noexcept nogil:
    cdef Py_ssize_t at = 0
    while payload[at] & 0x80:
        payload[at] = <uint8_t>(0x80 | payload_type)
        at += HEADER_BYTES
    payload[at] = payload_type


def parse(bytes payload not None) -> tuple:
    """Test face: return (bytes in front of the primary block, its payload type); WireError on bad bytes."""
    cdef uint8_t payload_type = 0
    cdef int skipped = red_primary(payload, len(payload), &payload_type)
    raise_for(skipped)
    return skipped, payload_type
