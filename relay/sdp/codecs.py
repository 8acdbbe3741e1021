"""Which payload formats we take, and what their format lines say.

Opus (RFC 7587), RED for Opus (RFC 2198), VP8 (RFC 7741), VP9 profile 0 (RFC 9628), H.264 Baseline and Main (RFC 6184
§8.1), AV1 main profile, RTX (RFC 4588). Never RED or ULPFEC for video: Chromium then sends everything inside RED. The
relay decodes nothing, so what is taken here only decides what can be forwarded to whom.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from relay.sdp.facts import Codec, TrackOptions
from relay.sdp.grammar import Attribute
from relay.sdp.media import PayloadFormat, read_parameters

AUDIO = ("opus", "red")
VIDEO = ("vp8", "h264", "vp9", "av1")

# profile_idc of Baseline (with or without its constraint bits) and Main: what browsers encode in real time.
_H264_PROFILES = ("42", "4d")
# RFC 6184 §8.1: where profile-level-id is missing, Baseline at level 1.
_H264_DEFAULT = "42000a"

_RTPMAP = {
    "opus": "opus/48000/2",
    "red": "red/48000/2",
    "vp8": "VP8/90000",
    "vp9": "VP9/90000",
    "h264": "H264/90000",
    "av1": "AV1/90000",
}

# RFC 5761 §4: with rtcp-mux a payload type here looks like RTCP.
_LOOKS_LIKE_RTCP = range(64, 96)

VIDEO_FEEDBACK = ("nack", "nack pli", "ccm fir", "transport-cc")
AUDIO_FEEDBACK = ("transport-cc", "nack")


@dataclass(frozen=True, slots=True)
class CodecPolicy:
    """The codecs publishers may use, by name. Order says nothing: the client's preference counts."""

    audio: frozenset[str] = frozenset(AUDIO)
    video: frozenset[str] = frozenset(VIDEO)

    def __post_init__(self) -> None:
        unknown = (self.audio - set(AUDIO)) | (self.video - set(VIDEO))
        if unknown:
            raise ValueError(f"not codecs we can forward: {', '.join(sorted(unknown))}")

    def allows(self, kind: str, name: str) -> bool:
        return name in (self.audio if kind == "audio" else self.video)


def agree(
    kind: str, offered: Iterable[PayloadFormat], policy: CodecPolicy, options: TrackOptions | None
) -> list[tuple[PayloadFormat, PayloadFormat | None]]:
    """Return what the answer takes of a section's formats, each with its RTX format, in the offer's order.

    Browsers send what comes first: the preferred codec, and before it RED when asked for, which counts only beside the
    Opus it carries.
    A section nobody sends on has no options: everything is taken, so that a client may offer it again later.
    """
    formats = {offer.payload_type: offer for offer in offered if offer.payload_type not in _LOOKS_LIKE_RTCP}
    taken = [
        offer
        for offer in formats.values()
        if policy.allows(kind, offer.name)
        and (options is None or options.codecs is None or offer.name in options.codecs or offer.name == "red")
        and _is_usable(offer)
    ]
    names = {offer.payload_type: offer.name for offer in taken}
    has_red = options is None or options.red
    taken = [offer for offer in taken if offer.name != "red" or (has_red and _red_carries_opus(offer, names))]
    if options is not None:
        taken.sort(key=lambda offer: (offer.name != "red", offer.name != options.preferred))
    rtx = {}
    for offer in formats.values():
        apt = offer.parameter("apt")
        if offer.name == "rtx" and apt.isascii() and apt.isdigit():
            rtx.setdefault(int(apt), offer)
    return [(offer, _matching_rtx(offer, rtx)) for offer in taken]


def _matching_rtx(offer: PayloadFormat, rtx: dict[int, PayloadFormat]) -> PayloadFormat | None:
    found = rtx.get(offer.payload_type)
    return found if found is not None and found.clock_rate_hz == offer.clock_rate_hz else None


def _is_usable(offer: PayloadFormat) -> bool:
    match offer.name:
        case "opus" | "red":
            return offer.clock_rate_hz == 48_000 and offer.channels == 2
        case "vp8":
            return offer.clock_rate_hz == 90_000
        case "vp9":
            return offer.clock_rate_hz == 90_000 and offer.parameter("profile-id", "0") == "0"
        case "av1":
            return offer.clock_rate_hz == 90_000 and offer.parameter("profile", "0") == "0"
        case "h264":
            return offer.clock_rate_hz == 90_000 and h264_key(offer.parameters) is not None
    return False


def _red_carries_opus(offer: PayloadFormat, names: dict[int, str]) -> bool:
    carried = offer.parameters.split("/")
    return bool(offer.parameters) and all(
        text.isascii() and text.isdigit() and names.get(int(text)) == "opus" for text in carried
    )


def h264_key(parameters: str) -> tuple[str, str] | None:
    """Return (profile, packetization mode) of an H.264 fmtp, None where we do not forward it.

    Spec: RFC 6184 §8.2.2: two formats are the same where these two are; the level may differ, each way, when both
    allow level asymmetry. Profile is "constrained-baseline", "baseline" or "main": Baseline with constraint_set1 is
    Constrained Baseline, and so is Main with constraint_set0.
    """
    values = read_parameters(parameters)
    mode = values.get("packetization-mode", "0")
    profile = values.get("profile-level-id", _H264_DEFAULT)
    if mode not in ("0", "1") or len(profile) != 6 or not all(char in "0123456789abcdef" for char in profile):
        return None
    if profile[:2] not in _H264_PROFILES:
        return None
    constraints = int(profile[2:4], 16)
    if profile[:2] == "42":
        return ("constrained-baseline" if constraints & 0x40 else "baseline"), mode
    return ("constrained-baseline" if constraints & 0x80 else "main"), mode


def same_format(name: str, ours: str, theirs: str) -> bool:
    """True when two fmtp values of one codec mean formats that can be sent as each other."""
    match name:
        case "h264":
            return h264_key(ours) == h264_key(theirs)
        case "vp9":
            return read_parameters(ours).get("profile-id", "0") == read_parameters(theirs).get("profile-id", "0")
        case "av1":
            return read_parameters(ours).get("profile", "0") == read_parameters(theirs).get("profile", "0")
    return True


def answered_parameters(offer: PayloadFormat, *, stereo: bool, dtx: bool) -> str:
    """Return the fmtp value with which we take an offered format.

    Of Opus it asks for forward error correction always; no bitrate is named, so that the client's own choice holds.
    H.264 and AV1 come back with what we understand of the offer: the profile has to match (RFC 6184 §8.2.2), and our
    level is whatever the client sends.
    """
    values = read_parameters(offer.parameters)
    match offer.name:
        case "opus":
            return opus_parameters(stereo=stereo, dtx=dtx)
        case "red":
            return offer.parameters
        case "vp9":
            return "profile-id=0" if "profile-id" in values else ""
        case "av1":
            return _kept(values, ("level-idx", "profile", "tier"))
        case "h264":
            return _kept(values, ("level-asymmetry-allowed", "packetization-mode", "profile-level-id"))
    return ""


def _kept(values: dict[str, str], names: Iterable[str]) -> str:
    return ";".join(f"{name}={values[name]}" for name in names if values.get(name, "").isalnum())


def opus_parameters(*, stereo: bool, dtx: bool) -> str:
    """Return what we want to receive of Opus (RFC 7587 §6.1)."""
    return "minptime=10;useinbandfec=1" + ";usedtx=1" * dtx + ";stereo=1" * stereo


def taken_feedback(kind: str, offered: frozenset[str], *, has_transport_cc: bool) -> list[str]:
    """Return the rtcp-fb values of an answer: ours that were offered.

    transport-cc only where its header extension was taken too, and goog-remb only in its place.
    """
    wanted = AUDIO_FEEDBACK if kind == "audio" else VIDEO_FEEDBACK
    taken = [what for what in wanted if what in offered and (what != "transport-cc" or has_transport_cc)]
    if kind == "video" and "transport-cc" not in taken and "goog-remb" in offered:
        taken.append("goog-remb")
    return taken


def format_attributes(codec: Codec, feedback: Iterable[str]) -> list[Attribute]:
    """Return the rtpmap, rtcp-fb and fmtp lines of a codec and of its RTX format."""
    number = codec.payload_type
    lines = [Attribute("rtpmap", f"{number} {_RTPMAP[codec.name]}")]
    lines += [Attribute("rtcp-fb", f"{number} {what}") for what in feedback]
    if codec.parameters:
        lines.append(Attribute("fmtp", f"{number} {codec.parameters}"))
    if codec.rtx_payload_type is not None:
        lines.append(Attribute("rtpmap", f"{codec.rtx_payload_type} rtx/{codec.clock_rate_hz}"))
        lines.append(Attribute("fmtp", f"{codec.rtx_payload_type} apt={number}"))
    return lines


def format_numbers(codecs: Iterable[Codec]) -> tuple[str, ...]:
    """Return the formats of an m-line: each codec followed by its RTX."""
    numbers: list[str] = []
    for codec in codecs:
        numbers.append(str(codec.payload_type))
        if codec.rtx_payload_type is not None:
            numbers.append(str(codec.rtx_payload_type))
    return tuple(numbers)
