"""The control plane's side of the data plane: the only package of the relay process that imports relaycore."""

from relay.plane.capture import MAX_KEPT_BYTES, Capture, Captured
from relay.plane.commands import Codec, EgressSpec, FrameFormat, ListenAddress, PlaneError, ReceiverSpec, SrtpKeys
from relay.plane.feed import ReceiverListener, TransportListener
from relay.plane.pool import Plane, slots_lost
from relay.plane.stats import PlaneSnapshot, WorkerFigures

__all__ = [
    "MAX_KEPT_BYTES",
    "Capture",
    "Captured",
    "Codec",
    "EgressSpec",
    "FrameFormat",
    "ListenAddress",
    "Plane",
    "PlaneError",
    "PlaneSnapshot",
    "ReceiverListener",
    "ReceiverSpec",
    "SrtpKeys",
    "TransportListener",
    "WorkerFigures",
    "slots_lost",
]
