"""Fuzz targets of the media path: header views, Dependency Descriptor, SRTP.

Each takes any bytes and returns; an exception is a finding. `WireError` is the parsers' right answer to bad bytes.
"""

import struct
import tomllib
from pathlib import Path

from relaycore import av1, h264, red, vp8, vp9
from relaycore.depdesc import DescriptorReader
from relaycore.errs import WireError
from relaycore.srtp import SrtpSession
from relaycore.targets import TargetsFace
from relaycore.views import StreamView

VIEWS = Path(__file__).parents[1] / "vectors/views"
PROFILES = ((1, bytes(range(16)), bytes(14)), (7, bytes(range(16)), bytes(12)), (8, bytes(range(32)), bytes(12)))


def _check_view(view: dict[str, int], payload: bytes) -> None:
    assert view["spatial_id"] < 8 and view["temporal_id"] < 8
    assert view["source"] in (0, 1, 2)
    for name in ("picture_id", "tl0"):
        assert view[f"{name}_offset"] + view[f"{name}_bytes"] <= len(payload), name
        assert view[f"{name}_bytes"] or not view[name], name


def _codec(parse, data: bytes) -> None:
    try:
        view = parse(data)
    except WireError:
        return
    _check_view(view, data)
    assert parse(data, True)["keyframe"] == view["keyframe"]


def fuzz_vp8(data: bytes) -> None:
    """VP8 payload descriptors."""
    _codec(vp8.parse, data)


def fuzz_vp9(data: bytes) -> None:
    """VP9 payload descriptors."""
    _codec(vp9.parse, data)


def fuzz_h264(data: bytes) -> None:
    """H264 NAL unit headers and aggregates."""
    _codec(h264.parse, data)


def fuzz_av1(data: bytes) -> None:
    """AV1 aggregation headers."""
    _codec(av1.parse, data)


def fuzz_red(data: bytes) -> None:
    """Redundant audio: the primary block."""
    try:
        at, payload_type = red.parse(data)
    except WireError:
        return
    assert 1 <= at < len(data) and payload_type < 128
    # Longer by the primary's own bytes changes nothing, and a byte less than it needs is too short.
    assert red.parse(data + b"x") == (at, payload_type)
    try:
        red.parse(data[:at])
    except WireError:
        return
    raise AssertionError("a primary block of no bytes")


def _pieces(data: bytes) -> list[bytes]:
    """Cut into length-prefixed pieces; the last may be shorter than it says."""
    pieces = []
    while data:
        pieces.append(data[1 : 1 + data[0]])
        data = data[1 + data[0] :]
    return pieces


def fuzz_depdesc(data: bytes) -> None:
    """A stream of length-prefixed Dependency Descriptors over one cached structure."""
    reader = DescriptorReader()
    for piece in _pieces(data):
        before = reader.cached()
        try:
            frame = reader.parse(piece)
        except WireError:
            assert reader.cached() == before
            continue
        cached = reader.cached()
        assert frame["spatial_id"] < 8 and frame["temporal_id"] < 8 and len(frame["fdiffs"]) <= 8
        if cached:
            assert 1 <= len(cached["templates"]) <= 64
            assert all(i < len(cached["templates"][0]["chains"]) for i in cached["protected_by"])
            assert cached["active_targets"] < 1 << cached["decode_target_count"]
        if frame["has_structure"]:
            # Or it is one that came late.
            assert cached["raw"] == piece or cached == before


def fuzz_depdesc_rewritten(data: bytes) -> None:
    """A stream of length-prefixed Dependency Descriptors, each rewritten for a receiver, who must read in them what was sent."""
    sender, relay, receiver = DescriptorReader(), DescriptorReader(), DescriptorReader()
    for number, piece in enumerate(_pieces(data)):
        try:
            frame = sender.parse(piece)
        except WireError:
            continue
        active = number & (1 << sender.cached()["decode_target_count"]) - 1 if frame["is_known"] else None
        rewritten = relay.rewrite(piece, 0xFF00, active)
        told = receiver.parse(rewritten)
        assert told == frame | {"frame_number": frame["frame_number"] + 0xFF00 & 0xFFFF}
        is_late = frame["has_structure"] and receiver.cached()["raw"] != rewritten
        if active is not None and not is_late:
            assert receiver.cached()["active_targets"] == active


def _recorded() -> list[list[bytes]]:
    """Dependency Descriptors of Chromium's streams."""
    tables = (tomllib.loads((VIEWS / f"chromium_{name}.toml").read_text()) for name in ("vp9_l3t3", "vp9_l3t3_key", "av1_l3t3_key"))
    return [[bytes.fromhex(row.split()[4]) for row in table["packets"]] for table in tables]


def seeds_depdesc_rewritten() -> list[bytes]:
    return [b"".join(bytes((len(dd),)) + dd for dd in stream) for stream in _recorded()]


def seeds_targets() -> list[bytes]:
    return [b"".join(bytes((len(dd) + 1, 0x3F)) + dd for dd in stream) for stream in _recorded()]


def fuzz_targets(data: bytes) -> None:
    """Frames of one stream at a subscriber whose choice changes: for each a byte (layers, time) and a descriptor."""
    face = TargetsFace()
    rtp_ts = 0
    for piece in _pieces(data):
        if not piece:
            continue
        spatial, temporal = piece[0] & 3, piece[0] >> 2 & 3
        face.want(spatial, temporal)
        rtp_ts = rtp_ts + (piece[0] >> 4) - 2 & 0xFFFFFFFF
        taken = face.take(piece[1:], rtp_ts)
        assert taken is None or (taken[0] < 8 and taken[1] < 8)


def fuzz_view_stream(data: bytes) -> None:
    """Packets of one stream: codec, then for each packet a flag byte, a descriptor and a payload."""
    if not data:
        return
    stream = StreamView(data[0] % 10)
    pieces = _pieces(data[1:])
    for dd, payload in zip(pieces[::2], pieces[1::2], strict=False):
        try:
            view = stream.view(payload, bool(payload and payload[-1] & 1), dd if dd else None)
        except WireError:
            continue
        _check_view(view, payload)
        assert view["source"] == 2 or not dd
        try:
            changed = stream.view(stream.rewrite(payload, 0x5A5A, 0xA5))
        except WireError as error:
            raise AssertionError("a rewrite broke the payload") from error
        if view["picture_id_bytes"]:
            assert changed["picture_id"] == 0x5A5A & (0x7FFF if view["picture_id_bytes"] == 2 else 0x7F)
        if view["tl0_bytes"]:
            assert changed["tl0"] == 0xA5


def fuzz_srtp_packet(data: bytes) -> None:
    """Bytes nobody protected: refused in every profile, as RTP with any header length and as RTCP."""
    for profile in PROFILES:
        session = SrtpSession(*profile)
        if len(data) >= 12:
            code = session.unprotect(data, data[0] + 12)
            assert isinstance(code, int) and code < 0
        code = session.unprotect_rtcp(data)
        assert isinstance(code, int) and code < 0


def fuzz_srtp_order(data: bytes) -> None:
    """Authentic packets in an order that the bytes choose: each is opened at most once, to what was sent."""
    if not data:
        return
    profile = PROFILES[data[0] % 3]
    sender, receiver = SrtpSession(*profile), SrtpSession(*profile)
    sent: list[tuple[int, bytes, bytes]] = []
    opened: set[int] = set()
    index = data[0] * 257
    for step in data[1:200]:
        if step & 1 or not sent:
            index += 1 + (step >> 1) * (300 if step & 2 else 1)
            plain = struct.pack("!BBHII", 0x80, 96, index & 0xFFFF, 0, 1) + data[: step >> 2]
            sent.append((index, plain, sender.protect(plain, index)))
            continue
        which, plain, sealed = sent[-1 - (step >> 1) % len(sent)]
        if step & 2:
            bad = bytearray(sealed)
            bad[step % len(bad)] ^= 1
            assert isinstance(receiver.unprotect(bytes(bad)), int)
        result = receiver.unprotect(sealed)
        if isinstance(result, bytes):
            assert result == plain and which not in opened
            opened.add(which)
