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
from relay.quality.explain import Explanation, Shown, StreamState
from relay.quality.ladder import ALL, Ladder, Option
from relay.rooms.permissions import Source
from relay.rooms.publication import Publication
from relay.signaling.publishing import Carried

if TYPE_CHECKING:
    from relay.rooms.subscription import Subscription
    from relay.signaling.measuring import Measuring, Rate
    from relay.signaling.session import Session

log = get_logger(__name__)

# Rises wait for the next beat: a keyframe serves all who rise by then.
BEAT_NS = 250_000_000
# A switch that has not happened after so long waits for a keyframe that was not to be had.
SWITCH_NS = 1_000_000_000
# Costs that changed and still fit are reckoned with once in so long.
LATER_S = 2.0
# RTCP, STUN, data channels, and what sound's retransmissions take.
UNSEEN_BPS = 16_000
SOUND_MARGIN = 1.1
# Bits per pixel at 30 frames per second, of encodings that were neither announced with a rate nor measured yet:
# 1.9 Mbit/s of 720p, near what browsers are configured for.
GUESSED_BITS_PER_PIXEL = 2.1
GUESSED_BPS = 300_000


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


class Ladders:
    """What can be sent of every video of this relay, at the rates told last."""

    def __init__(self, measuring: "Measuring") -> None:
        self._measuring = measuring
        # By receiver: what they were made of, and they.
        self._made: dict[int, tuple[object, Ladder]] = {}

    def of(self, publication: Publication, carried: Carried) -> Ladder:
        """Return the options of a video."""
        active = frozenset(publication.active_encodings)
        basis = active, publication.layers, publication.height, publication.encoding_count
        made = self._made.get(carried.receiver)
        if made is None or made[0] != basis:
            shapes = publication.shapes()
            rates = self._measuring.rates_of(carried.receiver)
            options = [
                self._option(publication, encoding, shapes[encoding], rates.get(encoding))
                for encoding in sorted(active)
                if 0 <= encoding < len(shapes)
            ]
            made = basis, Ladder(options, is_screen=is_screen(publication))
            self._made[carried.receiver] = made
        return made[1]

    def on_rates(self, receivers: set[int]) -> None:
        """Make those of these receivers anew, and forget those that nothing comes from any more."""
        known = self._measuring.receivers
        self._made = {
            number: made for number, made in self._made.items() if number in known and number not in receivers
        }

    @staticmethod
    def _option(publication: Publication, encoding: int, shape: EncodingShape, rate: "Rate | None") -> Option:
        if rate is not None and rate.told_bps:
            return Option(encoding, bps=rate.told_bps, height=shape.height, fps=rate.told_fps)
        return Option(encoding, bps=_announced_bps(publication, encoding, shape), height=shape.height)


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

    def on_estimate(self, estimate_bps: int) -> None:
        """Take what the path carries now. A fall counts at once, a rise when there is something to be had for it."""
        self.estimate_bps = estimate_bps
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
        last = self._last = self._allocator.allocate(self.estimate_bps, asks, now_ns, reserved_bps=self._reserved_bps)
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
        if last.again_ns is not None:
            due_ns = -(-last.again_ns // BEAT_NS) * BEAT_NS
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.001, (due_ns - now_ns) / 1e9), self._change)

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
        if self._session.subscriber is not None:
            self._session.subscriber.forward(share.publication.sid, option.encoding if option is not None else None)

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
            steps = ladder.steps(ceiling, level, wanted.fps)
            if not steps:
                steps = (Option(ceiling, bps=_announced_bps(publication, ceiling, publication.shapes()[ceiling])),)
            elif limit is Reason.NONE and steps[-1] is not ladder.options[-1]:
                limit = Reason.REQUESTED
        lines = wanted.height or publication.height
        share.ask = Ask(publication.sid, steps, share.priority, lines, limit, is_screen(publication))
        return share.ask

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
            total += rate.bps if rate is not None else 0
        return int(UNSEEN_BPS + total * SOUND_MARGIN)

    # Why.

    def explain(self) -> list[Explanation]:
        """Return of every subscription what is forwarded, the best there is, and what stands between."""
        hall, side = self._session.hall, self._session.subscriber
        found: list[Explanation] = []
        if hall is None or side is None:
            return found
        now_ns = monotonic_ns()
        for track_sid, subscription in self._session.endpoint.subscriptions.items():
            publication = hall.room.publication(track_sid)
            if publication is not None:
                egress = side.egress_of(track_sid)
                found.append(self._explain(publication, subscription, egress, now_ns))
        return found

    def _explain(
        self, publication: Publication, subscription: "Subscription", egress: int | None, now_ns: int
    ) -> Explanation:
        hall = self._session.hall
        assert hall is not None
        sent = self._measuring.sent(egress) if egress is not None else None
        share = self._shares.get(publication.sid)
        grant = self._last.grants.get(publication.sid) if self._last is not None else None
        reason = grant.reason if grant is not None else hall.room.limit_of(subscription)
        rids, shapes = publication.rids, publication.shapes()

        def shown(option: Option, bps: int, fps: float) -> Shown:
            encoding = option.encoding
            shape = shapes[encoding] if encoding < len(shapes) else EncodingShape(0, 0)
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

        current = best = None
        if share is not None and share.ladder is not None and share.ladder.options:
            top = share.ladder.options[-1]
            best = shown(top, top.bps, top.fps)
        if sent is not None and sent.encoding >= 0:
            option = share.option if share is not None else None
            if option is None or option.encoding != sent.encoding:
                # Not yet what was decided, or sound.
                heights = shapes[sent.encoding].height if publication.is_video and sent.encoding < len(shapes) else 0
                is_waiting = option is not None and now_ns - share.since_ns > SWITCH_NS if share is not None else False
                reason = Reason.KEYFRAME_BUDGET if is_waiting else reason
                option = Option(sent.encoding, height=heights)
            current = shown(option, sent.bps, sent.fps)
        elif share is not None and share.option is not None:
            is_late = sent is not None and now_ns - share.since_ns > SWITCH_NS
            is_sent = bool(publication.active_encodings)
            reason = Reason.KEYFRAME_BUDGET if is_late and is_sent else Reason.PUBLISHER if not is_sent else reason
        return Explanation(
            publication.sid,
            publication.publisher_sid,
            publication.is_video,
            publication.source.name.lower(),
            current,
            best if publication.is_video else current,
            reason,
        )


def is_screen(publication: Publication) -> bool:
    """True for a picture that is read, not watched."""
    return publication.source is Source.SCREEN_SHARE


def _layers(option: Option | None) -> tuple[int, int, int] | None:
    return None if option is None else (option.encoding, option.spatial, option.temporal)


def _announced_bps(publication: Publication, encoding: int, shape: EncodingShape) -> int:
    """Return what an encoding will cost by what its publisher said, or by its size."""
    ordered = sorted(publication.layers, key=lambda layer: layer.quality)
    guessed = int(shape.width * shape.height * GUESSED_BITS_PER_PIXEL) or GUESSED_BPS * (encoding + 1)
    if len(ordered) != publication.encoding_count or not ordered[encoding].bitrate_bps:
        return guessed
    return min(ordered[encoding].bitrate_bps, 4 * guessed)
