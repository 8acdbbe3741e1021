"""The little SDP that a LiveKit client needs: offers of what it publishes, answers to what it is sent.

RFC 8866, RFC 9429, RFC 9143 (everything bundled), RFC 8853 (simulcast). Written for servers that behave: what is missing
from a description raises `SdpError`, and nothing here defends itself against a hostile one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
RID = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
REPAIRED_RID = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
AUDIO_LEVEL = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
TRANSPORT_CC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
ABS_SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
DEPENDENCY_DESCRIPTOR = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"

OFFERED: Mapping[str, Mapping[str, int]] = {
    "audio": {MID: 1, AUDIO_LEVEL: 2, ABS_SEND_TIME: 3, TRANSPORT_CC: 4},
    "video": {MID: 1, ABS_SEND_TIME: 3, TRANSPORT_CC: 4, RID: 5, REPAIRED_RID: 6, DEPENDENCY_DESCRIPTOR: 7},
}
UNDERSTOOD = frozenset(uri for uris in OFFERED.values() for uri in uris)
FEEDBACK = {"audio": ("transport-cc", "nack"), "video": ("transport-cc", "nack", "nack pli", "ccm fir", "goog-remb")}

PAYLOAD_TYPES = {"opus": (111, None), "vp8": (96, 97), "vp9": (98, 99), "av1": (45, 46), "h264": (102, 103)}
"""Of the codecs we publish: media, RTX."""
_RTPMAP = {"opus": "opus/48000/2", "vp8": "VP8/90000", "vp9": "VP9/90000", "av1": "AV1/90000", "h264": "H264/90000"}
_FMTP = {
    "opus": "minptime=10;useinbandfec=1",
    "vp9": "profile-id=0",
    "h264": "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
}

MAX_MESSAGE_BYTES = 65_536
DATA_MID = "data"

CodecTuple = tuple[int, str, int, int | None]
"""Payload type, name, clock rate, RTX payload type: what `relaycore.loadgen` takes."""


class SdpError(ValueError):
    """A description that lacks what a call needs."""


@dataclass(frozen=True)
class Local:
    """Our end of one transport as descriptions name it."""

    ufrag: str
    password: str
    fingerprint: str
    address: tuple[str, int]


@dataclass(frozen=True)
class Published:
    """One track as an offer has it."""

    mid: str
    kind: str
    codec: str
    stream_id: str
    track_id: str
    cname: str
    ssrcs: tuple[int, ...]
    rtx_ssrcs: tuple[int | None, ...]
    rids: tuple[str, ...] = ()


@dataclass
class Section:
    """One m= section of the other end."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    lines: list[str] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        """Values of all `a=name:` lines."""
        prefix = f"a={name}:"
        return [line[len(prefix) :] for line in self.lines if line.startswith(prefix)]

    def value(self, name: str) -> str | None:
        """Return the first one, or None."""
        return next(iter(self.values(name)), None)

    @property
    def mid(self) -> str:
        return self.value("mid") or ""

    @property
    def direction(self) -> str:
        return next((w for w in ("sendonly", "recvonly", "inactive", "sendrecv") if f"a={w}" in self.lines), "sendrecv")

    @property
    def is_live(self) -> bool:
        """Not rejected; port 0 in a bundle-only section of an offer is none of our servers' ways."""
        return self.port != 0

    @property
    def codecs(self) -> tuple[CodecTuple, ...]:
        """Codecs in order, each with the payload type of its RTX."""
        names = {}
        for value in self.values("rtpmap"):
            number, _, form = value.partition(" ")
            name, _, rest = form.partition("/")
            names[number] = (name.lower(), int(rest.partition("/")[0]))
        rtx = {}
        for value in self.values("fmtp"):
            number, _, parameters = value.partition(" ")
            apt = next((p.partition("=")[2] for p in parameters.split(";") if p.strip().startswith("apt=")), None)
            if apt is not None and names.get(number, ("", 0))[0] == "rtx":
                rtx[apt.strip()] = int(number)
        known = ("opus", "red", "vp8", "vp9", "h264", "av1")
        return tuple(
            (int(number), name if name in known else "other", clock, rtx.get(number))
            for number in self.formats
            if number in names
            for name, clock in (names[number],)
            if name not in ("rtx", "ulpfec", "flexfec-03", "telephone-event", "cn")
        )

    @property
    def extensions(self) -> dict[str, int]:
        """Header extensions we understand: id by URI."""
        pairs = (value.split(" ")[:2] for value in self.values("extmap"))
        return {uri: int(number.partition("/")[0]) for number, uri in pairs if uri in UNDERSTOOD}

    @property
    def ssrcs(self) -> tuple[int | None, int | None]:
        """Media and RTX SSRC where the section names them."""
        group = next((value.split(" ")[1:3] for value in self.values("ssrc-group") if value.startswith("FID ")), None)
        if group is not None:
            return int(group[0]), int(group[1])
        named = self.value("ssrc")
        return (int(named.partition(" ")[0]), None) if named else (None, None)

    @property
    def msid(self) -> tuple[str, str]:
        """Stream and track id."""
        stream, _, track = (self.value("msid") or "").partition(" ")
        return stream, track


@dataclass(frozen=True)
class Description:
    """A description of the other end."""

    session_lines: tuple[str, ...]
    sections: tuple[Section, ...]
    ufrag: str
    password: str
    fingerprints: tuple[tuple[str, str], ...]
    setup: str
    is_lite: bool
    candidates: tuple[tuple[str, int], ...]

    @property
    def bundle(self) -> tuple[str, ...]:
        group = next((line for line in self.session_lines if line.startswith("a=group:BUNDLE")), "")
        return tuple(group.split(" ")[1:])

    def section(self, mid: str) -> Section | None:
        return next((section for section in self.sections if section.mid == mid), None)


def parse(text: str) -> Description:
    """Read an offer or answer.   Errors: SdpError."""
    session: list[str] = []
    sections: list[Section] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        if line.startswith("m="):
            kind, port, protocol, *formats = line[2:].split(" ")
            sections.append(Section(kind, int(port), protocol, tuple(formats)))
        elif line:
            (sections[-1].lines if sections else session).append(line)
    live = [section for section in sections if section.is_live]

    def first(name: str) -> str:
        prefix = f"a={name}:"
        pools = [*(section.lines for section in live), session]
        return next((line[len(prefix) :] for lines in pools for line in lines if line.startswith(prefix)), "")

    prints = {
        line[len("a=fingerprint:") :]
        for lines in (session, *(section.lines for section in live))
        for line in lines
        if line.startswith("a=fingerprint:")
    }
    found = [candidate for section in live for value in section.values("candidate") for candidate in [take_candidate(value)]]
    description = Description(
        tuple(session),
        tuple(sections),
        first("ice-ufrag"),
        first("ice-pwd"),
        tuple((name.lower(), value.upper()) for name, _, value in (text.partition(" ") for text in sorted(prints))),
        first("setup"),
        "a=ice-lite" in session,
        tuple(address for _, address in sorted((c for c in found if c), reverse=True)),
    )
    if not (description.ufrag and description.password and description.fingerprints):
        raise SdpError("a description without ICE credentials or a fingerprint")
    return description


def take_candidate(value: str) -> tuple[int, tuple[str, int]] | None:
    """Return (priority, address) of a UDP candidate that is an address; None for TCP and names."""
    words = value.removeprefix("candidate:").split(" ")
    if len(words) < 6 or words[2].lower() != "udp" or words[4].endswith(".local"):
        return None
    return int(words[3]), (words[4], int(words[5]))


def write_offer(local: Local, tracks: Sequence[Published], *, data: bool, version: int = 0) -> str:
    """Return an offer that sends these tracks and, with `data`, opens data channels."""
    sections = [_data_section(local, DATA_MID, "actpass")] if data else []
    sections += [_sending_section(local, track) for track in tracks]
    mids = [DATA_MID] * data + [track.mid for track in tracks]
    return _session(local, mids, version) + "".join(sections)


def write_answer(local: Local, offer: Description, *, setup: str, version: int = 0) -> str:
    """Return an answer that takes everything it is offered, data channels too: a first offer may hold nothing else."""
    sections, mids = [], []
    for section in offer.sections:
        is_data = section.kind == "application"
        if not section.is_live:
            head = f"m={section.kind} 0 {section.protocol} {' '.join(section.formats)}\r\nc=IN IP4 0.0.0.0\r\n"
            sections.append(f"{head}a=inactive\r\na=mid:{section.mid}\r\n")
            continue
        mids.append(section.mid)
        sections.append(_data_section(local, section.mid, setup) if is_data else _receiving_section(local, section, setup))
    return _session(local, mids, version) + "".join(sections)


def _session(local: Local, mids: Iterable[str], version: int) -> str:
    number = int.from_bytes(local.ufrag.encode()[-6:].rjust(6, b"1"), "big")
    group = f"a=group:BUNDLE {' '.join(mids)}\r\n"
    return f"v=0\r\no=- {number} {version + 1} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n{group}a=extmap-allow-mixed\r\na=msid-semantic: WMS\r\n"


def _transport(local: Local, mid: str, setup: str) -> str:
    ip, port = local.address
    family = "IP6" if ":" in ip else "IP4"
    return (
        f"c=IN {family} {ip}\r\na=candidate:1 1 udp 2130706431 {ip} {port} typ host\r\na=end-of-candidates\r\n"
        f"a=ice-ufrag:{local.ufrag}\r\na=ice-pwd:{local.password}\r\na=fingerprint:{local.fingerprint}\r\n"
        f"a=setup:{setup}\r\na=mid:{mid}\r\n"
    )


def _data_section(local: Local, mid: str, setup: str) -> str:
    head = f"m=application {local.address[1]} UDP/DTLS/SCTP webrtc-datachannel\r\n"
    return f"{head}{_transport(local, mid, setup)}a=sctp-port:5000\r\na=max-message-size:{MAX_MESSAGE_BYTES}\r\n"


def _sending_section(local: Local, track: Published) -> str:
    payload_type, rtx = PAYLOAD_TYPES[track.codec]
    formats = f"{payload_type}" if rtx is None else f"{payload_type} {rtx}"
    lines = [f"a=extmap:{number} {uri}" for uri, number in OFFERED[track.kind].items()]
    lines += ["a=sendonly", f"a=msid:{track.stream_id} {track.track_id}", "a=rtcp-mux", "a=rtcp-rsize"]
    lines.append(f"a=rtpmap:{payload_type} {_RTPMAP[track.codec]}")
    lines += [f"a=rtcp-fb:{payload_type} {what}" for what in FEEDBACK[track.kind]]
    if track.codec in _FMTP:
        lines.append(f"a=fmtp:{payload_type} {_FMTP[track.codec]}")
    if rtx is not None:
        lines += [f"a=rtpmap:{rtx} rtx/90000", f"a=fmtp:{rtx} apt={payload_type}"]
    if track.rids:
        lines += [f"a=rid:{rid} send" for rid in track.rids]
        lines.append(f"a=simulcast:send {';'.join(track.rids)}")
    else:
        ssrc, rtx_ssrc = track.ssrcs[0], track.rtx_ssrcs[0]
        if rtx_ssrc is not None:
            lines.append(f"a=ssrc-group:FID {ssrc} {rtx_ssrc}")
        for number in (ssrc, rtx_ssrc):
            if number is not None:
                lines += [f"a=ssrc:{number} cname:{track.cname}", f"a=ssrc:{number} msid:{track.stream_id} {track.track_id}"]
    head = f"m={track.kind} {local.address[1]} UDP/TLS/RTP/SAVPF {formats}\r\n"
    return head + _transport(local, track.mid, "actpass") + "\r\n".join(lines) + "\r\n"


def _receiving_section(local: Local, section: Section, setup: str) -> str:
    lines = [line for line in section.lines if line[2:].partition(":")[0] in ("rtpmap", "fmtp")]
    lines += [f"a=extmap:{number} {uri}" for uri, number in section.extensions.items()]
    wanted = FEEDBACK.get(section.kind, ())
    lines += [f"a=rtcp-fb:{value}" for value in section.values("rtcp-fb") if value.partition(" ")[2] in wanted]
    lines += ["a=recvonly" if section.direction in ("sendonly", "sendrecv") else "a=inactive", "a=rtcp-mux", "a=rtcp-rsize"]
    head = f"m={section.kind} {local.address[1]} {section.protocol} {' '.join(section.formats)}\r\n"
    return head + _transport(local, section.mid, setup) + "\r\n".join(lines) + "\r\n"
