"""Which transports have something to send, in the order in which they got it, in two lanes.

Streams with few subscribers go in the fast lane; those whose every packet is the work of a good part of a millisecond go in
the other one, so that nobody else's call waits for a room of a thousand (DESIGN section 4).
"""
from libc.stdint cimport int32_t
from relaycore.routes cimport Engine, Transport

cdef enum:                             # lanes
    LANE_FAST = 0
    LANE_BULK = 1

# A transport stays in the lane in which it already waits.
cdef void mark_ready(Engine* e, Transport* t, int lane) noexcept nogil
# The next transports of a lane, at most `most`, in the order in which they became ready.
cdef int take_ready(Engine* e, int lane, int32_t* out, int most) noexcept nogil
cdef int grow_ready(Engine* e) noexcept nogil                         # room for every transport there can be now; E_MEMORY
cdef void leave_ready(Engine* e, Transport* t) noexcept nogil         # a transport that goes
