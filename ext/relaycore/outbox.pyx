"""Outgoing datagrams in order; see outbox.pxd for who owns what."""
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from relaycore.errs cimport E_NO_SPACE, E_OK
from relaycore.slab cimport Slab, Slot, slab_free, slab_new, slab_take, slab_used, slot_drop
from relaycore.stun cimport SockAddr


cdef int outbox_put(Outbox* o, Slot* slot, const SockAddr* remote, uint16_t socket_index, uint16_t run,
                    uint32_t transport) noexcept nogil:
    """Append one datagram (slot.length bytes).   Owns: takes the slot's reference unless it answers E_NO_SPACE."""
    cdef OutDatagram* item
    if o.count >= OUTBOX_MAX:
        return E_NO_SPACE
    item = &o.items[o.count]
    item.slot = slot
    memcpy(&item.remote, remote, sizeof(SockAddr))
    item.socket_index = socket_index
    item.run = run
    item.transport = transport
    o.count += 1
    return E_OK


cdef void outbox_clear(Outbox* o, Slab* s, int from_index) noexcept nogil:
    """Drop the datagrams from `from_index` on; those before it stay."""
    cdef int i
    for i in range(from_index, o.count):
        if o.items[i].slot != NULL:
            slot_drop(s, o.items[i].slot)
            o.items[i].slot = NULL
    if from_index < o.count:
        o.count = from_index


cdef void outbox_compact(Outbox* o) noexcept nogil:
    """Close the gaps of items whose slot was taken out (NULL), in order."""
    cdef int i
    cdef int kept = 0
    for i in range(o.count):
        if o.items[i].slot == NULL:
            continue
        if kept != i:
            memcpy(&o.items[kept], &o.items[i], sizeof(OutDatagram))
        kept += 1
    o.count = kept


@cython.final
cdef class OutboxFace:
    """An outbox with its own slab, for tests."""
    cdef Outbox* _outbox
    cdef Slab* _slab

    def __cinit__(self):
        self._outbox = <Outbox*>calloc(1, sizeof(Outbox))
        self._slab = slab_new(OUTBOX_MAX + 1, 0)
        if self._outbox == NULL or self._slab == NULL:
            raise MemoryError("outbox")

    def __dealloc__(self):
        free(self._outbox)
        slab_free(self._slab)

    def put(self, bytes data, uint16_t port, uint16_t socket_index, uint16_t run, uint32_t transport):
        """Return the code of outbox_put for `data` (at most 256 bytes) towards a port."""
        cdef SockAddr remote
        cdef Slot* slot = slab_take(self._slab, len(data))
        cdef int code
        if slot == NULL:
            raise MemoryError("slab")
        memset(&remote, 0, sizeof(SockAddr))
        remote.family = 4
        remote.port = port
        memcpy(slot.data, <const char*>data, <size_t>len(data))
        slot.length = <uint16_t>len(data)
        code = outbox_put(self._outbox, slot, &remote, socket_index, run, transport)
        if code < 0:
            slot_drop(self._slab, slot)
        return code

    def take_out(self, int index):
        """Remove one item as a sender does; `compact` closes the gap."""
        if not 0 <= index < self._outbox.count:
            raise IndexError(index)
        if self._outbox.items[index].slot != NULL:
            slot_drop(self._slab, self._outbox.items[index].slot)
            self._outbox.items[index].slot = NULL

    def compact(self):
        outbox_compact(self._outbox)

    def clear(self, int from_index=0):
        if from_index < 0:
            raise IndexError(from_index)
        outbox_clear(self._outbox, self._slab, from_index)

    def items(self):
        """Return [(data, port, socket_index, run, transport)]; data is None where an item was taken out."""
        cdef int i
        cdef OutDatagram* item
        out = []
        for i in range(self._outbox.count):
            item = &self._outbox.items[i]
            data = None if item.slot == NULL else PyBytes_FromStringAndSize(<char*>item.slot.data, item.slot.length)
            out.append((data, item.remote.port, item.socket_index, item.run, item.transport))
        return out

    def used(self):
        return slab_used(self._slab)
