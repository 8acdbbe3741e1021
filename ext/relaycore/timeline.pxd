"""One time scale for all encodings that a subscriber is shown in turn (DESIGN section 4, Time)."""
from libc.stdint cimport uint32_t
from relaycore.routes cimport Egress, Engine, PacketFacts, Receiver, RtpStream

# Notes when a packet of video was captured, where it says so (abs-capture-time).
cdef void timeline_note(RtpStream* s, const PacketFacts* f) noexcept nogil
# Timestamp offset at which a new source goes on where the old one is.
cdef uint32_t timeline_offset(Engine* e, const Receiver* r, const Egress* g, const RtpStream* s, bint* known) noexcept nogil
# The egress goes over to a new source. Before g.source changes; `believed`: its offset is the right one.
cdef void timeline_switch(Egress* g, const RtpStream* s, uint32_t former_offset, bint believed) noexcept nogil
# A sender report came: an offset that was a guess can be put right.
cdef void timeline_settle(Engine* e, const Receiver* r, Egress* g) noexcept nogil
