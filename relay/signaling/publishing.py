"""The publisher side of a session: answers its offers and binds the m-lines it sends on to announced tracks."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from relay.log import get_logger
from relay.plane import Codec, PlaneError, ReceiverSpec
from relay.policy.tiers import CLEAR, VIDEO_CODECS
from relay.rooms.publication import Publication
from relay.sdp import Codec as SdpCodec
from relay.sdp import OfferSummary, PublishedMedia, PublisherNegotiation, SdpError, TrackOptions
from relay.signaling.data_rules import Announcement
from relay.signaling.transports import TransportDriver

if TYPE_CHECKING:
    from relay.signaling.session import Session

log = get_logger(__name__)


class Section(Protocol):
    """What binding needs to know of an m-line."""

    @property
    def mid(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def msid_track(self) -> str: ...


def bind_by_name_then_kind(sections: Iterable[Section], pending: Sequence[Publication]) -> dict[str, Publication]:
    """Return the announced track that each m-line carries, by mid.

    LIVEKIT §2.6: by the client's own track id first; what is left takes the first pending track of its kind, because
    Firefox writes ids into its SDP that match no announcement.
    """
    left = list(pending)
    bound: dict[str, Publication] = {}
    unnamed: list[Section] = []
    for section in sections:
        named = next(
            (p for p in left if p.answers_to(section.msid_track) and p.is_video == (section.kind == "video")), None
        )
        if named is not None:
            bound[section.mid] = named
            left.remove(named)
        else:
            unnamed.append(section)
    for section in unnamed:
        first = next((p for p in left if p.is_video == (section.kind == "video")), None)
        if first is not None:
            bound[section.mid] = first
            left.remove(first)
    return bound


def plane_codecs(codecs: Iterable[SdpCodec]) -> tuple[Codec, ...]:
    """Return negotiated codecs as the data plane takes them."""
    return tuple(Codec(c.payload_type, c.name, c.clock_rate_hz, c.rtx_payload_type) for c in codecs)


@dataclass(eq=False, slots=True)
class Carried:
    """One m-line that the client sends on, with the receiver that reads it. Is the receiver's listener."""

    side: "PublisherSide"
    media: PublishedMedia
    receiver: int = 0
    track_sid: str = ""
    active: set[int] = field(default_factory=set)
    # Of each encoding of video that has any: how many spatial and temporal layers.
    layers: dict[int, tuple[int, int]] = field(default_factory=dict)
    is_stopped: bool = False

    def on_stream_bound(self, encoding: int, ssrc: int) -> None:
        """Note the ssrc of an encoding."""
        log.debug("stream bound", track=self.track_sid, encoding=encoding, ssrc=ssrc)

    def on_encoding_active(self, encoding: int, active: bool) -> None:
        """Tell policy that an encoding began or stopped to arrive."""
        (self.active.add if active else self.active.discard)(encoding)
        self.side.encoding_changed(self, encoding, active)

    def on_stopped(self, reason: str) -> None:
        """Note that the data plane forwards nothing of it any more: its frames are not encrypted as announced."""
        self.side.stopped(self, reason)

    def on_undeclared_encryption(self) -> None:
        """Note that its frames are not those of its codec, though it was announced as clear."""
        self.side.undeclared(self)

    def on_speaking(self, dbov: int) -> None:
        """Note that somebody spoke through a window."""
        self.side.spoke(self, dbov)

    def on_layers(self, encoding: int, spatial_count: int, temporal_count: int) -> None:
        """Note which layers an encoding has: what can be chosen of it."""
        self.layers[encoding] = (spatial_count, temporal_count)
        self.side.layers_changed(self)


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, and which track is behind every mid that one is sent on."""

    sdp: str
    track_by_mid: Mapping[str, str] = field(default_factory=dict)


class PublisherSide:
    """Offers come one after another; each is answered once the data plane does what the answer says."""

    def __init__(self, session: "Session") -> None:
        self.driver: TransportDriver | None = None
        self.carried: dict[str, Carried] = {}
        self._session = session
        self._negotiation = PublisherNegotiation(session.conference.codecs)
        self._turn = asyncio.Lock()
        self._is_closed = False

    async def answer(self, offer_sdp: str) -> Answered:
        """Return the answer to this offer.   Errors: SdpError, FingerprintRefused, PlaneError."""
        async with self._turn:
            summary = self._negotiation.inspect(offer_sdp)
            driver = await self._ready_driver(summary)
            local = self._session.conference.local_transport(driver)
            answering = self._session.answering
            placed = answering.placed(summary.receiving) if answering is not None else {}
            senders = {mid: view.sent for mid, view in placed.items()}
            answer = self._negotiation.answer(offer_sdp, local, self._options(summary), senders)
            driver.set_remote(answer.fingerprints, answer.role, sctp_port=answer.sctp.port if answer.sctp else None)
            plane = self._session.conference.plane
            await plane.set_extensions(driver.id, answer.extensions, answer.sent_extensions)
            await self._take_media(answer.tracks)
            if answering is None:
                return Answered(answer.sdp)
            taken = {mid: plane_codecs(codecs) for mid, codecs in answer.senders.items()}
            return Answered(answer.sdp, answering.take(summary.receiving, placed, taken))

    def drop_keyframes(self) -> None:
        """Let nobody begin at encrypted frames sent so far: who is in the call has changed, and so may the keys."""
        for carried in self.carried.values():
            publication = self._publication(carried.track_sid) if carried.track_sid else None
            if publication is not None and publication.is_video and publication.frames != "clear":
                self._session.conference.plane.drop_keyframe_cache(carried.receiver)

    async def announced(self) -> None:
        """Bind a track that was announced after its m-line came."""
        async with self._turn:
            await self._bind()

    def announce_keys(self, announcement: Announcement) -> bool:
        """Have the data plane accept these key ids for a track of this participant; False when it has no such track."""
        session = self._session
        room = session.hall.room if session.hall is not None else None
        said = announcement
        publication = room.announce_keys(session.sid, said.track_sid, said.first, said.last) if room else None
        if publication is None or room is None:
            return False
        carried = self.carried_as(publication.sid)
        if publication.bound and carried is not None and room.terms.frames == "sframe":
            plane = session.conference.plane
            self._command(plane.announce_keys(carried.receiver, said.first, said.last))
        return True

    def stopped(self, carried: Carried, reason: str) -> None:
        """Take a track back whose frames are not encrypted though its room's are: for everybody, at once."""
        carried.is_stopped = True
        kind = "video" if carried.media.kind == "video" else "sound"
        self._take_back(
            carried,
            f"stopped_{reason}",
            lambda tier: f"This call of the {tier} tier is end-to-end encrypted: your {kind} was stopped, because its "
            "frames were not.",
        )

    def undeclared(self, carried: Carried) -> None:
        """Take a track back that is encrypted in a tier that refuses that; elsewhere it is counted and logged."""
        hall = self._session.hall
        if hall is not None and hall.room.terms.tier.e2ee == "refused":
            self._take_back(
                carried,
                "undeclared_encryption",
                lambda tier: f"Calls of the {tier} tier are not end-to-end encrypted: your {carried.media.kind} was "
                "stopped, because it cannot be read.",
            )
            return
        self._session.conference.count_refusal("undeclared_encryption")
        log.warning("a track is encrypted though announced as clear", participant=self._session.sid, track=carried.track_sid)

    def carried_as(self, track_sid: str) -> Carried | None:
        """Return the m-line that carries this track."""
        return next((carried for carried in self.carried.values() if carried.track_sid == track_sid), None)

    def encoding_changed(self, carried: Carried, encoding: int, active: bool) -> None:
        """Pass an encoding's coming or going on to the room, once the track has a name."""
        hall = self._session.hall
        if carried.track_sid and hall is not None and self.carried.get(carried.media.mid) is carried:
            hall.encoding_changed(carried.track_sid, encoding, active)

    def layers_changed(self, carried: Carried) -> None:
        """Have what can be chosen of a video reckoned anew for who sees it."""
        hall = self._session.hall
        if hall is not None and carried.receiver:
            hall.on_rates({carried.receiver})

    def spoke(self, carried: Carried, dbov: int) -> None:
        """Pass a voice on to the room, unless its track is muted: what is not to be heard is not to be seen."""
        hall, publication = self._session.hall, self._publication(carried.track_sid)
        if hall is not None and publication is not None and not publication.muted:
            hall.heard(self._session.sid, dbov)

    async def close(self) -> None:
        """Give the transport back, and its receivers with it."""
        self._is_closed = True
        self.carried.clear()
        if self.driver is not None:
            await self.driver.close()

    async def _ready_driver(self, summary: OfferSummary) -> TransportDriver:
        if self.driver is None:
            driver = self._session.new_driver()
            await driver.open()
            self.driver = driver
            if self._is_closed:
                await driver.close()
        elif summary.ice_restarted:
            await self.driver.restart_ice()
        return self.driver

    def _options(self, summary: OfferSummary) -> dict[str, TrackOptions]:
        """RED is for clear calls alone: of an encrypted one nobody could take it apart who does not know it."""
        hall = self._session.hall
        # A track that is announced behind its m-line comes in the room's frames all the same.
        frames = hall.room.terms.frames if hall is not None else CLEAR
        unannounced = TrackOptions(codecs=frozenset(VIDEO_CODECS[frames]))
        options = {section.mid: unannounced for section in summary.tracks if section.kind == "video"}
        known = {c.media.mid: self._publication(c.track_sid) for c in self.carried.values() if c.track_sid}
        pending = self._session.endpoint.pending_publications()
        matched = bind_by_name_then_kind((s for s in summary.tracks if s.mid not in known), pending)
        for mid, publication in {**known, **matched}.items():
            if publication is not None:
                options[mid] = TrackOptions(
                    stereo=publication.stereo,
                    dtx=not publication.disable_dtx,
                    red=frames == publication.frames == CLEAR and not publication.disable_red,
                    codecs=publication.possible_codecs,
                    preferred=publication.preferred_codec,
                )
        return options

    async def _take_media(self, tracks: Sequence[PublishedMedia]) -> None:
        by_mid = {media.mid: media for media in tracks}
        for mid, carried in list(self.carried.items()):
            media = by_mid.get(mid)
            if media is None or (media.kind, media.msid_track) != (carried.media.kind, carried.media.msid_track):
                await self._stop(carried)
        hall = self._session.hall
        most = hall.room.max_publications if hall is not None else 0
        for mid, media in by_mid.items():
            # What nobody announced leads nowhere; to receive it costs all the same.
            if mid not in self.carried and len(self.carried) < most:
                await self._start(media)
        await self._bind()

    async def _start(self, media: PublishedMedia) -> None:
        assert self.driver is not None
        carried = Carried(self, media)
        spec = ReceiverSpec(
            media.kind,
            media.mid,
            plane_codecs(media.codecs),
            tuple(media.rids),
            tuple(media.ssrcs),
            tuple(media.rtx_ssrcs),
        )
        # Known before the acknowledgement, since the listener may be called at once.
        self.carried[media.mid] = carried
        try:
            carried.receiver = await self._session.conference.plane.add_receiver(self.driver.id, spec, carried)
        except ValueError as error:
            # More rids, codecs or longer names than the data plane has places for: the client's doing.
            self.carried.pop(media.mid, None)
            raise SdpError(f"section {media.mid!r} cannot be carried: {error}") from None
        except PlaneError:
            self.carried.pop(media.mid, None)
            raise

    async def _stop(self, carried: Carried) -> None:
        if self.carried.get(carried.media.mid) is not carried:
            # The session ended while an earlier one was taken back.
            return
        del self.carried[carried.media.mid]
        hall = self._session.hall
        if carried.track_sid and hall is not None:
            hall.carry_out(hall.room.unpublish(carried.track_sid))
            log.info("unpublished", participant=self._session.sid, track=carried.track_sid)
        if carried.receiver:
            await self._session.conference.plane.remove_receiver(carried.receiver)

    async def _bind(self) -> None:
        """Make announced tracks of m-lines. Not before the data plane knows how its frames have to look."""
        hall = self._session.hall
        if hall is None or self._session.is_over:
            return
        unbound = [c.media for c in self.carried.values() if not c.track_sid]
        for mid, publication in bind_by_name_then_kind(unbound, self._session.endpoint.pending_publications()).items():
            carried = self.carried[mid]
            carried.track_sid = publication.sid
            try:
                await self._prepare(carried, publication)
            except PlaneError as error:
                # The session or the m-line went while the data plane was asked; else nothing may be forwarded of it.
                log.info("a track was not bound", participant=self._session.sid, track=publication.sid, why=str(error))
                hall.carry_out(hall.room.unpublish(publication.sid))
                if self._session.listener is not None and not self._session.is_over:
                    self._session.listener.on_unpublished(publication.sid)
                continue
            if carried.is_stopped or self.carried.get(mid) is not carried or self._session.is_over:
                continue
            # RED is how Opus comes, not what it is.
            mime_type = next(codec for codec in carried.media.codecs if codec.name != "red").mime_type
            log.info(
                "published",
                participant=self._session.sid,
                track=publication.sid,
                codec=mime_type,
                frames=publication.frames,
            )
            hall.carry_out(
                hall.room.bind(publication.sid, mime_type=mime_type, mid=mid, rids=tuple(carried.media.rids))
            )
            for encoding in sorted(carried.active):
                hall.encoding_changed(publication.sid, encoding, True)

    async def _prepare(self, carried: Carried, publication: Publication) -> None:
        plane = self._session.conference.plane
        await plane.set_frame_format(carried.receiver, publication.frames)
        while publication.frames == "sframe" and publication.key_ranges:
            await plane.announce_keys(carried.receiver, *publication.key_ranges.pop(0))

    def _take_back(self, carried: Carried, reason: str, sentence: Callable[[str], str]) -> None:
        """Unpublish a track that its client goes on to send, and say so to everybody, its client and the log."""
        session, hall = self._session, self._session.hall
        if hall is None or session.is_over or not carried.track_sid:
            return
        session.conference.count_refusal(reason)
        tier = hall.room.terms.tier.name
        log.warning(
            "a track was stopped",
            reason=reason,
            room=hall.room.sid,
            participant=session.sid,
            track=carried.track_sid,
            tier=tier,
        )
        hall.carry_out(hall.room.unpublish(carried.track_sid))
        if session.listener is not None:
            session.listener.on_unpublished(carried.track_sid)
            session.listener.on_notice(sentence(tier))

    def _command(self, command: Coroutine[Any, Any, None]) -> None:
        """Have the data plane do something about a receiver that may just be going away."""

        async def run() -> None:
            try:
                await command
            except PlaneError as error:
                log.debug("a receiver was gone", participant=self._session.sid, why=str(error))

        self._session.tasks.spawn(run(), "receiver command")

    def _publication(self, track_sid: str) -> Publication | None:
        return self._session.endpoint.publications.get(track_sid)
