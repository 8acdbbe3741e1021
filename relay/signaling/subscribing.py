"""The subscriber side of a session: offers what it subscribes to, and forwards what was accepted.

At most one offer is outstanding (RFC 9429 §4.1.8.2). What changes meanwhile is collected and offered after the answer,
so that a burst of joins costs two rounds and not one per track. While the client has no signalling connection nothing is
offered; the first offer after it restarts ICE, since the client's network may be another one.
"""

import asyncio
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relay.clock import monotonic_ns
from relay.errors import VeilError
from relay.log import get_logger
from relay.plane import Codec, EgressSpec, PlaneError
from relay.quality.ladder import ALL
from relay.rooms.endpoint import LeaveReason
from relay.rooms.publication import Publication
from relay.sdp import Accepted, InvalidState, SubscriberNegotiation
from relay.signaling.publishing import Carried, plane_codecs
from relay.signaling.transports import TransportDriver

if TYPE_CHECKING:
    from relay.signaling.session import Session

log = get_logger(__name__)

# A client that has not answered by then has lost the offer or itself; LiveKit waits as long.
ANSWER_TIMEOUT_S = 15.0
# The three channels clients find by label (LIVEKIT §2.3): (label, ordered, max_retransmits).
CHANNELS = (("_reliable", True, None), ("_lossy", False, 0), ("_data_track", False, 0))


class SignalLost(Exception):
    """There is nobody to answer the outstanding offer."""


@dataclass(eq=False, slots=True)
class View:
    """One track on its way to this subscriber."""

    track_sid: str
    is_video: bool
    carried: Carried
    publisher_sid: str
    ssrc: int
    rtx_ssrc: int | None
    is_stereo: bool
    mid: str = ""
    # What the client agreed to take; empty before and where it takes nothing.
    codecs: tuple[Codec, ...] = ()
    is_started: bool = False
    egress: int | None = None


class SubscriberSide:
    """Our offers, one at a time, and the egresses they lead to."""

    def __init__(self, session: "Session") -> None:
        self.driver: TransportDriver | None = None
        self._session = session
        self._plane = session.conference.plane
        self._negotiation = SubscriberNegotiation()
        self._views: dict[str, View] = {}
        # The receivers of the sound that is forwarded.
        self.sounds: set[int] = set()
        self._removed_mids: list[str] = []
        self._dirty = asyncio.Event()
        self._number = 0
        self._answered: asyncio.Future[str] | None = None
        self._heard = asyncio.Event()
        self._heard.set()
        self._restart_is_due = False
        # Whether the client has our present ICE credentials; such that it never had need no others in their place.
        self._ice_is_known = False

    async def open(self) -> None:
        """Make the transport, with the channels its first offer names.   Errors: PlaneError."""
        driver = self._session.new_driver()
        await driver.open()
        self.driver = driver
        for label, ordered, max_retransmits in CHANNELS:
            driver.transport.open_channel(label, ordered=ordered, max_retransmits=max_retransmits)

    def begin(self) -> None:
        """Send the first offer, and further ones as they become due."""
        self._dirty.set()
        self._session.tasks.spawn(self._run(), "subscriber negotiation")

    def connected(self) -> None:
        """Begin to forward what was accepted. Not before: a publisher's keyframe would go where nothing can be sent."""
        self._session.tasks.spawn(self._start_accepted(), "start egresses")

    def pause(self) -> None:
        """Offer nothing for now, because nobody is there to answer; what is forwarded goes on."""
        self._heard.clear()
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(SignalLost())

    def resume(self) -> None:
        """Offer everything anew, with other ICE credentials; what an earlier offer said and nobody answered with it."""
        self.pause()
        self._restart_is_due = True
        self._heard.set()
        self._dirty.set()

    def add(self, publication: Publication, carried: Carried) -> None:
        """Offer this track with the next offer."""
        if publication.sid in self._views:
            return
        rtx_ssrc = _random_ssrc() if publication.is_video else None
        self._views[publication.sid] = View(
            publication.sid,
            publication.is_video,
            carried,
            publication.publisher_sid,
            _random_ssrc(),
            rtx_ssrc,
            # Either is enough: browsers announce it, and a client that is no browser may say it in its offer alone.
            publication.stereo or carried.media.stereo,
        )
        self._dirty.set()

    def remove(self, track_sid: str) -> None:
        """Stop forwarding this track now; its m-line goes with the next offer."""
        view = self._views.pop(track_sid, None)
        if view is None:
            return
        self._session.division.end(track_sid)
        self.sounds.discard(view.carried.receiver)
        if view.egress is not None:
            self._command(self._plane.remove_egress(view.egress))
        if view.mid:
            self._removed_mids.append(view.mid)
            self._dirty.set()

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

    def answered(self, number: int, sdp: str) -> None:
        """Take the answer to the outstanding offer. Native clients send number 0, so there is only one it can mean."""
        if self._answered is None or self._answered.done() or number not in (0, self._number):
            log.debug("answer to no outstanding offer", participant=self._session.sid, number=number)
            return
        self._answered.set_result(sdp)

    async def close(self) -> None:
        """Give the transport back, and its egresses with it."""
        self._views.clear()
        if self.driver is not None:
            await self.driver.close()

    async def _run(self) -> None:
        try:
            while not self._session.is_over:
                await self._dirty.wait()
                await self._heard.wait()
                self._dirty.clear()
                self._collect()
                if self._number == 0 or self._restart_is_due or self._negotiation.needs_offer:
                    await self._negotiate()
        except TimeoutError:
            log.info("offer was not answered", participant=self._session.sid)
            self._session.end(LeaveReason.STATE_MISMATCH, come_back=True)
        except InvalidState as error:
            # A connection has so many sections in its life; a new one begins with none.
            log.info("subscriber connection is used up", participant=self._session.sid, why=str(error))
            self._session.end(LeaveReason.STATE_MISMATCH, come_back=True)
        except VeilError as error:
            log.warning("subscriber negotiation failed", participant=self._session.sid, why=str(error))
            self._session.end(LeaveReason.STATE_MISMATCH)

    def _collect(self) -> None:
        """Bring what changed since the last offer into the description."""
        for mid in self._removed_mids:
            self._negotiation.remove(mid)
        self._removed_mids.clear()
        for view in self._views.values():
            if not view.mid:
                view.mid = self._negotiation.add(
                    "video" if view.is_video else "audio",
                    view.carried.media.codecs,
                    stream_id=f"{view.publisher_sid}|{view.track_sid}",
                    track_id=view.track_sid,
                    ssrc=view.ssrc,
                    rtx_ssrc=view.rtx_ssrc,
                    cname=self._cname(view),
                    stereo=view.is_stereo,
                )

    async def _negotiate(self) -> None:
        assert self.driver is not None and self._session.listener is not None
        if self._restart_is_due and self._ice_is_known:
            self._ice_is_known = False
            await self.driver.restart_ice()
            if not self._heard.is_set():
                return
        self._restart_is_due = False
        offer = self._negotiation.offer(self._session.conference.local_transport(self.driver))
        self._number += 1
        self._answered = asyncio.get_running_loop().create_future()
        self._session.listener.on_offer(offer.sdp, self._number, offer.track_by_mid)
        try:
            sdp = await asyncio.wait_for(self._answered, ANSWER_TIMEOUT_S)
        except SignalLost:
            self._negotiation.abandon_offer()
            return
        self._ice_is_known = True
        await self._take(self._negotiation.accept(sdp))

    async def _take(self, accepted: Accepted) -> None:
        assert self.driver is not None
        self.driver.set_remote(
            accepted.fingerprints, accepted.role, sctp_port=accepted.sctp.port if accepted.sctp else None
        )
        await self._plane.set_extensions(self.driver.id, accepted.extensions)
        for view in list(self._views.values()):
            if not view.mid or view.is_started or view.mid not in accepted.senders:
                continue
            view.codecs = plane_codecs(accepted.senders[view.mid])
            if not view.codecs and self._session.listener is not None:
                self._session.listener.on_subscription_failed(view.track_sid, is_unsupported=True)
        if self.driver.is_connected:
            await self._start_accepted()

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
            ssrc=view.ssrc,
            rtx_ssrc=view.rtx_ssrc,
            codecs=view.codecs,
            cname=self._cname(view),
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

    def _cname(self, view: View) -> str:
        """Kept from the publisher where it has one, so that its tracks are played in step."""
        cname = view.carried.media.cname
        # RFC 7022 names are some 16 characters; what does not fit into our packets and descriptions is replaced.
        return cname if 0 < len(cname) < 64 and cname.isascii() and cname.isprintable() else view.publisher_sid


def _random_ssrc() -> int:
    """A fresh number for every subscription: an SSRC is never used for a second stream (its cipher state is gone)."""
    return secrets.randbelow(0xFFFF_FFFE) + 1
