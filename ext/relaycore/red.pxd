"""Redundant audio (RFC 2198): where the primary block stands, for receivers that take Opus alone.

Only packets of publications declared clear are parsed: in an encrypted one a block's length would be the sender's secret.
"""
from libc.stdint cimport uint8_t
from relaycore.routes cimport PacketFacts, Receiver
from relaycore.slab cimport Slot

# Returns how many bytes stand in front of the primary block, which is not empty, and its payload type; E_SHORT, E_LENGTH, E_FORMAT.
cdef int red_primary(const uint8_t* payload, Py_ssize_t n, uint8_t* payload_type) noexcept nogil
# Notes where the Opus stands in a packet of RED, if its publication was declared clear. E_FORMAT: what is in it is not Opus.
cdef int red_read(const Receiver* r, const Slot* slot, PacketFacts* f) noexcept nogil
# Writes the payload type by which a receiver knows Opus into the headers of a packet that red_read has taken.
cdef void red_rewrite(uint8_t* payload, uint8_t payload_type) noexcept nogil
