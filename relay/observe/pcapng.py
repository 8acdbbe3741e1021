"""Captured headers as a pcapng file (draft-ietf-opsawg-pcapng), which Wireshark opens and shows as truncated.

Packets are written as raw IP (LINKTYPE_RAW) with a UDP header in front, made of the addresses and the length that were on the
wire; behind it stands what was kept, so the captured length is below the original one wherever something was left out. RTCP
that was kept whole is written at its clear length, as dissectors expect; its length on the wire is in the comment.
"""

import ipaddress
import struct
from typing import Protocol

SECTION, INTERFACE, ENHANCED_PACKET = 0x0A0D0D0A, 1, 6
BYTE_ORDER_MAGIC = 0x1A2B3C4D
LINKTYPE_RAW = 101
OPT_END, OPT_COMMENT = 0, 1
SHB_APPLICATION, IF_NAME, IF_TSRESOL, EPB_FLAGS, EPB_DROPCOUNT = 4, 2, 9, 2, 4
NANOSECONDS = 9
INBOUND, OUTBOUND = 1, 2
UDP, TTL = 17, 64
UDP_HEADER_BYTES = 8


class Record(Protocol):
    """The part of `relay.plane.Captured` that is written."""

    @property
    def now_ns(self) -> int: ...
    @property
    def missed(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def is_sent(self) -> bool: ...
    @property
    def local(self) -> tuple[str, int]: ...
    @property
    def remote(self) -> tuple[str, int]: ...
    @property
    def wire_bytes(self) -> int: ...
    @property
    def kept(self) -> bytes: ...


def head(comment: str, application: str) -> bytes:
    """Return the beginning of a file: its section and its one interface."""
    section = struct.pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, -1)
    section += _options((OPT_COMMENT, comment.encode()), (SHB_APPLICATION, application.encode()))
    interface = struct.pack("<HHI", LINKTYPE_RAW, 0, 0)
    interface += _options((IF_NAME, b"relay"), (IF_TSRESOL, bytes([NANOSECONDS])))
    return _block(SECTION, section) + _block(INTERFACE, interface)


def packet(record: Record, wall_offset_ns: int, whole_bytes: int) -> bytes:
    """Return the block of one record.

    wall_offset_ns: what makes its time one of day. whole_bytes: kept RTCP below that is all there was.
    """
    is_whole = record.kind == "rtcp" and len(record.kept) < whole_bytes
    carried = len(record.kept) if is_whole else record.wire_bytes
    source, target = (record.local, record.remote) if record.is_sent else (record.remote, record.local)
    headers = ip_udp(source, target, carried)
    data = headers + record.kept
    options = [(EPB_FLAGS, struct.pack("<I", OUTBOUND if record.is_sent else INBOUND))]
    if record.missed:
        options.append((EPB_DROPCOUNT, struct.pack("<Q", record.missed)))
    if record.kind != "rtp":
        comment = f"{record.kind}, {record.wire_bytes} bytes on the wire"
        options.append((OPT_COMMENT, comment.encode()))
    at_ns = record.now_ns + wall_offset_ns
    body = struct.pack("<IIIII", 0, at_ns >> 32, at_ns & 0xFFFFFFFF, len(data), len(headers) + carried)
    return _block(ENHANCED_PACKET, body + data + bytes(-len(data) % 4) + _options(*options))


def ip_udp(source: tuple[str, int], target: tuple[str, int], payload_bytes: int) -> bytes:
    """Return an IP and a UDP header; the UDP checksum is left out, as it would cover what was not kept."""
    ends = ipaddress.ip_address(source[0]), ipaddress.ip_address(target[0])
    udp_bytes = UDP_HEADER_BYTES + payload_bytes
    udp = struct.pack("!HHHH", source[1], target[1], udp_bytes, 0)
    if ends[0].version == 6:
        return struct.pack("!IHBB", 6 << 28, udp_bytes, UDP, TTL) + ends[0].packed + ends[1].packed + udp
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + udp_bytes, 0, 0, TTL, UDP, 0)
    ip += ends[0].packed + ends[1].packed
    total = sum(struct.unpack("!10H", ip))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return ip[:10] + struct.pack("!H", checksum) + ip[12:] + udp


def _options(*options: tuple[int, bytes]) -> bytes:
    out = b"".join(struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4) for code, value in options)
    return out + struct.pack("<HH", OPT_END, 0)


def _block(kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)
