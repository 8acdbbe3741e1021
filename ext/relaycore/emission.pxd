"""The last steps of a packet to one subscriber: header, levelling, protection, outbox.

A run is what of one frame goes to one subscriber at a time; its packets are made equally long where a few bytes of RTP
padding do it, so that the kernel takes them in one GSO send (LIMITS sections 4a, 4d).
"""
from libc.stdint cimport uint8_t, int32_t, uint32_t, int64_t
from relaycore.history cimport HeaderRules
from relaycore.routes cimport Egress, Engine, PacketFacts, Transport
from relaycore.slab cimport Slot

cdef enum:
    RUN_MAX = 16                   # packets; the gain of GSO flattens behind that
    FIXED_HEADER_BYTES = 12
    RTP_P_BIT = 0x20

ctypedef struct Staged:
    Slot* out                      # owned: header written, to be protected
    Slot* source                   # holds the payload; the run holds a reference
    uint8_t* payload
    int32_t payload_bytes
    int32_t header_bytes
    int64_t out_seq

ctypedef struct Run:               # zero-initialise
    Transport* transport
    Egress* egress
    uint32_t out_ts
    int32_t count
    int64_t now_ns
    Staged items[16]

# Header with the subscriber's own extension ids; `rules` NULL for a packet that is of no frame; `mid` as long as the receiver may not know our SSRC. Returns its bytes.
cdef int write_header(Transport* t, Egress* g, const PacketFacts* f, uint8_t* dst, Py_ssize_t cap, uint32_t ssrc,
                      uint8_t payload_type, int64_t out_seq, uint32_t out_ts, const HeaderRules* rules, int64_t now_ns) noexcept nogil
# Adds a packet whose header is written; takes the reference to item.out, holds item.source until it was sent. Sends the run first when the packet is not of it.
cdef void run_add(Engine* e, Run* run, Transport* t, Egress* g, uint32_t out_ts, const Staged* item) noexcept nogil
cdef void run_send(Engine* e, Run* run) noexcept nogil
