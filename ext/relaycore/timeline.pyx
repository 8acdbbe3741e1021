"""Offsets between encodings; the contract stands in timeline.pxd.

Every encoding has a timestamp scale of its own (libwebrtc begins each at random). What connects two is the sender's clock: both
sender reports (RFC 3550 section 6.4.1), else both capture times. Frame numbers of the Dependency Descriptor connect nothing: an encoder
counts them per encoding. While nothing is known the arrival of two packets has to do, which is as wrong as their delays differ; when
the reports come, the subscriber is brought over slowly, because a step would show.
"""
from libc.stdint cimport uint32_t, int64_t, uint64_t
from relaycore.be cimport get_u64
from relaycore.hdrext cimport EXT_ABS_CAPTURE_TIME
from relaycore.projection cimport projection_offset, projection_slew
from relaycore.routes cimport Egress, Engine, NO_INDEX, PacketFacts, Receiver, RtpStream

cdef enum:
    CAPTURE_BYTES = 8              # UQ32.32 seconds; with a clock offset it has 8 more


cdef void timeline_note(RtpStream* s, const PacketFacts* f) noexcept nogil:
    if f.extensions.present >> EXT_ABS_CAPTURE_TIME & 1 and f.extensions.by_kind[EXT_ABS_CAPTURE_TIME].bytes >= CAPTURE_BYTES:
        s.capture_ntp = get_u64(f.extensions.by_kind[EXT_ABS_CAPTURE_TIME].data)
        s.capture_ts = f.rtp.rtp_ts


cdef inline uint32_t _ticks(uint64_t ntp, uint64_t since_ntp, uint32_t clock_rate_hz) noexcept nogil:
    """Return the ticks between two NTP times, mod 2^32."""
    # 1/2^32 s, scaled to 1/2^16 s so that the product fits.
    cdef int64_t apart = <int64_t>(ntp - since_ntp) >> 16
    return <uint32_t>(<uint64_t>(apart * <int64_t>clock_rate_hz >> 16) & 0xffffffffu)


cdef bint _between(const RtpStream* old, const RtpStream* s, uint32_t old_offset, uint32_t* offset) noexcept nogil:
    """Find the offset of `s` that continues what `old` has with `old_offset`."""
    if old.has_sender_info and s.has_sender_info:
        offset[0] = (old.sender_info.rtp_ts + _ticks(s.sender_info.ntp, old.sender_info.ntp, s.clock_rate_hz) + old_offset
                     - s.sender_info.rtp_ts)
        return True
    if old.capture_ntp and s.capture_ntp:
        offset[0] = old.capture_ts + _ticks(s.capture_ntp, old.capture_ntp, s.clock_rate_hz) + old_offset - s.capture_ts
        return True
    return False


cdef const RtpStream* _reference(const Receiver* r, const Egress* g) noexcept nogil:
    """The last source whose offset was right, while the present one's is a guess; NULL = that is gone."""
    cdef const RtpStream* s = NULL
    if g.guess.is_on and g.guess.encoding < r.encoding_count:
        s = r.encodings[g.guess.encoding].stream
    return s if s != NULL and s.serial == g.guess.serial else NULL


cdef uint32_t timeline_offset(Engine* e, const Receiver* r, const Egress* g, const RtpStream* s, bint* known) noexcept nogil:
    cdef const RtpStream* reference = _reference(r, g)
    cdef uint32_t offset = 0
    known[0] = True
    if g.source == s:
        return projection_offset(&g.projection)
    if reference == s:
        return g.guess.offset
    if reference != NULL and _between(reference, s, g.guess.offset, &offset):
        return offset
    if g.source != NULL and _between(g.source, s, projection_offset(&g.projection), &offset):
        return offset
    known[0] = False
    return 0


cdef void timeline_switch(Egress* g, const RtpStream* s, uint32_t former_offset, bint believed) noexcept nogil:
    if g.source == s:
        return
    if believed:
        g.guess.is_on = 0
    elif g.source != NULL and not g.guess.is_on:
        g.guess.is_on = 1
        g.guess.encoding = g.source.encoding
        g.guess.serial = g.source.serial
        g.guess.offset = former_offset


cdef void timeline_settle(Engine* e, const Receiver* r, Egress* g) noexcept nogil:
    cdef const RtpStream* reference
    cdef uint32_t offset = 0
    if not g.guess.is_on or g.source == NULL or g.current == NO_INDEX:
        return
    reference = _reference(r, g)
    if reference == NULL or reference == g.source:
        g.guess.is_on = 0
    elif _between(reference, g.source, g.guess.offset, &offset) and projection_slew(&g.projection, offset, g.source.clock_rate_hz):
        g.guess.is_on = 0
