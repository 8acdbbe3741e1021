"""Frames out of packets that come in order: is the content what was sent, in the order in which it was sent?"""
from libc.stdint cimport uint8_t, int64_t
from relaycore.lgmodel cimport LoadThread, Stream
from relaycore.rtp cimport RtpHeader

cdef enum AssembleOutcome:         # bits
    ASSEMBLE_FRAME = 1             # a frame was completed and is right
    ASSEMBLE_BROKEN = 2            # one could not be decoded: a keyframe is wanted

# The next packet of a stream in the order of its numbers: `payload` behind the header, padding taken off.
cdef int assemble_packet(LoadThread* t, Stream* s, int codec, const RtpHeader* h, int64_t ext_seq, const uint8_t* payload, Py_ssize_t n, int64_t arrival_ns) noexcept nogil
# The packet that comes next in the order never will.
cdef int assemble_hole(Stream* s) noexcept nogil
