"""Commands in, events out: two single-producer single-consumer rings between the control plane and one worker.

Commands are fixed-size and numbered; every command is answered by one EV_ACK carrying its number and a code.
A payload (DTLS datagram, lists) is malloc'ed by the producer and freed by the consumer.
"""
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t
from relaycore.stun cimport SockAddr

cdef enum:
    COMMAND_RING = 1024            # power of two
    EVENT_RING = 8192              # power of two; EVENT_RESERVE places are for acknowledgements alone
    EVENT_RESERVE = 2048
    MAX_RIDS = 4
    MAX_CODECS = 16
    MAX_SSRCS = 8
    MAX_CNAME = 64

cdef enum CommandOp:
    CMD_NOP = 0
    CMD_TRANSPORT_ADD = 1          # ice
    CMD_TRANSPORT_ICE = 2          # ice: new credentials (restart)
    CMD_TRANSPORT_SRTP = 3         # srtp
    CMD_TRANSPORT_EXTENSIONS = 4   # extensions
    CMD_TRANSPORT_REMOVE = 5
    CMD_DATAGRAM = 6               # payload = DTLS datagram for the selected tuple
    CMD_RECEIVER_ADD = 7           # receiver
    CMD_RECEIVER_REMOVE = 8
    CMD_EGRESS_ADD = 9             # egress
    CMD_EGRESS_SELECT = 10         # select
    CMD_EGRESS_REMOVE = 11
    CMD_KEYFRAME = 12              # select: ask the publisher of (receiver, encoding)
    CMD_SNAPSHOT = 13              # fill the snapshot buffers, then ack
    CMD_STOP = 14
    CMD_TRANSPORT_PACING = 15      # pacing
    CMD_RECEIVER_MIRROR = 16       # mirror: the receiver lives on another worker, some of its subscribers here
    CMD_RECEIVER_EXPORT = 17       # export: another worker has a mirror of this receiver
    CMD_RECEIVER_UNEXPORT = 18     # export
    CMD_TRANSPORT_CAPTURE = 19     # capture: headers of what passes, for a while
    CMD_RECEIVER_FORMAT = 20       # format: how its frames are encrypted, once
    CMD_RECEIVER_KEYS = 21         # keys: SFrame key ids its publisher has announced
    CMD_CACHE_DROP = 22            # select: nobody begins any more at a receiver's cached keyframes
    CMD_TRANSPORT_WANTED = 23      # pacing: what would be sent to it if the path allowed
    CMD_TCP = 24                   # tcp: serve this connection; payload = bytes read of it already

ctypedef struct IceCommand:
    uint8_t ufrag[64]
    uint8_t ufrag_bytes
    uint8_t password[128]
    uint8_t password_bytes
    uint64_t bits_per_s            # at CMD_TRANSPORT_ADD: what it may send in place of the worker's limit; 0 = that

ctypedef struct SrtpCommand:
    uint16_t profile
    uint8_t receive_key[32]
    uint8_t receive_salt[14]
    uint8_t send_key[32]
    uint8_t send_salt[14]

ctypedef struct ExtensionsCommand:
    uint8_t id_of_kind[17]         # of what is received; hdrext.ExtKind order; 0 = not negotiated
    uint8_t sent_id_of_kind[17]

ctypedef struct CodecEntry:
    uint8_t payload_type
    uint8_t codec                  # views.Codec
    uint8_t rtx_payload_type       # 0 = none
    uint8_t reserved
    uint32_t clock_rate_hz

ctypedef struct ReceiverCommand:   # one published m-line
    uint32_t receiver
    uint8_t is_video
    uint8_t mid[16]
    uint8_t mid_bytes
    uint8_t codec_count
    CodecEntry codecs[16]          # as negotiated with the publisher
    uint8_t rid_count              # 0 = one encoding without rid
    uint8_t rids[4][16]            # low to high
    uint8_t rid_bytes[4]
    uint8_t ssrc_count             # a=ssrc lines of the offer (primary); 0 = learn
    uint32_t ssrcs[8]
    uint32_t rtx_ssrcs[8]          # by FID group, 0 = none

ctypedef struct EgressCommand:     # one subscription on a subscriber's transport
    uint32_t egress
    uint32_t receiver              # whose packets
    uint32_t ssrc                  # outgoing
    uint32_t rtx_ssrc              # 0 = none
    uint8_t mid[16]
    uint8_t mid_bytes
    uint8_t codec_count
    CodecEntry codecs[16]          # as negotiated with the subscriber: codec -> payload type
    uint8_t cname[64]
    uint8_t cname_bytes
    int32_t encoding               # wanted, -1 = paused

ctypedef struct SelectCommand:
    uint32_t receiver
    uint32_t egress
    int32_t encoding               # -1 = paused
    uint8_t spatial                # CMD_EGRESS_SELECT: highest layer ids wanted, selection.LAYERS_ALL = all
    uint8_t temporal

ctypedef struct PacingCommand:
    uint64_t rate_bps              # what the path is believed to carry; 0 = unknown, media unpaced

ctypedef struct MirrorCommand:
    uint32_t receiver
    uint32_t home                  # worker of its publisher
    uint8_t is_video
    uint8_t encoding_count

ctypedef struct ExportCommand:
    uint32_t receiver
    uint32_t worker

ctypedef struct CaptureCommand:
    void* ring                     # capture.CaptureRing, borrowed: outlives the worker's thread
    int64_t duration_ns
    uint32_t records               # 0 = off

ctypedef struct FormatCommand:
    uint32_t receiver
    uint32_t format                # markprobe.FrameKind

ctypedef struct KeysCommand:
    uint32_t receiver
    uint64_t first_kid
    uint64_t last_kid

ctypedef struct TcpCommand:
    int fd                         # the worker makes a descriptor of its own of it
    SockAddr remote

ctypedef union CommandBody:
    TcpCommand tcp
    IceCommand ice
    SrtpCommand srtp
    ExtensionsCommand extensions
    ReceiverCommand receiver
    EgressCommand egress
    SelectCommand select
    PacingCommand pacing
    MirrorCommand mirror
    ExportCommand export
    CaptureCommand capture
    FormatCommand format
    KeysCommand keys

ctypedef struct Command:
    uint32_t op
    uint32_t number
    uint32_t transport
    uint32_t payload_bytes
    uint8_t* payload               # malloc'ed, freed by the worker
    CommandBody body

cdef enum EventKind:
    EV_ACK = 1                     # number, code
    EV_DTLS = 2                    # transport, payload
    EV_ICE_SELECTED = 3            # transport: first or changed tuple (addr in payload: SockAddr)
    EV_ICE_DEAD = 4                # transport
    EV_STREAM_BOUND = 5            # receiver, encoding, ssrc
    EV_ENCODING_ACTIVE = 6         # receiver, encoding: packets flow (again)
    EV_ENCODING_SILENT = 7         # receiver, encoding of video: none for 1 s (audio pauses by design)
    EV_EGRESS_SWITCHED = 8         # egress, encoding now forwarded
    EV_STOPPED = 9                 # the worker thread has left its loop
    EV_ICE_CHECK = 10              # transport: first authenticated check (address verified)
    EV_RECEIVER_STOPPED = 11       # receiver, code = markprobe.StopReason: nothing of it is forwarded any more
    EV_UNDECLARED_ENCRYPTION = 12  # receiver: declared clear, but its frames are not its codec's
    EV_SPEAKING = 13               # receiver of audio, code = mean level in -dBov: somebody spoke for the last 400 ms
    EV_ESTIMATE = 14               # transport, rate_bps; code = lost of 1,000, number = round trip in ms
    EV_LAYERS = 15                 # receiver, encoding, code = spatial layers + 256 * temporal layers that it has now

ctypedef struct Event:
    uint32_t kind
    uint32_t number
    int32_t code
    uint32_t transport
    uint32_t receiver
    uint32_t egress
    int32_t encoding
    uint32_t ssrc
    int64_t now_ns
    uint64_t rate_bps
    uint32_t payload_bytes
    uint8_t* payload               # malloc'ed, freed by the reader

cdef struct Mailbox                 # two rings, two eventfds; defined in mailbox.pyx

cdef Mailbox* mailbox_new() noexcept nogil
cdef void mailbox_free(Mailbox* m) noexcept nogil                     # frees queued payloads too
cdef int mailbox_command_fd(const Mailbox* m) noexcept nogil
cdef int mailbox_event_fd(const Mailbox* m) noexcept nogil
# Control plane side.
cdef int mailbox_submit(Mailbox* m, const Command* c) noexcept nogil  # E_NO_SPACE when full (nothing taken); rings the eventfd
# The same without ringing: commands of one turn share a wake-up. The worker sleeps on until somebody rings.
cdef int mailbox_queue(Mailbox* m, const Command* c) noexcept nogil
cdef void mailbox_ring_command_fd(Mailbox* m) noexcept nogil
cdef int mailbox_take_event(Mailbox* m, Event* out) noexcept nogil    # 1 or 0
# Worker side.
cdef int mailbox_take_command(Mailbox* m, Command* out) noexcept nogil
cdef int mailbox_emit(Mailbox* m, const Event* e) noexcept nogil      # E_NO_SPACE: caller frees the payload and counts; acks use the reserve
cdef void mailbox_flush_events(Mailbox* m) noexcept nogil             # one eventfd write if anything was emitted since the last
# Whoever wakes up by an eventfd resets it before it takes, so that what comes later rings again.
cdef void mailbox_reset_command_fd(Mailbox* m) noexcept nogil
cdef void mailbox_reset_event_fd(Mailbox* m) noexcept nogil
cdef void mailbox_ring_event_fd(Mailbox* m) noexcept nogil            # by a reader that leaves events for later
cdef uint32_t mailbox_command_count(const Mailbox* m) noexcept nogil  # waiting; exact on either side for its own half
cdef uint32_t mailbox_event_count(const Mailbox* m) noexcept nogil
cdef int mailbox_open_fds() noexcept nogil                            # of all mailboxes of the process, for leak checks
