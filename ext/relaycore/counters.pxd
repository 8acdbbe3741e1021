"""Counters of one engine: plain integers of the worker's thread, copied as one struct into the snapshot."""
from libc.stdint cimport uint64_t

cdef enum:
    COUNTER_ERRORS = 32            # by -errs code
    COUNTER_STAGES = 6

ctypedef struct Counters:
    uint64_t datagrams_received
    uint64_t bytes_received
    uint64_t datagrams_sent
    uint64_t bytes_sent
    uint64_t stun_received
    uint64_t dtls_received
    uint64_t rtp_received
    uint64_t rtcp_received
    uint64_t rtp_forwarded         # packets protected for subscribers
    uint64_t padding_dropped       # padding-only packets of publishers
    uint64_t rtx_received
    uint64_t unbound_dropped       # SSRC not bound to a receiver
    uint64_t keyframe_requests_received
    uint64_t keyframe_requests_sent
    uint64_t keyframe_requests_coalesced
    uint64_t nacks_received
    uint64_t send_errors
    uint64_t receive_overflow      # SO_RXQ_OVFL
    uint64_t queue_dropped         # pacer queue full
    uint64_t events_dropped
    uint64_t slots_exhausted
    uint64_t stun_answered
    uint64_t stun_refused
    uint64_t feedback_sent
    uint64_t rtx_sent
    uint64_t rtx_refused           # asked for again too soon or too often, or older than a keyframe
    uint64_t rtx_unknown           # asked for, but never sent, too old, or not kept
    uint64_t rtx_queue_dropped
    uint64_t gso_sends             # sends of more than one datagram
    uint64_t gso_datagrams         # datagrams in them
    uint64_t gso_fallbacks         # sockets on which the kernel refused them
    uint64_t levelling_bytes       # padding that made datagrams of a run equally long
    uint64_t transport_feedback_received
    uint64_t nacks_sent            # packets asked for of publishers
    uint64_t nacks_given_up        # streams' losses that no repair came for
    uint64_t rtx_recovered         # publishers' retransmissions that filled a gap
    uint64_t rtx_padding           # publishers' probes
    uint64_t duplicates_dropped    # retransmissions of what was there
    uint64_t exported              # packets copied towards other workers
    uint64_t export_dropped_video  # rings full: frames' packets that were not
    uint64_t export_dropped_audio
    uint64_t imported              # packets that came from other workers
    uint64_t exchange_unknown      # records and signals for a receiver that is gone
    uint64_t policed               # above its sender's limits
    uint64_t police_reserved       # above them too, but audio or RTCP
    uint64_t shed_layers           # packets of upper temporal layers left out under overload
    uint64_t shed_video            # packets of any video left out
    uint64_t overload_rises
    uint64_t captured              # headers kept for an operator
    uint64_t capture_missed        # nobody took them in time
    uint64_t frames_judged         # of publications declared encrypted
    uint64_t frames_marked         # of them, with the mark of their format
    uint64_t frames_unmarked
    uint64_t frames_plain          # marked, but what follows looks like the codec
    uint64_t unannounced_dropped   # packets of SFrame before a key was announced
    uint64_t receivers_stopped     # publications declared encrypted that were not
    uint64_t stopped_dropped       # packets of them since
    uint64_t frames_parsed         # of publications declared clear
    uint64_t frames_unparsed       # of them, not their codec's, or encrypted
    uint64_t undeclared_encryption # publications declared clear that were not
    uint64_t cache_hits            # subscribers who were sent a keyframe from the cache
    uint64_t cache_bytes           # sent from it
    uint64_t cache_incomplete      # subscribers for whom there was one with packets missing
    uint64_t cache_outgrown        # caches dropped because they got too large
    uint64_t cache_aborted         # subscribers whose cache went while they were sent it
    uint64_t probes                # clusters sent to find out what a path carries
    uint64_t probe_bytes
    uint64_t tcp_opened            # ICE-TCP connections that a worker took over
    uint64_t tcp_closed
    uint64_t tcp_dropped           # packets that a connection was too slow for
    uint64_t red_stripped          # packets whose primary block alone went to a subscriber
    uint64_t by_error[32]          # index = -code, reason of every dropped datagram
    uint64_t stage_ticks[6]        # by stages.STAGE_*, of sampled turns
    uint64_t stage_packets[6]
    uint64_t stages_on             # this turn is sampled
