"""One transport below media: a UDP socket, ICE towards a lite server (RFC 8445 §2.5: we control and check), SRTP.

aioice writes the STUN messages and pylibsrtp (libsrtp) protects, so neither is the code under test.
"""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Callable

import pylibsrtp
from aioice import stun

CHECK_S, CONSENT_S = 0.05, 2.0
PRIORITY = 2_130_706_431
RECEIVE_BYTES = 1 << 21
PROFILES = {
    1: pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    7: pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    8: pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
}


class Wire:
    """`on_connected()` once, `on_dtls(datagram)`, `on_rtp(packet)` and `on_rtcp(packet)` for what is authentic."""

    def __init__(self, local_ip: str, ufrag: str, password: str, *, on_connected: Callable[[], None],
                 on_dtls: Callable[[bytes], None], on_rtp: Callable[[bytes], None], on_rtcp: Callable[[bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_INET6 if ":" in local_ip else socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self._socket.bind((local_ip, 0))
        self._socket.setblocking(False)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._ufrag, self._password = ufrag, password
        self._on_connected, self._on_dtls, self._on_rtp, self._on_rtcp = on_connected, on_dtls, on_rtp, on_rtcp
        self._remote: tuple[str, int] | None = None
        self._remote_ufrag = self._remote_password = ""
        self._tie_breaker = secrets.randbits(64)
        self._is_connected = False
        self._timer: asyncio.TimerHandle | None = None
        self._send_srtp: pylibsrtp.Session | None = None
        self._receive_srtp: pylibsrtp.Session | None = None
        self._loop.add_reader(self._socket.fileno(), self._read)

    def set_ice(self, remote: tuple[str, int], ufrag: str, password: str) -> None:
        self._remote, self._remote_ufrag, self._remote_password = remote, ufrag, password
        self._check()

    def set_srtp(self, profile: int, send_key: bytes, send_salt: bytes, receive_key: bytes, receive_salt: bytes) -> None:
        def session(key: bytes, ssrc_type: int) -> pylibsrtp.Session:
            policy = pylibsrtp.Policy(key=key, ssrc_type=ssrc_type, srtp_profile=PROFILES[profile])
            policy.allow_repeat_tx = True
            policy.window_size = 1024
            return pylibsrtp.Session(policy)

        self._send_srtp = session(send_key + send_salt, pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
        self._receive_srtp = session(receive_key + receive_salt, pylibsrtp.Policy.SSRC_ANY_INBOUND)

    def send_dtls(self, datagram: bytes) -> None:
        self._write(datagram)

    def send_rtp(self, packet: bytes) -> None:
        if self._send_srtp is not None:
            self._write(self._send_srtp.protect(packet))

    def send_rtcp(self, packet: bytes) -> None:
        if self._send_srtp is not None:
            self._write(self._send_srtp.protect_rtcp(packet))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _write(self, data: bytes) -> None:
        # A full buffer loses a packet, as a network does.
        with contextlib.suppress(OSError):
            if self._remote is not None:
                self._socket.sendto(data, self._remote)

    def _check(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        request.attributes["USERNAME"] = f"{self._remote_ufrag}:{self._ufrag}"
        request.attributes["PRIORITY"] = PRIORITY
        request.attributes["ICE-CONTROLLING"] = self._tie_breaker
        request.attributes["USE-CANDIDATE"] = None
        request.add_message_integrity(self._remote_password.encode())
        request.add_fingerprint()
        self._write(bytes(request))
        self._timer = self._loop.call_later(CONSENT_S if self._is_connected else CHECK_S, self._check)

    def _read(self) -> None:
        for _ in range(256):
            try:
                data = self._socket.recv(2048)
            except OSError:
                return
            if data:
                self._take(data)

    def _take(self, data: bytes) -> None:
        """RFC 7983: what it is, its first byte says."""
        if data[0] < 2:
            with contextlib.suppress(ValueError):
                answer = stun.parse_message(data)
                integral = answer.check_message_integrity(self._remote_password.encode())
                if answer.message_class == stun.Class.RESPONSE and integral and not self._is_connected:
                    self._is_connected = True
                    self._on_connected()
        elif 20 <= data[0] < 64:
            self._on_dtls(data)
        elif 128 <= data[0] < 192 and self._receive_srtp is not None:
            is_rtcp = 192 <= data[1] <= 223
            try:
                plain = self._receive_srtp.unprotect_rtcp(data) if is_rtcp else self._receive_srtp.unprotect(data)
            except pylibsrtp.Error:
                return
            (self._on_rtcp if is_rtcp else self._on_rtp)(plain)
