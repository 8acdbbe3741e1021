"""The sans-IO engine of one worker: datagrams, commands and time in; an outbox, events and counters out."""
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t
from relaycore.slab cimport Slab, Slot
from relaycore.outbox cimport Outbox
from relaycore.mailbox cimport Mailbox, Command
from relaycore.counters cimport Counters
from relaycore.exchange cimport Exchange
from relaycore.routes cimport Engine, RepairStats
from relaycore.stun cimport SockAddr

ctypedef struct TransportStats:
    uint32_t transport
    uint32_t alive
    uint64_t packets_received
    uint64_t bytes_received
    uint64_t packets_sent
    uint64_t bytes_sent
    int64_t rtt_ns                 # from RTCP; -1 unknown
    RepairStats repair
    uint8_t remote_family
    uint8_t remote_ip[16]
    uint16_t remote_port
    uint32_t loss_permille         # of what was sent to it in the last second, by its feedback
    uint64_t estimate_bps          # what the path to it carries; 0 unknown

ctypedef struct StreamStats:       # one received rtp_stream
    uint32_t receiver
    int32_t encoding
    uint32_t ssrc
    uint32_t codec
    uint64_t packets
    uint64_t bytes
    uint64_t frames
    uint64_t keyframes
    int64_t lost
    uint32_t jitter_ticks
    uint32_t audio_level           # last, -dBov 0..127; 255 unknown
    int64_t last_packet_ns

ctypedef struct EgressStats:
    uint32_t egress
    uint32_t receiver
    int32_t encoding               # forwarded now, -1 none
    int32_t wanted
    int32_t spatial                # highest ids forwarded now; LAYERS_ALL (7) = all there are
    int32_t temporal
    uint64_t packets
    uint64_t bytes
    uint64_t frames
    uint32_t fraction_lost         # last RR, 1/256
    int32_t total_lost
    uint32_t jitter_ticks
    int64_t rtt_ns

ctypedef struct LayerStats:        # one layer of a received rtp_stream
    uint32_t receiver
    int32_t encoding
    uint32_t spatial
    uint32_t temporal
    uint32_t width                 # pixels; 0 unknown
    uint32_t height
    uint64_t bytes                 # payload of exactly this layer
    uint64_t frames
    uint64_t selected_bytes        # payload that a subscriber gets who selects it

ctypedef struct Snapshot:          # arrays owned by the control plane, filled up to capacity on CMD_SNAPSHOT
    TransportStats* transports
    StreamStats* streams
    EgressStats* egresses
    LayerStats* layers
    uint32_t transport_capacity
    uint32_t stream_capacity
    uint32_t egress_capacity
    uint32_t layer_capacity
    uint32_t transport_count       # found; above capacity = truncated, ask again with more
    uint32_t stream_count
    uint32_t egress_count
    uint32_t layer_count
    uint32_t slots_used
    uint32_t transports_alive
    int64_t now_ns
    Counters counters

cdef Engine* engine_new(Slab* slab, Outbox* outbox, Mailbox* mailbox, int srtp_backend, uint64_t seed) noexcept nogil
cdef void engine_free(Engine* e) noexcept nogil
# `slot` holds the datagram (slot.length bytes); the engine takes the reference.
cdef void engine_receive(Engine* e, Slot* slot, const SockAddr* remote, uint16_t socket_index, int64_t now_ns) noexcept nogil
# The way to a remote address is gone (its TCP connection is over).
cdef void engine_lose_tuple(Engine* e, const SockAddr* remote, uint16_t socket_index, int64_t now_ns) noexcept nogil
cdef bint engine_has_tuple(Engine* e, const SockAddr* remote, uint16_t socket_index) noexcept nogil
cdef void engine_command(Engine* e, Command* c, int64_t now_ns) noexcept nogil     # executes, emits EV_ACK, frees the payload
# Before its first call: it is worker `number` of an exchange, which outlives it.
cdef void engine_join(Engine* e, Exchange* x, uint32_t number) noexcept nogil
# Takes a bounded part of what other workers have sent, and publishes what is for them. True: more waits.
cdef bint engine_exchange(Engine* e, int64_t now_ns) noexcept nogil
# How many packets one engine_poll may send, or do something as long for: whoever has a clock keeps turns short by it.
cdef void engine_set_slice(Engine* e, int packets) noexcept nogil
# Runs what is due and fills the outbox; returns the time of the next call in ns (absolute). Call again after draining when the outbox was full.
cdef int64_t engine_poll(Engine* e, int64_t now_ns) noexcept nogil
# What each peer may send (0 = no limit), and the lag at which video is left out (0 = never).
cdef void engine_set_limits(Engine* e, uint32_t packets_per_s, uint64_t bits_per_s, int64_t overload_ns) noexcept nogil
# What came last had waited so long before engine_receive.
cdef void engine_lag(Engine* e, int64_t lag_ns, int64_t now_ns) noexcept nogil
cdef int engine_overload(const Engine* e) noexcept nogil              # overload.OverloadLevel
cdef void engine_set_snapshot(Engine* e, Snapshot* s) noexcept nogil
cdef Counters* engine_counters(Engine* e) noexcept nogil
cdef uint32_t engine_transport_count(const Engine* e) noexcept nogil
