"""An engine without sockets, thread or clock, under the worker's own commands and events."""
from libc.stdint cimport int64_t, uint32_t
from relaycore.exchange cimport WorkerExchange
from relaycore.mailbox cimport Mailbox
from relaycore.outbox cimport Outbox
from relaycore.port cimport CommandPort
from relaycore.routes cimport Engine
from relaycore.slab cimport Slab

cdef class SansIoEngine(CommandPort):
    cdef Slab* _slab                   # all four owned
    cdef Outbox* _outbox
    cdef Mailbox* _own_mailbox
    cdef Engine* _engine
    cdef WorkerExchange _exchange      # or None
    cdef uint32_t _index
    cdef readonly object next_ns

    cdef int _take_outbox(self, list out) except -1
    cdef int _run_commands(self, int64_t now_ns) except -1
