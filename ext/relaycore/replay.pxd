"""Sending the keyframe cache to subscribers who come late: a cursor per egress through its stream's cache.

While it moves, live packets of the stream are not queued for that egress: they stand in the cache too, and the cursor comes to them. So
everything goes out once and in order, at the pace of media in quanta, and is numbered when it does, like any other packet.
"""
from libc.stdint cimport int32_t, int64_t
from relaycore.routes cimport Egress, Engine, PacketFacts, Receiver, RtpStream, Transport
from relaycore.slab cimport Slot

# A packet of video passes on to its subscribers: what a later one may need of it is kept.
cdef void replay_keep(Engine* e, const Receiver* r, RtpStream* s, Slot* slot, const PacketFacts* f, bint starts) noexcept nogil
# Whether an egress that waits for a keyframe of this encoding can be sent one from the cache.
cdef bint replay_serves(Engine* e, const Receiver* r, const Egress* g, int32_t encoding, int64_t now_ns) noexcept nogil
# Starts that; false = it has to wait for a keyframe.
cdef bint replay_begin(Engine* e, Receiver* r, Transport* t, Egress* g, RtpStream* s, int lane, int64_t now_ns) noexcept nogil
# The next packet to send on this transport, borrowed, and for whom; NULL: all are where the live packets are.
cdef Slot* replay_take(Engine* e, Transport* t, Egress** egress, int64_t now_ns) noexcept nogil
# What follows is not for this egress any more, or not there: as far as it has begun, it starts over at a keyframe.
cdef void replay_end(Engine* e, Egress* g, bint is_done) noexcept nogil
# Nobody begins any more at what the caches of a receiver hold, or at what arrived by now and waits for its turn.
cdef void replay_forget(Engine* e, Receiver* r, int64_t now_ns) noexcept nogil
