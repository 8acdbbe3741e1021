"""Dependency Descriptor of the AV1 RTP specification, appendix A: parse one element against the stream's cached structure."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from relaycore.views cimport DdStructure

cdef enum:
    DD_MAX_TEMPLATES = 64
    DD_MAX_TARGETS = 32
    DD_MAX_FDIFFS = 8              # kept; more are read and forgotten
    DD_MAX_LAYERS = 8              # spatial as well as temporal

cdef enum DecodeTargetIndication:
    DTI_NOT_PRESENT = 0
    DTI_DISCARDABLE = 1
    DTI_SWITCH = 2
    DTI_REQUIRED = 3

ctypedef struct DdFrame:           # what one packet says of its frame
    uint8_t start_of_frame
    uint8_t end_of_frame
    uint8_t template_id
    uint8_t has_structure
    uint8_t has_active             # it names the active decode targets
    uint8_t is_known               # the template is in the cache: the fields below are valid
    uint8_t spatial_id
    uint8_t temporal_id
    uint8_t fdiff_count
    uint16_t frame_number
    uint16_t active_at             # bit at which these stand, or would stand
    uint16_t fdiffs[8]             # frame numbers back; 12 bits + 1
    uint8_t dti[32]                # by decode target
    uint8_t chain_fdiff[32]        # by chain

# How a descriptor is rewritten for one subscriber.
ctypedef struct DdRewrite:
    uint16_t frame_offset          # added to the frame number
    uint8_t targets                # decode targets of its structure; 0: the active ones are not named
    uint8_t has_active             # as in DdFrame
    uint16_t active_at
    uint32_t active                # bit per target

cdef enum:
    DD_GROWS = 5                   # bytes, at most

# Returns the bytes written, at most n + DD_GROWS. n: at least 3, as parsed.
cdef int rewrite_depdesc(const uint8_t* dd, Py_ssize_t n, const DdRewrite* w, uint8_t* dst) noexcept nogil
# `structure` is replaced when the element carries one, and its active targets when it names them; untouched on errors.
# E_SHORT: the bits end early. E_FORMAT: more templates or layers than there may be. A template that the cache does not hold
# (its structure was lost) is no error: is_known stays 0.
cdef int parse_depdesc(const uint8_t* dd, Py_ssize_t n, DdStructure* structure, DdFrame* out) noexcept nogil
