"""Keyframe cache of one received rtp_stream: its newest keyframe and what came since, as slots of the worker's slab.

A subscriber who comes later is sent them, and needs no keyframe of its own (DESIGN section 4, Repair). What a packet holds behind the
header view is not looked at: of an opaque stream the cache has ciphertext.
"""
from libc.stdint cimport uint8_t, uint32_t, int64_t, uint64_t
from relaycore.slab cimport Slab, Slot

cdef enum:
    CACHE_PLACES = 512             # packets of one stream; multiple of 64
    CACHE_MS = 1500                # age of a keyframe up to which somebody may begin at it
    CACHE_BYTES = 300000           # datagrams as received
    CACHE_IN_USE_MS = 250          # it goes on beyond that age while somebody has read it so lately

# Of one worker: what its caches hold together; zero-initialise.
ctypedef struct CacheLedger:
    uint32_t slots
    uint64_t refused               # packets that found the worker's share full: that cache was dropped

ctypedef struct KeyCache:          # zero-initialise
    Slot* slots[512]               # one reference each; by number behind start_seq; NULL = missing, or without payload
    uint64_t known[8]              # bit per place: the packet came
    int64_t start_seq              # of the keyframe's first packet
    int64_t newest_seq
    int64_t start_ns               # its arrival
    int64_t read_ns                # somebody who is being sent it is not done yet
    uint32_t start_ts
    uint32_t bytes
    uint32_t known_count
    uint8_t is_open                # holds a keyframe's first packet and all that came since, holes aside

# Takes a packet of video (one reference more) if it belongs to the cache. `starts`: a decoder may start at it. `has_payload` false:
# its number is known, and there is nothing to send. Returns what it let go of by itself: 1 when the stream outgrew its bounds, else 0.
cdef bint cache_take(KeyCache* c, CacheLedger* l, Slab* slab, Slot* slot, int64_t ext_seq, uint32_t rtp_ts, bint starts,
                     bint has_payload) noexcept nogil
# Whether somebody may begin at it: it is young enough (ms), and nothing is missing.
cdef bint cache_is_whole(const KeyCache* c) noexcept nogil
cdef bint cache_serves(const KeyCache* c, int64_t most_ms, int64_t now_ns) noexcept nogil
cdef bint cache_is_known(const KeyCache* c, int64_t ext_seq) noexcept nogil
cdef Slot* cache_find(const KeyCache* c, int64_t ext_seq) noexcept nogil      # borrowed; NULL = not there
cdef void cache_clear(KeyCache* c, CacheLedger* l, Slab* slab) noexcept nogil
cdef void cache_free(KeyCache* c, CacheLedger* l, Slab* slab) noexcept nogil  # NULL does nothing
# Lets go of a keyframe that is too old for anybody.
cdef void cache_trim(KeyCache* c, CacheLedger* l, Slab* slab, int64_t now_ns) noexcept nogil
