"""Sizes and levels of generated media: traces that look like an encoder's, reproducible from a seed."""
from libc.stdint cimport uint32_t, uint64_t
from relaycore.lgmodel cimport SendEncoding, Sender

cdef uint64_t trace_random(uint64_t* state) noexcept nogil          # xorshift64*; the state is never 0
cdef uint64_t trace_seed(uint64_t seed, uint64_t salt) noexcept nogil   # splitmix64 of both, never 0
# Bytes of the next frame of a video encoding, head, stamp and digest included.
cdef uint32_t trace_video(Sender* s, SendEncoding* x, bint is_keyframe) noexcept nogil
# Bytes of the next audio packet; moves s.level and s.spurt_left, *begins_spurt = the marker's value.
cdef uint32_t trace_audio(Sender* s, bint* begins_spurt) noexcept nogil
