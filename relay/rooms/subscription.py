"""One endpoint's view of one publication: what it asked for and what it is sent."""

from dataclasses import dataclass, field

from relay.quality.choice import BEST, Chooser, Wanted


@dataclass(slots=True)
class Subscription:
    """`subscriber_sid` sees `track_sid`; `encoding` is forwarded now, None while nothing is."""

    subscriber_sid: str
    track_sid: str
    wanted: Wanted = BEST
    encoding: int | None = None
    chooser: Chooser = field(default_factory=Chooser)
