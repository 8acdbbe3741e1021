"""What a thread of the load generator owns: endpoints, what they send, what they receive, and everything counted of it.

One LoadThread is touched by one OS thread at a time: its own, or a Python caller that holds its lock. Pointers are owned by
the struct they stand in unless a comment says borrowed.
"""
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t
from relaycore.hdrext cimport ExtMap
from relaycore.lgice cimport IceAgent
from relaycore.lgstamp cimport Digest, Stamp
from relaycore.mailbox cimport CodecEntry
from relaycore.slab cimport Slab, Slot
from relaycore.srtp cimport SrtpContext, SrtpRxState, SrtpTxState
from relaycore.stun cimport SockAddr
from relaycore.timers cimport Timers
from relaycore.twcc cimport TwccRecorder

cdef enum:
    LG_ENCODINGS = 4
    LG_HISTORY = 256               # frames that a NACK can still name; power of two
    LG_FRAME_PACKETS = 512         # of one frame at most
    LG_FRAME_BYTES = 393216        # 384 KiB
    LG_PACKET_BYTES = 1472         # a UDP payload, tag included
    LG_HELD = 512                  # packets behind a hole; power of two
    LG_MISSING = 256               # holes asked for at a time
    LG_NUMBERS = 64                # frame numbers remembered; power of two
    LG_BATCH = 64                  # datagrams per system call
    LG_DATAGRAM_BYTES = 2048

cdef enum SenderKind:
    SENDER_AUDIO = 0
    SENDER_VIDEO = 1
    SENDER_BURST = 2

cdef enum LoadEventKind:
    LOAD_ICE_CONNECTED = 1
    LOAD_ICE_DEAD = 2
    LOAD_DATAGRAM = 3
    LOAD_STREAM_BOUND = 4
    LOAD_FIRST_FRAME = 5

ctypedef struct LoadEvent:
    int32_t kind
    uint32_t endpoint
    uint32_t subject               # receiver id
    uint32_t payload_bytes
    int64_t now_ns
    uint8_t* payload               # malloc'ed, freed by the reader
    LoadEvent* next

# --- sending ---------------------------------------------------------------------------------------------------------

ctypedef struct SendCounts:
    uint64_t frames
    uint64_t keyframes
    uint64_t packets
    uint64_t bytes                 # whole RTP packets, plain
    uint64_t retransmitted
    uint64_t nacked                # sequence numbers asked for
    uint64_t plis
    uint64_t firs
    uint64_t refused               # by the kernel
    uint64_t reports               # RR blocks about it

ctypedef struct SentFrame:         # enough to make its packets again
    Stamp stamp
    int64_t first_seq
    uint32_t rtp_ts
    uint32_t packets
    uint32_t chunk_bytes           # of the frame in every packet but the last
    uint16_t picture_id
    uint16_t frame_number          # of the Dependency Descriptor
    uint8_t tl0
    uint8_t is_sync                # builds on the base layer alone
    uint8_t template_id
    uint8_t marker

ctypedef struct SendEncoding:
    uint32_t ssrc
    uint32_t rtx_ssrc              # 0 = none
    uint8_t rid[16]
    uint8_t rid_bytes
    uint8_t is_active
    uint8_t wants_keyframe
    uint8_t reported               # an RR about it came: MID and RID need not be sent any more
    uint32_t bitrate_bps
    uint32_t width
    uint32_t height
    uint32_t base_ts
    int64_t next_seq               # ext; SRTP indices
    int64_t next_rtx_seq
    SrtpTxState srtp
    SrtpTxState rtx_srtp
    SentFrame* history             # LG_HISTORY; NULL for audio
    uint64_t history_count         # frames ever put there
    uint32_t position              # in the temporal pattern
    uint32_t pattern_numbers[4]    # number of the last frame at each place of it
    uint16_t picture_id
    uint16_t frame_number
    uint8_t tl0
    double drift                   # state of the size trace
    double debt_bytes
    int64_t last_keyframe_ns
    uint32_t sr_middle             # of the last SR, and when it left
    int64_t sr_sent_ns
    uint64_t total_packets         # since ever, for SRs
    uint64_t total_bytes           # payload
    uint8_t fraction_lost
    int32_t total_lost
    int64_t rtt_ns
    SendCounts counts

ctypedef struct Sender:
    uint32_t id
    int kind
    int codec
    uint8_t payload_type
    uint8_t rtx_payload_type
    uint8_t is_started
    uint8_t was_silent             # audio: the next packet begins a talk spurt
    uint8_t mid[16]
    uint8_t mid_bytes
    uint32_t clock_rate_hz
    int64_t interval_ns            # between frames
    int64_t next_ns                # 0 = not scheduled yet
    int64_t start_ns               # of the timestamps' count
    uint32_t next_number
    int temporal_layers
    int64_t keyframe_interval_ns   # 0 = first and when asked for
    double keyframe_factor
    double deviation
    uint32_t payload_bytes         # video: at most in one packet, descriptor left out. burst: of the whole RTP packet
    uint32_t burst
    uint32_t min_bytes
    uint32_t max_bytes
    double level                   # audio, -dBov
    int spurt_left                 # packets to the next pause or spurt
    uint64_t random
    int encoding_count
    SendEncoding encodings[4]

# --- receiving -------------------------------------------------------------------------------------------------------

ctypedef struct ReceiveCounts:
    uint64_t packets               # primary stream, first copies
    uint64_t bytes                 # as they came
    uint64_t rtx_packets
    uint64_t reordered
    uint64_t duplicates
    uint64_t late                  # came when nobody waited any more
    uint64_t recovered             # by RTX
    uint64_t given_up
    uint64_t refused               # unauthentic or not to be read
    uint64_t verified              # packets decrypted
    uint64_t padding
    uint64_t frame_ends            # markers; audio: packets
    uint64_t frames_complete
    uint64_t frames_incomplete
    uint64_t frames_corrupt
    uint64_t frames_out_of_order
    uint64_t frames_duplicate
    uint64_t frames_missing        # numbers that never came, behind a hole in the sequence
    uint64_t frames_skipped        # numbers that never came without one: the relay left them out
    uint64_t frames_undecodable    # complete, but what they build on is missing
    uint64_t keyframes
    uint64_t switches              # the sending encoding changed
    uint64_t nacks_sent            # sequence numbers, repetitions included
    uint64_t plis_sent
    uint64_t freezes
    uint64_t freeze_ns
    uint64_t longest_freeze_ns
    uint64_t delays
    uint64_t delay_sum_ns
    int64_t delay_min_ns
    int64_t delay_max_ns
    uint64_t delay_negative

ctypedef struct Missing:
    int64_t ext_seq
    int64_t noticed_ns
    int64_t asked_ns
    int32_t tries

ctypedef struct Repair:            # of one video stream; made at the first hole
    Slot* held[512]                # by ext_seq; one reference each
    Missing missing[256]           # ascending
    int missing_count

ctypedef struct Stream:            # what one receiver receives
    uint32_t id
    int is_video
    uint32_t ssrc                  # 0 = not bound
    uint32_t previous_ssrc
    uint32_t rtx_ssrc
    uint8_t ssrc_is_given
    uint8_t wants_nack
    uint8_t wants_pli
    uint8_t expects_frames
    uint8_t mid[16]
    uint8_t mid_bytes
    uint8_t codec_count
    CodecEntry codecs[16]
    uint32_t clock_rate_hz         # of the last packet's codec
    SrtpRxState srtp
    SrtpRxState rtx_srtp
    # Numbers as they came, whether decrypted or not.
    SrtpRxState seen
    int64_t base_seq
    uint64_t received              # first copies since ever
    uint64_t recovered
    int64_t lost_mark              # what counted as lost when the counts were reset
    int64_t expected_prior
    int64_t received_prior
    uint32_t transit
    uint32_t jitter_16
    uint32_t sr_middle
    int64_t sr_arrival_ns
    int64_t last_arrival_ns
    # Repair.
    Repair* repair
    int64_t next_seq               # the next to be consumed
    uint8_t has_next
    int64_t nack_due_ns            # 0 = nothing missing
    int64_t pli_due_ns             # 0 = none wanted
    int64_t pli_sent_ns
    # The frame being read.
    uint8_t is_open
    uint8_t is_broken              # bytes that cannot be right: stays until the end
    uint8_t has_stamp
    uint8_t has_hole               # packets were given up since the last complete frame
    uint8_t passed_start           # the present frame's start was missed; counted
    uint8_t is_sampled             # this frame is decrypted
    uint64_t sample_count
    int64_t sample_next            # ext_seq that the sampled frame goes on with
    uint32_t open_ts
    uint32_t frame_bytes
    Stamp stamp
    uint8_t head[48]
    Digest digest
    uint8_t trailer[8]
    int64_t frame_arrival_ns
    # Frames that came.
    uint32_t last_stream
    uint32_t last_number
    int64_t last_frame_seq
    uint8_t has_frame
    uint32_t corrupt_since         # frames since the last right one
    uint32_t seen_numbers[64]      # number + 1
    uint32_t decodable[64]         # number + 1
    int64_t first_frame_ns
    int64_t last_shown_ns
    double mean_interval_ns
    uint32_t* delays               # histogram; NULL until the first
    ReceiveCounts counts

# --- endpoints -------------------------------------------------------------------------------------------------------

ctypedef struct EndpointCounts:
    uint64_t packets_received
    uint64_t bytes_received
    uint64_t packets_sent
    uint64_t bytes_sent
    uint64_t refused               # by the kernel
    uint64_t receive_overflow      # SO_RXQ_OVFL
    uint64_t unbound               # RTP that belongs to no receiver
    uint64_t unauthentic           # RTCP
    uint64_t malformed
    uint64_t dtls_received
    uint64_t rtcp_received
    uint64_t feedback_received     # transport-wide
    uint64_t feedback_sent

ctypedef struct Endpoint:
    uint32_t id
    int32_t index                  # in its thread
    int fd
    SockAddr local
    SockAddr remote
    uint8_t has_remote
    uint8_t has_keys
    uint32_t overflow_seen
    IceAgent ice
    SrtpContext* send_context
    SrtpContext* receive_context
    ExtMap extensions
    TwccRecorder* twcc             # NULL until the first number
    uint16_t twcc_next             # for what it sends
    uint32_t twcc_media_ssrc
    uint32_t rtcp_ssrc
    uint8_t cname[64]
    uint8_t cname_bytes
    int64_t report_due_ns
    int64_t feedback_due_ns        # 0 = nothing to report
    Sender** senders
    int sender_count
    Stream** streams
    int stream_count
    EndpointCounts counts

ctypedef struct ThreadCounts:
    uint64_t turns
    uint64_t drains
    uint64_t hold_exhausted        # packets behind a hole for which there was no room
    uint64_t events_dropped
    uint64_t frames_skipped        # not sent, because the schedule was late by more than CATCH_UP
    uint64_t clock_steps           # CLOCK_REALTIME moved against CLOCK_MONOTONIC
    uint64_t no_memory

ctypedef struct LoadThread:
    uint32_t number
    int is_eager
    int has_kernel_time
    uint32_t verify_every          # 1 = all, 0 = nothing is decrypted
    int srtp_backend
    int64_t drain_ns
    int receive_buffer_bytes
    int send_buffer_bytes
    uint8_t key[16]
    int sending                    # atomic
    uint64_t random
    Endpoint** endpoints           # by index; NULL = free
    int32_t endpoint_capacity
    int32_t endpoint_count         # highest index used + 1
    Timers timers                  # owner = endpoint index
    Slab* slab
    int epoll_fd                   # -1 when lazy
    int64_t real_offset_ns         # CLOCK_REALTIME - CLOCK_MONOTONIC
    int64_t offset_due_ns
    LoadEvent* first_event
    LoadEvent* last_event
    int event_count
    int event_fd                   # borrowed
    uint8_t rang                   # event_fd was written since events were last taken
    uint8_t* scratch               # one frame, LG_FRAME_BYTES
    SendEncoding* scratch_encoding # borrowed: whose frame lies there, and which
    uint32_t scratch_number
    void* io                       # lgsocket.SocketIo
    ThreadCounts counts
    uint32_t lateness[704]
    uint32_t drain_gap[704]
    int64_t last_drain_ns
    int64_t reset_ns
    int64_t cpu_mark_ns            # thread's CPU time at the last reset
    int64_t wait_mark_ns


cdef inline int64_t stream_highest(const Stream* s) noexcept nogil:
    """Return the highest ext_seq that came; base_seq - 1 before the first."""
    return s.seen.highest if s.seen.started else s.base_seq - 1


cdef inline int64_t stream_lost(const Stream* s) noexcept nogil:
    """Return how many packets are lost since the stream began; repaired ones are not."""
    return stream_highest(s) - s.base_seq + 1 - <int64_t>(s.received + s.recovered)


cdef inline Stream* find_stream_by_ssrc(Endpoint* e, uint32_t ssrc) noexcept nogil:
    """Return the stream whose primary SSRC this is; NULL = none."""
    cdef int i
    for i in range(e.stream_count):
        if e.streams[i].ssrc == ssrc and ssrc:
            return e.streams[i]
    return NULL
