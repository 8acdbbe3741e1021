"""Who sends what to whom: the engine's tables of transports, receivers, rtp_streams and egresses.

Everything here is owned by one Engine and touched by its thread alone. Objects are allocated one by one and named by index
(inside the engine) and by id (towards the control plane); an index is reused, an id never.
"""
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t
from relaycore.capture cimport Capture
from relaycore.counters cimport Counters
from relaycore.departures cimport Departures
from relaycore.estimator cimport Estimator
from relaycore.exchange cimport Exchange
from relaycore.hdrext cimport ExtMap, ExtView
from relaycore.history cimport SentLog, SourceHistory
from relaycore.icelite cimport IceLite
from relaycore.keycache cimport CacheLedger, KeyCache
from relaycore.keyframes cimport KeyframeBudget, KeyframeLog
from relaycore.layers cimport LayerTable
from relaycore.loudness cimport Loudness
from relaycore.markprobe cimport MarkProbe
from relaycore.mailbox cimport CodecEntry, Event, IceCommand, Mailbox, MirrorCommand, ReceiverCommand, EgressCommand
from relaycore.nack cimport NackTracker
from relaycore.overload cimport Overload, Shedding
from relaycore.outbox cimport Outbox
from relaycore.pacer cimport Pacer
from relaycore.playout cimport LossGauge, Playout
from relaycore.police cimport Police, PoliceLimits
from relaycore.probe cimport Probe
from relaycore.projection cimport Projection
from relaycore.rtcp cimport SenderInfo
from relaycore.rtp cimport RtpHeader
from relaycore.selection cimport Selection
from relaycore.slab cimport Slab, Slot
from relaycore.srtp cimport SrtpContext, SrtpRxState, SrtpTxState
from relaycore.stun cimport SockAddr
from relaycore.tables cimport Table
from relaycore.timers cimport Timers
from relaycore.twcc cimport TwccRecorder
from relaycore.views cimport DdStructure, FrameView

cdef enum:
    MAX_STREAMS = 64               # SSRCs per transport: 16 simulcast publications with RTX use 96 at most in theory, 20 in practice
    MAX_RECEIVERS = 32             # published m-lines per transport
    MAX_ENCODINGS = 4
    QUEUE_PLACES = 1024            # packets waiting for one subscriber's transport; power of two
    RESEND_PLACES = 256            # retransmissions waiting for one subscriber's transport; power of two
    PENDING_ANY = 1                # bits; by somebody who is shown something, or was
    PENDING_JOINS = 2              # by who has seen nothing yet
    NO_INDEX = -1
    SSRC_SPENT = 0x7fffffff        # in by_ssrc: used before on this transport, never again (SRTP index reuse)

# Facts of a received packet, parsed once and read by every subscriber's dequeue; by slot number.
ctypedef struct PacketFacts:
    RtpHeader rtp
    ExtView extensions
    FrameView view
    int64_t ext_seq                # SRTP index of the source
    int32_t encoding
    uint8_t codec
    uint16_t red_bytes             # of clear RED: what stands in front of its primary block, which is Opus; else 0

ctypedef struct RtpStream:
    uint32_t ssrc
    int32_t receiver               # index; NO_INDEX = its receiver is gone, kept so that old packets stay replays
    int32_t encoding
    uint8_t is_repair              # RTX stream
    uint8_t has_sender_info
    uint8_t audio_level            # -dBov; 255 unknown
    uint8_t codec                  # views.Codec of the last packet
    uint32_t clock_rate_hz
    SrtpRxState srtp
    SenderInfo sender_info         # last SR
    int64_t sender_info_ns         # its arrival
    uint64_t capture_ntp           # when the packet at capture_ts was captured, as its sender says; 0 unknown
    uint32_t capture_ts
    int64_t base_seq
    int64_t highest_seq
    uint64_t packets
    uint64_t bytes
    uint64_t recovered             # taken from retransmissions; not in `packets`
    uint64_t frames
    uint64_t keyframes
    int64_t keyframe_seq           # first packet of the newest keyframe
    int64_t expected_prior         # RFC 3550 appendix A.3
    int64_t received_prior
    uint32_t transit
    uint32_t jitter_16             # 16 times the jitter, appendix A.8
    int64_t last_packet_ns
    DdStructure* structure         # owned; NULL until a Dependency Descriptor came
    LayerTable* layers             # owned; of video, not of a mirror's; NULL until its first packet
    NackTracker* nack              # owned; of video that is not a repair stream
    LossGauge losses               # packets that had to be repaired
    int64_t frame_interval_ns      # smoothed; 0 unknown
    int64_t last_frame_ns
    Loudness loudness              # of audio
    SourceHistory* history         # owned; NULL until a packet of video was forwarded
    int64_t unwanted_seq           # newest packet of video that is not in it, since nobody saw this encoding
    KeyCache* cache                # owned; NULL until the first keyframe
    uint32_t serial                # unique over the engine's life

ctypedef struct Encoding:
    RtpStream* stream              # borrowed from the transport
    uint8_t active
    uint8_t told_active            # what the control plane was told of `active`, and when
    uint8_t told_bound             # it was told the SSRC of `stream`
    uint8_t request_pending        # PENDING_*: a keyframe was asked for while the last request was too fresh
    int64_t told_ns
    int64_t last_packet_ns
    int64_t last_request_ns
    int64_t last_keyframe_ns
    KeyframeLog keyframes
    Shedding shedding

# What another worker gets of a receiver.
ctypedef struct Export:
    uint8_t demand                 # bit per encoding that its subscribers want
    uint8_t begun                  # bit per encoding: frame_ts holds
    uint8_t dropping               # bit per encoding: the rest of this frame finds no room either
    uint32_t frame_ts[4]           # timestamp of the frame that a decision was made for

ctypedef struct Receiver:          # one published m-line, or a mirror of one whose transport lives on another worker
    uint32_t id
    int32_t index
    int32_t transport              # NO_INDEX: a mirror
    int32_t home                   # of a mirror: the worker of its publisher; else NO_INDEX
    uint32_t exports               # bit per worker that has a mirror
    Export* exported               # owned; by worker; NULL until exported
    uint32_t stops_untold          # bit per worker whose mirror is still to be told that it was stopped
    uint8_t demand_told            # of a mirror: what its home was told that is wanted here
    int64_t fanout_paid_ns         # its fan-out has used its share of the fast lane up to this time
    uint32_t fanout_waiting        # packets of it among the jobs
    uint32_t fanout_ts[4]          # by encoding: timestamp of the frame that is being fanned out
    uint16_t fanout_packets[4]     # of it until now
    uint16_t fanout_expected[4]    # packets of the frame before
    uint8_t fanout_bulk            # bit per encoding: the frame goes in the bulk lane
    uint32_t home_serials[4]       # of a mirror: serials of the streams at home
    ReceiverCommand spec
    int64_t cache_since_ns         # keyframes that arrived before may not be begun at
    MarkProbe* probe               # owned; NULL until the frame format is set, and of a mirror
    uint8_t is_stopped             # declared encrypted, but it is not: nothing of it is forwarded any more; a mirror's too
    uint8_t is_stop_told           # to the control plane
    uint8_t is_undeclared_told
    int32_t encoding_count
    Encoding encodings[4]
    int32_t* egresses              # owned; indices
    uint32_t egress_count
    uint32_t egress_capacity

ctypedef struct Guess:             # the present source's timestamp offset is one (timeline.pxd)
    uint8_t is_on
    int32_t encoding               # of the last source whose offset was right
    uint32_t serial
    uint32_t offset

ctypedef struct Replay:            # an egress is being sent a stream's cache (replay.pxd)
    uint8_t is_on
    int32_t encoding
    uint32_t serial                # of the stream
    uint32_t missed_serial         # of the stream whose cache was found incomplete
    int64_t next_seq               # of the source
    int64_t began_ns

ctypedef struct Egress:            # one subscription
    uint32_t id
    int32_t index
    int32_t transport
    int32_t receiver
    EgressCommand spec
    uint8_t is_video
    int32_t wanted                 # -1 paused
    int32_t current                # encoding forwarded now, -1 none yet
    RtpStream* source              # stream of `current`; borrowed; NULL = it starts over under a new SSRC, at a keyframe
    uint8_t start_queued           # bit per encoding: a keyframe's first packet, at which forwarding may start, waits in the queue
    Replay replay
    uint8_t mid_known              # the receiver has reported on our SSRC: MID need not be sent any more
    Selection selection
    Projection projection
    Guess guess
    SrtpTxState srtp
    SrtpTxState rtx_srtp
    int64_t rtx_next               # ext_seq of the next packet on the RTX stream
    LossGauge losses               # packets that its receiver asked for again
    Playout playout
    SentLog* sent                  # owned; NULL until a packet was sent that may be sent again
    int64_t newest_seq             # of what was noted for retransmission, and where the newest keyframe among it begins
    int64_t start_seq
    uint64_t resent_packets
    uint64_t packets
    uint64_t bytes
    uint64_t payload_bytes
    uint64_t frames
    uint8_t fraction_lost
    int32_t total_lost
    uint32_t jitter_ticks
    int64_t rtt_ns
    uint32_t sr_middle             # middle 32 bits of the NTP time in our last SR, and when it went out
    int64_t sr_sent_ns

ctypedef struct QueueItem:
    Slot* slot                     # one reference each
    int32_t egress
    uint32_t egress_id             # an index may have been reused since

ctypedef struct ResendItem:
    int32_t egress
    uint32_t egress_id
    uint16_t out_low               # the number asked for

ctypedef struct RepairStats:       # of one transport
    uint64_t keyframes_asked       # requests to it as a publisher
    uint64_t keyframes_wanted      # requests by it as a subscriber
    uint64_t nacks_sent            # packets asked for of it
    uint64_t nacks_received        # NACKs by it
    uint64_t rtx_sent
    uint64_t rtx_recovered         # its retransmissions that filled a gap

ctypedef struct Bandwidth:         # congestion control towards one subscriber
    Departures* departures         # owned
    Estimator estimator
    Probe probe
    int64_t clock_ticks            # newest arrival on the subscriber's clock, unwrapped
    int64_t first_feedback_ns      # 0 = none yet
    int64_t due_ns                 # 0 = nothing waits
    uint64_t bytes_before          # of all datagrams of the transport, when the sending rate was last measured
    uint64_t noted_bytes           # of those with numbers
    uint64_t noted_before
    int64_t bytes_before_ns
    double sent_bps
    double told_bps                # to the control plane; 0 = nothing yet
    int64_t told_ns
    uint64_t remb_bps              # of a receiver that gives no feedback
    uint8_t is_begun               # the first cluster was asked for

ctypedef struct Transport:
    uint32_t id
    int32_t index
    IceLite ice
    SrtpContext* receive_context   # owned
    SrtpContext* send_context      # owned
    ExtMap extensions              # of what it sends us
    ExtMap sent_extensions         # of what it is sent
    TwccRecorder* twcc             # owned; NULL until the first transport-wide number
    uint32_t rtcp_ssrc             # our own, in RR and feedback
    uint32_t twcc_media_ssrc
    RtpStream* streams[64]         # owned
    uint32_t stream_ssrcs[64]
    int32_t stream_count
    int32_t receivers[32]
    int32_t receiver_count
    int32_t* egresses              # owned
    uint32_t egress_count
    uint32_t egress_capacity
    uint32_t* spent_ssrcs          # owned
    uint32_t spent_count
    uint32_t spent_capacity
    int32_t dtls_tuple             # where the last DTLS datagram came from: answers go there until a pair is selected
    uint8_t ever_selected
    uint8_t told_check             # the control plane was told of the first check
    uint8_t untold_selected        # it is still to be told the selected pair, or that the transport is dead
    uint8_t untold_dead
    int64_t selected_paid_ns       # events of this kind have used their transport's share up to this time
    int64_t dtls_paid_ns
    QueueItem* queue               # owned; NULL until first used
    uint32_t queue_head
    uint32_t queue_count
    ResendItem* resends            # owned; NULL until first used
    uint32_t resend_head
    uint32_t resend_count
    uint32_t replay_count          # egresses that are being sent a cache
    Pacer pacer
    Bandwidth* bandwidth           # owned; NULL until a packet with a transport-wide number left
    int64_t pacer_due_ns           # 0 = nothing waits for the budget
    uint16_t twcc_next             # transport-wide number of the next RTP packet
    uint8_t is_ready               # stands in one of the engine's ready rings
    int64_t rtcp_due_ns
    int64_t twcc_due_ns            # 0 = nothing pending
    int64_t nack_due_ns            # 0 = nothing is missing
    int64_t keyframe_due_ns        # 0 = none pending
    KeyframeBudget keyframe_budget # of its own encodings
    Police police
    PoliceLimits limits            # of what it sends: the engine's, with the bits of its own where it has some
    Capture capture
    RepairStats repair
    int64_t ready_since_ns         # while is_ready: waits for its turn since then
    uint64_t packets_received
    uint64_t bytes_received
    uint64_t packets_sent
    uint64_t bytes_sent

# Transports that wait for their turn.
ctypedef struct ReadyRing:
    int32_t* places                # owned; indices, NO_INDEX where one was removed
    uint32_t head
    uint32_t count
    uint32_t capacity              # power of two, at least the engine's transport_capacity

ctypedef struct FanoutJob:         # a packet that has still to be queued for its subscribers
    Slot* slot                     # one reference
    uint32_t receiver              # id

ctypedef struct Engine:
    Slab* slab                     # borrowed
    Outbox* outbox                 # borrowed
    Mailbox* mailbox               # borrowed
    void* snapshot                 # borrowed engine.Snapshot, NULL = none
    PacketFacts* facts             # owned; one per slot
    int srtp_backend
    uint64_t random_state
    Transport** transports         # owned
    Receiver** receivers
    Egress** egresses
    int32_t transport_capacity
    int32_t receiver_capacity
    int32_t egress_capacity
    int32_t* free_transports       # owned; indices without a tenant, as a stack
    int32_t* free_receivers
    int32_t* free_egresses
    int32_t free_transport_count
    int32_t free_receiver_count
    int32_t free_egress_count
    uint32_t transport_count
    Table by_transport_id
    Table by_receiver_id
    Table by_egress_id
    Table by_ufrag
    Table by_tuple
    Table by_ssrc                  # (transport index, outgoing SSRC) -> egress index
    uint64_t hash_seed
    Timers timers                  # owner = transport index
    ReadyRing ready[2]             # by lane (ready.pxd)
    int lane                       # which of them is being served
    FanoutJob* jobs                # owned; ring; NULL until first used
    uint32_t job_head
    uint32_t job_count
    int slice_packets              # how much one engine_poll may do
    int out_limit                  # up to where this one may fill the outbox
    uint8_t is_cramped             # a transport found less room in the outbox than its next run needs
    uint8_t has_spread             # the last slice went into fan-out alone: this one sends first
    uint32_t next_serial
    PoliceLimits police
    Overload overload
    int64_t now_ns                 # of the present call
    Exchange* exchange             # borrowed; NULL = there is no other worker
    uint32_t number                # of this worker in the exchange
    int32_t* mirrors               # owned; receiver indices
    uint32_t mirror_count
    uint32_t mirror_capacity
    int64_t mirrors_due_ns         # 0 = there is nothing to do about them
    uint8_t has_stops_untold       # a receiver's stops_untold may be set
    CacheLedger caches
    Counters counters

cdef uint32_t engine_random(Engine* e) noexcept nogil
cdef int routes_init(Engine* e) noexcept nogil
cdef void routes_free(Engine* e) noexcept nogil

cdef Transport* find_transport(Engine* e, uint32_t id) noexcept nogil
cdef Receiver* find_receiver(Engine* e, uint32_t id) noexcept nogil
cdef Egress* find_egress(Engine* e, uint32_t id) noexcept nogil
cdef Transport* find_by_ufrag(Engine* e, const uint8_t* ufrag, Py_ssize_t n) noexcept nogil
cdef Transport* find_by_tuple(Engine* e, const SockAddr* remote, uint16_t socket_index, int* tuple_index) noexcept nogil
cdef RtpStream* find_stream(Transport* t, uint32_t ssrc) noexcept nogil
cdef Egress* find_by_ssrc(Engine* e, Transport* t, uint32_t ssrc) noexcept nogil

cdef int add_transport(Engine* e, uint32_t id, const IceCommand* ice, int64_t now_ns) noexcept nogil
cdef void retire_credentials(Engine* e, Transport* t) noexcept nogil
cdef int set_ice(Engine* e, Transport* t, const IceCommand* ice, int64_t now_ns) noexcept nogil
cdef int remember_tuple(Engine* e, Transport* t, const SockAddr* remote, uint16_t socket_index) noexcept nogil
# Does nothing when the address belongs to another transport by now.
cdef void forget_tuple(Engine* e, Transport* t, const SockAddr* remote, uint16_t socket_index) noexcept nogil
cdef void remove_transport(Engine* e, Transport* t) noexcept nogil
cdef int add_receiver(Engine* e, Transport* t, const ReceiverCommand* spec) noexcept nogil
cdef int add_mirror(Engine* e, const MirrorCommand* spec) noexcept nogil
cdef void remove_receiver(Engine* e, Receiver* r) noexcept nogil      # a mirror too
cdef int add_egress(Engine* e, Transport* t, const EgressCommand* spec) noexcept nogil
cdef void remove_egress(Engine* e, Egress* g) noexcept nogil
cdef void free_stream(Engine* e, RtpStream* s) noexcept nogil
# Takes a stream's place on the transport; evicts one whose receiver is gone and that was silent for a minute. NULL = E_LIMIT.
cdef RtpStream* add_stream(Engine* e, Transport* t, uint32_t ssrc, int64_t now_ns) noexcept nogil
cdef int queue_packet(Engine* e, Transport* t, Egress* g, Slot* slot, int lane) noexcept nogil    # takes one reference on success
cdef int queue_resend(Engine* e, Transport* t, Egress* g, uint16_t out_low) noexcept nogil
cdef void drop_queue(Engine* e, Transport* t) noexcept nogil
cdef void schedule(Engine* e, Transport* t) noexcept nogil                                 # moves the timer to the earliest due time
cdef int emit(Engine* e, Event* event) noexcept nogil                                      # E_NO_SPACE: lost; state has to be told again
