"""Reads what a capture wrote: a small pcapng parser, and the search for bytes that must not be in it."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

LINKTYPE_RAW = 101


@dataclass(frozen=True)
class Packet:
    """One packet block, its IP and UDP headers taken apart. original_bytes: of the whole IP packet."""

    at_ns: int
    is_sent: bool
    missed: int
    source: tuple[str, int]
    target: tuple[str, int]
    udp_bytes: int
    original_bytes: int
    data: bytes
    comment: str

    @property
    def payload_bytes(self) -> int:
        return self.udp_bytes - 8


def read_pcapng(blob: bytes) -> tuple[str, list[Packet]]:
    """Return the section's comment and the packets; AssertionError where the file is not as the format wants it."""
    at, comment, packets = 0, "", []
    while at < len(blob):
        kind, length = struct.unpack_from("<II", blob, at)
        assert length % 4 == 0 and length >= 12 and at + length <= len(blob), (kind, length)
        assert struct.unpack_from("<I", blob, at + length - 4)[0] == length
        body = blob[at + 8 : at + length - 4]
        if at == 0:
            assert kind == 0x0A0D0D0A and struct.unpack_from("<IHH", body) == (0x1A2B3C4D, 1, 0)
            comment = _options(body[16:])[1].decode()
        elif kind == 1:
            assert struct.unpack_from("<H", body)[0] == LINKTYPE_RAW
            assert _options(body[8:])[9] == b"\x09"
        elif kind == 6:
            packets.append(_packet(body))
        else:
            raise AssertionError(f"block {kind}")
        at += length
    return comment, packets


def _options(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at < len(data):
        code, length = struct.unpack_from("<HH", data, at)
        if code == 0:
            break
        found[code] = data[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4
    return found


def _packet(body: bytes) -> Packet:
    interface, high, low, kept, original = struct.unpack_from("<IIIII", body)
    assert interface == 0 and kept <= original
    ip = body[20 : 20 + kept]
    options = _options(body[20 + (kept + 3) // 4 * 4 :])
    if ip[0] >> 4 == 4:
        assert ip[0] == 0x45 and ip[9] == 17 and struct.unpack_from("!H", ip, 2)[0] == original
        total = sum(struct.unpack("!10H", ip[:20]))
        assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
        ends, udp = (ip[12:16], ip[16:20]), ip[20:]
    else:
        assert ip[0] >> 4 == 6 and ip[6] == 17 and struct.unpack_from("!H", ip, 4)[0] == original - 40
        ends, udp = (ip[8:24], ip[24:40]), ip[40:]
    source, target, udp_bytes, _ = struct.unpack_from("!HHHH", udp)
    addresses = [str(ipaddress.ip_address(end)) for end in ends]
    flags = struct.unpack("<I", options[2])[0]
    missed = struct.unpack("<Q", options[4])[0] if 4 in options else 0
    return Packet(
        (high << 32) + low, flags & 3 == 2, missed, (addresses[0], source), (addresses[1], target), udp_bytes, original,
        udp[8:], options.get(1, b"").decode(),
    )


def found_in(blob: bytes, secret: bytes, *, least: int = 4) -> bytes | None:
    """Return a run of `least` bytes of `secret` that stands anywhere in `blob`, None when there is none."""
    for at in range(len(secret) - least + 1):
        if secret[at : at + least] in blob:
            return secret[at : at + least]
    return None
