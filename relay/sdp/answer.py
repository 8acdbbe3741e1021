"""Answers a client's offers: what it may send, how it has to say so, and which tracks of ours it is sent.

RFC 9429 §5.3 for answers, RFC 9143 for the bundle, RFC 8853 for simulcast. Where each direction has a connection of its
own, the client alone sends on this one. Where there is one for both, the client offers sections that it would receive
on, and they are answered with tracks of ours. A section that nobody sends on is answered inactive, but with everything
accepted that may be sent there later, since Chromium never offers again what a first answer left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from relay.sdp import bundle as transport
from relay.sdp.codecs import (
    CodecPolicy,
    agree,
    answered_parameters,
    format_attributes,
    format_numbers,
    same_format,
    taken_feedback,
)
from relay.sdp.errors import SdpError
from relay.sdp.extensions import RID, TRANSPORT_CC, accept_extmaps, answered_extmap
from relay.sdp.facts import (
    Answer,
    Codec,
    LocalTransport,
    OfferSummary,
    PublishedMedia,
    ReceivingSection,
    RemoteTransport,
    Role,
    SctpParameters,
    SendingSection,
    SentTrack,
    TrackOptions,
)
from relay.sdp.grammar import Attribute, MediaSection, SessionDescription, parse
from relay.sdp.media import PayloadFormat, RtpSection, read_rtp

# The data plane keeps four encodings per publication; clients publish up to three.
MAX_RIDS = 4

# LiveKit's names for the encodings, low to high. Its browser client lists them in this order and its native SDK in the
# reverse, and both number qualities by name (q is LOW).
_NAMED_RIDS = ("q", "h", "f")


@dataclass(frozen=True, slots=True)
class _Offered:
    """An offer, read."""

    session: SessionDescription
    mids: tuple[str, ...]
    bundled: tuple[str, ...]
    has_group: bool
    rtp: Mapping[str, RtpSection]
    sctp: SctpParameters | None
    remote: RemoteTransport
    setup: str

    @property
    def sending(self) -> tuple[RtpSection, ...]:
        return tuple(section for section in self.rtp.values() if section.is_sending)

    @property
    def receiving(self) -> tuple[RtpSection, ...]:
        return tuple(s for s in self.rtp.values() if s.direction == "recvonly" and s.has_rtcp_mux)


class PublisherNegotiation:
    """The answering side of one connection, for its whole life.

    `inspect` changes nothing; `answer` moves on to the offer it was given. An offer that raises leaves everything as
    it was, so that the client may offer again.
    """

    def __init__(self, codecs: CodecPolicy | None = None) -> None:
        self._policy = codecs or CodecPolicy()
        self._role: Role | None = None
        self._remote: RemoteTransport | None = None
        self._slots: tuple[tuple[str, str], ...] = ()
        self._ended: frozenset[str] = frozenset()
        self._sending: tuple[str, ...] = ()
        self._session_id = ""
        self._version = 0

    @property
    def role(self) -> Role | None:
        """Our DTLS role, None before the first answer."""
        return self._role

    def inspect(self, offer: str | bytes) -> OfferSummary:
        """Return what an offer asks for, to choose options and credentials by.   Errors: SdpError."""
        offered = self._read(offer)
        return OfferSummary(
            tuple(
                SendingSection(
                    section.mid,
                    section.kind,
                    section.msid.stream,
                    section.msid.track,
                    low_to_high(section.send_rids[:MAX_RIDS]),
                )
                for section in offered.sending
            ),
            tuple(ReceivingSection(section.mid, section.kind) for section in offered.receiving),
            transport.has_restarted(self._remote, offered.remote),
            offered.remote,
            offered.sctp is not None,
        )

    def answer(
        self,
        offer: str | bytes,
        local: LocalTransport,
        options: Mapping[str, TrackOptions] | None = None,
        senders: Mapping[str, SentTrack] | None = None,
    ) -> Answer:
        """Answer an offer.

        `options` by mid, for every section that sends and is not to be answered with the defaults; give the same ones
        again for a section that goes on sending. `senders` by mid, for every section of `OfferSummary.receiving` that a
        track of ours is sent on, again for one that goes on. `local` has new credentials where ICE was restarted.
        Errors: SdpError; then nothing has changed.
        """
        offered = self._read(offer)
        role = transport.role_against(offered.setup, self._role)
        setup = "passive" if role == "server" else "active"
        writer = _AnswerWriter(self._policy, offered, local, setup, options or {}, senders or {})
        sections = writer.sections()
        session_id = self._session_id or transport.session_id_of(local)
        session = SessionDescription(
            transport.origin_of(session_id, self._version),
            attributes=transport.session_attributes(
                local,
                writer.accepted if offered.has_group else (),
                allow_mixed=offered.session.has("extmap-allow-mixed"),
            ),
            sections=sections,
        )
        tracks = tuple(writer.tracks)
        sending = tuple(track.mid for track in tracks)
        answer = Answer(
            sdp=str(session),
            role=role,
            remote=offered.remote,
            ice_restarted=transport.has_restarted(self._remote, offered.remote),
            sctp=offered.sctp,
            extensions=writer.extensions,
            sent_extensions=writer.sent_extensions,
            tracks=tracks,
            stopped=tuple(mid for mid in self._sending if mid not in sending),
            refused=tuple(section.mid for section in offered.sending if section.mid not in sending),
            senders=writer.senders,
        )
        self._role, self._remote, self._sending = role, offered.remote, sending
        self._slots = _slots(offered.session, offered.mids)
        self._ended = frozenset(mid for mid in offered.mids if mid not in writer.accepted)
        self._session_id, self._version = session_id, self._version + 1
        return answer

    def _read(self, offer: str | bytes) -> _Offered:
        session = parse(offer)
        mids = transport.read_mids(session)
        if not mids:
            raise SdpError("an offer has at least one m= line")
        self._refuse_other_slots(session, mids)
        bundled, has_group = transport.read_bundle(session, mids)
        by_mid = dict(zip(mids, session.sections, strict=True))
        in_order = sorted((by_mid[mid] for mid in bundled), key=lambda section: not transport.is_live(section))
        remote, setup = transport.read_remote(session, in_order)
        transport.refuse_other_identity(self._remote, remote)
        live = {mid: by_mid[mid] for mid in mids if mid in set(bundled) and transport.is_live(by_mid[mid])}
        rtp = {mid: read_rtp(session, section) for mid, section in live.items() if transport.is_rtp_section(section)}
        data = next((section for section in live.values() if transport.is_data_section(section)), None)
        return _Offered(
            session, mids, bundled, has_group, rtp, None if data is None else transport.read_sctp(data), remote, setup
        )

    def _refuse_other_slots(self, session: SessionDescription, mids: tuple[str, ...]) -> None:
        """Sections keep their place, kind and mid (RFC 9429 §5.2.2); only an ended one may become another."""
        slots = _slots(session, mids)
        if len(slots) < len(self._slots):
            raise SdpError(f"an offer keeps all m= lines of the last one: {len(self._slots)}, not {len(slots)}")
        for section, now, before in zip(session.sections, slots, self._slots, strict=False):
            if now != before and before[1] not in self._ended:
                raise SdpError(f"the {before[0]} section with mid {before[1]} stands here", section.line)


def _slots(session: SessionDescription, mids: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((section.media, mid) for section, mid in zip(session.sections, mids, strict=True))


class _AnswerWriter:
    """Writes the sections of one answer, front to back, and collects what was agreed on the way."""

    def __init__(
        self,
        policy: CodecPolicy,
        offered: _Offered,
        local: LocalTransport,
        setup: str,
        options: Mapping[str, TrackOptions],
        senders: Mapping[str, SentTrack],
    ) -> None:
        self._policy = policy
        self._offered = offered
        self._local = local
        self._setup = setup
        self._options = options
        self._sent = senders
        audio = [section for section in offered.sending if section.kind == "audio"]
        sending = [options.get(section.mid, TrackOptions()) for section in audio]
        # RFC 8859 wants one fmtp per payload type in a bundle, and Opus has one payload type for all: a track that
        # needs silence kept or both channels decides for its neighbours, who lose only some bits.
        self._has_dtx = all(choice.dtx for choice in sending)
        self._is_stereo = any(choice.stereo for choice in sending) or any(section.sends_stereo for section in audio)
        self._formats: dict[int, PayloadFormat] = {}
        self.accepted: list[str] = []
        self.extensions: dict[str, int] = {}
        self.sent_extensions: dict[str, int] = {}
        self.tracks: list[PublishedMedia] = []
        self.senders: dict[str, tuple[Codec, ...]] = {}

    def sections(self) -> tuple[MediaSection, ...]:
        """Return every section's answer. `accepted` is in the offer's BUNDLE order once this returns."""
        answers: dict[str, MediaSection | None] = {}
        for section, mid in zip(self._offered.session.sections, self._offered.mids, strict=True):
            answers[mid] = self._answered(section, mid)
        self.accepted = [mid for mid in self._offered.bundled if answers[mid] is not None]
        tagged = self.accepted[0] if self.accepted else None
        written = []
        for section, mid in zip(self._offered.session.sections, self._offered.mids, strict=True):
            answered = answers[mid]
            if answered is None:
                written.append(transport.refused_section(section, mid))
                continue
            lines = transport.transport_attributes(self._local, self._setup, mid, with_candidates=mid == tagged)
            written.append(replace(answered, attributes=(*lines, *answered.attributes)))
        return tuple(written)

    def _answered(self, section: MediaSection, mid: str) -> MediaSection | None:
        sctp = self._offered.sctp
        if sctp is not None and sctp.mid == mid:
            return transport.data_section(section.protocol, (), self._local.max_message_bytes)
        rtp = self._offered.rtp.get(mid)
        if rtp is None or not rtp.has_rtcp_mux:
            return None
        return self._answered_rtp(section, rtp)

    def _answered_rtp(self, section: MediaSection, rtp: RtpSection) -> MediaSection | None:
        options = self._options.get(rtp.mid, TrackOptions()) if rtp.is_sending else None
        taken = []
        for offer, rtx in agree(rtp.kind, rtp.formats, self._policy, options):
            if self._means_one_thing(offer):
                taken.append((self._codec(offer, rtx if rtx and self._means_one_thing(rtx) else None), offer))
        track = self._sent.get(rtp.mid) if rtp.direction == "recvonly" else None
        if track is not None:
            fitting = _fitting(track, taken)
            self.senders[rtp.mid] = tuple(codec for codec, _ in fitting)
            track, taken = (track, fitting) if fitting else (None, taken)
        if not any(codec.name != "red" for codec, _ in taken):
            return None
        codecs = tuple(codec for codec, _ in taken)
        receives = rtp.direction == "recvonly"
        extmaps = accept_extmaps(rtp.kind, rtp.extmaps, self.extensions, receives=receives)
        if receives:
            self.sent_extensions |= {x.uri: x.id for x in extmaps if x.direction in ("sendrecv", "recvonly")}
        has_transport_cc = any(extmap.uri == TRANSPORT_CC for extmap in extmaps)
        lines = [answered_extmap(extmap) for extmap in extmaps]
        if rtp.allows_mixed_extmap:
            lines.append(Attribute("extmap-allow-mixed"))
        lines.append(Attribute("recvonly" if rtp.is_sending else "sendonly" if track is not None else "inactive"))
        lines.append(Attribute("rtcp-mux"))
        if rtp.has_reduced_size:
            lines.append(Attribute("rtcp-rsize"))
        for codec, offer in taken:
            lines += format_attributes(
                codec, taken_feedback(rtp.kind, offer.feedback, has_transport_cc=has_transport_cc)
            )
        # Without the RID extension nothing says which encoding a packet is of, and Chromium refuses such an answer.
        has_rid = rtp.is_sending and any(extmap.uri == RID for extmap in extmaps)
        rids = rtp.send_rids[:MAX_RIDS] if has_rid else ()
        lines += [Attribute("rid", f"{rid} recv") for rid in rids]
        if rids and rtp.is_simulcast:
            lines.append(Attribute("simulcast", "recv " + ";".join(rids)))
        if track is not None:
            lines += transport.sending_attributes(track)
        if rtp.is_sending:
            self.tracks.append(_published(rtp, codecs, low_to_high(rids)))
        return MediaSection(
            rtp.kind,
            transport.LIVE_PORT,
            section.protocol,
            format_numbers(codecs),
            tuple(lines),
            transport.NO_ADDRESS,
        )

    def _means_one_thing(self, offer: PayloadFormat) -> bool:
        """False when another section of the bundle gives this payload type another meaning; the first one counts."""
        known = self._formats.setdefault(offer.payload_type, offer)
        return (
            (known.name, known.clock_rate_hz, known.channels) == (offer.name, offer.clock_rate_hz, offer.channels)
            and same_format(offer.name, known.parameters, offer.parameters)
            and (offer.name != "rtx" or known.parameter("apt") == offer.parameter("apt"))
        )

    def _codec(self, offer: PayloadFormat, rtx: PayloadFormat | None) -> Codec:
        # The fmtp of the first section with this payload type, for the reason given above.
        known = self._formats[offer.payload_type]
        return Codec(
            offer.payload_type,
            offer.name,
            offer.clock_rate_hz,
            None if rtx is None else rtx.payload_type,
            offer.channels,
            answered_parameters(known, stereo=self._is_stereo, dtx=self._has_dtx),
        )


def _fitting(track: SentTrack, taken: Sequence[tuple[Codec, PayloadFormat]]) -> list[tuple[Codec, PayloadFormat]]:
    """Return what a client takes of a track of ours, in our order; nothing where that is only the RED around its sound."""
    fitting = []
    for sent in track.sent_codecs:
        theirs = next((pair for pair in taken if _is_same(sent, pair[0])), None)
        if theirs is not None:
            codec, offer = theirs
            fitting.append((codec if track.rtx_ssrc is not None else replace(codec, rtx_payload_type=None), offer))
    return fitting if any(codec.name != "red" for codec, _ in fitting) else []


def _is_same(ours: Codec, theirs: Codec) -> bool:
    return (
        (ours.name, ours.clock_rate_hz, ours.channels) == (theirs.name, theirs.clock_rate_hz, theirs.channels)
        and same_format(ours.name, ours.parameters, theirs.parameters)
    )


def low_to_high(rids: tuple[str, ...]) -> tuple[str, ...]:
    """Return rids from the lowest encoding to the highest: by name where the names say it, else as listed."""
    return tuple(sorted(rids, key=_NAMED_RIDS.index)) if set(rids) <= set(_NAMED_RIDS) else rids


def _published(rtp: RtpSection, codecs: tuple[Codec, ...], rids: tuple[str, ...]) -> PublishedMedia:
    # With rids the SSRCs of the description have no encoding; RID on the first packets says which is which.
    ssrcs = () if rids else rtp.primary_ssrcs
    return PublishedMedia(
        rtp.mid,
        rtp.kind,
        rtp.msid.stream,
        rtp.msid.track,
        rtp.cname,
        codecs,
        rids,
        ssrcs,
        tuple(rtp.rtx_ssrc_of.get(ssrc, 0) for ssrc in ssrcs),
        rtp.sends_stereo,
    )
