"""The mark view of a publication: whether its frames bear the mark of the format they were declared in (DESIGN section 5).

Of a frame it reads the first MARK_HEAD_BYTES and the last MARK_TAIL_BYTES, nothing else, and what it finds out leaves it as one
bit: go on, or stop. Nothing that forwarding decides comes from here.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int32_t, int64_t, uint64_t
from relaycore.counters cimport Counters
from relaycore.rtp cimport RtpHeader
from relaycore.views cimport FrameView

cdef enum:
    MARK_HEAD_BYTES = 32           # wrapper and SFrame header, or the first 16 bytes for the plaintext detectors
    MARK_TAIL_BYTES = 24           # LiveKit's 14 with H264's emulation prevention
    MARK_ENCODINGS = 4
    MARK_KEY_RANGES = 32

cdef enum FrameKind:
    FRAMES_CLEAR = 1
    FRAMES_LIVEKIT = 2
    FRAMES_SFRAME = 3

cdef enum StopReason:
    STOP_NOT = 0
    STOP_UNMARKED = 1              # 8 of the last 10 frames had no mark, or none could be judged for very long
    STOP_PLAINTEXT = 2             # marked, but the frames behind the mark are the codec's own

ctypedef struct MarkView:          # what is read of a frame
    uint8_t head[32]
    uint8_t tail[24]
    uint8_t head_bytes
    uint8_t tail_bytes             # bytes that are known to be the frame's last ones
    uint8_t has_gap                # packets between the first and the last are missing
    uint32_t frame_bytes           # without the descriptors; of the packets that came
    uint32_t rtp_ts
    uint8_t codec

ctypedef struct MarkTrack:         # one encoding
    MarkView frame                 # being put together
    uint8_t started
    uint8_t in_frame
    uint8_t next_starts            # without a descriptor: the last packet had the marker
    uint8_t has_counter
    uint8_t steps                  # SFrame: frames in a row that counted on, up to what makes them believed
    uint8_t waiting                # frames that are judged once it is known whether those behind them count on
    uint32_t ssrc
    int64_t next_seq
    uint16_t verdicts              # of the last frames, bit 0 the newest; 1 = bad
    uint16_t plain_run             # frames one after the other that look plain
    uint8_t plain_keyframes
    uint8_t body_first             # of the frame before, behind its header
    uint32_t unjudged_packets
    uint32_t frame_packets         # that came of the frame being put together
    uint64_t kid                   # SFrame: of the frame before
    uint64_t highest_kid
    uint64_t ctr
    uint32_t counter_ts
    uint32_t frames_under_kid
    int64_t window_ns              # of a clear publication: when counting began
    uint32_t window_frames
    uint32_t window_bad

ctypedef struct MarkProbe:         # one receiver
    int kind
    int reason                     # STOP_NOT as long as it goes on
    uint8_t is_undeclared          # clear, but its frames are not; stays set
    uint32_t key_range_count       # so many were announced; the newest MARK_KEY_RANGES are known
    uint64_t first_kid[32]
    uint64_t last_kid[32]
    MarkTrack tracks[4]

# NULL: memory is short.   Owns: the caller frees it.
cdef MarkProbe* probe_new(int kind) noexcept nogil
# Adds key ids; a range that touches a known one widens it, else the oldest one makes place.   Errors: E_INVALID.
cdef int probe_announce(MarkProbe* p, uint64_t first_kid, uint64_t last_kid) noexcept nogil
# Whether no packet can be judged yet because no key was announced.
cdef bint probe_waits(const MarkProbe* p) noexcept nogil
# One packet with a payload, as its sender sent it first (no repair). True = go on, false = stop for ever: `reason` says why.
cdef bint probe_packet(MarkProbe* p, Counters* c, int codec, bint is_video, int32_t encoding, const RtpHeader* h, int64_t ext_seq,
                       const FrameView* v, const uint8_t* payload, int64_t now_ns) noexcept nogil
# A packet that was sent again: it comes when its frame is over, and is not judged; but not everything may come so.
cdef bint probe_repair(MarkProbe* p, int32_t encoding) noexcept nogil
