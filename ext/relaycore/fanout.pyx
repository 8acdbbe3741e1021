"""Fan-out in portions; the contract stands in fanout.pxd.

Queueing one packet for a thousand subscribers takes 30 us, sending it a millisecond, and a keyframe has a hundred packets:
done in one go, every other call on the worker would stand still meanwhile. So a stream whose packets cost more than its share
of the fast lane has them wait as jobs, one packet each, which engine_poll does between its slices; their subscribers
wait in the bulk lane. Within a stream the order holds: as long as one of its packets waits, the next ones do too.
"""
from libc.stdint cimport uint8_t, uint32_t, int64_t
from libc.stdlib cimport free, malloc
from relaycore.forward cimport spread_packet
from relaycore.mirrors cimport export_packet
from relaycore.overload cimport overload_hear
from relaycore.ready cimport LANE_BULK, LANE_FAST
from relaycore.routes cimport Engine, FanoutJob, PacketFacts, Receiver, find_receiver
from relaycore.slab cimport Slot, slot_drop, slot_hold
from relaycore.units cimport ms

cdef enum:
    JOBS = 4096                    # power of two; beyond, the oldest is done at once
    # A stream's share of the fast lane: a twentieth of the worker at 1 us a packet, and 500 packets at once.
    PACKET_PRICE_NS = 20000
    BURST_MS = 10


cdef bint _is_costly(Receiver* r, const PacketFacts* f, int64_t now_ns) noexcept nogil:
    """Whether a packet is to wait in the bulk lane. Frames stay whole: cut in two, each half is a system call per subscriber."""
    cdef int64_t price = <int64_t>r.egress_count * PACKET_PRICE_NS
    cdef int64_t expected = 1
    cdef int i = f.encoding
    cdef uint8_t bit = <uint8_t>(1u << <uint32_t>i)
    if r.fanout_paid_ns < now_ns:
        r.fanout_paid_ns = now_ns
    if f.rtp.rtp_ts != r.fanout_ts[i] or r.fanout_packets[i] == 0:
        r.fanout_ts[i] = f.rtp.rtp_ts
        r.fanout_expected[i] = r.fanout_packets[i]
        r.fanout_packets[i] = 0
        r.fanout_bulk = <uint8_t>(r.fanout_bulk & ~bit)
        expected = max(1, r.fanout_expected[i])
    if r.fanout_packets[i] < 0xffff:
        r.fanout_packets[i] += 1
    if r.fanout_bulk & bit or r.fanout_paid_ns - now_ns + expected * price > ms(BURST_MS):
        r.fanout_bulk |= bit
        return True
    r.fanout_paid_ns += price
    return False


cdef void route_packet(Engine* e, Receiver* r, Slot* slot, const PacketFacts* f, int64_t now_ns) noexcept nogil:
    cdef FanoutJob* job
    cdef bint is_costly = _is_costly(r, f, now_ns)
    if r.exports:
        export_packet(e, r, slot, f)
    if r.fanout_waiting == 0 and not is_costly:
        spread_packet(e, r, slot, f, LANE_FAST, now_ns)
        return
    if e.jobs == NULL:
        e.jobs = <FanoutJob*>malloc(JOBS * sizeof(FanoutJob))
        if e.jobs == NULL:
            spread_packet(e, r, slot, f, LANE_BULK, now_ns)
            return
    if e.job_count == JOBS:
        fanout_next(e, now_ns)
    slot_hold(slot)
    job = &e.jobs[(e.job_head + e.job_count) & (JOBS - 1u)]
    job.slot = slot
    job.receiver = r.id
    e.job_count += 1
    r.fanout_waiting += 1


cdef int fanout_next(Engine* e, int64_t now_ns) noexcept nogil:
    cdef FanoutJob job
    cdef Receiver* r
    cdef int count = 1
    if e.job_count == 0:
        return 0
    job = e.jobs[e.job_head]
    e.job_head = (e.job_head + 1) & (JOBS - 1u)
    e.job_count -= 1
    overload_hear(&e.overload, now_ns - job.slot.arrival_ns)
    r = find_receiver(e, job.receiver)
    if r != NULL:
        r.fanout_waiting -= 1
        count += <int>r.egress_count
        spread_packet(e, r, job.slot, &e.facts[job.slot - e.slab.slots], LANE_BULK, now_ns)
    slot_drop(e.slab, job.slot)
    return count


cdef void fanout_clear(Engine* e) noexcept nogil:
    while e.job_count:
        slot_drop(e.slab, e.jobs[e.job_head].slot)
        e.job_head = (e.job_head + 1) & (JOBS - 1u)
        e.job_count -= 1
    free(e.jobs)
    e.jobs = NULL
