"""One packet's header view: the codec's descriptor, overruled by the Dependency Descriptor where the sender gives one.

DESIGN section 5. The Dependency Descriptor wins because it is clear and exact under encryption, where a codec's own
keyframe bit may be ciphertext (a sender with DD shrinks VP8's descriptor to one byte and may hide the byte behind it).
What a projection rewrites still comes from the codec's descriptor.
"""
cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset
from relaycore.av1 cimport view_av1
from relaycore.be cimport put_u16
from relaycore.depdesc cimport DTI_DISCARDABLE, DTI_NOT_PRESENT, DTI_SWITCH, DdFrame, parse_depdesc
from relaycore.errs cimport E_OK
from relaycore.errs import raise_for
from relaycore.h264 cimport view_h264
from relaycore.vp8 cimport view_vp8
from relaycore.vp9 cimport view_vp9


cdef void _overrule(const DdFrame* f, const DdStructure* s, FrameView* out) noexcept nogil:
    cdef uint32_t i
    cdef bint is_needed = False
    out.source = 2
    out.start_of_frame = f.start_of_frame
    out.end_of_frame = f.end_of_frame
    out.frame_number = f.frame_number
    out.dd_has_structure = f.has_structure
    out.keyframe = f.start_of_frame & f.has_structure
    if not f.is_known:
        return
    out.spatial_id = f.spatial_id
    out.temporal_id = f.temporal_id
    for i in range(s.decode_target_count):
        is_needed = is_needed or f.dti[i] > DTI_DISCARDABLE
        if f.dti[i] != DTI_NOT_PRESENT:
            out.dd_present |= 1u << i
        if f.dti[i] == DTI_SWITCH:
            out.dd_switch |= 1u << i
    out.dd_is_known = 1
    out.dd_serial = s.serial
    out.dd_targets = s.decode_target_count
    out.dd_has_active = f.has_active
    out.dd_active_at = f.active_at
    out.dd_active = s.active_targets
    for i in range(f.fdiff_count):
        if f.fdiffs[i] <= 64:
            out.dd_leans |= <uint64_t>1 << (f.fdiffs[i] - 1)
        else:
            out.dd_reaches_far = 1
    out.switch_up = <uint8_t>(out.dd_switch != 0)
    out.discardable = <uint8_t>(out.dd_present != 0 and not is_needed)


cdef void adopt_structure(DdStructure* structure, const uint8_t* dd, Py_ssize_t dd_bytes, uint8_t serial) noexcept nogil:
    cdef DdFrame frame
    if parse_depdesc(dd, dd_bytes, structure, &frame) < 0 or not frame.has_structure or structure.serial == serial:
        return
    structure.layers[serial & 1] = structure.layers[structure.serial & 1]
    structure.layers[serial & 1].serial = serial
    structure.serial = serial


cdef int view_packet(int codec, const uint8_t* payload, Py_ssize_t n, bint marker, const uint8_t* dd, Py_ssize_t dd_bytes,
                     DdStructure* structure, FrameView* out) noexcept nogil:
    """Fill `out`. An empty payload, an audio codec or an unknown one says nothing without a Dependency Descriptor.

    Owns: borrows everything.     Errors: those of the codec's view, then E_SHORT, E_FORMAT of the descriptor; the cached
    structure is untouched by them.
    """
    cdef DdFrame frame
    cdef int code = E_OK
    memset(out, 0, sizeof(FrameView))
    if n > 0:
        if codec == CODEC_VP8:
            code = view_vp8(payload, n, marker, out)
        elif codec == CODEC_VP9:
            code = view_vp9(payload, n, marker, out)
        elif codec == CODEC_H264:
            code = view_h264(payload, n, marker, out)
        elif codec == CODEC_AV1:
            code = view_av1(payload, n, marker, out)
    if code < 0:
        return code
    if dd != NULL:
        code = parse_depdesc(dd, dd_bytes, structure, &frame)
        if code < 0:
            return code
        _overrule(&frame, structure, out)
    return E_OK


cdef void rewrite_picture(uint8_t* payload, const FrameView* v, uint16_t picture_id, uint8_t tl0) noexcept nogil:
    """Write in place; a number too wide for its field keeps its low bits. Absent fields stay absent."""
    if v.picture_id_bytes == 2:
        put_u16(payload + v.picture_id_offset, <uint16_t>(0x8000 | (picture_id & 0x7fff)))
    elif v.picture_id_bytes == 1:
        payload[v.picture_id_offset] = <uint8_t>(picture_id & 0x7f)
    if v.tl0_bytes:
        payload[v.tl0_offset] = tl0


# Codec numbers by the names that the control plane uses.
CODECS = {
    "opus": CODEC_OPUS, "red": CODEC_RED, "vp8": CODEC_VP8, "vp9": CODEC_VP9, "h264": CODEC_H264, "av1": CODEC_AV1,
}


@cython.final
cdef class StreamView:
    """Test face: the packets of one stream of `codec` in order."""
    cdef DdStructure structure
    cdef int codec

    def __cinit__(self, int codec):
        self.codec = codec
        memset(&self.structure, 0, sizeof(self.structure))

    def view(self, const uint8_t[::1] payload not None, bint marker=False, const uint8_t[::1] dd=None) -> dict:
        """Return the fields of one packet's view; WireError on bad bytes."""
        cdef FrameView v
        cdef const uint8_t* element = NULL
        cdef Py_ssize_t element_bytes = 0
        if dd is not None:
            # An element of no bytes is present all the same: it has an address, only nothing behind it.
            element = &dd[0] if dd.shape[0] else <const uint8_t*>b""
            element_bytes = dd.shape[0]
        raise_for(view_packet(self.codec, &payload[0] if payload.shape[0] else NULL, payload.shape[0], marker, element,
                              element_bytes, &self.structure, &v))
        return v

    def rewrite(self, bytes payload not None, uint16_t picture_id, uint8_t tl0) -> bytes:
        """Return the payload with other numbers in its own descriptor."""
        cdef FrameView v
        cdef bytearray out = bytearray(payload)
        cdef uint8_t* p = out
        raise_for(view_packet(self.codec, p, len(out), False, NULL, 0, &self.structure, &v))
        rewrite_picture(p, &v, picture_id, tl0)
        return bytes(out)
