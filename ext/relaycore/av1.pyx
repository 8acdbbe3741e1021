"""AV1 without a Dependency Descriptor: what the one aggregation header byte says, and no OBU.

Spec: RTP Payload Format For AV1 section 4.4.

     0 1 2 3 4 5 6 7
    +-+-+-+-+-+-+-+-+
    |Z|Y| W |N|-|-|-|   Z: first OBU goes on from the packet before. N: first packet of a coded video sequence
    +-+-+-+-+-+-+-+-+

Layers are not told here: such a stream is forwarded as one layer (DESIGN section 5). A frame start is what begins with a
fresh OBU, which holds for senders that put one frame into one OBU.
"""
from libc.stdint cimport uint8_t
from libc.string cimport memset
from relaycore.be cimport need
from relaycore.errs cimport E_FORMAT, E_OK, E_SHORT
from relaycore.errs import raise_for
from relaycore.views cimport FrameView


cdef int view_av1(const uint8_t* payload, Py_ssize_t n, bint marker, FrameView* out) noexcept nogil:
    cdef bint goes_on, is_first
    # The header and at least one byte of an OBU.
    if not need(n, 2):
        return E_SHORT
    goes_on = payload[0] & 0x80 != 0
    is_first = payload[0] & 0x08 != 0
    if goes_on and is_first:
        return E_FORMAT
    out.source = 1
    out.start_of_frame = <uint8_t>(not goes_on)
    out.end_of_frame = <uint8_t>(marker != 0)
    out.keyframe = <uint8_t>is_first
    out.switch_up = <uint8_t>is_first
    return E_OK


def parse(bytes payload not None, bint marker=False) -> dict:
    """Test face: return the view's fields; WireError on bad bytes."""
    cdef FrameView view
    memset(&view, 0, sizeof(view))
    raise_for(view_av1(payload, len(payload), marker, &view))
    return view
