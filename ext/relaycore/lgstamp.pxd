"""The stamp and the keyed digest that every generated frame carries, so that whoever receives it can prove what came.

A frame: | head: 1, 3 or 10 bytes that look like the codec's | stamp, 32 bytes | fill | digest, 8 bytes |
"""
from libc.stdint cimport uint8_t, uint32_t, int64_t, uint64_t

cdef enum:
    STAMP_BYTES = 32
    DIGEST_BYTES = 8
    MAX_HEAD_BYTES = 10
    DIGEST_KEY_BYTES = 16

ctypedef struct Digest:                # SipHash-2-4 in progress
    uint64_t v0
    uint64_t v1
    uint64_t v2
    uint64_t v3
    uint64_t tail                      # bytes that do not fill a word yet, the first lowest
    uint64_t total_bytes

ctypedef struct Stamp:
    uint32_t stream                    # the sending encoding's SSRC, as its sender chose it
    uint32_t number                    # of the frame, counted over all encodings of a sender
    uint32_t bytes                     # of the whole frame, head and digest included
    uint32_t reference                 # number of the frame it builds on; its own for a keyframe
    uint8_t is_keyframe
    uint8_t temporal_id
    int64_t send_ns                    # CLOCK_MONOTONIC of the sender when the first packet was about to leave

cdef void digest_begin(Digest* d, const uint8_t* key) noexcept nogil                # 16 bytes
cdef void digest_feed(Digest* d, const uint8_t* data, Py_ssize_t n) noexcept nogil
cdef uint64_t digest_end(Digest* d) noexcept nogil

cdef void write_stamp(uint8_t* dst, const Stamp* stamp) noexcept nogil              # STAMP_BYTES
cdef int parse_stamp(const uint8_t* src, Stamp* out) noexcept nogil                 # E_OK, E_FORMAT
# Bytes a frame begins with, so that those who may look at a frame's start see what they expect; returns how many.
cdef int write_head(uint8_t* dst, int codec, bint is_keyframe, uint32_t width, uint32_t height) noexcept nogil
cdef int head_bytes(int codec, uint8_t first) noexcept nogil
# A frame of stamp.bytes in two steps, so that the send time can be taken after the long one: head, fill and their digest, then
# stamp and digest. The same stamp and key make the same frame. What is fed to the digest: head, fill, stamp.
cdef void fill_frame(uint8_t* dst, int codec, const Stamp* stamp, uint32_t width, uint32_t height, const uint8_t* key, Digest* digest) noexcept nogil
cdef void seal_frame(uint8_t* dst, int codec, const Stamp* stamp, Digest* digest) noexcept nogil
