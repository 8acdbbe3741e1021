"""Frames of one received stream, byte by byte as packets come: nothing is copied but the stamp and the digest.

The digest over head, fill and stamp is fed while packets pass (lgstamp), so a keyframe of 100 kB costs no buffer. A frame is
complete when its length is what the stamp says and its digest is right; else corrupt. Packets that will not come make it
incomplete. What a complete frame builds on must have been complete and decodable itself, exactly: the stamp names it.
Freezes: W3C webrtc-stats, `freezeCount`: a gap above max(3 times the mean, mean + 150 ms).
"""
from libc.stdint cimport uint8_t, uint32_t, int64_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy, memset
from relaycore.lghistogram cimport HISTOGRAM_BUCKETS, histogram_add
from relaycore.lgmodel cimport LG_NUMBERS, LoadThread, Stream
from relaycore.lgpacket cimport read_descriptor
from relaycore.lgstamp cimport DIGEST_BYTES, STAMP_BYTES, digest_begin, digest_end, digest_feed, head_bytes, parse_stamp
from relaycore.rtp cimport RtpHeader
from relaycore.seq cimport diff_u32
from relaycore.units cimport ms

cdef const double FREEZE_EXTRA_NS = 150e6
cdef const double MEAN_GAIN = 1.0 / 30


cdef void _open(LoadThread* t, Stream* s, uint32_t rtp_ts) noexcept nogil:
    s.is_open = 1
    s.is_broken = s.has_stamp = 0
    s.open_ts = rtp_ts
    s.frame_bytes = 0
    s.frame_arrival_ns = 0
    digest_begin(&s.digest, t.key)


cdef void _take_stamp(Stream* s, int codec, const uint8_t* piece, Py_ssize_t n) noexcept nogil:
    """The first piece of a frame holds head and stamp whole, or the frame is none of ours."""
    cdef int head
    s.is_broken = 1
    if n < 1:
        return
    head = head_bytes(codec, piece[0])
    if n < head + STAMP_BYTES or parse_stamp(piece + head, &s.stamp) < 0:
        return
    if s.stamp.bytes < <uint32_t>(head + STAMP_BYTES + DIGEST_BYTES):
        return
    s.is_broken = 0
    s.has_stamp = 1
    memcpy(s.head, piece + head, STAMP_BYTES)
    digest_feed(&s.digest, piece, head)
    s.frame_bytes = <uint32_t>(head + STAMP_BYTES)


cdef void _feed(Stream* s, const uint8_t* piece, Py_ssize_t n) noexcept nogil:
    """Feed what lies before the digest, keep what is of it."""
    cdef int64_t content = <int64_t>s.stamp.bytes - DIGEST_BYTES - s.frame_bytes
    cdef Py_ssize_t fed = 0
    cdef Py_ssize_t i
    if content > 0:
        fed = min(<Py_ssize_t>content, n)
        digest_feed(&s.digest, piece, fed)
    if s.frame_bytes + <uint64_t>n > s.stamp.bytes:
        s.is_broken = 1
        return
    for i in range(fed, n):
        s.trailer[<int64_t>s.frame_bytes + i - (<int64_t>s.stamp.bytes - DIGEST_BYTES)] = piece[i]
    s.frame_bytes += <uint32_t>n


cdef bint _is_right(Stream* s) noexcept nogil:
    cdef uint64_t result, said
    if s.is_broken or not s.has_stamp or s.frame_bytes != s.stamp.bytes:
        return False
    digest_feed(&s.digest, s.head, STAMP_BYTES)
    result = digest_end(&s.digest)
    memcpy(&said, s.trailer, DIGEST_BYTES)
    return result == said


cdef void _count_delay(LoadThread* t, Stream* s) noexcept nogil:
    cdef int64_t delay_ns = s.frame_arrival_ns - s.stamp.send_ns
    if not t.has_kernel_time:
        # When it was drained says nothing of when it came.
        return
    if delay_ns < 0:
        s.counts.delay_negative += 1
        delay_ns = 0
    if s.delays == NULL:
        s.delays = <uint32_t*>calloc(HISTOGRAM_BUCKETS, sizeof(uint32_t))
        if s.delays == NULL:
            return
    histogram_add(s.delays, delay_ns)
    if s.counts.delays == 0 or delay_ns < s.counts.delay_min_ns:
        s.counts.delay_min_ns = delay_ns
    s.counts.delay_max_ns = max(s.counts.delay_max_ns, delay_ns)
    s.counts.delays += 1
    s.counts.delay_sum_ns += <uint64_t>delay_ns


cdef void _count_gap(Stream* s) noexcept nogil:
    """Count the numbers between the last frame and this one that nobody has seen."""
    cdef int64_t gap = diff_u32(s.stamp.number, s.last_number) - 1 - s.corrupt_since
    if gap > 0:
        if s.has_hole:
            s.counts.frames_missing += <uint64_t>gap
        else:
            s.counts.frames_skipped += <uint64_t>gap
    s.has_hole = 0
    s.corrupt_since = 0


cdef bint _is_in_order(LoadThread* t, Stream* s, int64_t ext_seq) noexcept nogil:
    """Judge the number against those before; true when the frame counts as one more."""
    cdef uint32_t place = s.stamp.number & (LG_NUMBERS - 1)
    cdef int64_t ahead
    if not s.has_frame:
        return True
    if s.stamp.stream != s.last_stream:
        # Encodings of one sender count together, so the same picture may come twice, once per encoding.
        s.counts.switches += 1
        s.has_hole = 0
        s.corrupt_since = 0
        memset(s.seen_numbers, 0, sizeof(s.seen_numbers))
        memset(s.decodable, 0, sizeof(s.decodable))
        return True
    if s.seen_numbers[place] == s.stamp.number + 1:
        s.counts.frames_duplicate += 1
        return False
    ahead = diff_u32(s.stamp.number, s.last_number)
    if (ahead > 0) != (ext_seq > s.last_frame_seq):
        s.counts.frames_out_of_order += 1
        return True
    if t.verify_every != 1:
        # What lies between was not looked at.
        return True
    if ahead > 0:
        _count_gap(s)
    elif not s.is_video and s.counts.frames_missing:
        # Audio is not held back: what was counted as missing did come, late.
        s.counts.frames_missing -= 1
    return True


cdef bint _is_decodable(LoadThread* t, Stream* s) noexcept nogil:
    if not s.is_video or s.stamp.is_keyframe or t.verify_every != 1:
        return True
    return (s.has_frame and s.stamp.stream == s.last_stream
            and s.decodable[s.stamp.reference & (LG_NUMBERS - 1)] == s.stamp.reference + 1)


cdef void _show(Stream* s) noexcept nogil:
    """A decodable video frame: did the picture stand still before it?"""
    cdef double gap_ns
    if s.last_shown_ns:
        gap_ns = <double>(s.frame_arrival_ns - s.last_shown_ns)
        if s.mean_interval_ns > 0 and gap_ns > max(3 * s.mean_interval_ns, s.mean_interval_ns + FREEZE_EXTRA_NS):
            s.counts.freezes += 1
            s.counts.freeze_ns += <uint64_t>gap_ns
            s.counts.longest_freeze_ns = max(s.counts.longest_freeze_ns, <uint64_t>gap_ns)
        elif s.mean_interval_ns > 0:
            s.mean_interval_ns += MEAN_GAIN * (gap_ns - s.mean_interval_ns)
        elif gap_ns > 0:
            s.mean_interval_ns = gap_ns
    s.last_shown_ns = s.frame_arrival_ns


cdef int _close(LoadThread* t, Stream* s, int64_t ext_seq) noexcept nogil:
    cdef bint decodable
    s.is_open = 0
    if not _is_right(s):
        s.counts.frames_corrupt += 1
        s.corrupt_since += 1
        return ASSEMBLE_BROKEN
    if not _is_in_order(t, s, ext_seq):
        return 0
    decodable = _is_decodable(t, s)
    s.counts.frames_complete += 1
    s.counts.keyframes += s.stamp.is_keyframe
    _count_delay(t, s)
    s.seen_numbers[s.stamp.number & (LG_NUMBERS - 1)] = s.stamp.number + 1
    if decodable:
        s.decodable[s.stamp.number & (LG_NUMBERS - 1)] = s.stamp.number + 1
    if not s.has_frame or s.stamp.stream != s.last_stream or diff_u32(s.stamp.number, s.last_number) > 0:
        s.last_number = s.stamp.number
        s.last_frame_seq = ext_seq
    s.last_stream = s.stamp.stream
    s.has_frame = 1
    if not decodable:
        s.counts.frames_undecodable += 1
        return ASSEMBLE_BROKEN
    if s.is_video and t.verify_every == 1:
        _show(s)
    return ASSEMBLE_FRAME


cdef int assemble_hole(Stream* s) noexcept nogil:
    s.has_hole = 1
    if s.is_open:
        s.is_open = 0
        s.passed_start = 1
        s.counts.frames_incomplete += 1
        return ASSEMBLE_BROKEN
    s.passed_start = 0
    return 0


cdef int assemble_packet(LoadThread* t, Stream* s, int codec, const RtpHeader* h, int64_t ext_seq, const uint8_t* payload, Py_ssize_t n, int64_t arrival_ns) noexcept nogil:
    cdef bint starts = False
    cdef int outcome = 0
    cdef int descriptor
    if n <= 0:
        return 0
    descriptor = read_descriptor(codec, payload, n, &starts)
    if descriptor < 0:
        descriptor = <int>n
        starts = False
    if s.is_open and (starts or h.rtp_ts != s.open_ts):
        # The numbers have no hole, so whoever sent it cut the frame.
        s.is_open = 0
        s.counts.frames_incomplete += 1
        outcome = ASSEMBLE_BROKEN
    if starts:
        _open(t, s, h.rtp_ts)
        _take_stamp(s, codec, payload + descriptor, n - descriptor)
        if s.has_stamp:
            descriptor += <int>s.frame_bytes
        s.passed_start = 0
    elif not s.is_open:
        if not s.passed_start or h.rtp_ts != s.open_ts:
            # Its beginning was in the hole.
            s.counts.frames_incomplete += 1
            outcome = ASSEMBLE_BROKEN
        s.passed_start = 1
        s.open_ts = h.rtp_ts
        return outcome
    if not s.is_broken:
        _feed(s, payload + descriptor, n - descriptor)
    s.frame_arrival_ns = max(s.frame_arrival_ns, arrival_ns)
    if h.marker or not s.is_video:
        outcome |= _close(t, s, ext_seq)
    return outcome
