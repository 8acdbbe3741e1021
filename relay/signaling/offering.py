"""The subscriber side that offers, on a transport of its own: LiveKit's v0.

At most one offer is outstanding (RFC 9429 §4.1.8.2). What changes meanwhile is collected and offered after the answer,
so that a burst of joins costs two rounds and not one per track. While the client has no signalling connection nothing is
offered; the first offer after it restarts ICE, since the client's network may be another one.
"""

import asyncio
from typing import TYPE_CHECKING

from relay.errors import VeilError
from relay.log import get_logger
from relay.rooms.endpoint import LeaveReason
from relay.sdp import Accepted, InvalidState, SubscriberNegotiation
from relay.signaling.publishing import plane_codecs
from relay.signaling.subscribing import ANSWER_TIMEOUT_S, SignalLost, SubscriberSide
from relay.signaling.transports import TransportDriver

if TYPE_CHECKING:
    from relay.signaling.session import Session

log = get_logger(__name__)

# The three channels clients find by label (LIVEKIT §2.3): (label, ordered, max_retransmits).
CHANNELS = (("_reliable", True, None), ("_lossy", False, 0), ("_data_track", False, 0))


class OfferingSubscriber(SubscriberSide):
    """Our offers, one at a time."""

    def __init__(self, session: "Session") -> None:
        super().__init__(session)
        self._driver: TransportDriver | None = None
        self._negotiation = SubscriberNegotiation()
        self._removed_mids: list[str] = []
        self._dirty = asyncio.Event()
        self._number = 0
        self._answered: asyncio.Future[str] | None = None
        self._heard = asyncio.Event()
        self._heard.set()
        self._restart_is_due = False
        # Whether the client has our present ICE credentials; such that it never had need no others in their place.
        self._ice_is_known = False

    @property
    def driver(self) -> TransportDriver | None:
        """The transport, once `open` has made it."""
        return self._driver

    async def open(self) -> None:
        """Make the transport, with the channels its first offer names.   Errors: PlaneError."""
        driver = self._session.new_driver()
        await driver.open()
        self._driver = driver
        for label, ordered, max_retransmits in CHANNELS:
            driver.transport.open_channel(label, ordered=ordered, max_retransmits=max_retransmits)

    def begin(self) -> None:
        """Send the first offer, and further ones as they become due."""
        self._dirty.set()
        self._session.tasks.spawn(self._run(), "subscriber negotiation")

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

    def answered(self, number: int, sdp: str) -> None:
        """Take the answer to the outstanding offer. Native clients send number 0, so there is only one it can mean."""
        if self._answered is None or self._answered.done() or number not in (0, self._number):
            log.debug("answer to no outstanding offer", participant=self._session.sid, number=number)
            return
        self._answered.set_result(sdp)

    async def close(self) -> None:
        """Give the transport back, and its egresses with it."""
        self._views.clear()
        if self._driver is not None:
            await self._driver.close()

    def _changed(self) -> None:
        self._dirty.set()

    def _removed(self, mid: str) -> None:
        self._removed_mids.append(mid)

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
                view.mid = self._negotiation.add(view.sent)

    async def _negotiate(self) -> None:
        assert self._driver is not None and self._session.listener is not None
        if self._restart_is_due and self._ice_is_known:
            self._ice_is_known = False
            await self._driver.restart_ice()
            if not self._heard.is_set():
                return
        self._restart_is_due = False
        offer = self._negotiation.offer(self._session.conference.local_transport(self._driver))
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
        assert self._driver is not None
        self._driver.set_remote(
            accepted.fingerprints, accepted.role, sctp_port=accepted.sctp.port if accepted.sctp else None
        )
        await self._plane.set_extensions(self._driver.id, accepted.extensions)
        for view in list(self._views.values()):
            if not view.mid or view.is_started or view.mid not in accepted.senders:
                continue
            self._agreed(view, plane_codecs(accepted.senders[view.mid]))
        if self._driver.is_connected:
            await self._start_accepted()
