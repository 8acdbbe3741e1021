"""How loud somebody speaks, by the audio level header extension (RFC 6464), window by window."""
from libc.stdint cimport uint8_t, uint32_t, int64_t

ctypedef struct Loudness:          # of one stream; zero-initialise
    int64_t begun_ns               # of the present window
    uint32_t last_ts
    uint32_t loud_ticks            # sound as loud as speech in it
    uint32_t loud_sum              # levels of its packets
    uint32_t loud_packets

# Takes a packet's level in -dBov. Returns the mean level (0..SPEECH_DBOV) of the window that ends with it when it held speech
# for long enough, -1 while it lasts and when it did not.
cdef int loudness_add(Loudness* l, uint8_t dbov, uint32_t rtp_ts, int64_t now_ns) noexcept nogil
