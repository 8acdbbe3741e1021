"""A bare media peer for tests of the data plane: ICE checks, SRTP and RTCP over bytes, without DTLS, SDP or sockets.

It stands for a browser's transport where a test needs to choose every packet. Its keys are given to the relay by command.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import struct
import zlib
from dataclasses import dataclass, field

from relaycore.srtp import SrtpSession

MAGIC = 0x2112A442
PROFILES = {0x0001: (16, 14), 0x0007: (16, 12), 0x0008: (32, 12)}  # use_srtp id: key bytes, salt bytes


def header_bytes(packet: bytes) -> int:
    """Length of the RTP header with CSRC list and extension."""
    n = 12 + 4 * (packet[0] & 15)
    if packet[0] & 0x10:
        n += 4 + 4 * struct.unpack_from("!H", packet, n + 2)[0]
    return n


def stun_check(local_ufrag: str, password: str, *, remote_ufrag: str = "peer", use_candidate: bool = True,
               priority: int = 1_853_693_695, controlling: bool = True, transaction: bytes | None = None) -> bytes:
    """A binding request as a browser sends it (RFC 8445 section 7.1), for the relay's `local_ufrag` and `password`."""
    attributes = b""

    def add(kind: int, value: bytes) -> None:
        nonlocal attributes
        attributes += struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)

    def head(extra: int) -> bytes:
        return struct.pack("!HHI", 1, len(attributes) + extra, MAGIC) + identifier

    identifier = transaction or random.randbytes(12)
    add(0x0006, f"{local_ufrag}:{remote_ufrag}".encode())
    add(0x802A if controlling else 0x8029, random.randbytes(8))
    add(0x0024, struct.pack("!I", priority))
    if use_candidate:
        add(0x0025, b"")
    add(0x0008, hmac.new(password.encode(), head(24) + attributes, hashlib.sha1).digest())
    add(0x8028, struct.pack("!I", zlib.crc32(head(8) + attributes) ^ 0x5354554E))
    return head(0) + attributes


@dataclass
class MediaPeer:
    """One transport's far end. `relay_keys()` are what the relay is told; the same keys turned round are ours."""

    rng: random.Random
    profile: int = 0x0007
    ufrag: str = ""
    password: str = ""
    rtp: list[bytes] = field(default_factory=list)
    rtcp: list[bytes] = field(default_factory=list)
    stun: list[bytes] = field(default_factory=list)
    refused: int = 0

    def __post_init__(self) -> None:
        key_bytes, salt_bytes = PROFILES[self.profile]
        self.ufrag = self.ufrag or f"u{self.rng.getrandbits(40):010x}"
        self.password = self.password or f"p{self.rng.getrandbits(112):028x}"
        self.send_key, self.send_salt = self.rng.randbytes(key_bytes), self.rng.randbytes(salt_bytes)
        self.receive_key, self.receive_salt = self.rng.randbytes(key_bytes), self.rng.randbytes(salt_bytes)
        self.outgoing = SrtpSession(self.profile, self.send_key, self.send_salt)
        self.incoming = SrtpSession(self.profile, self.receive_key, self.receive_salt)

    def relay_keys(self) -> dict:
        return dict(profile=self.profile, receive_key=self.send_key, receive_salt=self.send_salt,
                    send_key=self.receive_key, send_salt=self.receive_salt)

    def check(self, **options) -> bytes:
        return stun_check(self.ufrag, self.password, **options)

    def protect(self, packet: bytes) -> bytes:
        protected = self.outgoing.protect(packet, header_bytes=header_bytes(packet))
        assert isinstance(protected, bytes), protected
        return protected

    def protect_rtcp(self, packet: bytes) -> bytes:
        return self.outgoing.protect_rtcp(packet)

    def receive(self, datagram: bytes) -> bytes | None:
        """File a datagram of the relay; return the plain RTP packet if it is one."""
        if datagram[0] < 4:
            self.stun.append(datagram)
            return None
        if 192 <= datagram[1] <= 223:
            plain = self.incoming.unprotect_rtcp(datagram)
            if isinstance(plain, bytes):
                self.rtcp.append(plain)
            else:
                self.refused += 1
            return None
        plain = self.incoming.unprotect(datagram, header_bytes=header_bytes(datagram))
        if not isinstance(plain, bytes):
            self.refused += 1
            return None
        self.rtp.append(plain)
        return plain
