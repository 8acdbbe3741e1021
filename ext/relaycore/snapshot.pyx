"""What a worker copied out on CMD_SNAPSHOT, for Python: four structured arrays and the counters by name.

The dtypes take their offsets from the C structs of engine.pxd themselves, so a changed struct cannot be misread; names
are the fields' names. Python never reads a live counter: everything here was copied by the worker between two batches.
"""
import numpy as np

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from relaycore.counters cimport COUNTER_ERRORS, Counters
from relaycore.engine cimport EgressStats, LayerStats, Snapshot, StreamStats, TransportStats
from relaycore.errs cimport E_LAST, E_MEMORY, E_OK, err_name

from relaycore.counters import SCALARS
from relaycore.stages import STAGES, ns_per_tick


cdef int _grow(void** items, uint32_t* capacity, uint32_t wanted, size_t item_bytes) noexcept nogil:
    cdef void* grown
    if wanted <= capacity[0]:
        return E_OK
    grown = realloc(items[0], wanted * item_bytes)
    if grown == NULL:
        return E_MEMORY
    items[0] = grown
    capacity[0] = wanted
    return E_OK


cdef int snapshot_reserve(Snapshot* s, uint32_t transports, uint32_t streams, uint32_t egresses, uint32_t layers) noexcept nogil:
    if (_grow(<void**>&s.transports, &s.transport_capacity, transports, sizeof(TransportStats)) < 0
            or _grow(<void**>&s.streams, &s.stream_capacity, streams, sizeof(StreamStats)) < 0
            or _grow(<void**>&s.egresses, &s.egress_capacity, egresses, sizeof(EgressStats)) < 0
            or _grow(<void**>&s.layers, &s.layer_capacity, layers, sizeof(LayerStats)) < 0):
        return E_MEMORY
    return E_OK


cdef void snapshot_release(Snapshot* s) noexcept nogil:
    free(s.transports)
    free(s.streams)
    free(s.egresses)
    free(s.layers)
    memset(s, 0, sizeof(Snapshot))


cdef object _dtype(list fields, size_t struct_bytes):
    names, formats, offsets = zip(*fields, strict=True)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": struct_bytes})


cdef object _transport_dtype():
    cdef TransportStats s
    cdef char* base = <char*>&s
    return _dtype([
        ("transport", "u4", <char*>&s.transport - base),
        ("alive", "u4", <char*>&s.alive - base),
        ("packets_received", "u8", <char*>&s.packets_received - base),
        ("bytes_received", "u8", <char*>&s.bytes_received - base),
        ("packets_sent", "u8", <char*>&s.packets_sent - base),
        ("bytes_sent", "u8", <char*>&s.bytes_sent - base),
        ("rtt_ns", "i8", <char*>&s.rtt_ns - base),
        ("keyframes_asked", "u8", <char*>&s.repair.keyframes_asked - base),
        ("keyframes_wanted", "u8", <char*>&s.repair.keyframes_wanted - base),
        ("nacks_sent", "u8", <char*>&s.repair.nacks_sent - base),
        ("nacks_received", "u8", <char*>&s.repair.nacks_received - base),
        ("rtx_sent", "u8", <char*>&s.repair.rtx_sent - base),
        ("rtx_recovered", "u8", <char*>&s.repair.rtx_recovered - base),
        ("remote_family", "u1", <char*>&s.remote_family - base),
        ("remote_ip", ("u1", (16,)), <char*>&s.remote_ip - base),
        ("remote_port", "u2", <char*>&s.remote_port - base),
        ("loss_permille", "u4", <char*>&s.loss_permille - base),
        ("estimate_bps", "u8", <char*>&s.estimate_bps - base),
    ], sizeof(TransportStats))


cdef object _stream_dtype():
    cdef StreamStats s
    cdef char* base = <char*>&s
    return _dtype([
        ("receiver", "u4", <char*>&s.receiver - base),
        ("encoding", "i4", <char*>&s.encoding - base),
        ("ssrc", "u4", <char*>&s.ssrc - base),
        ("codec", "u4", <char*>&s.codec - base),
        ("packets", "u8", <char*>&s.packets - base),
        ("bytes", "u8", <char*>&s.bytes - base),
        ("frames", "u8", <char*>&s.frames - base),
        ("keyframes", "u8", <char*>&s.keyframes - base),
        ("lost", "i8", <char*>&s.lost - base),
        ("jitter_ticks", "u4", <char*>&s.jitter_ticks - base),
        ("audio_level", "u4", <char*>&s.audio_level - base),
        ("last_packet_ns", "i8", <char*>&s.last_packet_ns - base),
    ], sizeof(StreamStats))


cdef object _egress_dtype():
    cdef EgressStats s
    cdef char* base = <char*>&s
    return _dtype([
        ("egress", "u4", <char*>&s.egress - base),
        ("receiver", "u4", <char*>&s.receiver - base),
        ("encoding", "i4", <char*>&s.encoding - base),
        ("wanted", "i4", <char*>&s.wanted - base),
        ("spatial", "i4", <char*>&s.spatial - base),
        ("temporal", "i4", <char*>&s.temporal - base),
        ("packets", "u8", <char*>&s.packets - base),
        ("bytes", "u8", <char*>&s.bytes - base),
        ("frames", "u8", <char*>&s.frames - base),
        ("fraction_lost", "u4", <char*>&s.fraction_lost - base),
        ("total_lost", "i4", <char*>&s.total_lost - base),
        ("jitter_ticks", "u4", <char*>&s.jitter_ticks - base),
        ("rtt_ns", "i8", <char*>&s.rtt_ns - base),
    ], sizeof(EgressStats))


cdef object _layer_dtype():
    cdef LayerStats s
    cdef char* base = <char*>&s
    return _dtype([
        ("receiver", "u4", <char*>&s.receiver - base),
        ("encoding", "i4", <char*>&s.encoding - base),
        ("spatial", "u4", <char*>&s.spatial - base),
        ("temporal", "u4", <char*>&s.temporal - base),
        ("width", "u4", <char*>&s.width - base),
        ("height", "u4", <char*>&s.height - base),
        ("bytes", "u8", <char*>&s.bytes - base),
        ("frames", "u8", <char*>&s.frames - base),
        ("selected_bytes", "u8", <char*>&s.selected_bytes - base),
    ], sizeof(LayerStats))


TRANSPORT_DTYPE = _transport_dtype()
STREAM_DTYPE = _stream_dtype()
EGRESS_DTYPE = _egress_dtype()
LAYER_DTYPE = _layer_dtype()
ERROR_NAMES = tuple([err_name(-i).decode() for i in range(1, -E_LAST)])


cdef object _array(const void* items, uint32_t found, uint32_t capacity, object dtype):
    cdef uint32_t count = min(found, capacity)
    if count == 0:
        return np.zeros(0, dtype)
    copy = PyBytes_FromStringAndSize(<const char*>items, <Py_ssize_t>(count * <size_t>dtype.itemsize))
    return np.frombuffer(copy, dtype)


cdef object snapshot_arrays(const Snapshot* s):
    """Return (transports, streams, egresses, layers) as read-only structured arrays."""
    return (
        _array(s.transports, s.transport_count, s.transport_capacity, TRANSPORT_DTYPE),
        _array(s.streams, s.stream_count, s.stream_capacity, STREAM_DTYPE),
        _array(s.egresses, s.egress_count, s.egress_capacity, EGRESS_DTYPE),
        _array(s.layers, s.layer_count, s.layer_capacity, LAYER_DTYPE),
    )


cdef object counter_values(const Counters* c):
    """Return ({counter name: value}, {error name: value}), every known error included."""
    cdef const uint64_t* words = <const uint64_t*>c
    cdef Py_ssize_t i
    counters = {name: words[i] for i, name in enumerate(SCALARS)}
    errors = {name: c.by_error[i] for i, name in enumerate(ERROR_NAMES, 1) if i < COUNTER_ERRORS}
    return counters, errors


cdef object stage_values(const Counters* c):
    """Return {stage name: (ns, packets)} of the sampled turns."""
    tick_ns = ns_per_tick()
    return {name: (c.stage_ticks[<int>i] * tick_ns, c.stage_packets[<int>i]) for i, name in enumerate(STAGES)}


def pattern(size_t count):
    """Return the four arrays of `count` entries each, with fields near both ends of entry i set from C to values made
    of 1000 * i, signs included; all others are 0. For the test that Python reads what C wrote."""
    cdef Snapshot s
    cdef size_t i
    memset(&s, 0, sizeof(Snapshot))
    if snapshot_reserve(&s, <uint32_t>count, <uint32_t>count, <uint32_t>count, <uint32_t>count) < 0:
        raise MemoryError("snapshot")
    for i in range(count):
        memset(&s.transports[i], 0, sizeof(TransportStats))
        memset(&s.streams[i], 0, sizeof(StreamStats))
        memset(&s.egresses[i], 0, sizeof(EgressStats))
        memset(&s.layers[i], 0, sizeof(LayerStats))
        s.transports[i].rtt_ns = <int>(1000 * i + 6)
        s.transports[i].remote_family = 6
        s.transports[i].remote_ip[15] = 8
        s.transports[i].remote_port = 9
        s.transports[i].transport = <uint32_t>(1000 * i)
        s.streams[i].codec = <uint32_t>(1000 * i + 3)
        s.streams[i].lost = -<int>(1000 * i + 8)
        s.streams[i].audio_level = 255
        s.streams[i].last_packet_ns = <int>(1000 * i + 11)
        s.layers[i].encoding = -1
        s.layers[i].height = <uint32_t>(1000 * i + 5)
        s.layers[i].selected_bytes = 1000 * i + 8
        s.egresses[i].wanted = -1
        s.egresses[i].frames = 1000 * i + 6
        s.egresses[i].total_lost = -<int>(1000 * i + 8)
        s.egresses[i].rtt_ns = <int>(1000 * i + 10)
    s.transport_count = s.stream_count = s.egress_count = s.layer_count = <uint32_t>count
    try:
        return snapshot_arrays(&s)
    finally:
        snapshot_release(&s)
