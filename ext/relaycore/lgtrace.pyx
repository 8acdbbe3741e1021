"""Frame sizes as real encoders make them, without an encoder.

Video: delta frames are log-normal about what the bit rate leaves per frame, correlated from frame to frame (a scene moves or
it does not); a keyframe is a multiple of that, and what it took too much is saved over the frames after it, as rate
control does. Audio: talk spurts and pauses of about a second; sizes and levels follow them.
"""
cimport cython
from libc.math cimport exp
from libc.stdint cimport uint32_t, uint64_t
from relaycore.lgmodel cimport LG_FRAME_BYTES, SendEncoding, Sender
from relaycore.lgstamp cimport DIGEST_BYTES, MAX_HEAD_BYTES, STAMP_BYTES

cdef enum:
    SPURT_PACKETS = 75             # on average; 1.5 s of 20 ms
    PAUSE_PACKETS = 50
    SILENT_LEVEL = 90

cdef const double CORRELATION = 0.8
# What is owed is paid back over about ten frames, libvpx's time scale at 30 fps.
cdef const double REPAYMENT = 0.1


cdef uint64_t trace_random(uint64_t* state) noexcept nogil:
    cdef uint64_t x = state[0]
    x ^= x >> 12
    x ^= x << 25
    x ^= x >> 27
    state[0] = x
    return x * <uint64_t>0x2545f4914f6cdd1du


cdef uint64_t trace_seed(uint64_t seed, uint64_t salt) noexcept nogil:
    cdef uint64_t x = seed + (salt + 1) * <uint64_t>0x9e3779b97f4a7c15u
    x = (x ^ (x >> 30)) * <uint64_t>0xbf58476d1ce4e5b9u
    x = (x ^ (x >> 27)) * <uint64_t>0x94d049bb133111ebu
    x ^= x >> 31
    return x if x else 1


cdef double _uniform(uint64_t* state) noexcept nogil:
    """Return a number in 0..1."""
    return <double>(trace_random(state) >> 11) * (1.0 / 9007199254740992.0)


cdef double _normal(uint64_t* state) noexcept nogil:
    """Return a number with mean 0 and deviation 1: the sum of six uniform ones, which ends at 4.2."""
    cdef double sum = 0
    cdef int i
    for i in range(6):
        sum += _uniform(state)
    return (sum - 3.0) * 1.4142135623730951


@cython.cdivision(True)
cdef uint32_t trace_video(Sender* s, SendEncoding* x, bint is_keyframe) noexcept nogil:
    cdef double share = <double>x.bitrate_bps * <double>s.interval_ns / 8e9
    cdef double wanted
    x.drift = CORRELATION * x.drift + (1 - CORRELATION) * 3.0 * s.deviation * _normal(&s.random)
    if is_keyframe:
        wanted = share * s.keyframe_factor * exp(0.5 * x.drift)
    else:
        wanted = (share - REPAYMENT * x.debt_bytes) * exp(x.drift)
        # Even a frame in which nothing moves has a tenth of its share.
        wanted = max(wanted, 0.1 * share)
    wanted = max(wanted, <double>(MAX_HEAD_BYTES + STAMP_BYTES + DIGEST_BYTES + 14))
    wanted = min(wanted, <double>LG_FRAME_BYTES)
    x.debt_bytes += wanted - share
    return <uint32_t>wanted


cdef uint32_t trace_audio(Sender* s, bint* begins_spurt) noexcept nogil:
    cdef double span = <double>(s.max_bytes - s.min_bytes)
    begins_spurt[0] = False
    s.spurt_left -= 1
    if s.spurt_left <= 0:
        s.was_silent ^= 1
        begins_spurt[0] = not s.was_silent
        s.spurt_left = <int>((PAUSE_PACKETS if s.was_silent else SPURT_PACKETS) * 2 * _uniform(&s.random)) + 1
        s.level = SILENT_LEVEL if s.was_silent else 30
    if s.was_silent:
        return s.min_bytes + <uint32_t>(0.1 * span * _uniform(&s.random))
    s.level = min(max(s.level + 3 * _normal(&s.random), 10.0), 60.0)
    return s.min_bytes + <uint32_t>(span * (0.3 + 0.7 * _uniform(&s.random)))
