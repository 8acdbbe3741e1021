"""Codec descriptors of generated video, written and read, and the Dependency Descriptor of one spatial layer."""
from libc.stdint cimport uint8_t, uint32_t
from relaycore.lgmodel cimport SentFrame

cdef enum:
    MAX_DESCRIPTOR_BYTES = 8
    MAX_DEPDESC_BYTES = 40

# Descriptor of packet `place` (0 = first) of a frame. Bytes; 0 for audio.
cdef int write_descriptor(uint8_t* dst, int codec, const SentFrame* f, uint32_t place, int temporal_layers) noexcept nogil
# Bytes of a packet's descriptor, *starts = it begins a frame. E_SHORT. Reads any shape that the specification allows.
cdef int read_descriptor(int codec, const uint8_t* payload, Py_ssize_t n, bint* starts) noexcept nogil
# Dependency Descriptor of a packet; the template structure goes with the first packet of a keyframe. Bytes.
cdef int write_depdesc(uint8_t* dst, const SentFrame* f, bint is_first, bint is_last, int temporal_layers, uint32_t width, uint32_t height) noexcept nogil
# Where a frame at `position` stands: its layer, the place of the pattern it builds on, the template of a delta frame.
cdef void read_pattern(int temporal_layers, uint32_t position, uint8_t* temporal_id, uint32_t* reference, uint8_t* template_id, bint* is_sync) noexcept nogil
