"""Tables of the engine; the contract stands in routes.pxd. No packet is parsed or written here."""
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset
from relaycore.bandwidth cimport bandwidth_free
from relaycore.errs cimport E_INVALID, E_LIMIT, E_MEMORY, E_NO_SPACE, E_OK, E_STATE, E_UNKNOWN_STREAM
from relaycore.fanout cimport fanout_clear
from relaycore.history cimport source_clear
from relaycore.icelite cimport ICE_MAX_TUPLES, ICE_NO_TUPLE, ice_begin_generation, ice_find, ice_reset
from relaycore.keycache cimport cache_free
from relaycore.mailbox cimport (
    MAX_CNAME, MAX_CODECS, MAX_RIDS, MAX_SSRCS, Event, IceCommand, MirrorCommand, ReceiverCommand, EgressCommand, mailbox_emit,
)
from relaycore.police cimport police_set_bits
from relaycore.projection cimport projection_init
from relaycore.ready cimport LANE_BULK, LANE_FAST, grow_ready, leave_ready, mark_ready
from relaycore.replay cimport replay_end
from relaycore.selection cimport selection_init
from relaycore.slab cimport Slot, slot_drop
from relaycore.srtp cimport srtp_free
from relaycore.stun cimport SockAddr
from relaycore.tables cimport TABLE_MISSING, hash_bytes, table_free, table_get, table_init, table_put, table_remove
from relaycore.units cimport ms
from relaycore.timers cimport timers_cancel, timers_free, timers_grow, timers_init, timers_set

cdef enum:
    FIRST_CAPACITY = 64
    AUDIO_PLACES = 128             # of a transport's queue: as many voices' packets of 20 ms
    STREAM_IDLE_MS = 60000         # a replaced stream is kept this long, so that its old packets stay replays


cdef uint32_t engine_random(Engine* e) noexcept nogil:
    """Return 32 bits of the engine's seeded generator (SplitMix64). For SSRCs and first numbers, never for keys."""
    cdef uint64_t x
    e.random_state += <uint64_t>0x9e3779b97f4a7c15u
    x = (e.random_state ^ (e.random_state >> 30)) * <uint64_t>0xbf58476d1ce4e5b9u
    x = (x ^ (x >> 27)) * <uint64_t>0x94d049bb133111ebu
    return <uint32_t>((x ^ (x >> 31)) & 0xffffffffu)


cdef int routes_init(Engine* e) noexcept nogil:
    cdef int bad = 0
    e.hash_seed = (<uint64_t>engine_random(e) << 32) | engine_random(e)
    bad |= table_init(&e.by_transport_id, FIRST_CAPACITY, e.hash_seed)
    bad |= table_init(&e.by_receiver_id, FIRST_CAPACITY, e.hash_seed)
    bad |= table_init(&e.by_egress_id, FIRST_CAPACITY, e.hash_seed)
    bad |= table_init(&e.by_ufrag, FIRST_CAPACITY, e.hash_seed)
    bad |= table_init(&e.by_tuple, FIRST_CAPACITY, e.hash_seed)
    bad |= table_init(&e.by_ssrc, FIRST_CAPACITY, e.hash_seed)
    bad |= timers_init(&e.timers, FIRST_CAPACITY)
    return E_MEMORY if bad else E_OK


cdef void routes_free(Engine* e) noexcept nogil:
    cdef int32_t i
    for i in range(e.transport_capacity):
        if e.transports[i] != NULL:
            remove_transport(e, e.transports[i])
    while e.mirror_count:
        remove_receiver(e, e.receivers[e.mirrors[e.mirror_count - 1]])
    free(e.mirrors)
    free(e.transports)
    free(e.receivers)
    free(e.egresses)
    fanout_clear(e)
    free(e.ready[LANE_FAST].places)
    free(e.ready[LANE_BULK].places)
    free(e.free_transports)
    free(e.free_receivers)
    free(e.free_egresses)
    table_free(&e.by_transport_id)
    table_free(&e.by_receiver_id)
    table_free(&e.by_egress_id)
    table_free(&e.by_ufrag)
    table_free(&e.by_tuple)
    table_free(&e.by_ssrc)
    timers_free(&e.timers)


cdef int32_t _free_place(void*** table, int32_t* capacity, int32_t** unused, int32_t* unused_count) noexcept nogil:
    """Return the index of a NULL place in a growing pointer table, or E_MEMORY.

    The caller who fills it calls _take_place. A stack, because a search would cost more with every subscription there is.
    """
    cdef int32_t i, larger
    cdef void** grown
    cdef int32_t* stack
    if unused_count[0]:
        return unused[0][unused_count[0] - 1]
    larger = <int32_t>FIRST_CAPACITY if capacity[0] == 0 else <int32_t>(capacity[0] * 2)
    grown = <void**>realloc(table[0], <size_t>larger * sizeof(void*))
    if grown == NULL:
        return E_MEMORY
    table[0] = grown
    stack = <int32_t*>realloc(unused[0], <size_t>larger * sizeof(int32_t))
    if stack == NULL:
        return E_MEMORY
    unused[0] = stack
    memset(grown + capacity[0], 0, <size_t>(larger - capacity[0]) * sizeof(void*))
    for i in range(larger - 1, capacity[0] - 1, -1):
        stack[unused_count[0]] = i
        unused_count[0] += 1
    capacity[0] = larger
    return stack[unused_count[0] - 1]


cdef int _append(int32_t** items, uint32_t* count, uint32_t* capacity, int32_t value) noexcept nogil:
    cdef uint32_t larger
    cdef int32_t* grown
    if count[0] == capacity[0]:
        larger = <uint32_t>4 if capacity[0] == 0 else <uint32_t>(capacity[0] * 2u)
        grown = <int32_t*>realloc(items[0], larger * sizeof(int32_t))
        if grown == NULL:
            return E_MEMORY
        items[0] = grown
        capacity[0] = larger
    items[0][count[0]] = value
    count[0] += 1
    return E_OK


cdef void _take_out(int32_t* items, uint32_t* count, int32_t value) noexcept nogil:
    cdef uint32_t i
    for i in range(count[0]):
        if items[i] == value:
            count[0] -= 1
            items[i] = items[count[0]]
            return


cdef Transport* find_transport(Engine* e, uint32_t id) noexcept nogil:
    cdef int32_t i = table_get(&e.by_transport_id, id)
    return NULL if i == TABLE_MISSING else e.transports[i]


cdef Receiver* find_receiver(Engine* e, uint32_t id) noexcept nogil:
    cdef int32_t i = table_get(&e.by_receiver_id, id)
    return NULL if i == TABLE_MISSING else e.receivers[i]


cdef Egress* find_egress(Engine* e, uint32_t id) noexcept nogil:
    cdef int32_t i = table_get(&e.by_egress_id, id)
    return NULL if i == TABLE_MISSING else e.egresses[i]


cdef Transport* find_by_ufrag(Engine* e, const uint8_t* ufrag, Py_ssize_t n) noexcept nogil:
    cdef int32_t i = table_get(&e.by_ufrag, hash_bytes(ufrag, n, e.hash_seed))
    cdef Transport* t
    if i == TABLE_MISSING:
        return NULL
    t = e.transports[i]
    if t.ice.ufrag_bytes == n and memcmp(t.ice.ufrag, ufrag, <size_t>n) == 0:
        return t
    if t.ice.previous_ufrag_bytes == n and memcmp(t.ice.previous_ufrag, ufrag, <size_t>n) == 0:
        return t
    return NULL


cdef inline uint64_t _tuple_key(const Engine* e, const SockAddr* remote, uint16_t socket_index) noexcept nogil:
    return hash_bytes(<const uint8_t*>remote, sizeof(SockAddr), e.hash_seed ^ socket_index)


cdef Transport* find_by_tuple(Engine* e, const SockAddr* remote, uint16_t socket_index, int* tuple_index) noexcept nogil:
    cdef int32_t i = table_get(&e.by_tuple, _tuple_key(e, remote, socket_index))
    if i == TABLE_MISSING:
        return NULL
    tuple_index[0] = ice_find(&e.transports[i].ice, remote, socket_index)
    return NULL if tuple_index[0] == ICE_NO_TUPLE else e.transports[i]


cdef RtpStream* find_stream(Transport* t, uint32_t ssrc) noexcept nogil:
    cdef int32_t i
    for i in range(t.stream_count):
        if t.stream_ssrcs[i] == ssrc:
            return t.streams[i]
    return NULL


cdef inline uint64_t _ssrc_key(const Transport* t, uint32_t ssrc) noexcept nogil:
    return (<uint64_t>t.index << 32) | ssrc


cdef Egress* find_by_ssrc(Engine* e, Transport* t, uint32_t ssrc) noexcept nogil:
    cdef int32_t i = table_get(&e.by_ssrc, _ssrc_key(t, ssrc))
    return NULL if i == TABLE_MISSING or i == SSRC_SPENT else e.egresses[i]


cdef void retire_credentials(Engine* e, Transport* t) noexcept nogil:
    """Forget the credentials before the last restart, and the nominations made under them."""
    if t.ice.previous_ufrag_bytes:
        table_remove(&e.by_ufrag, hash_bytes(t.ice.previous_ufrag, t.ice.previous_ufrag_bytes, e.hash_seed))
        ice_begin_generation(&t.ice)


cdef int set_ice(Engine* e, Transport* t, const IceCommand* ice, int64_t now_ns) noexcept nogil:
    """Give the transport (new) local credentials; the former password stays valid until the first check with the new one."""
    cdef uint64_t key
    if not (4 <= ice.ufrag_bytes <= 64 and 22 <= ice.password_bytes <= 128):
        return E_INVALID
    key = hash_bytes(ice.ufrag, ice.ufrag_bytes, e.hash_seed)
    if table_get(&e.by_ufrag, key) != TABLE_MISSING:
        return E_INVALID
    if table_put(&e.by_ufrag, key, t.index) < 0:
        return E_MEMORY
    if t.ice.ufrag_bytes:
        # The former pair is still checked until the peer knows the new one (RFC 8445 section 9).
        retire_credentials(e, t)
        memcpy(t.ice.previous_ufrag, t.ice.ufrag, sizeof(t.ice.ufrag))
        t.ice.previous_ufrag_bytes = t.ice.ufrag_bytes
        memcpy(t.ice.previous_password, t.ice.password, sizeof(t.ice.password))
        t.ice.previous_password_bytes = t.ice.password_bytes
        # A restart proves that the peer is there: give it the full time to check again.
        t.ice.last_valid_ns = now_ns
        t.ice.dead = 0
    memcpy(t.ice.ufrag, ice.ufrag, ice.ufrag_bytes)
    t.ice.ufrag_bytes = ice.ufrag_bytes
    memcpy(t.ice.password, ice.password, ice.password_bytes)
    t.ice.password_bytes = ice.password_bytes
    return E_OK


cdef int add_transport(Engine* e, uint32_t id, const IceCommand* ice, int64_t now_ns) noexcept nogil:
    cdef int32_t i
    cdef int code
    cdef Transport* t
    if find_transport(e, id) != NULL:
        return E_STATE
    i = _free_place(<void***>&e.transports, &e.transport_capacity, &e.free_transports, &e.free_transport_count)
    if i < 0:
        return E_MEMORY
    if timers_grow(&e.timers, <uint32_t>e.transport_capacity) < 0 or grow_ready(e) < 0:
        return E_MEMORY
    t = <Transport*>calloc(1, sizeof(Transport))
    if t == NULL:
        return E_MEMORY
    t.id = id
    t.index = i
    t.dtls_tuple = ICE_NO_TUPLE
    t.rtcp_ssrc = engine_random(e)
    t.limits = e.police
    if ice.bits_per_s:
        police_set_bits(&t.limits, ice.bits_per_s)
    ice_reset(&t.ice, now_ns)
    code = set_ice(e, t, ice, now_ns)
    if code == E_OK and table_put(&e.by_transport_id, id, i) < 0:
        table_remove(&e.by_ufrag, hash_bytes(t.ice.ufrag, t.ice.ufrag_bytes, e.hash_seed))
        code = E_MEMORY
    if code < 0:
        free(t)
        return code
    e.transports[i] = t
    e.free_transport_count -= 1
    e.transport_count += 1
    # Spread the once-a-second work of many transports over the second.
    t.rtcp_due_ns = now_ns + ms(500) + engine_random(e) % 500000000u
    schedule(e, t)
    return E_OK


cdef int remember_tuple(Engine* e, Transport* t, const SockAddr* remote, uint16_t socket_index) noexcept nogil:
    return table_put(&e.by_tuple, _tuple_key(e, remote, socket_index), t.index)


cdef void forget_tuple(Engine* e, Transport* t, const SockAddr* remote, uint16_t socket_index) noexcept nogil:
    cdef uint64_t key = _tuple_key(e, remote, socket_index)
    if table_get(&e.by_tuple, key) == t.index:
        table_remove(&e.by_tuple, key)


cdef void drop_queue(Engine* e, Transport* t) noexcept nogil:
    cdef uint32_t i
    for i in range(t.egress_count):
        e.egresses[t.egresses[i]].start_queued = 0
        replay_end(e, e.egresses[t.egresses[i]], False)
    while t.queue_count:
        slot_drop(e.slab, t.queue[t.queue_head].slot)
        t.queue_head = (t.queue_head + 1) & (QUEUE_PLACES - 1)
        t.queue_count -= 1
    t.resend_count = 0


cdef void remove_transport(Engine* e, Transport* t) noexcept nogil:
    """Take down a transport with all that stands on it; its queued packets are dropped."""
    cdef int32_t i
    cdef uint32_t j
    while t.egress_count:
        remove_egress(e, e.egresses[t.egresses[t.egress_count - 1]])
    while t.receiver_count:
        remove_receiver(e, e.receivers[t.receivers[t.receiver_count - 1]])
    for j in range(t.spent_count):
        table_remove(&e.by_ssrc, _ssrc_key(t, t.spent_ssrcs[j]))
    for i in range(ICE_MAX_TUPLES):
        if t.ice.tuples[i].used:
            forget_tuple(e, t, &t.ice.tuples[i].remote, t.ice.tuples[i].socket_index)
    retire_credentials(e, t)
    table_remove(&e.by_ufrag, hash_bytes(t.ice.ufrag, t.ice.ufrag_bytes, e.hash_seed))
    table_remove(&e.by_transport_id, t.id)
    timers_cancel(&e.timers, t.index)
    if t.is_ready:
        leave_ready(e, t)
    drop_queue(e, t)
    for i in range(t.stream_count):
        free_stream(e, t.streams[i])
    srtp_free(t.receive_context)
    srtp_free(t.send_context)
    e.transports[t.index] = NULL
    e.free_transports[e.free_transport_count] = t.index
    e.free_transport_count += 1
    e.transport_count -= 1
    bandwidth_free(t.bandwidth)
    free(t.twcc)
    free(t.egresses)
    free(t.spent_ssrcs)
    free(t.queue)
    free(t.resends)
    free(t)


cdef Receiver* _new_receiver(Engine* e, uint32_t id) noexcept nogil:
    """Return a receiver that has its place and its id and nothing else; NULL when memory is short."""
    cdef int32_t i = _free_place(<void***>&e.receivers, &e.receiver_capacity, &e.free_receivers, &e.free_receiver_count)
    cdef Receiver* r
    if i < 0:
        return NULL
    r = <Receiver*>calloc(1, sizeof(Receiver))
    if r == NULL:
        return NULL
    if table_put(&e.by_receiver_id, id, i) < 0:
        free(r)
        return NULL
    r.id = id
    r.index = i
    r.home = NO_INDEX
    e.receivers[i] = r
    e.free_receiver_count -= 1
    return r


cdef void _free_receiver(Engine* e, Receiver* r) noexcept nogil:
    table_remove(&e.by_receiver_id, r.id)
    e.receivers[r.index] = NULL
    e.free_receivers[e.free_receiver_count] = r.index
    e.free_receiver_count += 1
    free(r.exported)
    free(r.probe)
    free(r.egresses)
    free(r)


cdef int add_receiver(Engine* e, Transport* t, const ReceiverCommand* spec) noexcept nogil:
    cdef Receiver* r
    if (spec.mid_bytes > 16 or spec.codec_count > MAX_CODECS or spec.rid_count > MAX_RIDS or spec.ssrc_count > MAX_SSRCS):
        return E_INVALID
    if find_receiver(e, spec.receiver) != NULL:
        return E_STATE
    if t.receiver_count == MAX_RECEIVERS:
        return E_LIMIT
    r = _new_receiver(e, spec.receiver)
    if r == NULL:
        return E_MEMORY
    r.transport = t.index
    r.spec = spec[0]
    r.encoding_count = 1 if spec.rid_count == 0 else spec.rid_count
    t.receivers[t.receiver_count] = r.index
    t.receiver_count += 1
    return E_OK


cdef int add_mirror(Engine* e, const MirrorCommand* spec) noexcept nogil:
    cdef Receiver* r
    if not 1 <= spec.encoding_count <= MAX_ENCODINGS:
        return E_INVALID
    if find_receiver(e, spec.receiver) != NULL:
        return E_STATE
    r = _new_receiver(e, spec.receiver)
    if r == NULL:
        return E_MEMORY
    r.transport = NO_INDEX
    r.home = <int32_t>spec.home
    r.spec.receiver = spec.receiver
    r.spec.is_video = 1 if spec.is_video else 0
    r.encoding_count = spec.encoding_count
    if _append(&e.mirrors, &e.mirror_count, &e.mirror_capacity, r.index) < 0:
        _free_receiver(e, r)
        return E_MEMORY
    return E_OK


cdef void remove_receiver(Engine* e, Receiver* r) noexcept nogil:
    cdef Transport* t
    cdef uint32_t count
    cdef int32_t i
    while r.egress_count:
        remove_egress(e, e.egresses[r.egresses[r.egress_count - 1]])
    if r.home != NO_INDEX:
        for i in range(r.encoding_count):
            if r.encodings[i].stream != NULL:
                free_stream(e, r.encodings[i].stream)
        _take_out(e.mirrors, &e.mirror_count, r.index)
        _free_receiver(e, r)
        return
    t = e.transports[r.transport]
    for i in range(t.stream_count):
        if t.streams[i].receiver == r.index:
            t.streams[i].receiver = NO_INDEX
    count = <uint32_t>t.receiver_count
    _take_out(t.receivers, &count, r.index)
    t.receiver_count = <int32_t>count
    _free_receiver(e, r)


cdef int add_egress(Engine* e, Transport* t, const EgressCommand* spec) noexcept nogil:
    cdef Receiver* r = find_receiver(e, spec.receiver)
    cdef Egress* g
    cdef int32_t i
    if r == NULL:
        return E_UNKNOWN_STREAM
    if (spec.mid_bytes > 16 or spec.codec_count > MAX_CODECS or spec.cname_bytes > MAX_CNAME
            or spec.encoding < -1 or spec.encoding >= r.encoding_count):
        return E_INVALID
    if find_egress(e, spec.egress) != NULL:
        return E_STATE
    # An SSRC is never used twice under one key: the numbers of its former life would come again.
    if (table_get(&e.by_ssrc, _ssrc_key(t, spec.ssrc)) != TABLE_MISSING or spec.rtx_ssrc == spec.ssrc
            or (spec.rtx_ssrc and table_get(&e.by_ssrc, _ssrc_key(t, spec.rtx_ssrc)) != TABLE_MISSING)):
        return E_INVALID
    i = _free_place(<void***>&e.egresses, &e.egress_capacity, &e.free_egresses, &e.free_egress_count)
    if i < 0:
        return E_MEMORY
    g = <Egress*>calloc(1, sizeof(Egress))
    if g == NULL:
        return E_MEMORY
    g.id = spec.egress
    g.index = i
    g.transport = t.index
    g.receiver = r.index
    g.spec = spec[0]
    g.is_video = r.spec.is_video
    g.wanted = spec.encoding
    g.current = NO_INDEX
    g.rtt_ns = -1
    selection_init(&g.selection)
    projection_init(&g.projection, <uint16_t>(engine_random(e) & 0x7fffu))
    g.rtx_next = engine_random(e) & 0x7fffu
    if _append(&t.egresses, &t.egress_count, &t.egress_capacity, i) < 0:
        free(g)
        return E_MEMORY
    if _append(&r.egresses, &r.egress_count, &r.egress_capacity, i) < 0:
        t.egress_count -= 1
        free(g)
        return E_MEMORY
    if (table_put(&e.by_egress_id, g.id, i) < 0 or table_put(&e.by_ssrc, _ssrc_key(t, spec.ssrc), i) < 0
            or (spec.rtx_ssrc and table_put(&e.by_ssrc, _ssrc_key(t, spec.rtx_ssrc), i) < 0)):
        table_remove(&e.by_egress_id, g.id)
        table_remove(&e.by_ssrc, _ssrc_key(t, spec.ssrc))
        t.egress_count -= 1
        r.egress_count -= 1
        free(g)
        return E_MEMORY
    e.egresses[i] = g
    e.free_egress_count -= 1
    return E_OK


cdef void _spend_ssrc(Engine* e, Transport* t, uint32_t ssrc) noexcept nogil:
    """Keep an SSRC from being used again on this transport."""
    cdef uint32_t larger
    cdef uint32_t* grown
    table_put(&e.by_ssrc, _ssrc_key(t, ssrc), SSRC_SPENT)
    if t.spent_count == t.spent_capacity:
        larger = <uint32_t>8 if t.spent_capacity == 0 else <uint32_t>(t.spent_capacity * 2u)
        grown = <uint32_t*>realloc(t.spent_ssrcs, larger * sizeof(uint32_t))
        if grown == NULL:
            return
        t.spent_ssrcs = grown
        t.spent_capacity = larger
    t.spent_ssrcs[t.spent_count] = ssrc
    t.spent_count += 1


cdef void remove_egress(Engine* e, Egress* g) noexcept nogil:
    cdef Transport* t = e.transports[g.transport]
    cdef Receiver* r = e.receivers[g.receiver]
    replay_end(e, g, False)
    _take_out(t.egresses, &t.egress_count, g.index)
    _take_out(r.egresses, &r.egress_count, g.index)
    table_remove(&e.by_egress_id, g.id)
    _spend_ssrc(e, t, g.spec.ssrc)
    if g.spec.rtx_ssrc:
        _spend_ssrc(e, t, g.spec.rtx_ssrc)
    e.egresses[g.index] = NULL
    e.free_egresses[e.free_egress_count] = g.index
    e.free_egress_count += 1
    free(g.sent)
    free(g)


cdef void free_stream(Engine* e, RtpStream* s) noexcept nogil:
    if s.history != NULL:
        source_clear(s.history, e.slab)
    cache_free(s.cache, &e.caches, e.slab)
    free(s.history)
    free(s.nack)
    free(s.structure)
    free(s.layers)
    free(s)


cdef RtpStream* add_stream(Engine* e, Transport* t, uint32_t ssrc, int64_t now_ns) noexcept nogil:
    cdef RtpStream* s
    cdef int32_t i
    cdef int32_t place = t.stream_count
    if place == MAX_STREAMS:
        place = NO_INDEX
        for i in range(t.stream_count):
            s = t.streams[i]
            if s.receiver == NO_INDEX and now_ns - s.last_packet_ns > ms(STREAM_IDLE_MS):
                if place == NO_INDEX or s.last_packet_ns < t.streams[place].last_packet_ns:
                    place = i
        if place == NO_INDEX:
            return NULL
        free_stream(e, t.streams[place])
    s = <RtpStream*>calloc(1, sizeof(RtpStream))
    if s == NULL:
        if place < t.stream_count:
            # The evicted place must not dangle.
            t.stream_count -= 1
            t.streams[place] = t.streams[t.stream_count]
            t.stream_ssrcs[place] = t.stream_ssrcs[t.stream_count]
        return NULL
    s.ssrc = ssrc
    s.receiver = NO_INDEX
    s.audio_level = 255
    s.last_packet_ns = now_ns
    e.next_serial += 1
    s.serial = e.next_serial
    t.streams[place] = s
    t.stream_ssrcs[place] = ssrc
    if place == t.stream_count:
        t.stream_count += 1
    return s


cdef int queue_packet(Engine* e, Transport* t, Egress* g, Slot* slot, int lane) noexcept nogil:
    cdef QueueItem* item
    if t.queue == NULL:
        t.queue = <QueueItem*>malloc(QUEUE_PLACES * sizeof(QueueItem))
        if t.queue == NULL:
            return E_MEMORY
    # Audio has the last places to itself: video that comes faster than it leaves must not cost voices.
    if t.queue_count == QUEUE_PLACES or (g.is_video and t.queue_count >= QUEUE_PLACES - AUDIO_PLACES):
        return E_NO_SPACE
    item = &t.queue[(t.queue_head + t.queue_count) & (QUEUE_PLACES - 1)]
    item.slot = slot
    item.egress = g.index
    item.egress_id = g.id
    t.queue_count += 1
    mark_ready(e, t, lane)
    return E_OK


cdef int queue_resend(Engine* e, Transport* t, Egress* g, uint16_t out_low) noexcept nogil:
    cdef ResendItem* item
    if t.resends == NULL:
        t.resends = <ResendItem*>malloc(RESEND_PLACES * sizeof(ResendItem))
        if t.resends == NULL:
            return E_MEMORY
    if t.resend_count == RESEND_PLACES:
        return E_NO_SPACE
    item = &t.resends[(t.resend_head + t.resend_count) & (RESEND_PLACES - 1)]
    item.egress = g.index
    item.egress_id = g.id
    item.out_low = out_low
    t.resend_count += 1
    mark_ready(e, t, LANE_FAST)
    return E_OK


cdef void schedule(Engine* e, Transport* t) noexcept nogil:
    cdef int64_t due = t.rtcp_due_ns
    if t.twcc_due_ns and t.twcc_due_ns < due:
        due = t.twcc_due_ns
    if t.nack_due_ns and t.nack_due_ns < due:
        due = t.nack_due_ns
    if t.keyframe_due_ns and t.keyframe_due_ns < due:
        due = t.keyframe_due_ns
    if t.pacer_due_ns and t.pacer_due_ns < due:
        due = t.pacer_due_ns
    if t.bandwidth != NULL and t.bandwidth.due_ns and t.bandwidth.due_ns < due:
        due = t.bandwidth.due_ns
    timers_set(&e.timers, t.index, due)


cdef int emit(Engine* e, Event* event) noexcept nogil:
    """Hand an event to the control plane; a full ring loses it (counted), never an acknowledgement's reserve."""
    cdef int code = mailbox_emit(e.mailbox, event)
    if code < 0:
        free(event.payload)
        e.counters.events_dropped += 1
    return code
