"""The subscriber side of a session: the tracks it is sent, and the egresses that send them.

How a client and the relay agree on them is for `offering`, where the relay offers on a connection of its own, and for
`answering`, where the client offers on the one connection for both directions.
"""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relay.clock import monotonic_ns
from relay.log import get_logger
from relay.plane import Codec, EgressSpec, PlaneError
from relay.quality.ladder import ALL
from relay.rooms.publication import Publication
from relay.sdp import SentTrack
from relay.signaling.publishing import Carried
from relay.signaling.transports import TransportDriver

if TYPE_CHECKING:
    from relay.signaling.session import Session

log = get_logger(__name__)

# A client that has not answered by then has lost the offer or itself; LiveKit waits as long.
ANSWER_TIMEOUT_S = 15.0


class SignalLost(Exception):
    """There is nobody to answer what was sent last."""


@dataclass(eq=False, slots=True)
class View:
    """One track on its way to this subscriber."""

    track_sid: str
    carried: Carried
    sent: SentTrack
    mid: str = ""
    # What the client agreed to take; empty before and where it takes nothing.
    codecs: tuple[Codec, ...] = ()
    is_started: bool = False
    egress: int | None = None

    @property
    def is_video(self) -> bool:
        return self.sent.kind == "video"


class SubscriberSide(ABC):
    """Its views, and the egresses that they lead to."""

    def __init__(self, session: "Session") -> None:
        # The receivers of the sound that is forwarded.
        self.sounds: set[int] = set()
        self._session = session
        self._plane = session.conference.plane
        self._views: dict[str, View] = {}

    @property
    @abstractmethod
    def driver(self) -> TransportDriver | None:
        """The transport that carries what is forwarded; None before there is one."""

    @abstractmethod
    async def open(self) -> None:
        """Make what the first description needs.   Errors: PlaneError."""

    @abstractmethod
    def begin(self) -> None:
        """Begin to negotiate; the client knows that it is in."""

    @abstractmethod
    def pause(self) -> None:
        """Ask nothing of the client for now, because it is not there; what is forwarded goes on."""

    @abstractmethod
    def resume(self) -> None:
        """Go on with a client that is back."""

    @abstractmethod
    def answered(self, number: int, sdp: str) -> None:
        """Take a client's answer to an offer of ours; its number may be 0."""

    @abstractmethod
    async def close(self) -> None:
        """Give the transport back, and its egresses with it."""

    @abstractmethod
    def _changed(self) -> None:
        """Have the client told of what was added or removed."""

    @abstractmethod
    def _removed(self, mid: str) -> None:
        """Note that the m-line of a view is not needed any more."""

    def connected(self) -> None:
        """Begin to forward what was accepted. Not before: a publisher's keyframe would go where nothing can be sent."""
        self._session.tasks.spawn(self._start_accepted(), "start egresses")

    def add(self, publication: Publication, carried: Carried) -> None:
        """Agree on this track with the client, and forward it."""
        if publication.sid in self._views:
            return
        media = carried.media
        sent = SentTrack(
            media.kind,
            media.codecs,
            stream_id=f"{publication.publisher_sid}|{publication.sid}",
            track_id=publication.sid,
            ssrc=_random_ssrc(),
            rtx_ssrc=_random_ssrc() if publication.is_video else None,
            cname=_cname(media.cname, publication.publisher_sid),
            # Either is enough: browsers announce it, and a client that is no browser may say it in its offer alone.
            stereo=publication.stereo or media.stereo,
        )
        self._views[publication.sid] = View(publication.sid, carried, sent)
        self._changed()

    def remove(self, track_sid: str) -> None:
        """Stop forwarding this track now; its m-line goes with the next description."""
        view = self._views.pop(track_sid, None)
        if view is None:
            return
        self._session.division.end(track_sid)
        self.sounds.discard(view.carried.receiver)
        if view.egress is not None:
            self._command(self._plane.remove_egress(view.egress))
        if view.mid:
            self._removed(view.mid)
            self._changed()

    def forward(self, track_sid: str, encoding: int | None, *, spatial: int = ALL, temporal: int = ALL) -> None:
        """Forward this encoding up to these layers, None for nothing. Before the client has accepted the m-line it is only
        remembered, by the subscription itself."""
        view = self._views.get(track_sid)
        if view is None or view.egress is None:
            return
        if not view.is_video:
            (self.sounds.discard if encoding is None else self.sounds.add)(view.carried.receiver)
        self._command(self._plane.select_layers(view.egress, encoding, spatial=spatial, temporal=temporal))

    def egress_of(self, track_sid: str) -> int | None:
        """The number in the data plane of what is forwarded of this track; None while its client has not taken it."""
        view = self._views.get(track_sid)
        return view.egress if view is not None else None

    @property
    def egresses(self) -> list[int]:
        """What is forwarded to this participant, by number in the data plane."""
        return [view.egress for view in self._views.values() if view.egress is not None]

    def _agreed(self, view: View, codecs: tuple[Codec, ...]) -> None:
        """Note what the client takes of a track; nothing of it is told at once."""
        view.codecs = codecs
        if not codecs and self._session.listener is not None:
            self._session.listener.on_subscription_failed(view.track_sid, is_unsupported=True)

    async def _start_accepted(self) -> None:
        for view in list(self._views.values()):
            if view.codecs and not view.is_started:
                view.is_started = True
                await self._start(view)

    async def _start(self, view: View) -> None:
        assert self.driver is not None
        spec = EgressSpec(
            transport=self.driver.id,
            receiver=view.carried.receiver,
            mid=view.mid,
            ssrc=view.sent.ssrc,
            rtx_ssrc=view.sent.rtx_ssrc,
            codecs=view.codecs,
            cname=view.sent.cname,
            encoding=None,
        )
        try:
            egress = await self._plane.add_egress(spec)
        except PlaneError as error:
            # The publisher may have gone while its track was offered; the room will say so in a moment.
            log.info("no egress for a track", participant=self._session.sid, track=view.track_sid, why=str(error))
            return
        except ValueError as error:
            # Payload types of an answer that nothing can be sent with: the client's doing, and of this track alone.
            log.info("no egress for an answer", participant=self._session.sid, track=view.track_sid, why=str(error))
            if self._session.listener is not None:
                self._session.listener.on_subscription_failed(view.track_sid, is_unsupported=True)
            return
        if self._views.get(view.track_sid) is not view:
            # With its publisher gone too, the egress is gone already: no reason to end this subscriber.
            self._command(self._plane.remove_egress(egress))
            return
        view.egress = egress
        hall = self._session.hall
        subscription = self._session.endpoint.subscriptions.get(view.track_sid)
        publication = hall.room.publication(view.track_sid) if hall is not None else None
        if hall is None or subscription is None or publication is None:
            return
        if view.is_video:
            self._session.division.begin(publication, view.carried)
        before = subscription.encoding
        hall.carry_out(hall.room.attached(self._session.sid, view.track_sid, monotonic_ns()))
        if before is not None and subscription.encoding == before:
            self._session.forward(view.track_sid, before)

    def _command(self, command: Coroutine[Any, Any, None]) -> None:
        """Have the data plane do something about an egress that may just be going away with its publisher."""

        async def run() -> None:
            try:
                await command
            except PlaneError as error:
                log.debug("an egress was gone", participant=self._session.sid, why=str(error))

        self._session.tasks.spawn(run(), "egress command")


def _cname(theirs: str, otherwise: str) -> str:
    """Kept from the publisher where it has one, so that its tracks are played in step."""
    # RFC 7022 names are some 16 characters; what does not fit into our packets and descriptions is replaced.
    return theirs if 0 < len(theirs) < 64 and theirs.isascii() and theirs.isprintable() else otherwise


def _random_ssrc() -> int:
    """A fresh number for every subscription: an SSRC is never used for a second stream (its cipher state is gone)."""
    return secrets.randbelow(0xFFFF_FFFE) + 1
