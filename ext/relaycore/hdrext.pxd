"""RTP header extensions, one- and two-byte form (RFC 8285): parse into a table by kind, write for another numbering."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:                             # ExtKind: index of every table by kind
    EXT_NONE = 0
    EXT_MID = 1
    EXT_RID = 2
    EXT_REPAIRED_RID = 3
    EXT_TWCC = 4
    EXT_ABS_SEND_TIME = 5
    EXT_AUDIO_LEVEL = 6
    EXT_DD = 7
    EXT_ABS_CAPTURE_TIME = 8
    EXT_VIDEO_ORIENTATION = 9
    EXT_PLAYOUT_DELAY = 10
    EXT_VIDEO_CONTENT_TYPE = 11
    EXT_VIDEO_TIMING = 12
    EXT_COLOR_SPACE = 13
    EXT_TOFFSET = 14
    EXT_VLA = 15
    EXT_CSRC_AUDIO_LEVEL = 16
    EXT_COUNT = 17

ctypedef struct ExtMap:                 # per transport (ids are shared over a BUNDLE group)
    uint8_t kind_of_id[256]
    uint8_t id_of_kind[17]              # 0 = not negotiated

ctypedef struct ExtElement:
    const uint8_t* data                 # borrows the packet
    uint16_t bytes

ctypedef struct ExtView:
    uint32_t present                    # bit 1 << kind
    ExtElement by_kind[17]              # valid where present

# body = packet + RtpHeader.ext_offset. Unknown ids are skipped; an unknown profile gives an empty view. E_EXT_LEN.
cdef int parse_hdrext(const uint8_t* body, Py_ssize_t n, uint16_t profile, const ExtMap* ids, ExtView* out) noexcept nogil
# Writes the 4-byte head + elements + padding for every kind present in `view` that `ids` numbers; chooses the one-byte form
# when all ids <= 14 and all lengths 1..16, else the two-byte form (0x1000). Returns bytes, 0 when nothing is to write, E_NO_SPACE.
cdef int write_hdrext(uint8_t* dst, Py_ssize_t cap, const ExtMap* ids, const ExtView* view) noexcept nogil
cdef int ext_kind_of_uri(const char* uri, Py_ssize_t n) noexcept nogil      # EXT_NONE when unknown
# Puts ids under their kinds; URIs nobody here knows are left out. ValueError for an id that is not allowed or stands twice.
cdef int put_extension_ids(object id_by_uri, uint8_t* id_of_kind) except -1
cdef void number_extensions(ExtMap* x, const uint8_t* id_of_kind) noexcept nogil
