"""Speech is told from noise as LiveKit does: at least 40 % of a window of 400 ms at -35 dBov or louder (LIVEKIT section 2.9).

The share is counted in the sound's own time: with DTX a pause is a few packets, each of which may be loud.
"""
cimport cython
from libc.stdint cimport uint8_t, uint32_t, int64_t
from libc.string cimport memset

cdef enum:
    SPEECH_DBOV = 35
    WINDOW_MS = 400
    SPEECH_TICKS = 7680            # 40 % of the window, of Opus's 48 kHz
    FRAME_TICKS = 960              # where two packets do not tell how long one is
    FRAME_MAX_TICKS = 5760         # RFC 7587 section 4.2: 120 ms


cdef int loudness_add(Loudness* l, uint8_t dbov, uint32_t rtp_ts, int64_t now_ns) noexcept nogil:
    cdef uint32_t ticks = rtp_ts - l.last_ts
    cdef int level = -1
    if l.begun_ns == 0:
        l.begun_ns = now_ns
    if ticks == 0 or ticks > FRAME_MAX_TICKS:
        ticks = FRAME_TICKS
    l.last_ts = rtp_ts
    if dbov <= SPEECH_DBOV:
        l.loud_ticks += ticks
        l.loud_sum += dbov
        l.loud_packets += 1
    if now_ns - l.begun_ns < <int64_t>WINDOW_MS * 1000000:
        return -1
    if l.loud_ticks >= SPEECH_TICKS:
        level = <int>(l.loud_sum // l.loud_packets)
    l.begun_ns = now_ns
    l.loud_ticks = 0
    l.loud_sum = 0
    l.loud_packets = 0
    return level


@cython.final
cdef class Meter:
    """Test face: one stream's packets."""
    cdef Loudness loudness

    def __cinit__(self):
        memset(&self.loudness, 0, sizeof(self.loudness))

    def add(self, uint8_t dbov, uint32_t rtp_ts, int64_t now_ns) -> int:
        """Return what loudness_add does."""
        return loudness_add(&self.loudness, dbov, rtp_ts, now_ns)
