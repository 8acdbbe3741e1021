"""What the attributes of one audio or video section say, as values.

RFC 8866 §6 (rtpmap, fmtp, directions), RFC 4585 §4.2 (rtcp-fb), RFC 8285 §5 (extmap), RFC 8851 (rid), RFC 8853
(simulcast), RFC 5576 (ssrc, ssrc-group), RFC 8830 (msid). Candidates, sctp-init and everything else are left alone.
A known attribute that is malformed is refused with its line; feedback for payload types the section does not have is
not, because Firefox leaves such lines behind.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from relay.sdp.errors import SdpError
from relay.sdp.grammar import Attribute, MediaSection, SessionDescription, is_token, read_number, shortened

DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
REVERSED = MappingProxyType(
    {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}
)

# A header extension carries at most 16 bytes in its one-byte form, and both MID and RID travel there (RFC 8285 §4.2).
MAX_ID_BYTES = 16

_MAX_SSRC = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class PayloadFormat:
    """One payload type of a section: its rtpmap, fmtp and rtcp-fb lines. `name` is lower case."""

    payload_type: int
    name: str
    clock_rate_hz: int
    channels: int = 1
    parameters: str = ""
    feedback: frozenset[str] = frozenset()

    def parameter(self, name: str, default: str = "") -> str:
        """Return one `name=value` of the fmtp line, the name in any case, lower-cased value."""
        return read_parameters(self.parameters).get(name, default)


@dataclass(frozen=True, slots=True)
class Extmap:
    """One `a=extmap:id[/direction] uri [attributes]` line, as seen by the side that wrote it."""

    id: int
    uri: str
    direction: str = "sendrecv"
    has_direction: bool = False
    has_attributes: bool = False


@dataclass(frozen=True, slots=True)
class Msid:
    """Stream and track of an `a=msid` line. Stream "-" means none, track "" that the client names none."""

    stream: str = "-"
    track: str = ""


@dataclass(frozen=True)
class RtpSection:
    """An audio or video section. `send_rids` in the order of its simulcast list, pause markers taken off."""

    kind: str
    mid: str
    direction: str
    formats: tuple[PayloadFormat, ...]
    extmaps: tuple[Extmap, ...] = ()
    send_rids: tuple[str, ...] = ()
    is_simulcast: bool = False
    msid: Msid = Msid()
    ssrcs: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    ssrc_groups: tuple[tuple[str, tuple[int, ...]], ...] = ()
    has_rtcp_mux: bool = True
    has_reduced_size: bool = True
    allows_mixed_extmap: bool = False

    @property
    def is_sending(self) -> bool:
        return self.direction in ("sendrecv", "sendonly")

    @property
    def sends_stereo(self) -> bool:
        """True when it says that the channels of its Opus differ (RFC 7587 §6.1); `stereo` would ask for ours."""
        return any(each.name == "opus" and each.parameter("sprop-stereo") == "1" for each in self.formats)

    @cached_property
    def primary_ssrcs(self) -> tuple[int, ...]:
        """SSRCs of media, without those a group gives to repair; in the order of a SIM group where there is one."""
        repair = {ssrc for semantics, ssrcs in self.ssrc_groups if semantics != "SIM" for ssrc in ssrcs[1:]}
        ordered = [ssrc for semantics, ssrcs in self.ssrc_groups if semantics == "SIM" for ssrc in ssrcs]
        return tuple(dict.fromkeys(ssrc for ssrc in (*ordered, *self.ssrcs) if ssrc not in repair))

    @cached_property
    def rtx_ssrc_of(self) -> Mapping[int, int]:
        """The retransmission SSRC of each media SSRC that has one (RFC 5576 §4.2, FID)."""
        return {ssrcs[0]: ssrcs[1] for semantics, ssrcs in self.ssrc_groups if semantics == "FID" and len(ssrcs) == 2}

    @property
    def cname(self) -> str:
        return next((attributes["cname"] for attributes in self.ssrcs.values() if "cname" in attributes), "")


def read_parameters(fmtp: str) -> dict[str, str]:
    """Return `a=1;b=2` as a dict, names and values lower case. What has no `=` is a name with an empty value."""
    found = {}
    for part in fmtp.lower().split(";"):
        name, _, value = part.partition("=")
        if name.strip():
            found.setdefault(name.strip(), value.strip())
    return found


def read_mid(section: MediaSection) -> str:
    """Return the section's identification tag.   Spec: RFC 5888 §4.   Errors: SdpError; RFC 9429 §5.2 demands one."""
    attribute = section.first("mid")
    if attribute is None:
        raise SdpError("a section needs an a=mid line", section.line or None)
    mid = attribute.value or ""
    if not is_token(mid) or len(mid) > MAX_ID_BYTES:
        raise SdpError(f"a mid is a token of at most {MAX_ID_BYTES} characters, not {shortened(mid)}", attribute.line)
    return mid


def read_direction(session: SessionDescription, section: MediaSection) -> str:
    """Return the section's direction, else the session's, else sendrecv (RFC 8866 §6.7)."""
    for block in (section, session):
        for attribute in block.attributes:
            if attribute.name in DIRECTIONS and attribute.value is None:
                return attribute.name
    return "sendrecv"


def read_rtp(session: SessionDescription, section: MediaSection) -> RtpSection:
    """Read an audio or video section.   Errors: SdpError with the line of a known attribute that is malformed."""
    rids, is_simulcast = _read_send_rids(section)
    return RtpSection(
        kind=section.media,
        mid=read_mid(section),
        direction=read_direction(session, section),
        formats=_read_formats(section),
        extmaps=tuple(map(_read_extmap, section.all("extmap"))),
        send_rids=rids,
        is_simulcast=is_simulcast,
        msid=_read_msid(section),
        ssrcs=_read_ssrcs(section),
        ssrc_groups=tuple(map(_read_ssrc_group, section.all("ssrc-group"))),
        has_rtcp_mux=section.has("rtcp-mux") or section.has("rtcp-mux-only"),
        has_reduced_size=section.has("rtcp-rsize"),
        allows_mixed_extmap=section.has("extmap-allow-mixed"),
    )


def _read_formats(section: MediaSection) -> tuple[PayloadFormat, ...]:
    names: dict[int, tuple[str, int, int]] = {}
    for attribute in section.all("rtpmap"):
        payload_type, rest = _payload_type_and_rest(attribute)
        names.setdefault(payload_type, _read_rtpmap(rest, attribute))
    parameters: dict[int, str] = {}
    for attribute in section.all("fmtp"):
        payload_type, rest = _payload_type_and_rest(attribute)
        parameters.setdefault(payload_type, rest.strip())
    feedback: dict[int, set[str]] = {}
    for_all: set[str] = set()
    for attribute in section.all("rtcp-fb"):
        target, _, rest = (attribute.value or "").partition(" ")
        what = " ".join(rest.lower().split())
        if target == "*":
            for_all.add(what)
        else:
            feedback.setdefault(read_number(target, 127, "a payload type", attribute.line), set()).add(what)
    formats = {}
    for text in section.formats:
        payload_type = read_number(text, 127, "a payload type", section.line)
        # Static payload types without rtpmap (RFC 3551) are codecs we never take.
        if payload_type in names and payload_type not in formats:
            formats[payload_type] = PayloadFormat(
                payload_type,
                *names[payload_type],
                parameters.get(payload_type, ""),
                frozenset(feedback.get(payload_type, set()) | for_all),
            )
    return tuple(formats.values())


def _payload_type_and_rest(attribute: Attribute) -> tuple[int, str]:
    number, space, rest = (attribute.value or "").partition(" ")
    if not space:
        raise SdpError(f"a={attribute.name} is a payload type, a space and a value", attribute.line)
    return read_number(number, 127, "a payload type", attribute.line), rest


def _read_rtpmap(text: str, attribute: Attribute) -> tuple[str, int, int]:
    name, *numbers = text.strip().split("/")
    if not is_token(name) or not 1 <= len(numbers) <= 2:
        raise SdpError(f"a=rtpmap is name/clock rate[/channels], not {shortened(text)}", attribute.line)
    clock_rate_hz = read_number(numbers[0], 10_000_000, "a clock rate", attribute.line)
    channels = read_number(numbers[1], 255, "a number of channels", attribute.line) if len(numbers) == 2 else 1
    return name.lower(), clock_rate_hz, channels


def _read_extmap(attribute: Attribute) -> Extmap:
    words = (attribute.value or "").split()
    if len(words) < 2:
        raise SdpError("a=extmap is id[/direction], a space and a URI", attribute.line)
    number, slash, direction = words[0].partition("/")
    if slash and direction not in DIRECTIONS:
        raise SdpError(f"the direction of an extmap is one of {', '.join(DIRECTIONS)}", attribute.line)
    # RFC 8285 §5: 1-14 for one byte, up to 255 for two; 4096-4351 are offered ids that still want a number.
    extension_id = read_number(number, 4351, "an extension id", attribute.line)
    return Extmap(extension_id, words[1], direction or "sendrecv", bool(slash), len(words) > 2)


def _read_send_rids(section: MediaSection) -> tuple[tuple[str, ...], bool]:
    declared: dict[str, None] = {}
    for attribute in section.all("rid"):
        parts = (attribute.value or "").split(" ", 2)
        if len(parts) < 2 or parts[1] not in ("send", "recv"):
            raise SdpError("a=rid is an id and send or recv", attribute.line)
        if parts[1] == "send":
            declared[_checked_rid(parts[0], attribute)] = None
    simulcast = section.first("simulcast")
    if simulcast is None:
        return tuple(declared), False
    listed = _read_simulcast(simulcast)
    return tuple(dict.fromkeys(rid for rid in listed if rid in declared)), bool(listed)


def _read_simulcast(attribute: Attribute) -> list[str]:
    """Return the send list: streams by `;`, of alternatives by `,` the first (RFC 8853)."""
    words = (attribute.value or "").split()
    if len(words) not in (2, 4) or any(word not in ("send", "recv") for word in words[::2]):
        raise SdpError("a=simulcast is send and a list, recv and a list, or both", attribute.line)
    if len(words) == 4 and words[0] == words[2]:
        raise SdpError("a=simulcast has each direction once", attribute.line)
    lists = dict(zip(words[::2], words[1::2], strict=True))
    streams = lists["send"].split(";") if "send" in lists else []
    return [_checked_rid(stream.partition(",")[0].removeprefix("~"), attribute) for stream in streams]


def _checked_rid(rid: str, attribute: Attribute) -> str:
    # RFC 8851 allows - and _ beside letters and digits, RFC 8852 does not; clients follow either.
    if not is_token(rid) or not rid.replace("-", "").replace("_", "").isalnum() or len(rid) > MAX_ID_BYTES:
        raise SdpError(f"a rid is at most {MAX_ID_BYTES} letters and digits, not {shortened(rid)}", attribute.line)
    return rid


def _read_msid(section: MediaSection) -> Msid:
    attribute = section.first("msid")
    if attribute is not None:
        stream, _, track = (attribute.value or "").strip().partition(" ")
        return Msid(stream or "-", track.partition(" ")[0])
    # Before RFC 8830 it stood beside the SSRC; some encoders still write it there alone.
    for attribute in section.all("ssrc"):
        _, _, rest = (attribute.value or "").partition(" ")
        if rest.startswith("msid:"):
            stream, _, track = rest.removeprefix("msid:").strip().partition(" ")
            return Msid(stream or "-", track.partition(" ")[0])
    return Msid()


def _read_ssrcs(section: MediaSection) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    for attribute in section.all("ssrc"):
        number, _, rest = (attribute.value or "").partition(" ")
        name, _, value = rest.strip().partition(":")
        found.setdefault(read_number(number, _MAX_SSRC, "an SSRC", attribute.line), {}).setdefault(name, value)
    return found


def _read_ssrc_group(attribute: Attribute) -> tuple[str, tuple[int, ...]]:
    words = (attribute.value or "").split()
    if len(words) < 2:
        raise SdpError("a=ssrc-group is semantics and SSRCs", attribute.line)
    return words[0], tuple(read_number(number, _MAX_SSRC, "an SSRC", attribute.line) for number in words[1:])
