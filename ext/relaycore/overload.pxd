"""How far behind an engine is, and what video it leaves out for that (DESIGN section 4, Receive)."""
from libc.stdint cimport uint8_t, uint32_t, int64_t
from relaycore.views cimport FrameView

cdef enum OverloadLevel:
    OVERLOAD_NONE = 0
    OVERLOAD_LAYERS = 1            # upper temporal layers and discardable frames stay out
    OVERLOAD_VIDEO = 2             # all video does; audio never

cdef enum Verdict:
    SHED_NOT = 0
    SHED_LAYER = 1                 # this packet's frame stays out, its stream goes on
    SHED_ALL = 2                   # the stream stands still; it goes on at a keyframe

ctypedef struct Overload:          # of one engine; zero-initialise
    uint8_t level
    uint8_t spans_above            # in a row, of the level's threshold and of the next one's
    int64_t limit_ns               # lag at which the first level begins; 0 = nothing is ever shed
    int64_t worst_ns               # of the present span
    int64_t span_ends_ns
    int64_t calm_since_ns          # 0 = not calm
    int64_t fell_ns                # last fall from OVERLOAD_VIDEO
    int64_t hold_ns                # how long that is held now; 0 = HOLD_MS

ctypedef struct Shedding:          # of one encoding; zero-initialise
    uint8_t started
    uint8_t hidden                 # temporal layers from 8 - hidden on stay out; 8 = everything
    uint8_t hidden_before          # the same for packets before `since_seq`
    uint32_t rtp_ts                # of the newest frame
    int64_t newest_seq
    int64_t since_seq

# A batch of datagrams had waited for lag_ns. Returns whether the level changed. Only here time passes: between two batches nothing
# is known of the kernel's queue.
cdef bint overload_feel(Overload* o, int64_t lag_ns, int64_t now_ns) noexcept nogil
# Something else has waited for lag_ns.
cdef void overload_hear(Overload* o, int64_t lag_ns) noexcept nogil
# Judges one packet of video under a level. *changed: the stream came to a standstill or goes on.
cdef int shed_judge(Shedding* s, int level, const FrameView* v, uint32_t rtp_ts, int64_t ext_seq, bint* changed) noexcept nogil
