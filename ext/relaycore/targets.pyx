"""Which frames of a stream with a Dependency Descriptor go to one subscriber; the contract stands in targets.pxd.

A frame goes on when it belongs to the subscriber's decode target and leans on nothing that was left out; what is only missing may still
come. Targets change
- to one that lies within the present one at once (its frames were all forwarded);
- to another one at a frame that is its switch indication and leans on forwarded frames alone: whoever decodes that frame can go on;
- to any at a keyframe, of which all active targets are.
A picture keeps its highest spatial layer once some of it went out, because that layer's last packet bears the marker. Where fewer
spatial layers are wanted and the target for them is not within the present one (K-SVC), its lowest frame rate goes on until the
keyframe that is asked for.
"""
cimport cython
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, uint64_t
from libc.string cimport memset
from relaycore.depdesc cimport DD_MAX_TARGETS, parse_depdesc, DdFrame
from relaycore.projection cimport Projection, projection_init
from relaycore.selection cimport (
    LAYERS_ALL, Picture, Selection, find_picture, keep_picture, picture_before, selection_begin, selection_init, selection_want,
)
from relaycore.seq cimport diff_u16, diff_u32
from relaycore.views cimport CODEC_AV1, CODEC_VP8, DdLayers, DdStructure, FrameView, find_layers, view_packet

cdef enum:
    BACK_TICKS = 900000            # 10 s: no packet of a picture is so late
    WINDOW = 128                   # frames whose decisions are remembered: a second of three layers at 30 Hz and more


# --- what was forwarded ---------------------------------------------------------------------------------------------

cdef inline bint _bit(const uint64_t* words, int32_t i) noexcept nogil:
    return words[i >> 6] >> <uint32_t>(i & 63) & 1


cdef void _advance(Selection* x, int32_t by) noexcept nogil:
    """Make the frame `by` >= 1 behind the newest one the newest."""
    cdef uint32_t n = <uint32_t>by
    x.newest_frame = <uint16_t>((<uint32_t>x.newest_frame + n) & 0xffffu)
    while n >= 64:
        x.judged[1], x.judged[0] = x.judged[0], 0
        x.sent[1], x.sent[0] = x.sent[0], 0
        n -= 64
        if x.judged[0] == 0 and x.judged[1] == 0:
            return
    if n:
        x.judged[1] = x.judged[1] << n | x.judged[0] >> (64 - n)
        x.judged[0] <<= n
        x.sent[1] = x.sent[1] << n | x.sent[0] >> (64 - n)
        x.sent[0] <<= n


cdef uint64_t _before(const uint64_t* words, int32_t i) noexcept nogil:
    """Return the bits of the 64 frames before frame i, the nearest one lowest."""
    i += 1
    if i >= WINDOW:
        return 0
    if i >= 64:
        return words[1] >> <uint32_t>(i - 64)
    return words[0] if i == 0 else words[0] >> <uint32_t>i | words[1] << <uint32_t>(64 - i)


cdef void _note(Selection* x, int32_t i, bint is_sent) noexcept nogil:
    x.judged[i >> 6] |= <uint64_t>1 << <uint32_t>(i & 63)
    if is_sent:
        x.sent[i >> 6] |= <uint64_t>1 << <uint32_t>(i & 63)


# --- targets --------------------------------------------------------------------------------------------------------

cdef int _best(const DdLayers* layers, uint32_t usable, uint8_t spatial, uint8_t temporal) noexcept nogil:
    """Return the highest of some targets within these layers, spatial layers first; -1 when there is none."""
    cdef int best = -1
    cdef int rank = -1
    cdef int i
    for i in range(DD_MAX_TARGETS):
        if usable >> <uint32_t>i == 0:
            break
        if (usable >> <uint32_t>i & 1 and layers.spatial[i] <= spatial and layers.temporal[i] <= temporal
                and 8 * layers.spatial[i] + layers.temporal[i] > rank):
            rank = 8 * layers.spatial[i] + layers.temporal[i]
            best = i
    return best


cdef uint32_t _reachable(const Selection* x, const DdLayers* layers, const FrameView* v, int32_t i) noexcept nogil:
    """Return the targets that may be forwarded from frame i on."""
    cdef uint32_t found = 0
    cdef uint64_t leans = v.dd_leans
    if x.target >= 0:
        found = layers.within[x.target]
    if not v.dd_reaches_far and leans & ~_before(x.sent, i) == 0:
        found |= v.dd_switch
    return found


cdef void _aim(Selection* x, const DdLayers* layers, const FrameView* v, int32_t i, bint is_begun, uint8_t spatial_limit) noexcept nogil:
    """Choose the target from this frame on."""
    cdef uint8_t spatial = min(x.wanted_spatial, spatial_limit)
    cdef int wanted = _best(layers, v.dd_active, spatial, x.wanted_temporal)
    cdef uint32_t reachable
    cdef int found = -1
    cdef int k
    if x.target >= 0 and x.serial == v.dd_serial and wanted == x.target:
        x.waits = 0
        return
    if v.keyframe or x.target < 0 or x.serial != v.dd_serial:
        # Where nobody told which targets are active there is at least one that the frame belongs to.
        found = wanted if wanted >= 0 else _best(layers, v.dd_present, spatial, x.wanted_temporal)
        if not v.keyframe and (found < 0 or not v.dd_switch >> <uint32_t>found & 1):
            found = -1
    else:
        reachable = _reachable(x, layers, v, i) & v.dd_active
        if is_begun:
            # Only more frames of the same size: the marker's place is given away.
            for k in range(DD_MAX_TARGETS):
                if reachable >> <uint32_t>k & 1 and (layers.spatial[k] != layers.spatial[x.target]
                                                     or not layers.within[k] >> <uint32_t>x.target & 1):
                    reachable &= ~(1u << <uint32_t>k)
        found = _best(layers, reachable, spatial, x.wanted_temporal)
        if found < 0 and not is_begun and layers.spatial[x.target] > spatial:
            found = _best(layers, reachable & layers.within[x.target], layers.spatial[x.target], 0)
    if found >= 0:
        x.target = <signed char>found
        x.serial = v.dd_serial
        x.spatial = layers.spatial[found]
        x.temporal = layers.temporal[found]
    x.waits = 1 if wanted >= 0 and (x.target < 0 or x.serial != v.dd_serial
                                        or layers.spatial[wanted] != layers.spatial[x.target]) else 0


cdef void _name_active(Selection* x, const DdLayers* layers, const FrameView* v) noexcept nogil:
    """Remember what the receiver has to be told of the targets that still come."""
    cdef uint32_t all_targets = <uint32_t>(((<uint64_t>1 << v.dd_targets) - 1) & 0xffffffffu)
    x.active = v.dd_active & layers.within[x.target] | 1u << <uint32_t>x.target
    if v.dd_has_structure and x.active == all_targets:
        x.names_active = 0
    elif x.active != all_targets:
        x.names_active = 1


cdef inline bint _is_anew(const Selection* x, const FrameView* v, uint32_t rtp_ts) noexcept nogil:
    """Whether a keyframe's time is none that a late one could have: its sender began anew, or was silent for hours (selection.pyx)."""
    return v.keyframe and diff_u32(rtp_ts, x.newest_ts) < -BACK_TICKS


cdef Picture* _place(Selection* x, Projection* p, const FrameView* v, uint32_t rtp_ts, bint* is_ahead) noexcept nogil:
    """Return the picture of a frame; NULL when it comes too late to be placed."""
    cdef Picture* picture = find_picture(x, rtp_ts)
    cdef const Picture* before
    cdef int target
    is_ahead[0] = not x.has_newest or diff_u32(rtp_ts, x.newest_ts) >= 0 or _is_anew(x, v, rtp_ts)
    if picture != NULL:
        return picture
    if is_ahead[0]:
        x.has_newest = 1
        x.newest_ts = rtp_ts
        return keep_picture(x, rtp_ts, p.picture_offset, x.spatial)
    before = picture_before(x, rtp_ts)
    if before == NULL:
        return NULL
    target = before.target
    picture = keep_picture(x, rtp_ts, <uint16_t>((before.picture_offset - before.is_skipped) & 0x7fffu), before.top)
    picture.target = <signed char>target
    return picture


cdef bint select_frame(Selection* x, Projection* p, const DdLayers* layers, const FrameView* v, int codec, uint32_t rtp_ts,
                       uint8_t spatial_limit, Picture** out) noexcept nogil:
    cdef int32_t ahead = diff_u16(v.frame_number, x.newest_frame)
    cdef Picture* picture
    cdef bint is_sent = False
    cdef bint is_newest = False
    cdef int32_t i = 0
    if not x.has_frames:
        x.has_frames = 1
        x.newest_frame = v.frame_number
    elif ahead > 0:
        _advance(x, ahead)
    else:
        i = -ahead
        if i >= WINDOW and v.keyframe and (diff_u32(rtp_ts, x.newest_ts) > 0 or _is_anew(x, v, rtp_ts)):
            # An encoder that starts over may count anew.
            x.newest_frame = v.frame_number
            x.judged[0] = x.judged[1] = x.sent[0] = x.sent[1] = 0
            i = 0
        if i >= WINDOW:
            return False
        if _bit(x.judged, i):
            out[0] = find_picture(x, rtp_ts)
            return out[0] != NULL and _bit(x.sent, i)
    picture = out[0] = _place(x, p, v, rtp_ts, &is_newest)
    if picture == NULL:
        return False
    if not v.dd_is_known or layers == NULL:
        # Nobody can read it: its structure was lost.
        _note(x, i, False)
        x.waits = 1
        return False
    if i == 0 and is_newest:
        _aim(x, layers, v, i, picture.is_begun, spatial_limit)
        picture.target = x.target
        if not picture.is_begun:
            picture.top = x.spatial
    if picture.target >= 0 and x.serial == v.dd_serial and v.dd_present >> <uint32_t>picture.target & 1:
        is_sent = v.dd_leans & _before(x.judged, i) & ~_before(x.sent, i) == 0
    _note(x, i, is_sent)
    if is_sent:
        picture.is_begun = 1
        if i == 0:
            _name_active(x, layers, v)
    elif i == 0 and codec == CODEC_VP8 and v.picture_id_bytes and not picture.is_skipped:
        picture.is_skipped = 1
        p.picture_offset = (picture.picture_offset - 1u) & 0x7fffu
    return is_sent


@cython.final
cdef class TargetsFace:
    """Test face: one subscriber of one stream, whose descriptors come in order of arrival."""
    cdef Selection x
    cdef Projection p
    cdef DdStructure structure

    def __cinit__(self):
        memset(&self.structure, 0, sizeof(DdStructure))
        selection_init(&self.x)
        projection_init(&self.p, 0)
        selection_begin(&self.x, True)

    def want(self, uint8_t spatial=LAYERS_ALL, uint8_t temporal=LAYERS_ALL):
        selection_want(&self.x, spatial, temporal, False, 0, 0)

    def take(self, bytes dd not None, uint32_t rtp_ts, uint8_t spatial_limit=LAYERS_ALL):
        """Return (spatial id, temporal id, whether its end ends the picture) of a frame that goes on, else None."""
        cdef FrameView v
        cdef Picture* picture = NULL
        cdef const uint8_t* element = dd
        if view_packet(CODEC_AV1, NULL, 0, False, element, len(dd), &self.structure, &v) < 0:
            return None
        if not select_frame(&self.x, &self.p, find_layers(&self.structure, v.dd_serial), &v, CODEC_AV1, rtp_ts, spatial_limit, &picture):
            return None
        return v.spatial_id, v.temporal_id, v.spatial_id == picture.top

    @property
    def forwarded(self):
        """(spatial, temporal): of the target that is forwarded."""
        return self.x.spatial, self.x.temporal

    @property
    def waits(self):
        """Whether a keyframe is needed for the spatial layers that are wanted."""
        return bool(self.x.waits)

    @property
    def active(self):
        """The decode targets that the receiver is told are active; None: nothing is told."""
        return self.x.active if self.x.names_active else None
