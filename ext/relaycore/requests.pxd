"""What publishers are asked for: lost packets (NACK) and keyframes (PLI)."""
from libc.stdint cimport int32_t, int64_t
from relaycore.routes cimport Egress, Engine, Receiver, Transport

# For whoever needs one; coalesced per encoding, within the publisher's budget, and repeated while it is owed.
cdef void request_keyframe(Engine* e, Receiver* r, int32_t encoding, int64_t now_ns) noexcept nogil
# For an egress that has to begin at one; who was sent nothing so far may be made to wait while many come at once.
cdef void request_start(Engine* e, Receiver* r, const Egress* g, int32_t encoding, int64_t now_ns) noexcept nogil
# A new egress wants this encoding: one in the cache will do.
cdef void expect_start(Engine* e, Receiver* r, const Egress* g, int32_t encoding, int64_t now_ns) noexcept nogil
# Whether somebody who can be reached is shown this encoding or waits for it.
cdef bint is_wanted(const Engine* e, const Receiver* r, int32_t encoding) noexcept nogil
# What is due on a publisher's transport; moves keyframe_due_ns and nack_due_ns, which the caller schedules.
cdef void run_keyframe_requests(Engine* e, Transport* t, int64_t now_ns) noexcept nogil
cdef void run_nacks(Engine* e, Transport* t, int64_t now_ns) noexcept nogil
