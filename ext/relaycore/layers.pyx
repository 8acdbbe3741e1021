"""Layers of a received stream; the contract stands in layers.pxd.

Sources, best first: the Dependency Descriptor's structure (AV1 RTP specification appendix A: decode targets, active ones, sizes), VP9's
scalability structure (RFC 9628 section 4.2.1: spatial layers, sizes), the ids that packets bear. Ids alone tell that there is a layer at
once, and that there is none any more at the next keyframe.
"""
cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset
from relaycore.be cimport get_u16, need
from relaycore.views cimport CODEC_VP9, DdLayers, DdStructure, FrameView, find_layers, view_packet

cdef enum:
    FRAMES_TO_KNOW = 8             # every layer of every structure that browsers send comes within so many frames


cdef inline int _cell(int spatial_id, int temporal_id) noexcept nogil:
    return LAYER_IDS * spatial_id + temporal_id


cdef void _take_targets(LayerTable* x, const DdStructure* s, const DdLayers* layers) noexcept nogil:
    """Note which layers the active decode targets reach, and the sizes."""
    cdef uint32_t target
    x.has_targets = 1
    x.active_targets = s.active_targets
    x.spatial_count = x.temporal_count = 0
    for target in range(s.decode_target_count):
        if s.active_targets >> target & 1:
            x.spatial_count = <uint8_t>max(x.spatial_count, layers.spatial[target] + 1)
            x.temporal_count = <uint8_t>max(x.temporal_count, layers.temporal[target] + 1)
    for target in range(8):
        x.width[target] = s.width[target] if s.has_resolutions else 0
        x.height[target] = s.height[target] if s.has_resolutions else 0


cdef void _take_sizes(LayerTable* x, const uint8_t* payload, Py_ssize_t n, Py_ssize_t at) noexcept nogil:
    """Read the head of VP9's scalability structure, whose length the view has checked: | N_S 3 | Y | G | - | sizes if Y."""
    cdef int i
    cdef int layers
    if not need(n, at + 1):
        return
    layers = (payload[at] >> 5) + 1
    x.spatial_count = <uint8_t>layers
    if not payload[at] & 0x10 or not need(n, at + 1 + 4 * layers):
        return
    for i in range(layers):
        x.width[i] = get_u16(payload + at + 1 + 4 * i)
        x.height[i] = get_u16(payload + at + 3 + 4 * i)


cdef void layers_count(LayerTable* x, const FrameView* v, const DdStructure* structure, const uint8_t* payload, Py_ssize_t n) noexcept nogil:
    cdef int cell = _cell(v.spatial_id & 7, v.temporal_id & 7)
    cdef const DdLayers* layers
    cdef uint32_t present = v.dd_present
    cdef uint32_t target
    x.bytes[cell] += <uint64_t>n
    x.frames[cell] += v.end_of_frame
    if v.keyframe and v.start_of_frame:
        if x.frames_since >= FRAMES_TO_KNOW:
            x.spatial_count = <uint8_t>(x.seen_spatial + 1)
            x.temporal_count = <uint8_t>(x.seen_temporal + 1)
        x.seen_spatial = x.seen_temporal = 0
        x.frames_since = 0
    if v.structure_offset:
        _take_sizes(x, payload, n, v.structure_offset)
    layers = find_layers(structure, v.dd_serial)
    if layers != NULL:
        if v.dd_has_structure or x.active_targets != structure.active_targets:
            _take_targets(x, structure, layers)
        target = 0
        while present:
            if present & 1:
                x.selected_bytes[_cell(layers.spatial[target], layers.temporal[target])] += <uint64_t>n
            present >>= 1
            target += 1
        return
    x.seen_spatial = max(x.seen_spatial, v.spatial_id)
    x.seen_temporal = max(x.seen_temporal, v.temporal_id)
    x.spatial_count = <uint8_t>max(x.spatial_count, x.seen_spatial + 1)
    x.temporal_count = <uint8_t>max(x.temporal_count, x.seen_temporal + 1)
    x.frames_since += v.end_of_frame


cdef uint64_t layers_selected(const LayerTable* x, int spatial_id, int temporal_id) noexcept nogil:
    cdef uint64_t found = 0
    cdef int i, j
    if x.has_targets:
        return x.selected_bytes[_cell(spatial_id, temporal_id)]
    for i in range(spatial_id + 1):
        for j in range(temporal_id + 1):
            found += x.bytes[_cell(i, j)]
    return found


@cython.final
cdef class LayersFace:
    """Test face: one stream of `codec`, its packets in order."""
    cdef LayerTable x
    cdef DdStructure structure
    cdef int codec

    def __cinit__(self, int codec=CODEC_VP9):
        self.codec = codec
        memset(&self.x, 0, sizeof(LayerTable))
        memset(&self.structure, 0, sizeof(DdStructure))

    def count(self, bytes payload not None, bint marker=False, bytes dd=None):
        """Take one packet; one whose descriptor is malformed counts for nothing."""
        cdef FrameView v
        cdef const uint8_t* p = payload
        cdef const uint8_t* element = NULL
        cdef Py_ssize_t element_bytes = 0
        if dd is not None:
            element = dd
            element_bytes = len(dd)
        if view_packet(self.codec, p, len(payload), marker, element, element_bytes, &self.structure, &v) >= 0:
            layers_count(&self.x, &v, &self.structure, p, len(payload))

    @property
    def counts(self):
        return self.x.spatial_count, self.x.temporal_count

    def rows(self):
        """{(spatial id, temporal id): (bytes, frames, bytes of the selection, width, height)}"""
        cdef int s, t
        return {
            (s, t): (self.x.bytes[_cell(s, t)], self.x.frames[_cell(s, t)], layers_selected(&self.x, s, t), self.x.width[s],
                     self.x.height[s])
            for s in range(8) for t in range(8) if self.x.bytes[_cell(s, t)]
        }
