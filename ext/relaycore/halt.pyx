"""Stopping a publication on one worker; the contract stands in halt.pxd."""
from relaycore.be cimport get_u32
from relaycore.demux cimport KIND_RTP, demux_datagram
from relaycore.history cimport source_clear
from relaycore.outbox cimport OutDatagram, outbox_compact
from relaycore.routes cimport Egress, Engine, Receiver, Transport, find_by_ssrc, find_transport
from relaycore.replay cimport replay_forget
from relaycore.slab cimport slot_drop


cdef bint _is_of(Engine* e, const Receiver* r, const OutDatagram* item) noexcept nogil:
    """Whether a datagram that waits for its socket is a packet of one of the receiver's egresses: its SSRC stands in the clear."""
    cdef Transport* t
    cdef Egress* g
    if demux_datagram(item.slot.data, item.slot.length) != KIND_RTP:
        return False
    t = find_transport(e, item.transport)
    g = NULL if t == NULL else find_by_ssrc(e, t, get_u32(item.slot.data + 8))
    return g != NULL and g.receiver == r.index


cdef void halt_receiver(Engine* e, Receiver* r) noexcept nogil:
    cdef int i
    r.is_stopped = 1
    for i in range(r.encoding_count):
        if r.encodings[i].stream != NULL and r.encodings[i].stream.history != NULL:
            source_clear(r.encodings[i].stream.history, e.slab)
    replay_forget(e, r, e.now_ns)
    for i in range(e.outbox.count):
        if e.outbox.items[i].slot != NULL and _is_of(e, r, &e.outbox.items[i]):
            slot_drop(e.slab, e.outbox.items[i].slot)
            e.outbox.items[i].slot = NULL
    outbox_compact(e.outbox)
