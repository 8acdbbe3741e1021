"""Offers a subscriber what we send it, and reads what it takes.

RFC 9429 §5.2 for offers, RFC 9143 for the bundle. Sections keep their place: the application section first, then one
per sent track. The section of a removed track stays as an inactive line, since clients of several years miss a track
that comes back under a mid they know; on a connection that has had many it is ended, and its place goes to a new
section with a new mid (RFC 9429 §5.2.2). Payload types and extension ids are ours, the same in every section; one
offer is outstanding at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from relay.sdp import bundle as transport
from relay.sdp.codecs import AUDIO_FEEDBACK, VIDEO_FEEDBACK, format_attributes, format_numbers, same_format
from relay.sdp.errors import InvalidState, SdpError
from relay.sdp.extensions import OFFERED, OFFERED_IDS, agreed_extensions
from relay.sdp.facts import Accepted, Codec, LocalTransport, Offer, RemoteTransport, Role, SctpParameters, SentTrack
from relay.sdp.grammar import MAX_SECTIONS, Attribute, MediaSection, SessionDescription, parse
from relay.sdp.media import PayloadFormat, RtpSection, read_mid, read_rtp
from relay.sdp.payload_types import as_offered

DATA_MID = "0"
DATA_PROTOCOL = "UDP/DTLS/SCTP"

# From here on removed sections are ended and recycled. Firefox 153 rejects every section after its 128th; stacks that
# cannot recycle (aiortc) are left alone for as long as most calls last.
RECYCLE_FROM = 64


@dataclass(slots=True)
class _Sender:
    """One section of ours after the application section."""

    mid: str
    track: SentTrack
    codecs: tuple[Codec, ...]
    is_removed: bool = False
    is_ended: bool = False
    is_ended_for_both: bool = False

    @property
    def is_free(self) -> bool:
        """True when its place may become another section."""
        return self.is_removed and self.is_ended_for_both


class SubscriberNegotiation:
    """The offering side of one connection, for its whole life."""

    def __init__(self) -> None:
        self._senders: list[_Sender] = []
        self._mids_given = 0
        self._outstanding: tuple[_Sender, ...] | None = None
        self._needs_offer = True
        self._role: Role | None = None
        self._remote: RemoteTransport | None = None
        self._session_id = ""
        self._version = 0

    @property
    def role(self) -> Role | None:
        """Our DTLS role, None before the first answer."""
        return self._role

    @property
    def offer_outstanding(self) -> bool:
        """True from an offer until its answer is accepted or it is abandoned."""
        return self._outstanding is not None

    @property
    def needs_offer(self) -> bool:
        """True when the client has not been offered everything that was added and removed."""
        return self._needs_offer

    def add(self, track: SentTrack) -> str:
        """Add a section for a track and return its mid; the next offer has it.

        Only the first codec is offered, with the RED around it: a hundred sections of ten codecs are more text than
        clients may send back. Errors: ValueError for an H.264 format we do not forward; InvalidState when the connection
        has as many sections as it may have.
        """
        free = next((place for place, sender in enumerate(self._senders) if sender.is_free), len(self._senders))
        if free + 1 >= MAX_SECTIONS:
            raise InvalidState(f"a connection has at most {MAX_SECTIONS} sections")
        numbered = as_offered(track.sent_codecs, stereo=track.stereo)
        if track.rtx_ssrc is None:
            numbered = tuple(replace(codec, rtx_payload_type=None) for codec in numbered)
        self._mids_given += 1
        sender = _Sender(str(self._mids_given), track, numbered)
        self._senders[free : free + 1] = [sender]
        self._needs_offer = True
        return sender.mid

    def remove(self, mid: str) -> None:
        """Stop a section for good; the next offer has it inactive.   Errors: KeyError for a mid that is not live."""
        sender = next((sender for sender in self._senders if sender.mid == mid and not sender.is_removed), None)
        if sender is None:
            raise KeyError(mid)
        sender.is_removed = True
        # Nobody has to hear that a section is gone which the client itself turned down.
        self._needs_offer = self._needs_offer or not sender.is_ended

    def offer(self, local: LocalTransport) -> Offer:
        """Return an offer of everything.   Errors: InvalidState while another is outstanding."""
        if self._outstanding is not None:
            raise InvalidState("an offer is outstanding; wait for its answer")
        self._session_id = self._session_id or transport.session_id_of(local)
        if len(self._senders) >= RECYCLE_FROM:
            for sender in self._senders:
                sender.is_ended = sender.is_ended or sender.is_removed
        alive = [DATA_MID, *(sender.mid for sender in self._senders if not sender.is_ended)]
        data = transport.data_section(
            DATA_PROTOCOL,
            transport.transport_attributes(local, "actpass", DATA_MID, with_candidates=True),
            local.max_message_bytes,
        )
        session = SessionDescription(
            transport.origin_of(self._session_id, self._version),
            attributes=transport.session_attributes(local, alive, allow_mixed=True),
            sections=(data, *(self._section(sender, local) for sender in self._senders)),
        )
        self._version += 1
        self._outstanding = tuple(self._senders)
        self._needs_offer = False
        return Offer(str(session), {sender.mid: sender.track.track_id for sender in self._senders if _is_live(sender)})

    def abandon_offer(self) -> None:
        """Forget the outstanding offer, whose answer will not come: the client's socket is gone.

        The next offer holds everything this one did, so a client that had taken it loses nothing.
        """
        if self._outstanding is not None:
            self._outstanding = None
            self._needs_offer = True

    def accept(self, answer: str | bytes) -> Accepted:
        """Read the answer to the outstanding offer.

        Errors: InvalidState where none is outstanding; SdpError for an answer that does not fit it, and the offer
        stays outstanding.
        """
        if self._outstanding is None:
            raise InvalidState("no offer is outstanding")
        session = parse(answer)
        mids = _read_answered_mids(session, (DATA_MID, *(sender.mid for sender in self._outstanding)))
        bundled, _ = transport.read_bundle(session, mids)
        sections = dict(zip(mids, session.sections, strict=True))
        live = [mid for mid in bundled if transport.is_live(sections[mid])]
        remote, setup = transport.read_remote(session, [sections[mid] for mid in live])
        transport.refuse_other_identity(self._remote, remote)
        if setup == "actpass":
            raise SdpError("the a=setup of an answer is active or passive")
        role = transport.role_against(setup, self._role)
        accepted = _read_accepted(session, self._outstanding, sections, set(live))
        for sender in self._outstanding:
            if sender.mid in accepted.ended:
                sender.is_ended = sender.is_ended_for_both = True
        restarted = transport.has_restarted(self._remote, remote)
        self._outstanding, self._role, self._remote = None, role, remote
        rejected = frozenset(mid for mid in accepted.senders if mid in accepted.ended)
        return Accepted(role, remote, restarted, accepted.sctp, accepted.extensions, accepted.senders, rejected)

    def _section(self, sender: _Sender, local: LocalTransport) -> MediaSection:
        numbers = format_numbers(sender.codecs)
        if sender.is_ended:
            dead = MediaSection(sender.track.kind, 0, "UDP/TLS/RTP/SAVPF", numbers)
            return transport.refused_section(dead, sender.mid)
        lines = list(transport.transport_attributes(local, "actpass", sender.mid, with_candidates=False))
        if sender.is_removed:
            # As little as a section may have: it stays for the connection's life.
            lines.append(Attribute("inactive"))
        else:
            lines += [Attribute("extmap", f"{OFFERED_IDS[uri]} {uri}") for uri in OFFERED[sender.track.kind]]
            lines.append(Attribute("sendonly"))
        lines += [Attribute("rtcp-mux"), Attribute("rtcp-rsize")]
        for codec in sender.codecs:
            lines += format_attributes(codec, _feedback(codec))
        if not sender.is_removed:
            lines += transport.sending_attributes(sender.track)
        return MediaSection(
            sender.track.kind, transport.LIVE_PORT, "UDP/TLS/RTP/SAVPF", numbers, tuple(lines), transport.NO_ADDRESS
        )


def _feedback(codec: Codec) -> list[str]:
    """Return what a subscriber is asked to tell of a codec: bandwidth is estimated from video alone, for Firefox gives no
    transport-wide feedback on sound."""
    ours = AUDIO_FEEDBACK if codec.kind == "audio" else VIDEO_FEEDBACK
    return [what for what in ours if what != "transport-cc" or codec.kind == "video"]


@dataclass(slots=True)
class _Sections:
    """What the sections of an answer say together."""

    sctp: SctpParameters | None
    extensions: dict[str, int]
    senders: dict[str, tuple[Codec, ...]]
    ended: set[str]


def _read_answered_mids(session: SessionDescription, offered: Sequence[str]) -> tuple[str, ...]:
    """Return the offer's mids where the answer has its sections. A rejected one need not repeat its mid."""
    if len(session.sections) != len(offered):
        raise SdpError(f"the offer has {len(offered)} m= lines, its answer {len(session.sections)}")
    for section, mid in zip(session.sections, offered, strict=True):
        if (transport.is_live(section) or section.has("mid")) and read_mid(section) != mid:
            raise SdpError(f"mid {mid} stands here in the offer, not {read_mid(section)}", section.line)
    return tuple(offered)


def _read_accepted(
    session: SessionDescription, offered: Sequence[_Sender], sections: dict[str, MediaSection], live: set[str]
) -> _Sections:
    data = sections[DATA_MID]
    has_data = DATA_MID in live and transport.is_data_section(data)
    found = _Sections(transport.read_sctp(data) if has_data else None, {}, {}, set())
    for sender in offered:
        section = sections[sender.mid]
        if section.media != sender.track.kind:
            raise SdpError(f"mid {sender.mid} is {sender.track.kind}, not {section.media}", section.line)
        if sender.mid not in live:
            found.ended.add(sender.mid)
            codecs: tuple[Codec, ...] = ()
        else:
            rtp = read_rtp(session, section)
            found.extensions |= agreed_extensions(rtp.extmaps)
            codecs = _taken_codecs(sender, rtp) if rtp.direction in ("recvonly", "sendrecv") else ()
        if _is_live(sender):
            found.senders[sender.mid] = codecs
    return found


def _taken_codecs(sender: _Sender, rtp: RtpSection) -> tuple[Codec, ...]:
    """Return the codecs a subscriber takes, in our order, with the payload types of its answer.

    RFC 3264 §6.1 lets an answer number a format anew, and what arrives there has to bear that number.
    """
    rtx = {}
    for theirs in rtp.formats:
        apt = theirs.parameter("apt")
        if theirs.name == "rtx" and apt.isascii() and apt.isdigit():
            rtx.setdefault(int(apt), theirs.payload_type)
    taken = []
    for codec in sender.codecs:
        theirs = _same_codec(codec, rtp.formats)
        if theirs is not None:
            resent = rtx.get(theirs.payload_type) if codec.rtx_payload_type is not None else None
            taken.append(
                Codec(theirs.payload_type, codec.name, codec.clock_rate_hz, resent, codec.channels, codec.parameters)
            )
    return tuple(taken) if any(codec.name != "red" for codec in taken) else ()


def _same_codec(codec: Codec, answered: Sequence[PayloadFormat]) -> PayloadFormat | None:
    fitting = [
        theirs
        for theirs in answered
        if (theirs.name, theirs.clock_rate_hz, theirs.channels) == (codec.name, codec.clock_rate_hz, codec.channels)
        and same_format(codec.name, codec.parameters, theirs.parameters)
    ]
    return next((theirs for theirs in fitting if theirs.payload_type == codec.payload_type), next(iter(fitting), None))


def _is_live(sender: _Sender) -> bool:
    return not sender.is_removed and not sender.is_ended
