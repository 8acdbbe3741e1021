"""A stand-in for the network and the relay between two load endpoints that may change everything, content included.

It ends ICE and SRTP on both sides, as a relay does, but forwards packets as they are unless a rule says otherwise. A rule sees
plain packets, so what it changes is authentic on the wire: the only witness left is the frame's digest.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
from collections.abc import Callable

from relaycore import stun
from relaycore.srtp import SrtpSession
from tests.support.peer import header_bytes

GCM = 0x0007
Rule = Callable[[bytes], list[bytes]]


class Side:
    """What the mirror knows of one endpoint; `arguments` and `keys` are what the endpoint is told."""

    def __init__(self, rng: random.Random) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.ufrag, self.password = f"s{rng.getrandbits(64):016x}", f"{rng.getrandbits(128):032x}"
        self.their_ufrag, self.their_password = f"c{rng.getrandbits(64):016x}", f"{rng.getrandbits(128):032x}"
        up, down = ((rng.randbytes(16), rng.randbytes(12)) for _ in range(2))
        self.keys = (GCM, *up, *down)
        self.incoming, self.outgoing = SrtpSession(GCM, *up), SrtpSession(GCM, *down)
        self.address: tuple[str, int] | None = None
        self.is_silent = False

    @property
    def arguments(self) -> tuple[str, tuple[str, int], str, str, str, str]:
        return ("127.0.0.1", self.socket.getsockname(), self.their_ufrag, self.their_password, self.ufrag, self.password)

    def answer(self, request: bytes, address: tuple[str, int]) -> None:
        if not self.is_silent and struct.unpack_from("!H", request)[0] == 1 and stun.is_authentic(request, self.password.encode()):
            self.address = address
            self.socket.sendto(stun.success(request[8:20], socket.inet_aton(address[0]), address[1], self.password.encode()), address)


class Mirror:
    """Forwards from `left` to `right` by `media` (RTP) and back by `reports` (RTCP of right); a thread of its own."""

    def __init__(self, media: Rule = lambda packet: [packet], seed: int = 1) -> None:
        rng = random.Random(seed)
        self.left, self.right = Side(rng), Side(rng)
        self.media = media
        self.reports: list[bytes] = []
        self.other: list[tuple[str, bytes]] = []
        self.errors: list[BaseException] = []
        self._ends, self._end = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._end.send(b"x")
        self._thread.join(5)
        for s in (self.left.socket, self.right.socket, self._ends, self._end):
            s.close()
        if self.errors:
            raise self.errors[0]

    def _run(self) -> None:
        try:
            while True:
                ready, _, _ = select.select([self.left.socket, self.right.socket, self._ends], [], [])
                if self._ends in ready:
                    return
                for side, far in ((self.left, self.right), (self.right, self.left)):
                    if side.socket in ready:
                        self._receive(side, far, *side.socket.recvfrom(2048))
        except BaseException as error:
            self.errors.append(error)

    def _receive(self, side: Side, far: Side, datagram: bytes, address: tuple[str, int]) -> None:
        if datagram[0] < 4:
            side.answer(datagram, address)
        elif datagram[0] < 64:
            self.other.append(("left" if side is self.left else "right", datagram))
        elif 192 <= datagram[1] <= 223:
            plain = side.incoming.unprotect_rtcp(datagram)
            assert isinstance(plain, bytes), plain
            if side is self.right:
                self.reports.append(plain)
            if far.address:
                far.socket.sendto(far.outgoing.protect_rtcp(plain), far.address)
        elif far.address:
            plain = side.incoming.unprotect(datagram, header_bytes(datagram))
            assert isinstance(plain, bytes), plain
            for packet in self.media(plain):
                protected = far.outgoing.protect(packet, header_bytes=header_bytes(packet))
                assert isinstance(protected, bytes), protected
                far.socket.sendto(protected, far.address)
