"""Commands of the control plane into one mailbox, events out of it; base class of Worker and SansIoEngine."""
from libc.stdint cimport uint32_t
from relaycore.capture cimport CaptureRing
from relaycore.engine cimport Snapshot
from relaycore.mailbox cimport Command, Event, Mailbox

cdef class CommandPort:
    cdef Mailbox* _mailbox             # borrowed from the subclass; NULL = does not run
    cdef Snapshot _snapshot            # arrays owned
    cdef CaptureRing* _captured        # owned; NULL until a capture was asked for
    cdef uint32_t _last_number, _snapshot_number, _unanswered
    cdef bint _has_snapshot, _holds_bell

    cdef int _need_mailbox(self) except -1
    cdef int _begin(self, Command* c, uint32_t op, object transport=*) except -1
    cdef object _submit(self, Command* c)
    cdef object _submit_unbounded(self, Command* c)
    cdef object _ice(self, uint32_t op, object transport, object ufrag, object password, object bits_per_s=*)
    cdef object _export_command(self, uint32_t op, object receiver, object worker)
    cdef object _egress_command(self, uint32_t op, object egress, object encoding)
    cdef object _event(self, Event* e)
