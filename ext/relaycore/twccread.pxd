"""Transport-wide feedback that a subscriber sends us, status by status (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1)."""
from libc.stdint cimport uint8_t, uint16_t, int32_t, int64_t
from relaycore.rtcp cimport RtcpPacket

ctypedef struct FeedbackWalk:
    const uint8_t* at              # next chunk
    const uint8_t* deltas          # next delta
    const uint8_t* end
    uint16_t number                # of the next status
    int32_t left                   # statuses not yet walked over
    uint16_t chunk
    int32_t chunk_left             # statuses of `chunk` not yet walked over
    int64_t ticks                  # arrival of the last received one, in 250 us since the reference's zero

# Checks the whole packet, so that a walk never ends early: E_SHORT, E_FORMAT. Format 15 is the caller's to see.
cdef int feedback_begin(FeedbackWalk* w, const RtcpPacket* p) noexcept nogil
# 1: `number` arrived at `ticks`; 2: it had not arrived; 0: the end.
cdef int feedback_next(FeedbackWalk* w, uint16_t* number, int64_t* ticks) noexcept nogil
