"""When a publisher may be asked for a keyframe again: coalesced per encoding, within a budget in bytes per transport."""
from libc.stdint cimport uint8_t, uint32_t, int64_t

ctypedef struct KeyframeBudget:    # of one publisher's transport; zero-initialise
    int64_t spent_bytes            # by keyframes that we asked for, less a share of what was received since

ctypedef struct KeyframeLog:       # of one encoding; zero-initialise
    uint8_t is_owed                # asked for, and none began since
    uint8_t is_counting
    uint32_t rtp_ts                # of the keyframe that is being counted
    uint32_t counted_bytes
    uint32_t bytes                 # size of the last whole one
    int64_t joins_paid_ns          # who came lately has used up time to this point

# A packet of video with payload came.
cdef void keyframe_count(KeyframeLog* k, KeyframeBudget* b, uint32_t rtp_ts, bint starts, uint32_t payload_bytes) noexcept nogil
# A request goes out.
cdef void keyframe_requested(KeyframeLog* k, KeyframeBudget* b) noexcept nogil
# Somebody came who will want one.
cdef void keyframe_joined(KeyframeLog* k, int64_t now_ns) noexcept nogil
cdef int64_t keyframe_crowd_ns(const KeyframeLog* k, int64_t now_ns) noexcept nogil    # how long who comes may be made to wait
# The time that must pass after the last request; `joins`: nobody wants it but who has seen nothing yet.
cdef int64_t keyframe_pause_ns(const KeyframeLog* k, const KeyframeBudget* b, int64_t rtt_ns, bint joins, int64_t now_ns) noexcept nogil
