"""A published track as policy sees it: what it is, whose it is, which encodings it has."""

import enum
from dataclasses import dataclass, field

from relay.policy.tiers import CLEAR, VIDEO_CODECS
from relay.quality.choice import EncodingShape, Quality
from relay.rooms.permissions import Source


class Encryption(enum.IntEnum):
    """How the frames of a publication are encrypted end to end; the numbers are LiveKit's Encryption.Type."""

    NONE = 0
    GCM = 1
    CUSTOM = 2


_FRAMES = {Encryption.NONE: CLEAR, Encryption.GCM: "livekit_gcm", Encryption.CUSTOM: "sframe"}
# The data plane keeps no more either.
MAX_KEY_RANGES = 32


@dataclass(frozen=True, slots=True)
class Layer:
    """One quality as the publisher announced it (quality 0 is the lowest)."""

    quality: int
    width: int
    height: int
    bitrate_bps: int = 0
    rid: str = ""
    spatial_id: int = 0


@dataclass(frozen=True, slots=True)
class CodecChoice:
    """One codec of a publication and the client's own name for the track that carries it."""

    mime_type: str
    cid: str
    layers: tuple[Layer, ...] = ()
    # LiveKit's VideoLayer.Mode: how the layers share a stream; passed on as it came.
    layer_mode: int = 0

    @property
    def name(self) -> str:
        """The codec as SDP and data plane call it: vp8, av1."""
        return self.mime_type.rpartition("/")[2].lower()


@dataclass(slots=True)
class Publication:
    """One track of one publisher.

    Pending until an m-line carries it (`bound`); only then do others hear of it. `encryption` is fixed for life.
    """

    sid: str
    publisher_sid: str
    cid: str
    is_video: bool
    source: Source = Source.UNKNOWN
    name: str = ""
    muted: bool = False
    # Muted from outside: nothing of it is forwarded until its publisher says that it is unmuted, whatever comes.
    is_silenced: bool = False
    # Not among those whom a large room forwards now.
    is_off_stage: bool = False
    width: int = 0
    height: int = 0
    layers: tuple[Layer, ...] = ()
    codecs: tuple[CodecChoice, ...] = ()
    encryption: Encryption = Encryption.NONE
    stream: str = ""
    stereo: bool = False
    disable_dtx: bool = False
    disable_red: bool = False
    audio_features: tuple[int, ...] = ()
    bound: bool = False
    mime_type: str = ""
    mid: str = ""
    rids: tuple[str, ...] = ()
    active_encodings: set[int] = field(default_factory=set)
    subscriber_seen: bool = False
    # SFrame key ids that its publisher announced before an m-line carried it, oldest first.
    key_ranges: list[tuple[int, int]] = field(default_factory=list)

    @property
    def frames(self) -> str:
        """What its frames are declared to be: clear, livekit_gcm or sframe."""
        return _FRAMES[self.encryption]

    def answers_to(self, cid: str) -> bool:
        """True when the client calls this track, or one codec of it, by that name."""
        return bool(cid) and (self.cid == cid or any(choice.cid == cid for choice in self.codecs))

    @property
    def possible_codecs(self) -> frozenset[str] | None:
        """The codecs that frames of its format can carry; None where its kind has only one."""
        return frozenset(VIDEO_CODECS[self.frames]) if self.is_video else None

    @property
    def preferred_codec(self) -> str:
        """The codec its client announced, which it sends when the answer has it first; empty without. What follows it in
        an announcement are backups, sent as tracks of their own when asked for, and nobody asks."""
        return self.codecs[0].name if self.codecs else ""

    @property
    def is_simulcast(self) -> bool:
        """True when its picture comes in several streams; before an m-line says so, as announced."""
        return self.is_video and (len(self.rids) if self.bound else len(self.layers)) > 1

    @property
    def encoding_count(self) -> int:
        """How many encodings may come: one per rid, else one."""
        return max(1, len(self.rids))

    def qualities(self) -> dict[Quality, EncodingShape]:
        """Return the announced size of every quality, by LiveKit's numbers of them."""
        known = {layer.quality: layer for layer in self.layers if layer.quality in (0, 1, 2)}
        return {Quality(number): EncodingShape(layer.width, layer.height) for number, layer in known.items()}

    def shapes(self) -> tuple[EncodingShape, ...]:
        """Return the announced size of every encoding, low to high; zero where nothing was announced."""
        ordered = sorted(self.layers, key=lambda layer: layer.quality)
        if len(ordered) != self.encoding_count:
            # One encoding carries the whole picture; with a count that does not fit, no size can be believed.
            full = EncodingShape(self.width, self.height) if self.encoding_count == 1 else EncodingShape(0, 0)
            return (full,) * self.encoding_count
        return tuple(EncodingShape(layer.width, layer.height) for layer in ordered)
