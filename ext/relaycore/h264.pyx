"""H264: keyframes from NAL unit types; whether a slice is the first of its picture stands in the slice, which is not read.

Spec: RFC 6184 section 5.2 (payload structures), 5.7.1 (STAP-A), 5.8 (FU-A, FU-B).

    +-+-+-+-+-+-+-+-+  +-+-+-+-+-+-+-+-+
    |F|NRI|  Type   |  |S|E|R|  Type   |   NAL or FU indicator, FU header
    +-+-+-+-+-+-+-+-+  +-+-+-+-+-+-+-+-+

`start_of_frame` is therefore the start of a NAL unit that can open an access unit: certain for parameter sets and
delimiters, likely for slices (browsers send one slice per frame). Two starts may so share one timestamp.
"""
from libc.stdint cimport uint8_t
from libc.string cimport memset
from relaycore.be cimport get_u16, need
from relaycore.errs cimport E_FORMAT, E_LENGTH, E_OK, E_SHORT
from relaycore.errs import raise_for
from relaycore.views cimport FrameView

cdef enum NalType:
    NAL_SLICE = 1
    NAL_PARTITION_A = 2
    NAL_IDR = 5
    NAL_SPS = 7
    NAL_DELIMITER = 9
    NAL_LAST_SINGLE = 23
    NAL_STAP_A = 24
    NAL_FU_A = 28
    NAL_FU_B = 29


cdef void _count_nal(uint8_t header, bint is_start, FrameView* out) noexcept nogil:
    """Add what one NAL unit's header says. `is_start`: this packet holds the unit's first byte."""
    cdef int kind = header & 0x1f
    out.source = 1
    if kind == NAL_IDR or kind == NAL_SPS:
        out.keyframe = 1
    if is_start and (kind == NAL_SLICE or kind == NAL_PARTITION_A or kind == NAL_IDR or kind == NAL_SPS
                     or kind == NAL_DELIMITER):
        out.start_of_frame = 1
    if kind == NAL_SLICE and header & 0x60 == 0:
        out.discardable = 1


cdef int view_h264(const uint8_t* payload, Py_ssize_t n, bint marker, FrameView* out) noexcept nogil:
    cdef Py_ssize_t at = 1
    cdef Py_ssize_t size
    cdef int kind
    if not need(n, 1):
        return E_SHORT
    kind = payload[0] & 0x1f
    if kind == NAL_STAP_A:
        if not need(n, 2):
            return E_SHORT
        while at < n:
            if not need(n, at + 2):
                return E_SHORT
            size = get_u16(payload + at)
            at += 2
            if size == 0:
                return E_FORMAT
            if not need(n, at + size):
                return E_LENGTH
            _count_nal(payload[at], True, out)
            at += size
    elif kind == NAL_FU_A or kind == NAL_FU_B:
        if not need(n, 2):
            return E_SHORT
        _count_nal((payload[0] & 0x60) | (payload[1] & 0x1f), payload[1] >> 7, out)
    elif 1 <= kind <= NAL_LAST_SINGLE:
        _count_nal(payload[0], True, out)
    else:
        return E_OK
    out.end_of_frame = <uint8_t>(marker != 0)
    out.switch_up = out.keyframe
    return E_OK


def parse(bytes payload not None, bint marker=False) -> dict:
    """Test face: return the view's fields; WireError on bad bytes."""
    cdef FrameView view
    memset(&view, 0, sizeof(view))
    raise_for(view_h264(payload, len(payload), marker, &view))
    return view
