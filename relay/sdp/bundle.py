"""One transport for all sections: the BUNDLE group, whose attributes count, ICE and DTLS lines, the DTLS role.

RFC 9143 (bundle), RFC 8839 (ICE lines), RFC 8122 (fingerprint), RFC 8842 (setup over DTLS), RFC 8841 (SCTP). We have
one transport per description: what is not bundled onto it is refused.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Sequence

from relay.sdp.errors import SdpError
from relay.sdp.facts import LocalTransport, RemoteTransport, Role, SctpParameters, SentTrack
from relay.sdp.grammar import Attribute, MediaSection, Origin, SessionDescription, read_number, shortened
from relay.sdp.media import read_mid

NO_ADDRESS = (("c", "IN IP4 0.0.0.0"),)
# RFC 9429 §5.2.1: with ICE the port says only that the section lives.
LIVE_PORT = 9

# RFC 8122 knows weaker ones; a fingerprint is all that ties the media to the signalling.
_HASH_BYTES = {"sha-256": 32, "sha-384": 48, "sha-512": 64}

_ICE_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")

# RFC 8841: what counts where max-message-size is missing.
_DEFAULT_MESSAGE_BYTES = 65_536


def read_mids(session: SessionDescription) -> tuple[str, ...]:
    """Return the mid of every section, in order.   Errors: SdpError where one is missing or stands twice."""
    mids: dict[str, int] = {}
    for section in session.sections:
        mid = read_mid(section)
        if mid in mids:
            raise SdpError(f"mid {mid} stands twice", section.line)
        mids[mid] = section.line
    return tuple(mids)


def read_bundle(session: SessionDescription, mids: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """Return the mids that share our transport, in the order of the first BUNDLE group, and whether there is a group.

    Without a group it is the first live section alone. Errors: SdpError where the group names no section.
    """
    for attribute in session.all("group"):
        semantics, _, rest = (attribute.value or "").partition(" ")
        names = rest.split()
        if semantics == "BUNDLE" and names:
            strangers = sorted(set(names).difference(mids))
            if strangers:
                raise SdpError(f"the BUNDLE group names {shortened(strangers[0])}, which no section is", attribute.line)
            return tuple(dict.fromkeys(names)), True
    live = [mid for mid, section in zip(mids, session.sections, strict=True) if is_live(section)]
    return tuple(live[:1] or mids[:1]), False


def is_live(section: MediaSection) -> bool:
    """False for a section its writer rejects or has ended. Port 0 with bundle-only lives (RFC 9143)."""
    return section.port != 0 or section.has("bundle-only")


def read_remote(session: SessionDescription, sections: Iterable[MediaSection]) -> tuple[RemoteTransport, str]:
    """Return the other end's transport and its `setup`, from the first bundled section that has ICE credentials.

    `sections` are the bundle's, live ones first. Each attribute may stand at the session instead. A missing setup
    counts as actpass, which is what an offer has to say.
    Errors: SdpError where credentials or a fingerprint of a hash we trust are missing, or one is malformed.
    """
    for section in sections:
        ufrag = _ice_value(session, section, "ice-ufrag", 4)
        if ufrag is None:
            continue
        password = _ice_value(session, section, "ice-pwd", 22)
        if password is None:
            raise SdpError("a=ice-pwd is missing beside a=ice-ufrag", section.line)
        fingerprints = _read_fingerprints(session, section)
        setup = section.first("setup") or session.first("setup")
        if setup is not None and setup.value not in ("actpass", "active", "passive"):
            raise SdpError(f"a=setup is actpass, active or passive, not {shortened(setup.value or '')}", setup.line)
        return RemoteTransport(ufrag, password, fingerprints), (setup.value or "") if setup else "actpass"
    raise SdpError("a=ice-ufrag is missing: nothing here has a transport")


def _ice_value(session: SessionDescription, section: MediaSection, name: str, least: int) -> str | None:
    attribute = section.first(name) or session.first(name)
    if attribute is None:
        return None
    value = attribute.value or ""
    if not least <= len(value) <= 256 or not _ICE_CHARS.issuperset(value):
        raise SdpError(f"a={name} has {least} to 256 letters, digits, + and /", attribute.line)
    return value


def _read_fingerprints(session: SessionDescription, section: MediaSection) -> tuple[tuple[str, str], ...]:
    lines = list(section.all("fingerprint")) or list(session.all("fingerprint"))
    found = []
    for attribute in lines:
        algorithm, _, digest = (attribute.value or "").strip().partition(" ")
        size = _HASH_BYTES.get(algorithm.lower())
        if size is None:
            continue
        octets = digest.strip().upper().split(":")
        if len(octets) != size or not all(
            len(octet) == 2 and set(octet) <= set("0123456789ABCDEF") for octet in octets
        ):
            raise SdpError(f"a {algorithm} fingerprint is {size} octets in hexadecimal with colons", attribute.line)
        found.append((algorithm.lower(), ":".join(octets)))
    if not found:
        raise SdpError(f"a fingerprint is missing; hashes are {', '.join(_HASH_BYTES)}", section.line)
    return tuple(dict.fromkeys(found))


def read_sctp(section: MediaSection) -> SctpParameters:
    """Return what an application section says.   Errors: SdpError for a number that is none."""
    port = section.first("sctp-port")
    size = section.first("max-message-size")
    return SctpParameters(
        read_mid(section),
        5000 if port is None else read_number(port.value or "", 65_535, "an SCTP port", port.line),
        _DEFAULT_MESSAGE_BYTES
        if size is None
        else read_number(size.value or "", (1 << 64) - 1, "a message size", size.line),
    )


def is_data_section(section: MediaSection) -> bool:
    """True for WebRTC data channels over DTLS; the TCP form only names the default candidate (RFC 8841)."""
    return (
        section.media == "application"
        and section.protocol in ("UDP/DTLS/SCTP", "TCP/DTLS/SCTP")
        and "webrtc-datachannel" in section.formats
    )


def is_rtp_section(section: MediaSection) -> bool:
    """True for audio and video in a profile that means DTLS-SRTP with feedback (RFC 9429 §5.1.2)."""
    return section.media in ("audio", "video") and section.protocol in (
        "UDP/TLS/RTP/SAVPF",
        "TCP/DTLS/RTP/SAVPF",
        "UDP/TLS/RTP/SAVP",
        "RTP/SAVPF",
        "RTP/SAVP",
    )


def role_against(setup: str, fixed: Role | None, line: int | None = None) -> Role:
    """Return our DTLS role against the other end's setup; passive where we may choose, which picks the SRTP profile.

    The role holds for the transport's life: descriptions after the first may only confirm it.
    Errors: SdpError where the other end insists on the role we have.
    """
    allowed: tuple[Role, ...] = {"actpass": ("server", "client"), "active": ("server",), "passive": ("client",)}[setup]
    if fixed is None:
        return allowed[0]
    if fixed not in allowed:
        raise SdpError(f"a=setup:{setup} changes a DTLS role that is settled for this transport", line)
    return fixed


def refuse_other_identity(before: RemoteTransport | None, now: RemoteTransport) -> None:
    """Refuse a change of certificate: it would be a new DTLS association, and a transport has one for its life."""
    if before is not None and set(before.fingerprints).isdisjoint(now.fingerprints):
        raise SdpError("the fingerprint changed; a new certificate needs a new connection")


def has_restarted(before: RemoteTransport | None, now: RemoteTransport) -> bool:
    """True when credentials differ from the last description's (RFC 8839)."""
    return before is not None and (before.ufrag, before.password) != (now.ufrag, now.password)


def session_id_of(local: LocalTransport) -> str:
    """Return the session id for an `o=` line: 62 bits as in RFC 9429 §5.2.1, from what names the transport anyway.

    Take it once per connection, since ICE restarts change the name.
    """
    digest = hashlib.sha256(f"{local.ufrag} {local.fingerprint}".encode()).digest()
    return str(int.from_bytes(digest[:8]) >> 2)


def origin_of(session_id: str, version: int) -> Origin:
    """Return our `o=` line; the address is the usual one that says nothing."""
    return Origin("-", session_id, str(version), "IN", "IP4", "127.0.0.1")


def session_attributes(local: LocalTransport, bundled: Sequence[str], *, allow_mixed: bool) -> tuple[Attribute, ...]:
    """Return the attributes ahead of the first section."""
    lines = []
    if bundled:
        lines.append(Attribute("group", " ".join(("BUNDLE", *bundled))))
    if local.ice_lite:
        lines.append(Attribute("ice-lite"))
    if allow_mixed:
        lines.append(Attribute("extmap-allow-mixed"))
    lines.append(Attribute("msid-semantic", " WMS *"))
    return tuple(lines)


def transport_attributes(
    local: LocalTransport, setup: str, mid: str, *, with_candidates: bool
) -> tuple[Attribute, ...]:
    """Return ICE, DTLS and mid lines of one section.

    Candidates stand in the section that carries the bundle's address alone, all of them, so that nothing trickles.
    """
    lines = [
        Attribute("ice-ufrag", local.ufrag),
        Attribute("ice-pwd", local.password),
        Attribute("fingerprint", local.fingerprint),
        Attribute("setup", setup),
        Attribute("mid", mid),
    ]
    if with_candidates:
        lines += _candidate_attributes(local.candidates, local.tcp_candidates)
        lines.append(Attribute("end-of-candidates"))
    return tuple(lines)


def _candidate_attributes(
    candidates: Sequence[tuple[str, int]], tcp_candidates: Sequence[tuple[str, int]]
) -> list[Attribute]:
    # RFC 8445 §5.1.2: type preference 126 for host, component 1; earlier addresses are preferred. TCP comes after
    # all UDP: 90 as libwebrtc has it; passive is direction preference 2 (RFC 6544 §4.2).
    lines = []
    for place, (ip, port) in enumerate(candidates):
        priority = (126 << 24) | ((65_535 - place) << 8) | 255
        value = f"{place + 1} 1 udp {priority} {ipaddress.ip_address(ip)} {port} typ host"
        lines.append(Attribute("candidate", value))
    for place, (ip, port) in enumerate(tcp_candidates, len(lines)):
        priority = (90 << 24) | ((2 << 13 | 8_191 - place) << 8) | 255
        value = f"{place + 1} 1 tcp {priority} {ipaddress.ip_address(ip)} {port} typ host tcptype passive"
        lines.append(Attribute("candidate", value))
    return lines


def sending_attributes(track: SentTrack) -> list[Attribute]:
    """Return the lines that name a track of ours: msid (RFC 8830) and its sources (RFC 5576).

    Browsers go by MID; native stacks and Go clients want the SSRCs beforehand.
    """
    lines = [Attribute("msid", f"{track.stream_id} {track.track_id}")]
    ssrcs = [track.ssrc] if track.rtx_ssrc is None else [track.ssrc, track.rtx_ssrc]
    if track.rtx_ssrc is not None:
        lines.append(Attribute("ssrc-group", f"FID {track.ssrc} {track.rtx_ssrc}"))
    for ssrc in ssrcs:
        lines.append(Attribute("ssrc", f"{ssrc} cname:{track.cname}"))
        lines.append(Attribute("ssrc", f"{ssrc} msid:{track.stream_id} {track.track_id}"))
    return lines


def data_section(protocol: str, attributes: Sequence[Attribute], max_message_bytes: int) -> MediaSection:
    """Return our application section; `attributes` are its transport lines."""
    sctp = (Attribute("sctp-port", "5000"), Attribute("max-message-size", str(max_message_bytes)))
    return MediaSection("application", LIVE_PORT, protocol, ("webrtc-datachannel",), (*attributes, *sctp), NO_ADDRESS)


def refused_section(section: MediaSection, mid: str) -> MediaSection:
    """Return the answer that ends or rejects a section: port 0, outside the bundle, the mid kept for reference."""
    return MediaSection(
        section.media, 0, section.protocol, section.formats, (Attribute("mid", mid), Attribute("inactive")), NO_ADDRESS
    )
