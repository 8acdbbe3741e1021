"""Dependency Descriptor: frame starts and ends, layers, decode targets and dependencies, beside an opaque payload.

Spec: RTP Payload Format For AV1, appendix A (A.8.1 fields, A.8.3 syntax). Bits are read most significant first:

     0                   1                   2
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |S|E| template  |         frame_number          |  then, if more than 3 bytes: 5 flags, structure, active
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+  targets, custom DTIs, fdiffs and chains

Does not choose layers; writes no descriptor but by copying one.
"""
cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from relaycore.be cimport get_u16, put_u16
from relaycore.errs cimport E_FORMAT, E_OK, E_SHORT
from relaycore.errs import raise_for
from relaycore.seq cimport diff_u16
from relaycore.views cimport DdLayers, DdStructure

cdef enum:
    MANDATORY_BYTES = 3
    RAW_BYTES = 256                # room in DdStructure.raw
    FLAGS_AT = 24                  # bit of template_dependency_structure_present_flag
    ACTIVE_FLAG = 0x40             # in the byte of the flags
    FLAGS = 5
    MAX_SIZE = 0xffff
    LATE_FRAMES = 512              # what is repaired is younger; numbers that fall by more begin anew

cdef struct Bits:                  # cursor over the descriptor; borrows it
    const uint8_t* data
    uint32_t position              # bits
    uint32_t end                   # bits
    bint ran_out                   # a read went past the end; all reads since gave 0


cdef uint32_t _take(Bits* b, uint32_t count) noexcept nogil:
    """Return the next `count` <= 32 bits; 0 and `ran_out` when fewer are left."""
    cdef uint64_t value = 0
    cdef uint32_t i
    if count > b.end - b.position:
        b.ran_out = True
        b.position = b.end
        return 0
    for i in range(b.position, b.position + count):
        value = (value << 1) | ((<uint32_t>b.data[i >> 3] >> (7 - (i & 7))) & 1u)
    b.position += count
    return <uint32_t>(value & 0xffffffffu)


cdef uint32_t _take_below(Bits* b, uint32_t bound) noexcept nogil:
    """Return a number in 0..bound-1, 1 <= bound <= 33, coded as ns(bound).

    Spec: AV1 bitstream section 4.10.7: the first 2^w - bound numbers take w - 1 bits, the others w.
    """
    cdef uint32_t width = 0
    cdef uint32_t short_codes, value
    while (bound >> width) != 0:
        width += 1
    short_codes = (1u << width) - bound
    value = _take(b, width - 1)
    if value < short_codes:
        return value
    return (value << 1) - short_codes + _take(b, 1)


cdef int _take_layers(Bits* b, DdStructure* s) noexcept nogil:
    """Read the templates' layers. Every step is two bits: 0 same layer, 1 next temporal, 2 next spatial, 3 end."""
    cdef uint32_t spatial = 0
    cdef uint32_t temporal = 0
    cdef uint32_t count = 0
    cdef uint32_t step
    while True:
        if count == DD_MAX_TEMPLATES or spatial == DD_MAX_LAYERS or temporal == DD_MAX_LAYERS:
            return E_FORMAT
        s.spatial_id[count] = <uint8_t>spatial
        s.temporal_id[count] = <uint8_t>temporal
        count += 1
        step = _take(b, 2)
        if b.ran_out:
            return E_SHORT
        if step == 1:
            temporal += 1
        elif step == 2:
            temporal = 0
            spatial += 1
        elif step == 3:
            s.template_count = <uint8_t>count
            return <int>spatial


cdef void _take_template_fdiffs(Bits* b, DdStructure* s) noexcept nogil:
    cdef uint32_t t, fdiff
    for t in range(s.template_count):
        # A flag of 1 takes four bits with it, so the bits run out before the loop could be long.
        while _take(b, 1):
            fdiff = _take(b, 4) + 1
            if s.fdiff_count[t] < DD_MAX_FDIFFS:
                s.fdiffs[t][s.fdiff_count[t]] = <uint8_t>fdiff
                s.fdiff_count[t] += 1


cdef void _take_template_chains(Bits* b, DdStructure* s) noexcept nogil:
    cdef uint32_t t, i
    s.chain_count = <uint8_t>_take_below(b, <uint32_t>s.decode_target_count + 1)
    if s.chain_count == 0:
        return
    for i in range(s.decode_target_count):
        s.protected_by[i] = <uint8_t>_take_below(b, s.chain_count)
    for t in range(s.template_count):
        for i in range(s.chain_count):
            s.chain_fdiff[t][i] = <uint8_t>_take(b, 4)


cdef inline uint16_t _size(uint32_t minus_one) noexcept nogil:
    """Sizes are 1..65536 on the wire; the one that 16 bits do not hold is told as the next smaller."""
    return <uint16_t>(minus_one + 1 if minus_one < MAX_SIZE else MAX_SIZE)


cdef int _take_structure(Bits* b, DdStructure* s) noexcept nogil:
    """Read a template dependency structure into `s`, which is zero. Spec: appendix A.8.3, template_dependency_structure."""
    cdef uint32_t t, i
    cdef int top_spatial
    s.template_id_offset = <uint8_t>_take(b, 6)
    s.decode_target_count = <uint8_t>(_take(b, 5) + 1)
    top_spatial = _take_layers(b, s)
    if top_spatial < 0:
        return top_spatial
    for t in range(s.template_count):
        for i in range(s.decode_target_count):
            s.dti[t][i] = <uint8_t>_take(b, 2)
    _take_template_fdiffs(b, s)
    _take_template_chains(b, s)
    s.has_resolutions = <uint8_t>_take(b, 1)
    if s.has_resolutions:
        for i in range(<uint32_t>top_spatial + 1):
            s.width[i] = _size(_take(b, 16))
            s.height[i] = _size(_take(b, 16))
    if b.ran_out:
        return E_SHORT
    s.active_targets = <uint32_t>(((<uint64_t>1 << s.decode_target_count) - 1) & 0xffffffffu)
    s.valid = 1
    return E_OK


cdef void _take_custom_fdiffs(Bits* b, DdFrame* out) noexcept nogil:
    """Spec: appendix A.8.3, frame_fdiffs: a 2-bit length in nibbles before each, 0 ends the list."""
    cdef uint32_t nibbles = _take(b, 2)
    cdef uint32_t fdiff
    out.fdiff_count = 0
    while nibbles != 0:
        fdiff = _take(b, 4 * nibbles) + 1
        if out.fdiff_count < DD_MAX_FDIFFS:
            out.fdiffs[out.fdiff_count] = <uint16_t>fdiff
            out.fdiff_count += 1
        nibbles = _take(b, 2)


cdef void _copy_template(const DdStructure* s, uint32_t t, DdFrame* out) noexcept nogil:
    cdef uint32_t i
    out.is_known = 1
    out.spatial_id = s.spatial_id[t]
    out.temporal_id = s.temporal_id[t]
    out.fdiff_count = s.fdiff_count[t]
    for i in range(s.fdiff_count[t]):
        out.fdiffs[i] = s.fdiffs[t][i]
    memcpy(out.dti, s.dti[t], s.decode_target_count)
    memcpy(out.chain_fdiff, s.chain_fdiff[t], s.chain_count)


cdef void _learn_layers(const DdStructure* s, DdLayers* out) noexcept nogil:
    """Find out what each decode target reaches, and which lie within it."""
    cdef uint32_t beyond[DD_MAX_TARGETS]
    cdef uint32_t target, t, present
    memset(out, 0, sizeof(DdLayers))
    memset(beyond, 0, sizeof(beyond))
    for t in range(s.template_count):
        present = 0
        for target in range(s.decode_target_count):
            if s.dti[t][target] != 0:
                present |= 1u << target
                out.spatial[target] = max(out.spatial[target], s.spatial_id[t])
                out.temporal[target] = max(out.temporal[target], s.temporal_id[t])
        for target in range(s.decode_target_count):
            if not present >> target & 1:
                beyond[target] |= present
    for target in range(s.decode_target_count):
        out.within[target] = <uint32_t>(((<uint64_t>1 << s.decode_target_count) - 1) & 0xffffffffu) & ~beyond[target]


cdef void _succeed(DdStructure* fresh, const DdStructure* former) noexcept nogil:
    """Go on where the former structure was: the same one keeps its serial, though its templates may have other numbers."""
    fresh.serial = former.serial
    memcpy(fresh.layers, former.layers, sizeof(fresh.layers))
    if (former.valid and fresh.template_count == former.template_count
            and fresh.decode_target_count == former.decode_target_count
            and memcmp(fresh.spatial_id, former.spatial_id, sizeof(fresh.spatial_id)) == 0
            and memcmp(fresh.temporal_id, former.temporal_id, sizeof(fresh.temporal_id)) == 0
            and memcmp(fresh.dti, former.dti, sizeof(fresh.dti)) == 0):
        return
    fresh.serial = <uint8_t>(1 if fresh.serial == 255 else fresh.serial + 1)
    _learn_layers(fresh, &fresh.layers[fresh.serial & 1])
    fresh.layers[fresh.serial & 1].serial = fresh.serial


cdef bint _is_late(const DdStructure* s, uint16_t frame_number) noexcept nogil:
    """Whether a keyframe came behind a newer one, as repaired ones do: its templates have numbers that no frame uses any more."""
    return s.raw_bytes > 0 and -LATE_FRAMES < diff_u16(frame_number, get_u16(s.raw + 1)) < 0


cdef int parse_depdesc(const uint8_t* dd, Py_ssize_t n, DdStructure* structure, DdFrame* out) noexcept nogil:
    cdef DdStructure fresh
    cdef const DdStructure* s = structure
    cdef Bits b
    cdef uint32_t active_targets, template_index, i
    cdef uint32_t has_active, has_dtis, has_fdiffs, has_chains
    cdef int code
    memset(out, 0, sizeof(DdFrame))
    if n < MANDATORY_BYTES or n > MAX_SIZE:
        return E_SHORT
    out.start_of_frame = dd[0] >> 7
    out.end_of_frame = (dd[0] >> 6) & 1
    out.template_id = dd[0] & 0x3f
    out.frame_number = get_u16(dd + 1)
    b.data = dd
    b.position = 8 * MANDATORY_BYTES
    b.end = <uint32_t>n * 8
    b.ran_out = False
    active_targets = structure.active_targets
    has_active = has_dtis = has_fdiffs = has_chains = 0
    if n > MANDATORY_BYTES:
        out.has_structure = <uint8_t>_take(&b, 1)
        has_active = _take(&b, 1)
        has_dtis = _take(&b, 1)
        has_fdiffs = _take(&b, 1)
        has_chains = _take(&b, 1)
    if out.has_structure:
        memset(&fresh, 0, sizeof(fresh))
        code = _take_structure(&b, &fresh)
        if code < 0:
            return code
        if n <= RAW_BYTES:
            memcpy(fresh.raw, dd, <size_t>n)
            fresh.raw_bytes = <uint16_t>n
        active_targets = fresh.active_targets
        s = &fresh
    if not s.valid:
        return E_OK
    template_index = (<uint32_t>out.template_id + DD_MAX_TEMPLATES - s.template_id_offset) & (DD_MAX_TEMPLATES - 1)
    if template_index >= s.template_count:
        # With its own structure at hand this is nonsense; without, the structure it means was lost.
        if out.has_structure:
            return E_FORMAT
        return E_OK
    out.has_active = <uint8_t>has_active
    out.active_at = <uint16_t>(b.position if n > MANDATORY_BYTES else <uint32_t>FLAGS_AT + FLAGS)
    if has_active:
        active_targets = _take(&b, s.decode_target_count)
    _copy_template(s, template_index, out)
    if has_dtis:
        for i in range(s.decode_target_count):
            out.dti[i] = <uint8_t>_take(&b, 2)
    if has_fdiffs:
        _take_custom_fdiffs(&b, out)
    if has_chains:
        for i in range(s.chain_count):
            out.chain_fdiff[i] = <uint8_t>_take(&b, 8)
    if b.ran_out:
        return E_SHORT
    if out.has_structure:
        _succeed(&fresh, structure)
        if _is_late(structure, out.frame_number):
            out.is_known = 1 if fresh.serial == structure.serial else 0
            return E_OK
        structure[0] = fresh
    structure.active_targets = active_targets
    return E_OK


cdef void _put(uint8_t* dst, uint32_t at, uint32_t count, uint32_t value) noexcept nogil:
    cdef uint32_t i
    cdef uint8_t bit
    for i in range(count):
        bit = <uint8_t>(0x80u >> ((at + i) & 7))
        if value >> (count - 1 - i) & 1:
            dst[(at + i) >> 3] |= bit
        else:
            dst[(at + i) >> 3] &= <uint8_t>~bit


cdef int rewrite_depdesc(const uint8_t* dd, Py_ssize_t n, const DdRewrite* w, uint8_t* dst) noexcept nogil:
    cdef uint32_t end = <uint32_t>n * 8
    cdef uint32_t i
    memcpy(dst, dd, <size_t>n)
    put_u16(dst + 1, <uint16_t>((<uint32_t>get_u16(dd + 1) + w.frame_offset) & 0xffffu))
    if w.targets == 0:
        return <int>n
    memset(dst + n, 0, DD_GROWS)
    if n == MANDATORY_BYTES:
        end = FLAGS_AT + FLAGS
    if not w.has_active:
        # What stands behind makes room.
        for i in range(w.active_at, end):
            _put(dst, i + w.targets, 1, (<uint32_t>dd[i >> 3] >> (7 - (i & 7))) & 1u)
        end += w.targets
    dst[MANDATORY_BYTES] |= ACTIVE_FLAG
    _put(dst, w.active_at, w.targets, w.active)
    return <int>((end + 7) >> 3)


@cython.final
cdef class DescriptorReader:
    """Test face: the descriptors of one stream in order, with the cached structure between them."""
    cdef DdStructure structure

    def __cinit__(self):
        memset(&self.structure, 0, sizeof(self.structure))

    def parse(self, const uint8_t[::1] dd not None) -> dict:
        """Return the fields of one descriptor; WireError on bad bytes. Lists have as many items as the structure says."""
        cdef DdFrame f
        raise_for(parse_depdesc(&dd[0] if dd.shape[0] else NULL, dd.shape[0], &self.structure, &f))
        return {
            "start_of_frame": f.start_of_frame, "end_of_frame": f.end_of_frame, "template_id": f.template_id,
            "frame_number": f.frame_number, "has_structure": f.has_structure, "is_known": f.is_known,
            "spatial_id": f.spatial_id, "temporal_id": f.temporal_id,
            "fdiffs": [f.fdiffs[i] for i in range(f.fdiff_count)],
            "dtis": [f.dti[i] for i in range(self.structure.decode_target_count)] if f.is_known else [],
            "chains": [f.chain_fdiff[i] for i in range(self.structure.chain_count)] if f.is_known else [],
        }

    def rewrite(self, const uint8_t[::1] dd not None, uint16_t frame_offset, active=None) -> bytes:
        """Return a descriptor, which is parsed first, with its frame number moved and, unless None, other active targets named."""
        cdef DdFrame f
        cdef DdRewrite w
        cdef uint8_t[512] out
        if dd.shape[0] > 500:
            raise ValueError("no element of an extension is so long")
        raise_for(parse_depdesc(&dd[0] if dd.shape[0] else NULL, dd.shape[0], &self.structure, &f))
        memset(&w, 0, sizeof(w))
        w.frame_offset = frame_offset
        if active is not None and f.is_known:
            w.targets = self.structure.decode_target_count
            w.active = active
            w.has_active = f.has_active
            w.active_at = f.active_at
        return <bytes>(<const char*>out)[:rewrite_depdesc(&dd[0], dd.shape[0], &w, out)]

    def layers(self) -> list:
        """[(spatial id, temporal id, [targets within])] by decode target of the cached structure."""
        cdef DdLayers* x = &self.structure.layers[self.structure.serial & 1]
        return [(x.spatial[i], x.temporal[i], [j for j in range(self.structure.decode_target_count) if x.within[i] >> <uint32_t>j & 1])
                for i in range(self.structure.decode_target_count)]

    def cached(self) -> dict:
        """Return the cached structure, {} before the first."""
        cdef DdStructure* s = &self.structure
        if not s.valid:
            return {}
        spatial_count = max(s.spatial_id[t] for t in range(s.template_count)) + 1
        return {
            "template_id_offset": s.template_id_offset,
            "decode_target_count": s.decode_target_count,
            "active_targets": s.active_targets,
            "templates": [
                {
                    "spatial_id": s.spatial_id[t],
                    "temporal_id": s.temporal_id[t],
                    "dtis": [s.dti[t][i] for i in range(s.decode_target_count)],
                    "fdiffs": [s.fdiffs[t][i] for i in range(s.fdiff_count[t])],
                    "chains": [s.chain_fdiff[t][i] for i in range(s.chain_count)],
                }
                for t in range(s.template_count)
            ],
            "protected_by": [s.protected_by[i] for i in range(s.decode_target_count)] if s.chain_count else [],
            "resolutions": [(s.width[i], s.height[i]) for i in range(spatial_count)] if s.has_resolutions else [],
            "raw": bytes(s.raw[:s.raw_bytes]),
        }
