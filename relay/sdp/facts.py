"""What negotiations take and give: plain frozen facts, so that nobody above reads SDP text.

Nothing here parses or writes; the names follow RFC 8866 (media, formats), RFC 8853 (rid) and DESIGN's glossary.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from relay.sdp.grammar import is_token

Kind = Literal["audio", "video"]
Role = Literal["server", "client"]

_SUBTYPES = {"opus": "opus", "red": "red", "vp8": "VP8", "vp9": "VP9", "h264": "H264", "av1": "AV1"}
_AUDIO_NAMES = frozenset({"opus", "red"})


@dataclass(frozen=True, slots=True)
class Codec:
    """One agreed payload format and the retransmission format beside it.

    `name` is lower case: opus red vp8 vp9 h264 av1. `parameters` is the value of its fmtp line without the payload
    type, "" where it has none; for red it names payload types and is rewritten with them.
    """

    payload_type: int
    name: str
    clock_rate_hz: int
    rtx_payload_type: int | None = None
    channels: int = 1
    parameters: str = ""

    @property
    def kind(self) -> Kind:
        return "audio" if self.name in _AUDIO_NAMES else "video"

    @property
    def mime_type(self) -> str:
        """The name as LiveKit and WebRTC statistics write it, such as `video/VP8` and `audio/opus`."""
        return f"{self.kind}/{_SUBTYPES[self.name]}"


@dataclass(frozen=True, slots=True)
class LocalTransport:
    """Our end of a transport as it is written into SDP. `candidates` are UDP host addresses, `tcp_candidates` passive TCP
    ones (RFC 6544), best first.

    `fingerprint` is the algorithm and the colon-separated digest, such as `sha-256 AB:CD…`.
    """

    ufrag: str
    password: str = field(repr=False)
    fingerprint: str
    candidates: tuple[tuple[str, int], ...]
    ice_lite: bool = True
    max_message_bytes: int = 65_536
    tcp_candidates: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class RemoteTransport:
    """The other end of a transport, from the section that carries it for the whole bundle (RFC 9143)."""

    ufrag: str
    password: str = field(repr=False)
    fingerprints: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class SctpParameters:
    """The application section of the other end (RFC 8841). `max_message_bytes` 0 means any size."""

    mid: str
    port: int
    max_message_bytes: int


@dataclass(frozen=True, slots=True)
class TrackOptions:
    """What the answer asks of one published track.

    `red` has to be off for an encrypted publication: a relay cannot take apart what it cannot read. `codecs` narrows
    the policy by name for this track alone and keeps the client's order, but for `preferred`, which comes first.
    """

    stereo: bool = False
    dtx: bool = True
    red: bool = False
    codecs: frozenset[str] | None = None
    preferred: str = ""


@dataclass(frozen=True, slots=True)
class SentTrack:
    """A track that we send, as descriptions tell it.

    `codecs` are the publication's, in its order: of them the first is sent, and the RED around it, because that is what
    arrives. `rtx_ssrc` None: nothing is sent again. Errors: ValueError for what cannot be written into a description, or
    has no codec.
    """

    kind: Kind
    codecs: tuple[Codec, ...]
    stream_id: str
    track_id: str
    ssrc: int
    rtx_ssrc: int | None
    cname: str
    stereo: bool = False

    def __post_init__(self) -> None:
        if not any(codec.name != "red" for codec in self.codecs) or any(codec.kind != self.kind for codec in self.codecs):
            raise ValueError(f"a section of {self.kind} needs codecs of {self.kind}")
        if not all(map(is_token, (self.stream_id, self.track_id))):
            raise ValueError("stream id and track id are tokens")
        if not self.cname.isascii() or not self.cname.isprintable():
            raise ValueError("a cname is printable ASCII")

    @property
    def sent_codecs(self) -> tuple[Codec, ...]:
        """The codec that is sent and the RED around it, in the publication's order."""
        sent = next(codec for codec in self.codecs if codec.name != "red")
        return tuple(codec for codec in self.codecs if codec is sent or codec.name == "red")


@dataclass(frozen=True, slots=True)
class ReceivingSection:
    """A section in which the client would receive a track and sends none."""

    mid: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class SendingSection:
    """A section the client wants to send on, before it is answered: enough to find the publication it belongs to."""

    mid: str
    kind: Kind
    msid_stream: str
    msid_track: str
    rids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PublishedMedia:
    """A section the client now sends on, as agreed.

    `codecs` in the client's order of preference: browsers send the first. `rids` from low to high, empty without
    simulcast. `ssrcs` are those announced, with `rtx_ssrcs` beside them by place (0 = none announced); both empty
    where the client announces none, as browsers with rids do. `msid_stream` may be "-", `msid_track` may be "".
    `stereo`: the client itself says that the two channels of its Opus differ.
    """

    mid: str
    kind: Kind
    msid_stream: str
    msid_track: str
    cname: str
    codecs: tuple[Codec, ...]
    rids: tuple[str, ...]
    ssrcs: tuple[int, ...]
    rtx_ssrcs: tuple[int, ...]
    stereo: bool = False


@dataclass(frozen=True, slots=True)
class OfferSummary:
    """What has to be known of a client's offer before it can be answered."""

    tracks: tuple[SendingSection, ...]
    receiving: tuple[ReceivingSection, ...]
    ice_restarted: bool
    remote: RemoteTransport
    has_sctp: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """Our answer and what it agreed. `role` is ours. `stopped` are mids that sent until now and no longer do.

    `extensions` are those of the whole bundle, ids 1..14, `sent_extensions` those that the client takes in what it is
    sent: Firefox would send some that it does not receive. `refused` are mids of sections the client wanted to send on
    and that were answered with port 0. `senders` has the mids that were given a track of ours, with the codecs the
    client takes and the payload types it wants them with; empty where it takes none, and then the section is inactive.
    """

    sdp: str
    role: Role
    remote: RemoteTransport
    ice_restarted: bool
    sctp: SctpParameters | None
    extensions: Mapping[str, int]
    sent_extensions: Mapping[str, int]
    tracks: tuple[PublishedMedia, ...]
    stopped: tuple[str, ...]
    refused: tuple[str, ...]
    senders: Mapping[str, tuple[Codec, ...]]

    @property
    def fingerprints(self) -> tuple[tuple[str, str], ...]:
        return self.remote.fingerprints


@dataclass(frozen=True, slots=True)
class Offer:
    """Our offer, and which track is behind every live mid (LiveKit's mid_to_track_id)."""

    sdp: str
    track_by_mid: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a subscriber's answer agreed. `role` is ours.

    `senders` has every live mid of the offer that was answered; its codecs are those the subscriber takes, with the
    payload types to send them with, empty where it takes nothing. `rejected` are those of them that were answered with
    port 0 now: such a section is told once and never comes back, and a track that is wanted again has to be added
    again. `extensions` are those the subscriber understands, over the whole bundle.
    """

    role: Role
    remote: RemoteTransport
    ice_restarted: bool
    sctp: SctpParameters | None
    extensions: Mapping[str, int]
    senders: Mapping[str, tuple[Codec, ...]]
    rejected: frozenset[str]

    @property
    def fingerprints(self) -> tuple[tuple[str, str], ...]:
        return self.remote.fingerprints
