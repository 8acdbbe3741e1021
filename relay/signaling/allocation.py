"""Divides a participant's path over the videos it sees: feeds policy (relay/quality/allocator.py) and carries out what it says.

The room says which encodings may be sent at most (its `Forward` intents), the data plane what they cost and what the
path carries. Divisions are made when one of these changes, several changes of one turn of the loop at once; between two
bounds of the estimate nothing can change, so most estimates cost a comparison. Rises of all participants happen on
common beats, so that who comes to an encoding at about the same time shares one keyframe.
"""

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.clock import monotonic_ns
from relay.log import get_logger
from relay.quality.allocator import Allocation, Allocator, Ask, Priority, Reason
from relay.quality.choice import EncodingShape
from relay.quality.explain import StreamState
from relay.quality.ladder import Ladder, Option
from relay.rooms.publication import Publication
from relay.signaling.ladders import announced_bps, is_screen
from relay.signaling.publishing import Carried

if TYPE_CHECKING:
    from relay.rooms.subscription import Subscription
    from relay.signaling.session import Session

log = get_logger(__name__)

# Rises wait for the next beat: a keyframe serves all who rise by then.
BEAT_NS = 250_000_000
# The first estimates are steps on the way up: probes answer within two round trips.
CLIMB_NS = 600_000_000
# What a new video costs is measured by then; until it is, what its publisher announced pauses nothing that runs.
GUESS_NS = 2_000_000_000
# Costs that changed and still fit are reckoned with once in so long.
LATER_S = 2.0
# A publisher whose encodings flicker has each of its viewers' paths divided no more often than that.
SOON_S = 0.1
# The data plane hears of another wanted rate when it differs by so much.
WANTED_STEP = 0.05
# RTCP, STUN, data channels, and what sound's retransmissions take.
UNSEEN_BPS = 16_000
SOUND_MARGIN = 1.1
# Who is silent sends a packet in 400 ms; who sends nothing at all for so long is muted.
SOUND_IDLE_S = 2.0


@dataclass(eq=False, slots=True)
class Share:
    """One video on its way to this participant."""

    publication: Publication
    carried: Carried
    # The best encoding that the room lets it have; None: nothing.
    ceiling: int | None = None
    limit: Reason = Reason.NONE
    priority: int = Priority.USUAL
    # False: what is wanted of it or allowed of it changed since these were found.
    is_known: bool = False
    ladder: Ladder | None = None
    ask: Ask | None = None
    option: Option | None = None
    since_ns: int = 0
    is_told_paused: bool = False


class Division:
    """The videos of one participant and what its path carries."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._plane = session.conference.plane
        self._measuring = session.conference.measuring
        self._ladders = session.conference.ladders
        self._allocator = Allocator()
        self._shares: dict[str, Share] = {}
        self._last: Allocation | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._later: asyncio.TimerHandle | None = None
        self._is_due = False
        self._is_dirty = False
        self._reserved_bps = UNSEEN_BPS
        self._told_wanted_bps = 0
        self._begun_ns = 0
        self.estimate_bps: int | None = None

    @property
    def spent_bps(self) -> int:
        """What the videos granted now cost."""
        return self._last.spent_bps if self._last is not None else 0

    @property
    def wanted_bps(self) -> int:
        """What everything asked for would cost, sound included."""
        return self._last.wanted_bps + self._reserved_bps if self._last is not None else 0

    @property
    def is_short(self) -> bool:
        """True while some video is not what it could be because of the path."""
        return self._last is not None and self._last.rises_at_bps != math.inf

    def has(self, track_sid: str) -> bool:
        """True when this is a video that counts."""
        return track_sid in self._shares

    @property
    def paused(self) -> int:
        """How many videos the path has no room for."""
        return sum(share.is_told_paused for share in self._shares.values())

    @property
    def limited(self) -> int:
        """How many videos are forwarded at less than asked for, because of the path."""
        grants = self._last.grants.values() if self._last is not None else ()
        return sum(grant.option is not None and grant.reason is Reason.BANDWIDTH for grant in grants)

    def share(self, track_sid: str) -> Share | None:
        """What is known of this video, None when it does not count."""
        return self._shares.get(track_sid)

    def reason(self, track_sid: str) -> Reason | None:
        """Why this video is not better, as far as it was divided for."""
        grant = self._last.grants.get(track_sid) if self._last is not None else None
        return grant.reason if grant is not None else None

    def begin(self, publication: Publication, carried: Carried) -> None:
        """Count this video in from now on: its client takes it."""
        self._shares[publication.sid] = Share(publication, carried)
        self._stale(publication.sid)

    def end(self, track_sid: str) -> None:
        """Count it no more."""
        if self._shares.pop(track_sid, None) is not None:
            self._change()

    def set_ceiling(self, track_sid: str, encoding: int | None) -> None:
        """Send at most that encoding, None: nothing."""
        share = self._shares.get(track_sid)
        if share is not None:
            share.ceiling = encoding
            self._stale(track_sid)

    def refresh(self, receivers: set[int]) -> None:
        """Reckon with videos of these receivers that cost something else now: soon if the path has no room for what they
        have grown by, else together with others of the next seconds."""
        is_concerned, grown = False, 0
        for share in self._shares.values():
            if share.carried.receiver in receivers:
                share.ask, is_concerned = None, True
                if share.option is not None:
                    now_bps = self._ladders.of(share.publication, share.carried).bps_of(share.option)
                    grown += now_bps - share.option.bps
        if not is_concerned:
            return
        needs_bps = self.spent_bps + self._reserved_bps + grown
        if self._last is None or (self.estimate_bps is not None and needs_bps > self.estimate_bps):
            self._change()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(LATER_S, self._change)

    def refresh_all(self) -> None:
        """Ask anew about everything: other videos come first now."""
        for track_sid in self._shares:
            self._stale(track_sid)

    def refresh_tracks(self, track_sids: Iterable[str]) -> None:
        """Ask anew about these tracks: something else is wanted of them."""
        for track_sid in track_sids:
            if track_sid in self._shares:
                self._stale(track_sid)

    def refresh_soon(self, track_sid: str) -> None:
        """Ask anew about a track whose encodings come or go, which they may do often: with what else changes in a moment."""
        share = self._shares.get(track_sid)
        if share is None:
            return
        share.ask, share.is_known = None, False
        loop = asyncio.get_running_loop()
        if self._later is None or self._later.when() > loop.time() + SOON_S:
            if self._later is not None:
                self._later.cancel()
            self._later = loop.call_later(SOON_S, self._change)

    def on_estimate(self, estimate_bps: int) -> None:
        """Take what the path carries now. A fall counts at once, a rise when there is something to be had for it."""
        if self.estimate_bps is None:
            self._begun_ns = monotonic_ns()
        self.estimate_bps = estimate_bps
        if monotonic_ns() - self._begun_ns < CLIMB_NS:
            if self._later is None:
                self._later = asyncio.get_running_loop().call_later(CLIMB_NS / 1e9, self._change)
            return
        last = self._last
        if last is None:
            self._change()
        elif estimate_bps < last.falls_below_bps:
            self._divide()
        elif estimate_bps >= last.rises_at_bps or last.again_ns is not None:
            self._change()

    def close(self) -> None:
        """Divide nothing any more."""
        self._shares.clear()
        self._cancel_timers()

    def _stale(self, track_sid: str) -> None:
        share = self._shares[track_sid]
        share.ask, share.is_known = None, False
        self._change()

    def _change(self) -> None:
        self._is_dirty = True
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._on_due)

    def _on_due(self) -> None:
        self._is_due = False
        if self._is_dirty and not self._session.is_over:
            self._divide()

    def _divide(self) -> None:
        self._is_dirty = False
        now_ns = monotonic_ns()
        self._cancel_timers()
        asks = [share.ask or self._ask(share) for share in self._shares.values()]
        self._reserved_bps = self._sound_bps()
        climbs_until_ns = self._climbs_until_ns(asks)
        is_climbing = now_ns < climbs_until_ns
        estimate_bps = None if is_climbing else self.estimate_bps
        last = self._last = self._allocator.allocate(estimate_bps, asks, now_ns, reserved_bps=self._reserved_bps)
        self._say_what_is_wanted()
        told = []
        for track_sid, share in self._shares.items():
            grant = last.grants[track_sid]
            self._carry_out(share, grant.option, now_ns)
            is_paused = grant.option is None and grant.reason is Reason.BANDWIDTH
            if is_paused != share.is_told_paused:
                share.is_told_paused = is_paused
                told.append(StreamState(share.publication.publisher_sid, track_sid, is_paused))
        if told and self._session.listener is not None:
            self._session.listener.on_stream_states(told)
        if is_climbing:
            # The last step may have been told already; what it leaves no room for is found then.
            self._later = asyncio.get_running_loop().call_later((climbs_until_ns - now_ns) / 1e9, self._change)
        if last.again_ns is not None:
            due_ns = -(-last.again_ns // BEAT_NS) * BEAT_NS
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.001, (due_ns - now_ns) / 1e9), self._change)

    def _climbs_until_ns(self, asks: Iterable[Ask]) -> int:
        """Return until when the estimate divides nothing: its first steps are made by then and, where it would pause
        a video, its cost is known.

        Encoders begin far below what was announced for all layers of their one encoding, and over a path on which nothing runs
        nobody learns that there is room.
        """
        least_bps = sum(ask.steps[0].bps for ask in asks if ask.steps)
        is_short = self.estimate_bps is not None and least_bps + self._reserved_bps > self.estimate_bps
        is_guess = is_short and any(self._is_guess(share) for share in self._shares.values())
        return self._begun_ns + (GUESS_NS if is_guess else CLIMB_NS)

    def _is_guess(self, share: Share) -> bool:
        """True for a video that runs and whose cost is what was announced of it."""
        if share.option is None or not share.option.bps:
            return False
        rate = self._measuring.rates_of(share.carried.receiver).get(share.option.encoding)
        return rate is None or not rate.told_bps

    def _say_what_is_wanted(self) -> None:
        """Tell the data plane how much more to look for on the path."""
        side, wanted_bps = self._session.subscriber, self.wanted_bps if self._shares else 0
        is_near = abs(wanted_bps - self._told_wanted_bps) <= WANTED_STEP * self._told_wanted_bps
        if side is not None and side.driver is not None and not is_near:
            self._told_wanted_bps = wanted_bps
            self._plane.set_wanted_rate(side.driver.id, wanted_bps)

    def _cancel_timers(self) -> None:
        for timer in (self._timer, self._later):
            if timer is not None:
                timer.cancel()
        self._timer = self._later = None

    def _carry_out(self, share: Share, option: Option | None, now_ns: int) -> None:
        before, share.option = share.option, option
        if _layers(before) == _layers(option):
            return
        share.since_ns = now_ns
        self._session.conference.video_switches += 1
        if self._session.subscriber is not None:
            forward, track_sid = self._session.subscriber.forward, share.publication.sid
            if option is None:
                forward(track_sid, None)
                return
            if before is not None and option.encoding < before.encoding and not self._may_overlap(share, before, option):
                # What the path loses of it freezes the picture anyway, and fills the queue that the keyframe has to pass.
                forward(track_sid, None)
            forward(track_sid, option.encoding, spatial=option.spatial, temporal=option.temporal)

    def _may_overlap(self, share: Share, before: Option, option: Option) -> bool:
        """True when the path has room for what goes on of a higher encoding until the lower one begins: its lowest frame rate."""
        rate = self._measuring.rates_of(share.carried.receiver).get(before.encoding)
        if self.estimate_bps is None or rate is None:
            return True
        least_bps = min((layer.told_bps for layer in rate.layers.values() if layer.told_bps), default=rate.told_bps)
        others_bps = self.spent_bps - option.bps
        return least_bps + option.bps <= self.estimate_bps - self._reserved_bps - others_bps

    def _ask(self, share: Share) -> Ask:
        """Return what may be sent of a video now; kept until something about it changes."""
        publication = share.publication
        subscription = self._session.endpoint.subscriptions.get(publication.sid)
        hall = self._session.hall
        if hall is None or subscription is None:
            return Ask(publication.sid, (), limit=Reason.PUBLISHER)
        if not share.is_known:
            share.is_known = True
            share.limit = hall.room.limit_of(subscription)
            share.priority = self._priority(publication, subscription)
        ladder = share.ladder = self._ladders.of(publication, share.carried)
        wanted, ceiling, limit = subscription.wanted, share.ceiling, share.limit
        steps: tuple[Option, ...] = ()
        if ceiling is not None:
            level = ladder.level_for(wanted, EncodingShape(publication.width, publication.height))
            steps = ladder.steps(level, wanted.fps, ceiling=ceiling)
            if not steps:
                steps = (Option(ceiling, bps=self._silent_bps(publication, share.carried, ceiling)),)
            elif limit is Reason.NONE and steps[-1] is not ladder.options[-1]:
                limit = Reason.REQUESTED
        lines = wanted.height or publication.height
        share.ask = Ask(publication.sid, steps, share.priority, lines, limit, is_screen(publication))
        return share.ask

    def _silent_bps(self, publication: Publication, carried: Carried, encoding: int) -> int:
        """Return what to keep free for a video of which nothing arrives: for one that begins what was announced, for one
        that stopped, as muted cameras do, nothing; it is reckoned with as soon as it is back."""
        is_known = publication.muted or self._measuring.rates_of(carried.receiver)
        if is_known and not publication.active_encodings:
            return 0
        return announced_bps(publication, encoding, publication.shapes()[encoding])

    def _priority(self, publication: Publication, subscription: "Subscription") -> int:
        if subscription.wanted.priority:
            return subscription.wanted.priority
        if is_screen(publication):
            return Priority.SCREEN
        hall = self._session.hall
        is_speaking = hall is not None and publication.publisher_sid in hall.speaking
        return Priority.SPEAKER if is_speaking else Priority.USUAL

    def _sound_bps(self) -> int:
        """Return what sound takes of the path, as it was sent to us in the last seconds."""
        side = self._session.subscriber
        if side is None:
            return UNSEEN_BPS
        total = 0.0
        for receiver in side.sounds:
            rate = self._measuring.rates_of(receiver).get(0)
            total += rate.bps if rate is not None and rate.idle_s < SOUND_IDLE_S else 0
        return int(UNSEEN_BPS + total * SOUND_MARGIN)


def _layers(option: Option | None) -> tuple[int, int, int] | None:
    return None if option is None else (option.encoding, option.spatial, option.temporal)
