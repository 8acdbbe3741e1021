"""Keyframe requests within a byte budget; the contract stands in keyframes.pxd.

A keyframe weighs as much as ten to thirty other frames and the encoder takes that from the pictures after it, so subscribers who
come, go and lose packets would cost all others their quality. Requests of one encoding share one keyframe for half a second;
keyframes that were asked for may take a quarter of what the publisher sends, beyond that an encoding gets one in a second. A
request that no keyframe answers was probably lost: it may be repeated, and costs nothing again.
Crowds that come at once share keyframes for longer: what one costs everybody who watches already does not grow with who comes.
"""
cimport cython
from libc.stdint cimport uint32_t, int64_t
from libc.string cimport memset
from relaycore.units cimport ms

cdef enum:
    PAUSE_MS = 500                 # LiveKit's throttle for low layers: a keyframe arrives within that on most paths
    LATE_PAUSE_MS = 1000           # over the budget: still less than people take for a standstill
    SHARE = 4                      # keyframes on request may be one part in so many
    JOIN_MS = 350                  # who comes at less than three a second is not made to wait
    JOINS_LIMIT_MS = 10000
    CROWD_PAUSE_MS = 3400          # of a crowd: three keyframes in 10 s; with the cache, nobody waits for longer than half of it
    BURST_BYTES = 262144           # before the share counts: keyframes of three encodings (about 120 kB) for two joins in a row


cdef void keyframe_count(KeyframeLog* k, KeyframeBudget* b, uint32_t rtp_ts, bint starts, uint32_t payload_bytes) noexcept nogil:
    b.spent_bytes = max(<int64_t>0, b.spent_bytes - payload_bytes // SHARE)
    if k.is_counting and k.rtp_ts != rtp_ts:
        k.is_counting = 0
        k.bytes = k.counted_bytes
    if starts and not k.is_counting:
        k.is_counting = 1
        k.rtp_ts = rtp_ts
        k.counted_bytes = 0
    if starts:
        k.is_owed = 0
    if k.is_counting:
        k.counted_bytes += payload_bytes


cdef void keyframe_requested(KeyframeLog* k, KeyframeBudget* b) noexcept nogil:
    if not k.is_owed:
        b.spent_bytes += k.bytes
    k.is_owed = 1


cdef void keyframe_joined(KeyframeLog* k, int64_t now_ns) noexcept nogil:
    k.joins_paid_ns = min(max(k.joins_paid_ns, now_ns) + ms(JOIN_MS), now_ns + ms(JOINS_LIMIT_MS))


cdef int64_t keyframe_crowd_ns(const KeyframeLog* k, int64_t now_ns) noexcept nogil:
    return min(ms(CROWD_PAUSE_MS), k.joins_paid_ns - now_ns)


cdef int64_t keyframe_pause_ns(const KeyframeLog* k, const KeyframeBudget* b, int64_t rtt_ns, bint joins, int64_t now_ns) noexcept nogil:
    cdef int64_t pause
    if k.is_owed:
        return max(ms(PAUSE_MS), 2 * rtt_ns)
    pause = ms(PAUSE_MS) if b.spent_bytes + <int64_t>k.bytes <= BURST_BYTES else ms(LATE_PAUSE_MS)
    return max(pause, keyframe_crowd_ns(k, now_ns)) if joins else pause


@cython.final
cdef class KeyframeFace:
    """Test face: one encoding with a budget of its own."""
    cdef KeyframeLog k
    cdef KeyframeBudget b

    def __cinit__(self):
        memset(&self.k, 0, sizeof(KeyframeLog))
        memset(&self.b, 0, sizeof(KeyframeBudget))

    def packet(self, uint32_t rtp_ts, uint32_t payload_bytes, bint starts=False):
        keyframe_count(&self.k, &self.b, rtp_ts, starts, payload_bytes)

    def requested(self):
        keyframe_requested(&self.k, &self.b)

    def joined(self, int64_t now_ns):
        keyframe_joined(&self.k, now_ns)

    def pause_ns(self, int64_t rtt_ns=0, *, bint joins=False, int64_t now_ns=0):
        return keyframe_pause_ns(&self.k, &self.b, rtt_ns, joins, now_ns)

    @property
    def is_owed(self):
        return bool(self.k.is_owed)

    @property
    def spent_bytes(self):
        return self.b.spent_bytes
