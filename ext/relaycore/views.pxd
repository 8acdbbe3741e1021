"""Header views: what forwarding may know of a video packet, and nothing else (DESIGN section 5).

Input is the RTP-level descriptor and the Dependency Descriptor, plus the first byte of a VP8 frame (clear in both
frame formats); for H264 the NAL/STAP/FU header bytes. Payload bytes behind them are never read.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int32_t, uint64_t

cdef enum Codec:
    CODEC_NONE = 0
    CODEC_OPUS = 1
    CODEC_RED = 2
    CODEC_VP8 = 3
    CODEC_VP9 = 4
    CODEC_H264 = 5
    CODEC_AV1 = 6
    CODEC_OTHER_AUDIO = 7
    CODEC_OTHER_VIDEO = 8

ctypedef struct FrameView:
    uint8_t start_of_frame             # first packet of a frame (of a spatial layer frame under SVC)
    uint8_t end_of_frame
    uint8_t keyframe                   # this packet belongs to a frame at which a decoder can start (start packet only is certain)
    uint8_t spatial_id
    uint8_t temporal_id
    uint8_t switch_up                  # temporal up-switch allowed here (VP8 Y, VP9 U, DD DTI 2)
    uint8_t discardable
    uint8_t descriptor_bytes           # where the codec's own bytes begin: behind the descriptor of VP8 and VP9, else 0
    uint8_t source                     # 0 nothing known, 1 codec descriptor, 2 Dependency Descriptor
    # what a projection has to rewrite, as offsets from the payload's start; 0 bytes = absent
    uint8_t picture_id_offset
    uint8_t picture_id_bytes           # 1 (7 bit) or 2 (15 bit)
    uint8_t tl0_offset
    uint8_t tl0_bytes
    uint16_t picture_id
    uint8_t tl0
    # Dependency Descriptor
    uint16_t frame_number
    uint8_t dd_has_structure
    uint8_t dd_is_known                # its template was: the masks below hold; bit per decode target of the structure dd_serial
    uint8_t dd_serial
    uint8_t dd_targets                 # how many decode targets there are
    uint8_t dd_has_active              # it names its active targets, at bit dd_active_at; else they would stand there
    uint8_t dd_reaches_far             # it leans on a frame further back than dd_leans tells
    uint16_t dd_active_at
    uint32_t dd_present                # the frame belongs to the target
    uint32_t dd_switch                 # whoever decodes this frame can go on with the target
    uint32_t dd_active                 # the sender's active targets
    uint64_t dd_leans                  # bit d - 1: it leans on the frame d back
    # VP9
    uint8_t structure_offset           # where the scalability structure begins; 0 = none

# What selecting layers needs of a structure.
ctypedef struct DdLayers:
    uint8_t serial                     # 0 = none yet
    uint8_t spatial[32]                # highest ids, by decode target
    uint8_t temporal[32]
    uint32_t within[32]                # bit per target of which every frame belongs to this one, too

# One packet's view. dd = EXT_DD element or NULL; structure = per-stream cache (below), updated when the packet carries one.
# Never fails on peer bytes that merely say nothing: returns E_OK with source 0; E_FORMAT / E_SHORT when descriptor or DD is malformed.
ctypedef struct DdStructure:           # cached template structure of one stream; zero-initialise
    uint8_t valid
    uint8_t template_id_offset
    uint8_t template_count
    uint8_t decode_target_count
    uint8_t chain_count
    uint8_t spatial_id[64]
    uint8_t temporal_id[64]
    uint8_t dti[64][32]                # 0 not present, 1 discardable, 2 switch, 3 required
    uint8_t fdiff_count[64]
    uint8_t fdiffs[64][8]
    uint8_t chain_fdiff[64][32]
    uint8_t protected_by[32]
    uint32_t active_targets
    uint8_t has_resolutions
    uint16_t width[8]
    uint16_t height[8]
    uint8_t raw[256]                   # the structure-bearing descriptor as received, for re-sending to joiners
    uint16_t raw_bytes
    uint8_t serial                     # counts structures that differ
    DdLayers layers[2]                 # of this structure and the one before, by the lowest bit of their serial

cdef int view_packet(int codec, const uint8_t* payload, Py_ssize_t n, bint marker, const uint8_t* dd, Py_ssize_t dd_bytes, DdStructure* structure, FrameView* out) noexcept nogil
# Take the structure of a descriptor that another worker has viewed, under the serial it has there.
cdef void adopt_structure(DdStructure* structure, const uint8_t* dd, Py_ssize_t dd_bytes, uint8_t serial) noexcept nogil
# What is known of a structure; NULL: too old, or never seen.
cdef inline const DdLayers* find_layers(const DdStructure* structure, uint8_t serial) noexcept nogil:
    if structure == NULL or serial == 0 or structure.layers[serial & 1].serial != serial:
        return NULL
    return &structure.layers[serial & 1]
# Writes picture id / TL0 into a payload of the same shape (offsets of `v`).
cdef void rewrite_picture(uint8_t* payload, const FrameView* v, uint16_t picture_id, uint8_t tl0) noexcept nogil
