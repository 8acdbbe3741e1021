"""The subscriber side on the one connection for both directions, where the client offers: LiveKit's v1.

A client offers sections that it would receive on; a track takes one of its kind when the next offer is answered. Where
there are too few, or a track went, the client is asked to offer again, by how many sections of each kind it lacks. It
is asked once at a time, and what changes meanwhile comes with the answer or the next question.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from relay.log import get_logger
from relay.plane import Codec
from relay.rooms.endpoint import LeaveReason
from relay.sdp import ReceivingSection
from relay.sdp.grammar import MAX_SECTIONS
from relay.signaling.subscribing import ANSWER_TIMEOUT_S, SignalLost, SubscriberSide, View
from relay.signaling.transports import TransportDriver

if TYPE_CHECKING:
    from relay.signaling.session import Session

log = get_logger(__name__)

# A section is used again from here on alone: clients of several years miss a track that comes under a mid they know.
REUSE_FROM = 64
# Questions after which the client offered no section that was lacking: it is not asked again before something changes.
MAX_IN_VAIN = 3


class AnsweringSubscriber(SubscriberSide):
    """What is sent in the sections of the client's offers, on the transport of its own tracks."""

    def __init__(self, session: "Session") -> None:
        super().__init__(session)
        # The sections that the last offer had for us, by mid, and those of them that ever carried a track.
        self._offered: dict[str, ReceivingSection] = {}
        self._used: set[str] = set()
        # What the last answer said is sent, and in how many sections all in all.
        self._told: dict[str, str] = {}
        self._in_vain = 0
        self._dirty = asyncio.Event()
        self._heard = asyncio.Event()
        self._heard.set()
        self._first_answer = asyncio.Event()
        self._asked: asyncio.Future[None] | None = None

    @property
    def driver(self) -> TransportDriver | None:
        """The client's own transport, once it has offered."""
        return self._session.publisher.driver

    async def open(self) -> None:
        """Do nothing: the client's first offer makes the transport, and its channels are the client's."""

    def begin(self) -> None:
        """Ask for offers as they become due; the first one comes by itself, and did where there is a transport."""
        if self.driver is not None:
            self._first_answer.set()
        self._session.tasks.spawn(self._run(), "subscriber negotiation")

    def pause(self) -> None:
        """Ask nothing for now, because nobody is there to offer; what is forwarded goes on."""
        self._heard.clear()
        if self._asked is not None and not self._asked.done():
            self._asked.set_exception(SignalLost())

    def resume(self) -> None:
        """Ask anew for what the client lacks."""
        self.pause()
        self._heard.set()
        self._dirty.set()

    def answered(self, number: int, sdp: str) -> None:
        """Ignore an answer: nothing was offered."""
        log.debug("answer to no outstanding offer", participant=self._session.sid, number=number)

    async def close(self) -> None:
        """Forget the tracks; the transport is closed with the publisher side that made it."""
        self._views.clear()

    def placed(self, sections: Sequence[ReceivingSection]) -> dict[str, View]:
        """Return which track each section of an offer carries when it is answered, by mid; changes nothing.

        A track that has a section keeps it. Sections that never carried one come first; on a connection that has had
        many, those of ended tracks are taken again, once an answer has said that they are inactive.
        """
        known = {section.mid for section in sections}
        placed = {view.mid: view for view in self._views.values() if view.mid in known}
        free = self._free(sections, placed)
        for view in self._views.values():
            if not view.mid and free[view.sent.kind]:
                placed[free[view.sent.kind].pop(0)] = view
        return placed

    def take(
        self, sections: Sequence[ReceivingSection], placed: Mapping[str, View], taken: Mapping[str, tuple[Codec, ...]]
    ) -> dict[str, str]:
        """Note what an answer says, with the codecs the client takes of each track; return the track of every mid."""
        grew = len(sections) > len(self._offered)
        self._offered = {section.mid: section for section in sections}
        self._told = {}
        for mid, view in placed.items():
            is_new = not view.mid
            view.mid = mid
            self._used.add(mid)
            if taken.get(mid):
                self._told[mid] = view.track_sid
            if is_new:
                grew = True
                if self._views.get(view.track_sid) is view:
                    self._agreed(view, taken.get(mid, ()))
        self._in_vain = 0 if grew else self._in_vain + 1
        self._first_answer.set()
        return dict(self._told)

    async def told(self) -> None:
        """Forward what was answered, now that the client has been sent the answer."""
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(None)
        if self._in_vain <= MAX_IN_VAIN:
            self._dirty.set()
        if self.driver is not None and self.driver.is_connected:
            await self._start_accepted()

    def _changed(self) -> None:
        self._in_vain = 0
        self._dirty.set()

    def _removed(self, mid: str) -> None:
        """Nothing more: the next answer leaves the track out."""

    def _free(self, sections: Sequence[ReceivingSection], placed: Mapping[str, View]) -> dict[str, list[str]]:
        fresh = [section for section in sections if section.mid not in self._used]
        again = [
            section
            for section in sections
            if len(sections) >= REUSE_FROM
            and section.mid in self._used
            and section.mid not in placed
            and section.mid not in self._told
        ]
        free: dict[str, list[str]] = {"audio": [], "video": []}
        for section in (*fresh, *again):
            free[section.kind].append(section.mid)
        return free

    def _lacking(self) -> Counter[str] | None:
        """Return how many sections of each kind the client lacks, None while it need not offer."""
        waiting = Counter(view.sent.kind for view in self._views.values() if not view.mid)
        is_stale = any(sid not in self._views for sid in self._told.values())
        if not waiting and not is_stale:
            return None
        sections = tuple(self._offered.values())
        free = self._free(sections, {view.mid: view for view in self._views.values() if view.mid})
        return Counter({kind: max(0, count - len(free[kind])) for kind, count in waiting.items()})

    async def _run(self) -> None:
        # The client's first offer comes unasked, and it may still be without a transport.
        await self._first_answer.wait()
        while not self._session.is_over:
            await self._dirty.wait()
            await self._heard.wait()
            self._dirty.clear()
            lacking = self._lacking()
            if lacking is None or self._session.listener is None:
                continue
            if len(self._offered) + lacking.total() >= MAX_SECTIONS:
                log.info("connection is used up", participant=self._session.sid, sections=len(self._offered))
                self._session.end(LeaveReason.STATE_MISMATCH, come_back=True)
                return
            self._asked = asyncio.get_running_loop().create_future()
            self._session.listener.on_sections_wanted(lacking["audio"], lacking["video"])
            try:
                await asyncio.wait_for(self._asked, ANSWER_TIMEOUT_S)
            except SignalLost:
                continue
            except TimeoutError:
                log.info("client did not offer when asked", participant=self._session.sid)
                self._session.end(LeaveReason.STATE_MISMATCH, come_back=True)
                return
