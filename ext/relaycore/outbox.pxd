"""The batch of datagrams that one engine call leaves behind; whoever owns the sockets drains it.

Entries of one destination and frame stand next to each other (`run`), so that one GSO send takes them whole.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from relaycore.slab cimport Slot, Slab
from relaycore.stun cimport SockAddr

cdef enum:
    OUTBOX_MAX = 1024

ctypedef struct OutDatagram:
    Slot* slot                     # the outbox holds one reference; outbox_clear drops it
    SockAddr remote
    uint16_t socket_index
    uint16_t run                   # equal numbers = same destination and frame
    uint32_t transport             # index, for counters of send errors

ctypedef struct Outbox:
    OutDatagram items[1024]
    int count
    uint16_t next_run
    uint8_t takes_gso              # equally long datagrams of a run go out in one system call: worth some padding

cdef int outbox_put(Outbox* o, Slot* slot, const SockAddr* remote, uint16_t socket_index, uint16_t run, uint32_t transport) noexcept nogil   # takes the reference; on E_NO_SPACE the caller keeps it
cdef void outbox_clear(Outbox* o, Slab* s, int from_index) noexcept nogil
# Closes the gaps left by items whose slot a sender took out (slot = NULL), in order.
cdef void outbox_compact(Outbox* o) noexcept nogil
