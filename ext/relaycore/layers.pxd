"""What spatial and temporal layers a received stream has: how much of each, how large its pictures are."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t, uint64_t
from relaycore.views cimport DdStructure, FrameView

cdef enum:
    LAYER_IDS = 8                  # ids have 3 bits

ctypedef struct LayerTable:        # of one stream; zero-initialise
    uint64_t bytes[64]             # payload bytes of exactly this layer, by 8 * spatial + temporal
    uint64_t frames[64]
    uint64_t selected_bytes[64]    # of what belongs to the decode target of these layers (Dependency Descriptor)
    uint16_t width[8]              # pixels; 0 unknown
    uint16_t height[8]
    uint32_t active_targets        # of its Dependency Descriptor
    uint8_t has_targets            # there is one
    uint8_t seen_spatial           # highest ids since the last keyframe
    uint8_t seen_temporal
    uint8_t spatial_count          # what is known of now; 0 nothing yet
    uint8_t temporal_count
    uint8_t told_spatial           # what the control plane was told
    uint8_t told_temporal
    int64_t told_ns
    uint32_t frames_since          # the last keyframe

# A packet of video with payload came. `payload`: its clear descriptor may hold VP9's scalability structure.
cdef void layers_count(LayerTable* x, const FrameView* v, const DdStructure* structure, const uint8_t* payload, Py_ssize_t n) noexcept nogil
# Payload bytes so far of all that a subscriber gets who selects these layers.
cdef uint64_t layers_selected(const LayerTable* x, int spatial_id, int temporal_id) noexcept nogil
