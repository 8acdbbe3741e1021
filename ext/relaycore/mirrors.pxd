"""Receivers that are published on one worker and subscribed to on others (DESIGN section 2).

The worker of the publisher, the home, exports packets that another worker demands; there a mirror routes them to
its own subscribers as if they had been received. Demand and keyframe requests go back. A stop (fail closed) goes the way of the
packets and overtakes them.
"""
from libc.stdint cimport int32_t, uint32_t, int64_t
from relaycore.mailbox cimport MirrorCommand
from relaycore.routes cimport Engine, PacketFacts, Receiver, RtpStream
from relaycore.slab cimport Slot

# At home. Errors: E_STATE (no such worker).
cdef int export_add(Engine* e, Receiver* r, uint32_t worker) noexcept nogil
cdef int export_remove(Engine* e, Receiver* r, uint32_t worker) noexcept nogil
cdef void export_packet(Engine* e, Receiver* r, const Slot* slot, const PacketFacts* f) noexcept nogil
cdef void export_report(Engine* e, const Receiver* r, const RtpStream* s) noexcept nogil      # its sender info is new
# It was stopped: its mirrors are told, again and again if need be.
cdef void export_stop(Engine* e, Receiver* r, int64_t now_ns) noexcept nogil
cdef bint export_wanted(const Engine* e, const Receiver* r, int32_t encoding) noexcept nogil  # by any other worker

# At the mirror.
cdef int mirror_add(Engine* e, const MirrorCommand* spec, int64_t now_ns) noexcept nogil
cdef void mirror_demand(Engine* e, Receiver* r) noexcept nogil         # tells the home when what is wanted has changed
cdef void mirror_request(Engine* e, Receiver* r, int32_t encoding, bint joins, int64_t now_ns) noexcept nogil    # a keyframe
cdef void mirrors_run(Engine* e, int64_t now_ns) noexcept nogil        # what is due

# Takes a bounded number of what others have published, and publishes what this one has to say. True: more waits.
cdef bint mirrors_exchange(Engine* e, int64_t now_ns) noexcept nogil
