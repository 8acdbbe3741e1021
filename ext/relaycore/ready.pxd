"""Which transports have something to send, in the order in which they got it."""
from libc.stdint cimport int32_t
from relaycore.routes cimport Engine, Transport

cdef void mark_ready(Engine* e, Transport* t) noexcept nogil
# The next transports with work, at most `most`, in the order in which they became ready.
cdef int take_ready(Engine* e, int32_t* out, int most) noexcept nogil
cdef int grow_ready(Engine* e) noexcept nogil                         # room for every transport there can be now; E_MEMORY
cdef void leave_ready(Engine* e, Transport* t) noexcept nogil         # a transport that goes
