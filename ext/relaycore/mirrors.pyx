"""Packets, sender reports, demand and keyframe requests between workers; the contract stands in mirrors.pxd.

What crosses is a copy: the packet and the facts that were parsed at home, once per worker that wants it, however many
subscribers there are. Its pointers are moved by offset into a slot of the receiving worker's own slab. Every record
names its receiver by id, and ids are never used again, so what is under way while either end is removed is dropped there.

A full ring costs video whole frames (a frame is refused at its first packet while half of the ring is used; one that has
begun may go on into the next three eighths); audio has the last eighth to itself.
"""
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy
from relaycore.errs cimport E_STATE, E_OK
from relaycore.exchange cimport (
    FILL_ALL, FILL_FRAME_REST, FILL_FRAME_START, RECORD_PACKET, RECORD_REPORT, SIGNAL_DEMAND, SIGNAL_KEYFRAME, SIGNAL_STOP,
    Record, Signal, exchange_claim, exchange_flush, exchange_next, exchange_release, exchange_signal,
    exchange_take_signal, exchange_waiting, exchange_workers,
)
from relaycore.fanout cimport route_packet
from relaycore.halt cimport halt_receiver
from relaycore.hdrext cimport EXT_COUNT, EXT_DD
from relaycore.history cimport SOURCE_MS, source_trim
from relaycore.keycache cimport cache_trim
from relaycore.keyframes cimport keyframe_crowd_ns
from relaycore.mailbox cimport MirrorCommand
from relaycore.reports cimport spread_sender_info
from relaycore.requests cimport request_keyframe
from relaycore.routes cimport (
    Egress, Encoding, Engine, Export, NO_INDEX, PENDING_ANY, PENDING_JOINS, PacketFacts, Receiver, RtpStream, add_mirror, find_receiver, free_stream,
)
from relaycore.rtcp cimport SenderInfo
from relaycore.slab cimport Slot, slab_take, slot_drop
from relaycore.timeline cimport timeline_note
from relaycore.units cimport ms
from relaycore.views cimport DdStructure, adopt_structure

cdef enum:
    RECORDS_PER_TURN = 64          # from each worker, like one batch of a socket
    SIGNALS_PER_TURN = 256
    REQUEST_INTERVAL_MS = 20       # between requests for one keyframe; the home makes of them what its budget allows
    UPKEEP_MS = 1000
    SLOT_ROOM = 64                 # behind a packet, for padding that levels a run


cdef int _signal_to(Engine* e, const Receiver* r, uint32_t worker, uint32_t kind, uint32_t value) noexcept nogil:
    cdef Signal signal
    signal.kind = kind
    signal.receiver = r.id
    signal.value = value
    signal.reserved = 0
    return exchange_signal(e.exchange, e.number, worker, &signal)


cdef inline void _hasten(Engine* e, int64_t due_ns) noexcept nogil:
    if e.mirrors_due_ns == 0 or due_ns < e.mirrors_due_ns:
        e.mirrors_due_ns = due_ns


# --- at home --------------------------------------------------------------------------------------------------------

cdef inline bint _is_other(const Engine* e, uint32_t worker) noexcept nogil:
    return e.exchange != NULL and worker != e.number and worker < exchange_workers(e.exchange)


cdef int export_add(Engine* e, Receiver* r, uint32_t worker) noexcept nogil:
    cdef int32_t i
    if not _is_other(e, worker) or r.home != NO_INDEX:
        return E_STATE
    if r.exported == NULL:
        r.exported = <Export*>calloc(exchange_workers(e.exchange), sizeof(Export))
        if r.exported == NULL:
            return E_STATE
    r.exports |= 1u << worker
    for i in range(r.encoding_count):
        # The next report of audio may be 5 s away, and a subscriber's lip-sync waits for it.
        if r.encodings[i].stream != NULL and r.encodings[i].stream.has_sender_info:
            _export_report_to(e, r, r.encodings[i].stream, worker)
    return E_OK


cdef int export_remove(Engine* e, Receiver* r, uint32_t worker) noexcept nogil:
    if not _is_other(e, worker):
        return E_STATE
    r.exports &= ~(1u << worker)
    if r.exported != NULL:
        r.exported[worker].demand = 0
        r.exported[worker].begun = 0
        r.exported[worker].dropping = 0
    return E_OK


cdef bint export_wanted(const Engine* e, const Receiver* r, int32_t encoding) noexcept nogil:
    cdef uint32_t worker
    if r.exports:
        for worker in range(exchange_workers(e.exchange)):
            if r.exported[worker].demand >> <uint32_t>encoding & 1:
                return True
    return False


cdef inline void _fill_head(Record* record, const Receiver* r, const RtpStream* s) noexcept nogil:
    record.receiver = r.id
    record.encoding = <uint32_t>s.encoding
    record.serial = s.serial
    record.ssrc = s.ssrc
    record.clock_rate_hz = s.clock_rate_hz


cdef int _fill_of(const Receiver* r, Export* x, const PacketFacts* f) noexcept nogil:
    """Return how full the ring may be for this packet, -1 when its frame has been given up."""
    cdef uint8_t bit = <uint8_t>(1u << <uint32_t>f.encoding)
    if not r.spec.is_video:
        return FILL_ALL
    if x.begun & bit and x.frame_ts[f.encoding] == f.rtp.rtp_ts:
        return -1 if x.dropping & bit else FILL_FRAME_REST
    x.begun |= bit
    x.dropping &= <uint8_t>~bit
    x.frame_ts[f.encoding] = f.rtp.rtp_ts
    return FILL_FRAME_START


cdef void export_packet(Engine* e, Receiver* r, const Slot* slot, const PacketFacts* f) noexcept nogil:
    """Copy a packet to every worker whose subscribers want its encoding."""
    cdef uint8_t bit = <uint8_t>(1u << <uint32_t>f.encoding)
    cdef Record* record
    cdef Export* x
    cdef uint32_t worker
    cdef int fill
    for worker in range(exchange_workers(e.exchange)):
        x = &r.exported[worker]
        if not x.demand & bit:
            continue
        fill = _fill_of(r, x, f)
        record = NULL
        if fill >= 0:
            record = exchange_claim(e.exchange, e.number, worker, <uint32_t>(sizeof(PacketFacts) + slot.length), fill)
        if record == NULL:
            x.dropping |= bit
            if r.spec.is_video:
                e.counters.export_dropped_video += 1
            else:
                e.counters.export_dropped_audio += 1
            continue
        _fill_head(record, r, r.encodings[f.encoding].stream)
        record.kind = RECORD_PACKET
        record.packet_bytes = slot.length
        record.arrival_ns = slot.arrival_ns
        record.base = <uint64_t>slot.data
        memcpy(record + 1, f, sizeof(PacketFacts))
        memcpy(<uint8_t*>(record + 1) + sizeof(PacketFacts), slot.data, slot.length)
        e.counters.exported += 1


cdef void _export_report_to(Engine* e, const Receiver* r, const RtpStream* s, uint32_t worker) noexcept nogil:
    # Lost when the ring is full: the next one says all that this one does.
    cdef Record* record = exchange_claim(e.exchange, e.number, worker, sizeof(SenderInfo), FILL_ALL)
    if record == NULL:
        return
    _fill_head(record, r, s)
    record.kind = RECORD_REPORT
    record.packet_bytes = 0
    record.arrival_ns = s.sender_info_ns
    memcpy(record + 1, &s.sender_info, sizeof(SenderInfo))


cdef void export_report(Engine* e, const Receiver* r, const RtpStream* s) noexcept nogil:
    """Tell the mirrors a sender report; of all encodings, because a switch needs those of both."""
    cdef uint32_t worker
    for worker in range(exchange_workers(e.exchange)):
        if r.exports >> worker & 1:
            _export_report_to(e, r, s, worker)


cdef void _tell_stops(Engine* e, Receiver* r) noexcept nogil:
    cdef uint32_t worker
    for worker in range(exchange_workers(e.exchange)):
        if r.stops_untold >> worker & 1 and _signal_to(e, r, worker, SIGNAL_STOP, 0) == E_OK:
            r.stops_untold &= ~(1u << worker)


cdef void export_stop(Engine* e, Receiver* r, int64_t now_ns) noexcept nogil:
    r.stops_untold = r.exports
    if r.stops_untold == 0:
        return
    _tell_stops(e, r)
    if r.stops_untold:
        e.has_stops_untold = 1
        _hasten(e, now_ns + ms(REQUEST_INTERVAL_MS))


cdef void _tell_stops_again(Engine* e, int64_t now_ns) noexcept nogil:
    cdef int32_t i
    e.has_stops_untold = 0
    for i in range(e.receiver_capacity):
        if e.receivers[i] != NULL and e.receivers[i].stops_untold:
            _tell_stops(e, e.receivers[i])
            if e.receivers[i].stops_untold:
                e.has_stops_untold = 1
    if e.has_stops_untold:
        _hasten(e, now_ns + ms(REQUEST_INTERVAL_MS))


cdef void _on_signal(Engine* e, uint32_t source, const Signal* signal, int64_t now_ns) noexcept nogil:
    cdef Receiver* r = find_receiver(e, signal.receiver)
    if r != NULL and signal.kind == SIGNAL_STOP and r.home == <int32_t>source:
        halt_receiver(e, r)
    elif r == NULL or not r.exports >> source & 1:
        e.counters.exchange_unknown += 1
    elif signal.kind == SIGNAL_DEMAND:
        r.exported[source].demand = <uint8_t>(signal.value & ((1u << <uint32_t>r.encoding_count) - 1u))
    elif signal.kind == SIGNAL_KEYFRAME and signal.value < <uint32_t>r.encoding_count:
        request_keyframe(e, r, <int32_t>signal.value, now_ns)
    else:
        e.counters.exchange_unknown += 1


# --- at the mirror --------------------------------------------------------------------------------------------------

cdef int mirror_add(Engine* e, const MirrorCommand* spec, int64_t now_ns) noexcept nogil:
    cdef int code
    if not _is_other(e, spec.home):
        return E_STATE
    code = add_mirror(e, spec)
    if code == E_OK and e.mirrors_due_ns == 0:
        e.mirrors_due_ns = now_ns + ms(UPKEEP_MS)
    return code


cdef uint8_t _wanted(const Engine* e, const Receiver* r) noexcept nogil:
    """Return the encodings that subscribers want here: the one that is shown and the one that is waited for."""
    cdef const Egress* g
    cdef uint32_t wanted = 0
    cdef uint32_t i
    for i in range(r.egress_count):
        g = e.egresses[r.egresses[i]]
        if g.wanted >= 0:
            wanted |= 1u << <uint32_t>g.wanted
            if g.current >= 0:
                wanted |= 1u << <uint32_t>g.current
    return <uint8_t>(wanted & 0xffu)


cdef inline int _signal(Engine* e, const Receiver* r, uint32_t kind, uint32_t value) noexcept nogil:
    return _signal_to(e, r, <uint32_t>r.home, kind, value)


cdef void _tell_demand(Engine* e, Receiver* r, uint8_t wanted) noexcept nogil:
    # What does not fit is told again by mirrors_run.
    if _signal(e, r, SIGNAL_DEMAND, wanted) == E_OK:
        r.demand_told = wanted


cdef void mirror_demand(Engine* e, Receiver* r) noexcept nogil:
    cdef uint8_t wanted
    if r.home == NO_INDEX:
        return
    wanted = _wanted(e, r)
    if wanted != r.demand_told:
        _tell_demand(e, r, wanted)


cdef void mirror_request(Engine* e, Receiver* r, int32_t encoding, bint joins, int64_t now_ns) noexcept nogil:
    cdef Encoding* enc = &r.encodings[encoding]
    cdef int64_t due = enc.last_request_ns + ms(REQUEST_INTERVAL_MS)
    cdef uint8_t pending = <uint8_t>(PENDING_JOINS if joins else PENDING_ANY)
    if joins:
        due = max(due, enc.last_request_ns + keyframe_crowd_ns(&enc.keyframes, now_ns))
    if enc.last_request_ns and now_ns < due:
        enc.request_pending |= pending
        _hasten(e, due)
        return
    if _signal(e, r, SIGNAL_KEYFRAME, <uint32_t>encoding) < 0:
        enc.request_pending |= pending
        _hasten(e, now_ns + ms(REQUEST_INTERVAL_MS))
        return
    enc.request_pending = 0
    enc.last_request_ns = now_ns


cdef void mirrors_run(Engine* e, int64_t now_ns) noexcept nogil:
    cdef Receiver* r
    cdef RtpStream* s
    cdef uint32_t i
    cdef int32_t j
    e.mirrors_due_ns = now_ns + ms(UPKEEP_MS) if e.mirror_count else 0
    if e.has_stops_untold:
        _tell_stops_again(e, now_ns)
    for i in range(e.mirror_count):
        r = e.receivers[e.mirrors[i]]
        # Told again even if nothing changed: who has switched wants less than before, and what was lost heals.
        _tell_demand(e, r, _wanted(e, r))
        for j in range(r.encoding_count):
            if r.encodings[j].request_pending:
                mirror_request(e, r, j, r.encodings[j].request_pending == PENDING_JOINS, now_ns)
            s = r.encodings[j].stream
            if s != NULL and s.history != NULL:
                source_trim(s.history, e.slab, now_ns - ms(SOURCE_MS))
            if s != NULL and s.cache != NULL:
                cache_trim(s.cache, &e.caches, e.slab, now_ns)


cdef RtpStream* _stream_of(Engine* e, Receiver* r, const Record* record) noexcept nogil:
    """Return the mirror's stream of a record; a new one when the publisher has started over under another SSRC."""
    cdef RtpStream* former = r.encodings[record.encoding].stream
    cdef RtpStream* s
    cdef Egress* g
    cdef uint32_t i
    if former != NULL and r.home_serials[record.encoding] == record.serial:
        return former
    s = <RtpStream*>calloc(1, sizeof(RtpStream))
    if s == NULL:
        return NULL
    s.ssrc = record.ssrc
    s.receiver = r.index
    s.encoding = <int32_t>record.encoding
    s.audio_level = 255
    s.clock_rate_hz = record.clock_rate_hz
    e.next_serial += 1
    s.serial = e.next_serial
    for i in range(r.egress_count):
        g = e.egresses[r.egresses[i]]
        g.start_queued = <uint8_t>(g.start_queued & ~(1u << record.encoding))
        if former != NULL and g.source == former:
            # As when the publisher starts over here: this encoding goes on at its next keyframe.
            g.source = NULL
    r.encodings[record.encoding].stream = s
    r.home_serials[record.encoding] = record.serial
    if former != NULL:
        free_stream(e, former)
    return s


cdef void _on_packet(Engine* e, Receiver* r, const Record* record, int64_t now_ns) noexcept nogil:
    cdef const PacketFacts* there = <const PacketFacts*>(record + 1)
    cdef const uint8_t* packet = <const uint8_t*>(record + 1) + sizeof(PacketFacts)
    cdef Encoding* enc = &r.encodings[record.encoding]
    cdef RtpStream* s
    cdef PacketFacts* f
    cdef Slot* slot
    cdef int kind
    s = _stream_of(e, r, record)
    slot = NULL if s == NULL else slab_take(e.slab, <Py_ssize_t>record.packet_bytes + SLOT_ROOM)
    if slot == NULL:
        slot = NULL if s == NULL else slab_take(e.slab, record.packet_bytes)
    if slot == NULL:
        e.counters.slots_exhausted += 1
        return
    memcpy(slot.data, packet, record.packet_bytes)
    slot.length = record.packet_bytes
    slot.arrival_ns = record.arrival_ns
    f = &e.facts[slot - e.slab.slots]
    memcpy(f, there, sizeof(PacketFacts))
    for kind in range(1, EXT_COUNT):
        if f.extensions.present >> <uint32_t>kind & 1:
            f.extensions.by_kind[kind].data = slot.data + (<uint64_t>there.extensions.by_kind[kind].data - record.base)
    s.codec = f.codec
    s.packets += 1
    s.last_packet_ns = record.arrival_ns
    if f.view.dd_has_structure:
        if s.structure == NULL:
            s.structure = <DdStructure*>calloc(1, sizeof(DdStructure))
        if s.structure != NULL:
            adopt_structure(s.structure, f.extensions.by_kind[EXT_DD].data, f.extensions.by_kind[EXT_DD].bytes, f.view.dd_serial)
    enc.last_packet_ns = record.arrival_ns
    if f.view.keyframe and f.view.start_of_frame:
        enc.request_pending = 0
    timeline_note(s, f)
    e.counters.imported += 1
    route_packet(e, r, slot, f, now_ns)
    slot_drop(e.slab, slot)


cdef void _on_record(Engine* e, uint32_t source, const Record* record, int64_t now_ns) noexcept nogil:
    cdef Receiver* r = find_receiver(e, record.receiver)
    cdef RtpStream* s
    if r == NULL or r.home != <int32_t>source or record.encoding >= <uint32_t>r.encoding_count:
        e.counters.exchange_unknown += 1
    elif r.is_stopped:
        e.counters.stopped_dropped += record.kind == RECORD_PACKET
    elif record.kind == RECORD_PACKET:
        _on_packet(e, r, record, now_ns)
    else:
        s = _stream_of(e, r, record)
        if s != NULL:
            memcpy(&s.sender_info, record + 1, sizeof(SenderInfo))
            s.sender_info_ns = record.arrival_ns
            s.has_sender_info = 1
            spread_sender_info(e, r, s, now_ns)


# --- both -----------------------------------------------------------------------------------------------------------

cdef bint mirrors_exchange(Engine* e, int64_t now_ns) noexcept nogil:
    cdef const Record* record
    cdef Signal signal
    cdef uint32_t source
    cdef int i
    for source in range(exchange_workers(e.exchange)):
        if source == e.number:
            continue
        for i in range(SIGNALS_PER_TURN):
            if not exchange_take_signal(e.exchange, e.number, source, &signal):
                break
            _on_signal(e, source, &signal, now_ns)
        for i in range(RECORDS_PER_TURN):
            record = exchange_next(e.exchange, e.number, source)
            if record == NULL:
                break
            _on_record(e, source, record, now_ns)
        exchange_release(e.exchange, e.number, source)
    exchange_flush(e.exchange, e.number)
    return exchange_waiting(e.exchange, e.number)
