"""What repair needs to remember: the packets of a received rtp_stream, and which of them each subscriber got under what number.

The packets are kept once per stream, however many subscribers there are; a subscriber's log says only (output number ->
source number, mapping). Both are bounded in packets and in time.
"""
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t
from relaycore.slab cimport Slab, Slot

cdef enum:
    SOURCE_PLACES = 1024           # packets of one stream; power of two
    SOURCE_MS = 1000               # a receiver asks again for about that long
    SENT_PLACES = 1024             # packets of one subscription; power of two
    SENT_MAPPINGS = 64             # switches within the log's reach, and pictures: where layers are left out each may have its own
    RESENDS_MAX = 10               # of one packet
    SENT_IS_BASE = 1               # of the lowest frame rate, which all that comes leans on
    SENT_WAITS = 2                 # asked for again, and not sent since

ctypedef struct SourceHistory:     # zero-initialise
    Slot* slots[1024]              # one reference each; by source number
    int64_t oldest                 # source numbers between which there may be packets; oldest > newest = none
    int64_t newest
    uint8_t started

# What the header of a packet needs beside the packet itself.
ctypedef struct HeaderRules:
    uint8_t top                    # highest spatial id that goes out: who ends its frame ends the picture
    uint8_t names_active           # of the Dependency Descriptor: `active` are the decode targets that come
    uint16_t frame_offset          # added to its frame number
    uint32_t active

# How packets of one source were rewritten: everything a retransmission has to do again in the same way.
ctypedef struct SentMapping:
    uint32_t serial                # RtpStream.serial
    int32_t encoding
    uint32_t ts_offset
    uint16_t picture_offset
    uint8_t tl0_offset
    uint8_t payload_type
    uint8_t rtx_payload_type       # 0 = cannot be retransmitted
    HeaderRules rules

ctypedef struct SentPacket:
    uint32_t source_low            # low 32 bits of the source number
    uint16_t sent_ms               # of the last time, mod 2^16
    uint16_t out_low               # low 16 bits of the output number
    uint16_t mapping               # its running number mod 2^16; an entry lives for fewer than SENT_PLACES of them
    uint8_t resends
    uint8_t marks                  # SENT_…

ctypedef struct SentLog:           # zero-initialise
    SentPacket packets[1024]       # by output number
    SentMapping mappings[64]
    uint32_t mapping_count         # made so far; the newest is mappings[(mapping_count - 1) % SENT_MAPPINGS]

# Keeps a packet (takes one reference more) under its source number, and lets go of those that are too old.
cdef void source_keep(SourceHistory* h, Slab* slab, Slot* slot, int64_t ext_seq) noexcept nogil
cdef void source_trim(SourceHistory* h, Slab* slab, int64_t before_ns) noexcept nogil      # drops what arrived before
cdef void source_clear(SourceHistory* h, Slab* slab) noexcept nogil
cdef Slot* source_find(const SourceHistory* h, int64_t ext_seq) noexcept nogil             # borrowed; NULL = not there

# Starts a mapping unless `m` is the present one.
cdef void sent_map(SentLog* l, const SentMapping* m) noexcept nogil
cdef void sent_log(SentLog* l, int64_t out_seq, int64_t source_seq, bint is_base, int64_t now_ns) noexcept nogil
# The log's entry for a 16-bit number and its mapping; NULL = never sent, or too long ago.
cdef SentPacket* sent_find(SentLog* l, uint16_t out_low, SentMapping** mapping) noexcept nogil
