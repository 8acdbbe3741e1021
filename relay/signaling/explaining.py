"""Says of every subscription of a participant what is forwarded now, the best there is, and what stands between them."""

from typing import TYPE_CHECKING

from relay.clock import monotonic_ns
from relay.quality.allocator import Reason
from relay.quality.choice import EncodingShape
from relay.quality.explain import Explanation, Shown
from relay.quality.ladder import ALL, Option
from relay.rooms.publication import Publication
from relay.rooms.subscription import Subscription

if TYPE_CHECKING:
    from relay.signaling.hall import Hall
    from relay.signaling.session import Session

# A switch that has not happened after so long waits for a keyframe that was not to be had.
SWITCH_NS = 1_000_000_000


def explain(session: "Session") -> list[Explanation]:
    """Return the explanations in the order in which the participant subscribed."""
    hall = session.hall
    if hall is None or session.subscriber is None:
        return []
    found = []
    for track_sid, subscription in session.endpoint.subscriptions.items():
        publication = hall.room.publication(track_sid)
        if publication is not None:
            found.append(_explain(session, hall, publication, subscription))
    return found


def _explain(session: "Session", hall: "Hall", publication: Publication, subscription: Subscription) -> Explanation:
    assert session.subscriber is not None
    egress = session.subscriber.egress_of(publication.sid)
    sent = session.conference.measuring.sent(egress) if egress is not None else None
    share = session.division.share(publication.sid)
    ladder = share.ladder if share is not None else None
    option = share.option if share is not None else None
    reason = session.division.reason(publication.sid) or hall.room.limit_of(subscription)
    is_late = share is not None and monotonic_ns() - share.since_ns > SWITCH_NS
    current = best = None
    if ladder is not None and ladder.options:
        top = ladder.options[-1]
        best = _shown(publication, top, top.bps, top.fps)
    if sent is not None and sent.encoding >= 0:
        now = Option(sent.encoding, sent.spatial, sent.temporal)
        known = ladder.like(now) if ladder is not None else None
        current = _shown(publication, known or now, sent.bps, sent.fps)
        if option is not None and is_late and now.encoding != option.encoding:
            reason = Reason.KEYFRAME_BUDGET
    elif option is not None and not publication.active_encodings:
        reason = Reason.PUBLISHER
    elif option is not None and sent is not None and is_late:
        reason = Reason.KEYFRAME_BUDGET
    return Explanation(
        publication.sid,
        publication.publisher_sid,
        publication.is_video,
        publication.source.name.lower(),
        current,
        best if publication.is_video else current,
        reason,
    )


def _shown(publication: Publication, option: Option, bps: int, fps: float) -> Shown:
    encoding, rids, shapes = option.encoding, publication.rids, publication.shapes()
    shape = shapes[encoding] if publication.is_video and encoding < len(shapes) else EncodingShape(0, 0)
    height = option.height or shape.height
    return Shown(
        encoding,
        rid=rids[encoding] if encoding < len(rids) else "",
        spatial=None if option.spatial == ALL else option.spatial,
        temporal=None if option.temporal == ALL else option.temporal,
        width=round(shape.width * height / shape.height) if shape.height else 0,
        height=height,
        fps=fps,
        bps=bps,
    )
