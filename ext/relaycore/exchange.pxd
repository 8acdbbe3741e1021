"""Rings between the workers of one process: media one way, demand the other, a stop ahead of all media (DESIGN section 2).

For every ordered pair of workers there is one byte ring of media records and one ring of signals, each with a single producer
and a single consumer. Nothing in them belongs to anybody: records are copied in and copied out.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t, uint64_t

cdef enum:
    MAX_WORKERS = 32               # Receiver.exports has a bit for each
    SIGNAL_PLACES = 4096           # per pair; power of two
    RECORD_ALIGNMENT = 64          # records begin on a cache line: the two sides never write into the same one

cdef enum RecordKind:
    RECORD_REST = 0                # nothing: the ring's end was too near for the next record
    RECORD_PACKET = 1              # PacketFacts, then the packet
    RECORD_REPORT = 2              # SenderInfo

ctypedef struct Record:            # head of a media record; its body follows
    uint32_t bytes                 # of the whole record
    uint16_t kind
    uint16_t packet_bytes
    uint32_t receiver              # id
    uint32_t serial                # of the stream, in its home engine
    uint32_t ssrc
    uint32_t clock_rate_hz
    int64_t arrival_ns             # at the home worker; the monotonic clock is everybody's
    uint64_t base                  # where the packet lay there, for the offsets of pointers into it
    uint32_t encoding
    uint32_t reserved

cdef enum SignalKind:
    SIGNAL_DEMAND = 1              # value: bit per encoding that the sender's subscribers want
    SIGNAL_KEYFRAME = 2            # value: encoding
    SIGNAL_STOP = 3                # from the home: nothing of it may be forwarded any more

ctypedef struct Signal:
    uint32_t kind
    uint32_t receiver              # id
    uint32_t value
    uint32_t reserved

# How far a claim may fill the ring. Who overflows it loses whole frames of video first; audio has the last eighth to itself.
cdef enum Fill:
    FILL_FRAME_START = 0           # half: what has begun below that finds room for its rest
    FILL_FRAME_REST = 1            # seven eighths
    FILL_ALL = 2

cdef struct Exchange               # defined in exchange.pyx

cdef Exchange* exchange_new(uint32_t workers, uint32_t media_bytes) noexcept nogil       # media_bytes: power of two, per ring
cdef void exchange_free(Exchange* x) noexcept nogil                   # after every worker has stopped
cdef uint32_t exchange_workers(const Exchange* x) noexcept nogil
cdef int exchange_fd(const Exchange* x, uint32_t me) noexcept nogil   # rung for `me`; watch it edge-triggered, nobody reads it
# Producer side. A claimed record is the caller's to fill until the next claim; flush publishes all and wakes who may sleep.
cdef Record* exchange_claim(Exchange* x, uint32_t me, uint32_t to, uint32_t body_bytes, int fill) noexcept nogil     # NULL = full
cdef int exchange_signal(Exchange* x, uint32_t me, uint32_t to, const Signal* s) noexcept nogil                      # E_NO_SPACE
cdef void exchange_flush(Exchange* x, uint32_t me) noexcept nogil
# Consumer side. A record is valid until the release that follows it; released at once after a batch.
cdef const Record* exchange_next(Exchange* x, uint32_t me, uint32_t source) noexcept nogil
cdef void exchange_release(Exchange* x, uint32_t me, uint32_t source) noexcept nogil
cdef int exchange_take_signal(Exchange* x, uint32_t me, uint32_t source, Signal* out) noexcept nogil                 # 1 or 0
cdef bint exchange_waiting(Exchange* x, uint32_t me) noexcept nogil   # something published for `me` has not been taken
# Before blocking: false = something has come meanwhile, do not block. After it, always: exchange_awake.
cdef bint exchange_may_sleep(Exchange* x, uint32_t me) noexcept nogil
cdef void exchange_awake(Exchange* x, uint32_t me) noexcept nogil
cdef int exchange_open_fds() noexcept nogil                           # of all exchanges of the process, for leak checks

cdef class WorkerExchange:
    """An exchange as a Python object; whoever runs on it holds a reference."""
    cdef Exchange* exchange            # owned
    cdef int _check(self, uint32_t a, uint32_t b) except -1
