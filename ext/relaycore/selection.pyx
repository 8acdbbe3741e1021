"""Layer selection by the layer ids of a packet's view; the contract stands in selection.pxd.

Rules, per picture (one timestamp), so that no picture is cut and every picture's last packet bears the marker:
- fewer layers: from the next picture on;
- more temporal layers: at a packet of the next higher layer that says that it leans on lower ones alone (VP8's Y, VP9's U), layer
  by layer, because what it says is of its own layer. VP9's U says more where it stands on a layer that is forwarded (RFC 9628
  section 4.2): from there on no higher layer leans on what was left out;
- more spatial layers: at a keyframe;
- a picture that was left out leaves no gap in VP8's picture ids (RFC 7741 section 4.2), while VP9's stay what they are: its references
  are distances between them (RFC 9628 section 4.2).
"""
cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, int64_t
from libc.string cimport memset
from relaycore.projection cimport Projection, projection_init
from relaycore.seq cimport diff_u32
from relaycore.views cimport CODEC_VP8, CODEC_VP9, FrameView

cdef enum:
    MASK = PICTURES - 1
    BACK_TICKS = 900000            # 10 s: no packet of a picture is so late


cdef void selection_init(Selection* x) noexcept nogil:
    memset(x, 0, sizeof(Selection))
    x.wanted_spatial = x.wanted_temporal = x.spatial = x.temporal = LAYERS_ALL


cdef void selection_begin(Selection* x, bint has_targets) noexcept nogil:
    memset(x.pictures, 0, sizeof(x.pictures))
    x.has_newest = x.seen_temporal = 0
    x.spatial = x.wanted_spatial
    x.temporal = x.wanted_temporal
    x.looks = 1 if has_targets or x.wanted_spatial < LAYERS_ALL or x.wanted_temporal < LAYERS_ALL else 0
    x.has_targets = 1 if has_targets else 0
    x.target = -1
    x.serial = x.has_frames = x.waits = x.names_active = 0
    x.judged[0] = x.judged[1] = x.sent[0] = x.sent[1] = 0


cdef Picture* keep_picture(Selection* x, uint32_t rtp_ts, uint16_t picture_offset, uint8_t top) noexcept nogil:
    cdef Picture* picture = &x.pictures[x.head]
    x.last = x.head
    x.head = (x.head + 1) & MASK
    picture.rtp_ts = rtp_ts
    picture.picture_offset = picture_offset
    picture.top = top
    picture.temporal = x.temporal
    picture.is_skipped = picture.is_begun = 0
    picture.is_used = 1
    picture.target = x.target
    return picture


cdef void selection_want(Selection* x, uint8_t spatial, uint8_t temporal, bint is_shown, uint32_t shown_ts,
                         uint16_t picture_offset) noexcept nogil:
    x.wanted_spatial = spatial
    x.wanted_temporal = temporal
    if x.looks or (spatial == LAYERS_ALL and temporal == LAYERS_ALL):
        return
    x.looks = 1
    if is_shown:
        # What has been begun is sent to its end.
        x.has_newest = 1
        x.newest_ts = shown_ts
        keep_picture(x, shown_ts, picture_offset, LAYERS_ALL)


cdef void _turn(Selection* x, int codec, const FrameView* v) noexcept nogil:
    """Change layers at a new picture."""
    cdef uint32_t between
    if v.keyframe:
        x.spatial = x.wanted_spatial
        x.temporal = x.wanted_temporal
        x.seen_temporal = 0
    x.seen_temporal |= <uint8_t>(1u << v.temporal_id)
    x.spatial = min(x.spatial, x.wanted_spatial)
    if x.temporal >= x.wanted_temporal:
        x.temporal = x.wanted_temporal
    elif v.switch_up and v.temporal_id > x.temporal:
        between = x.seen_temporal & ((1u << v.temporal_id) - 1u)
        if v.temporal_id <= x.wanted_temporal and between >> (x.temporal + 1u) == 0:
            x.temporal = v.temporal_id
    elif v.switch_up and codec == CODEC_VP9:
        x.temporal = x.wanted_temporal


cdef inline bint _is_ahead(const Selection* x, const FrameView* v, uint32_t rtp_ts) noexcept nogil:
    """Whether a picture comes behind all others; a keyframe does as well where a sender begins its time anew, or was silent for half of
    the 13 hours that 32 bits of it count."""
    cdef int64_t ahead = diff_u32(rtp_ts, x.newest_ts)
    return not x.has_newest or ahead > 0 or (v.keyframe and ahead < -BACK_TICKS)


cdef Picture* _place(Selection* x, Projection* p, int codec, const FrameView* v, uint32_t rtp_ts) noexcept nogil:
    """Decide about a picture of which no packet was seen."""
    cdef const Picture* before
    cdef Picture* picture
    cdef uint16_t offset = p.picture_offset
    cdef uint8_t temporal
    if _is_ahead(x, v, rtp_ts):
        x.has_newest = 1
        x.newest_ts = rtp_ts
        _turn(x, codec, v)
        picture = keep_picture(x, rtp_ts, offset, TOP_NONE if v.temporal_id > x.temporal else x.spatial)
        if picture.top == TOP_NONE and codec == CODEC_VP8 and v.picture_id_bytes:
            picture.is_skipped = 1
            p.picture_offset = (offset - 1u) & 0x7fffu
        return picture
    # It comes late: as it would have gone behind the one before it.
    before = picture_before(x, rtp_ts)
    if before == NULL:
        return NULL
    offset = <uint16_t>((before.picture_offset - before.is_skipped) & 0x7fffu)
    temporal = before.temporal
    picture = keep_picture(x, rtp_ts, offset, TOP_NONE if v.temporal_id > temporal else x.spatial)
    picture.temporal = temporal
    return picture


cdef Picture* find_picture(Selection* x, uint32_t rtp_ts) noexcept nogil:
    cdef Picture* picture = &x.pictures[x.last]
    cdef uint8_t i
    if picture.is_used and picture.rtp_ts == rtp_ts:
        return picture
    for i in range(PICTURES):
        if x.pictures[i].is_used and x.pictures[i].rtp_ts == rtp_ts:
            x.last = i
            return &x.pictures[i]
    return NULL


cdef const Picture* picture_before(const Selection* x, uint32_t rtp_ts) noexcept nogil:
    cdef const Picture* before = NULL
    cdef int i
    for i in range(PICTURES):
        if not x.pictures[i].is_used or diff_u32(rtp_ts, x.pictures[i].rtp_ts) < 0:
            continue
        if before == NULL or diff_u32(x.pictures[i].rtp_ts, before.rtp_ts) > 0:
            before = &x.pictures[i]
    return before


cdef Picture* select_picture(Selection* x, Projection* p, int codec, const FrameView* v, uint32_t rtp_ts) noexcept nogil:
    cdef Picture* picture = find_picture(x, rtp_ts)
    return picture if picture != NULL else _place(x, p, codec, v, rtp_ts)


cdef bint selection_waits(const Selection* x, const FrameView* v) noexcept nogil:
    return x.waits if x.has_targets else x.spatial < v.spatial_id <= x.wanted_spatial


@cython.final
cdef class SelectionFace:
    """Test face: one subscriber's selection; pictures are their timestamps."""
    cdef Selection x
    cdef Projection p
    cdef int codec

    def __cinit__(self, int codec):
        self.codec = codec
        selection_init(&self.x)
        projection_init(&self.p, 0)
        selection_begin(&self.x, False)

    def want(self, uint8_t spatial=LAYERS_ALL, uint8_t temporal=LAYERS_ALL, shown_ts=None):
        selection_want(&self.x, spatial, temporal, shown_ts is not None, 0 if shown_ts is None else <uint32_t>shown_ts,
                       self.p.picture_offset)

    def take(self, uint32_t rtp_ts, *, uint8_t spatial_id=0, uint8_t temporal_id=0, bint switch_up=False, bint keyframe=False,
             picture_id=None):
        """Return (top, picture id) of a packet's picture; (None, None) when nothing of it goes on."""
        cdef FrameView v
        cdef Picture* picture
        memset(&v, 0, sizeof(FrameView))
        v.spatial_id = spatial_id
        v.temporal_id = temporal_id
        v.switch_up = 1 if switch_up else 0
        v.keyframe = 1 if keyframe else 0
        v.picture_id_bytes = 0 if picture_id is None else 2
        if not self.x.looks:
            return LAYERS_ALL, picture_id
        picture = select_picture(&self.x, &self.p, self.codec, &v, rtp_ts)
        if picture == NULL or picture.top == TOP_NONE or spatial_id > picture.top:
            return None, None
        return picture.top, None if picture_id is None else (picture_id + picture.picture_offset) & 0x7fff

    @property
    def forwarded(self):
        """(spatial, temporal): the highest ids forwarded now."""
        return self.x.spatial, self.x.temporal
