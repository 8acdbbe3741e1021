"""Selection by decode targets: whether a frame goes on, by the Dependency Descriptor alone (AV1 RTP specification, appendix A)."""
from libc.stdint cimport uint8_t, uint32_t
from relaycore.projection cimport Projection
from relaycore.selection cimport Picture, Selection
from relaycore.views cimport DdLayers, FrameView

# Whether the packet of this frame is forwarded; its picture in `picture` (valid when it is). `layers`: of the view's structure, NULL where
# that was lost. `spatial_limit`: highest spatial id that this receiver can use.
cdef bint select_frame(Selection* x, Projection* p, const DdLayers* layers, const FrameView* v, int codec, uint32_t rtp_ts,
                       uint8_t spatial_limit, Picture** picture) noexcept nogil
