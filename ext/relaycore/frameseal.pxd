"""End-to-end encryption of whole encoded frames for load tests and clients: LiveKit GCM and SFrame (RFC 9605) suite 4.

A FrameSeal belongs to one sender's stream (one SSRC, one KID), whichever end holds it, and to one thread at a time. The
relay has no use for it: it holds no frame keys and never loads this module.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from relaycore.cipher cimport AeadKey

cdef enum FrameFormat:
    FORMAT_LIVEKIT = 1
    FORMAT_SFRAME = 2

cdef enum:
    FRAME_KEY_BYTES = 16
    FRAME_SALT_BYTES = 12
    SFRAME_HEADER_MAX_BYTES = 17
    SFRAME_METADATA_MAX_BYTES = 128
    LIVEKIT_TRAILER_BYTES = 14           # IV, its length, key index
    LIVEKIT_KEYS = 16

cdef struct FrameSeal:
    AeadKey* aead                        # owned; freed by frame_seal_free
    uint64_t counter                     # of the next frame
    uint64_t kid                         # SFrame
    uint32_t ssrc                        # LiveKit
    uint8_t salt[FRAME_SALT_BYTES]       # SFrame
    uint8_t key_index                    # LiveKit
    uint8_t format
    uint8_t codec                        # views.Codec
    uint8_t is_exhausted                 # SFrame: CTR 2^64 - 1 was used

# NULL: no such backend or codec for the format (LiveKit has no AV1, SFrame no H264 here), or memory is short.
cdef FrameSeal* livekit_seal_new(int backend, int codec, const uint8_t* key, uint8_t key_index, uint32_t ssrc,
                                 uint32_t first_counter) noexcept nogil
cdef FrameSeal* sframe_seal_new(int backend, int codec, const uint8_t* key, const uint8_t* salt, uint64_t kid,
                                uint64_t first_counter) noexcept nogil
cdef void frame_seal_free(FrameSeal* s) noexcept nogil

# Bytes that the destination must have for any frame of n bytes, in either direction.
cdef Py_ssize_t frame_sealed_max(const FrameSeal* s, Py_ssize_t n) noexcept nogil
# Sealed length, or E_NO_SPACE, E_SHORT (fewer bytes than must stay clear), E_FORMAT (H264 without a slice),
# E_INVALID (metadata too long), E_KEY_EXHAUSTED. src and dst are disjoint. rtp_ts: LiveKit; metadata and is_keyframe: SFrame.
cdef Py_ssize_t frame_seal(FrameSeal* s, const uint8_t* src, Py_ssize_t n, uint32_t rtp_ts, bint is_keyframe,
                           const uint8_t* metadata, Py_ssize_t metadata_bytes, uint8_t* dst, Py_ssize_t capacity) noexcept nogil
# Length of the frame, or E_AUTH, E_SHORT, E_FORMAT, E_LENGTH, E_NO_SPACE, E_INVALID, E_UNSUPPORTED (another key's index or KID).
# counter (may be NULL) gets the sender's: SFrame's CTR, LiveKit's last IV word. Replay is the caller's business.
cdef Py_ssize_t frame_open(FrameSeal* s, const uint8_t* src, Py_ssize_t n, const uint8_t* metadata, Py_ssize_t metadata_bytes,
                           uint8_t* dst, Py_ssize_t capacity, uint64_t* counter) noexcept nogil

# SFrame's header. write: its length, at most 17. parse: its length, or E_SHORT, E_FORMAT (a longer form than needed).
cdef Py_ssize_t write_sframe_header(uint64_t kid, uint64_t ctr, uint8_t* dst) noexcept nogil
cdef Py_ssize_t parse_sframe_header(const uint8_t* p, Py_ssize_t n, uint64_t* kid, uint64_t* ctr) noexcept nogil
