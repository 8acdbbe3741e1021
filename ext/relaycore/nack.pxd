"""Receive log of one rtp_stream: what is missing, since when, and when to ask for it (RFC 4585 section 6.2.1)."""
from libc.stdint cimport uint8_t, uint16_t, int32_t, int64_t

cdef enum:
    NACK_PLACES = 256              # missing packets remembered; more is a break, not loss: a keyframe mends it
    NACK_TRIES = 10
    NACK_AGE_MS = 1000             # what is older no receiver waits for

ctypedef struct MissingPacket:
    int64_t ext_seq
    int64_t since_ns
    int64_t asked_ns               # last time; 0 = never
    int32_t tries

ctypedef struct NackTracker:       # zero-initialise
    uint8_t started
    uint8_t gave_up                # something stays lost, and nobody was told yet: cleared by who acts on it
    int64_t lost_seq               # newest packet that stays lost
    int64_t highest
    int64_t rtt_ns                 # from asking to getting, smoothed; 0 = no sample yet
    int64_t reorder_ns             # how much later than its successor a packet comes that is not lost; forgotten slowly
    int64_t due_ns                 # when to call nack_collect; 0 = nothing is missing
    int32_t count
    MissingPacket missing[256]     # ascending

# A packet was received, or taken from its retransmission. Returns whether it had been lost: missing, asked for, no mere straggler.
cdef bint nack_received(NackTracker* n, int64_t ext_seq, bint is_repair, int64_t now_ns) noexcept nogil
# Fills out[0:cap] with numbers to ask for now, ascending; returns how many, moves due_ns. Gives up what is too old.
cdef int nack_collect(NackTracker* n, int64_t now_ns, uint16_t* out, int cap) noexcept nogil
