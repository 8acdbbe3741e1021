"""The cursors; the contract stands in replay.pxd.

A keyframe that comes meanwhile is what a decoder goes on from: the cursor leaves out all before it, and the numbers close up.
Who is shown another encoding is given one from the cache only while its keyframe is fresh: what was shown already has to be decoded
again, and nothing new is seen until then.
"""
from libc.stdint cimport int32_t, uint32_t, int64_t
from libc.stdlib cimport calloc
from relaycore.history cimport source_find
from relaycore.keycache cimport (
    CACHE_MS, CACHE_PLACES, KeyCache, cache_clear, cache_find, cache_is_known, cache_is_whole, cache_serves, cache_take,
)
from relaycore.projection cimport projection_drop
from relaycore.ready cimport mark_ready
from relaycore.routes cimport Egress, Engine, NO_INDEX, PacketFacts, Receiver, RtpStream, Transport
from relaycore.slab cimport Slot
from relaycore.units cimport ms

cdef enum:
    REACH_MS = 3000                # who has not reached the live packets by then waits for a keyframe
    SHOWN_MS = 500                 # the age of a keyframe at which somebody may go on who is shown another encoding


cdef void replay_keep(Engine* e, const Receiver* r, RtpStream* s, Slot* slot, const PacketFacts* f, bint starts) noexcept nogil:
    # Where nothing is known of a stream's frames, everything is a start.
    starts = starts and f.view.source > 0 and slot.arrival_ns > r.cache_since_ns
    if s.cache == NULL:
        if not starts:
            return
        s.cache = <KeyCache*>calloc(1, sizeof(KeyCache))
        if s.cache == NULL:
            return
    if cache_take(s.cache, &e.caches, e.slab, slot, f.ext_seq, f.rtp.rtp_ts, starts, f.rtp.payload_bytes > 0):
        e.counters.cache_outgrown += 1
    if starts and s.highest_seq > f.ext_seq and s.cache.is_open and s.cache.start_seq == f.ext_seq:
        _keep_behind(e, s)


cdef void _keep_behind(Engine* e, RtpStream* s) noexcept nogil:
    """Keep what came before the late packet at which the cache begins, and belongs behind it."""
    cdef KeyCache* c = s.cache
    cdef const PacketFacts* f
    cdef Slot* slot
    cdef int64_t start = c.start_seq
    cdef int64_t i
    for i in range(start + 1, min(s.highest_seq + 1, start + CACHE_PLACES)):
        if not c.is_open:
            return
        # What was let go of since is missing: the cache is not whole then.
        c.newest_seq = i
        slot = NULL if s.history == NULL else source_find(s.history, i)
        if slot == NULL:
            continue
        f = &e.facts[slot - e.slab.slots]
        if f.ext_seq == i:
            cache_take(c, &e.caches, e.slab, slot, i, f.rtp.rtp_ts, False, f.rtp.payload_bytes > 0)


cdef inline int64_t _most_ms(const Egress* g) noexcept nogil:
    return SHOWN_MS if g.current >= 0 and g.source != NULL else CACHE_MS


cdef bint replay_serves(Engine* e, const Receiver* r, const Egress* g, int32_t encoding, int64_t now_ns) noexcept nogil:
    cdef const RtpStream* s = r.encodings[encoding].stream
    return (s != NULL and s.cache != NULL and not r.is_stopped and cache_serves(s.cache, _most_ms(g), now_ns))


cdef bint replay_begin(Engine* e, Receiver* r, Transport* t, Egress* g, RtpStream* s, int lane, int64_t now_ns) noexcept nogil:
    if g.replay.is_on:
        # Of another encoding: that one is not wanted any more, or it ends before this one begins.
        return g.replay.encoding == s.encoding
    if not replay_serves(e, r, g, s.encoding, now_ns):
        if s.cache != NULL and s.cache.is_open and not cache_is_whole(s.cache) and g.replay.missed_serial != s.serial:
            g.replay.missed_serial = s.serial
            e.counters.cache_incomplete += 1
        return False
    g.replay.is_on = 1
    g.replay.encoding = s.encoding
    g.replay.serial = s.serial
    g.replay.next_seq = s.cache.start_seq
    g.replay.began_ns = now_ns
    t.replay_count += 1
    s.cache.read_ns = now_ns
    e.counters.cache_hits += 1
    mark_ready(e, t, lane)
    return True


cdef void replay_end(Engine* e, Egress* g, bint is_done) noexcept nogil:
    if not g.replay.is_on:
        return
    g.replay.is_on = 0
    e.transports[g.transport].replay_count -= 1
    if is_done:
        return
    e.counters.cache_aborted += 1
    if g.current == g.replay.encoding:
        g.current = NO_INDEX


cdef Slot* _next_of(Engine* e, Egress* g, int64_t now_ns) noexcept nogil:
    """Move one egress's cursor; NULL = it is at its end."""
    cdef Receiver* r = e.receivers[g.receiver]
    cdef RtpStream* s = r.encodings[g.replay.encoding].stream
    cdef KeyCache* c = NULL if s == NULL else s.cache
    cdef Slot* slot
    if now_ns - g.replay.began_ns > ms(REACH_MS):
        # The path carries less than the stream.
        replay_end(e, g, False)
        return NULL
    if (c == NULL or s.serial != g.replay.serial or not c.is_open or r.is_stopped
            or (g.wanted != g.replay.encoding and g.current != g.replay.encoding)):
        replay_end(e, g, False)
        return NULL
    if g.replay.next_seq < c.start_seq:
        g.replay.next_seq = c.start_seq
        if g.current == g.replay.encoding:
            # What lies between goes to nobody: the projection starts a new segment.
            g.current = NO_INDEX
    while g.replay.next_seq <= c.newest_seq:
        slot = cache_find(c, g.replay.next_seq)
        if slot == NULL and cache_is_known(c, g.replay.next_seq):
            projection_drop(&g.projection, g.replay.next_seq)
        g.replay.next_seq += 1
        if slot != NULL:
            c.read_ns = now_ns
            e.counters.cache_bytes += slot.length
            return slot
    replay_end(e, g, True)
    return NULL


cdef Slot* replay_take(Engine* e, Transport* t, Egress** egress, int64_t now_ns) noexcept nogil:
    cdef Slot* slot
    cdef uint32_t i
    for i in range(t.egress_count):
        if e.egresses[t.egresses[i]].replay.is_on:
            slot = _next_of(e, e.egresses[t.egresses[i]], now_ns)
            if slot != NULL:
                egress[0] = e.egresses[t.egresses[i]]
                return slot
    return NULL


cdef void replay_forget(Engine* e, Receiver* r, int64_t now_ns) noexcept nogil:
    cdef int32_t i
    r.cache_since_ns = now_ns
    for i in range(r.encoding_count):
        if r.encodings[i].stream != NULL and r.encodings[i].stream.cache != NULL:
            cache_clear(r.encodings[i].stream.cache, &e.caches, e.slab)
