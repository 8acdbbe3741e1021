"""The ICE-TCP port: for networks that let no UDP through (RFC 6544, passive candidates; LiveKit's 7881).

A connection says by its first frame whose it is, a STUN binding request; then its descriptor goes to the worker of that
transport, and this process's Python never sees it again. What says nothing sensible in time is closed.
"""

import asyncio
import ipaddress
import socket
from collections import Counter, deque
from collections.abc import Sequence

from relay.clock import monotonic_ns
from relay.log import get_logger
from relay.plane import Plane, PlaneError
from relay.session.binding import MAX_REQUEST_BYTES, local_ufrag
from relay.signaling.tasks import Tasks

log = get_logger(__name__)

FIRST_FRAME_S = 5.0
# Connections that have said nothing yet: in all, and of one address (a company behind one NAT comes one by one).
MAX_WAITING = 512
MAX_WAITING_PER_IP = 32
# A client opens one for each of our addresses and some more after a change of network; a transport keeps eight tuples.
PER_TRANSPORT = 12
PER_TRANSPORT_S = 10
BACKLOG = 128
HEAD_BYTES = 2
READ_BYTES = 4096


def _home(ip: str) -> str:
    """What one attacker can have many addresses of: of IPv6 the first 64 bits."""
    return str(ipaddress.IPv6Network((ip.partition("%")[0], 64), strict=False)) if ":" in ip else ip


class IceTcp:
    """The listening sockets. `addresses`: (local ip, advertised ip); port 0 is any port, one for all addresses."""

    def __init__(
        self, plane: Plane, addresses: Sequence[tuple[str, str]], port: int, refusals: dict[str, int]
    ) -> None:
        self._plane = plane
        self._addresses = addresses
        self._port = port
        self._refusals = refusals
        self._listening: list[socket.socket] = []
        self._tasks = Tasks()
        # Those that have said nothing yet, longest first: where they come from, and who listens to them.
        self._waiting: dict[socket.socket, tuple[str, asyncio.Task[None]]] = {}
        self._homes: Counter[str] = Counter()
        # When connections of a transport were taken over, by transport.
        self._taken: dict[int, deque[int]] = {}
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Listen at every address.   Errors: OSError, with the address in its words."""
        for ip, _ in self._addresses:
            listener = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
            self._listening.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)
            try:
                listener.bind((ip, self._port))
                listener.listen(BACKLOG)
            except OSError as error:
                self.stop()
                raise OSError(error.errno, f"TCP {ip} port {self._port}: {error.strerror}") from error
            self._tasks.spawn(self._accept(listener), "ice-tcp")

    @property
    def candidates(self) -> tuple[tuple[str, int], ...]:
        """What clients are told: (advertised address, port really bound)."""
        return tuple(
            (advertised, listener.getsockname()[1])
            for (_, advertised), listener in zip(self._addresses, self._listening, strict=False)
        )

    def stop(self) -> None:
        """Close the port and what has said nothing yet."""
        self._tasks.cancel()
        for connection in tuple(self._waiting):
            self._forget(connection)
            connection.close()
        for listener in self._listening:
            listener.close()
        self._listening.clear()

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, address = await self._loop.sock_accept(listener)
            except OSError as error:
                # Out of descriptors, or the peer gave up already: neither is the listener's end.
                log.warning("an ICE-TCP connection could not be accepted", why=str(error))
                await asyncio.sleep(0.1)
                continue
            remote = str(address[0]), int(address[1])
            home = _home(remote[0])
            if self._homes[home] >= MAX_WAITING_PER_IP:
                self._refuse(connection, "ice_tcp_waiting")
                continue
            if len(self._waiting) >= MAX_WAITING:
                # Who means it speaks at once, so what has been silent for longest makes place.
                longest = next(iter(self._waiting))
                self._forget(longest)[1].cancel()
                self._refuse(longest, "ice_tcp_displaced")
            self._homes[home] += 1
            self._waiting[connection] = home, self._tasks.spawn(self._meet(connection, remote), "ice-tcp connection")

    def _forget(self, connection: socket.socket) -> tuple[str, asyncio.Task[None]]:
        """Take a connection off those that have said nothing yet."""
        home, task = self._waiting.pop(connection)
        self._homes[home] -= 1
        if not self._homes[home]:
            del self._homes[home]
        return home, task

    async def _meet(self, connection: socket.socket, remote: tuple[str, int]) -> None:
        """Learn whose a connection is and hand it over."""
        connection.setblocking(False)
        try:
            async with asyncio.timeout(FIRST_FRAME_S):
                first = await self._first_frame(connection)
        except (TimeoutError, OSError):
            first = b""
        self._forget(connection)
        length = int.from_bytes(first[:HEAD_BYTES])
        ufrag = local_ufrag(first[HEAD_BYTES : HEAD_BYTES + length])
        transport = self._plane.transport_of(ufrag) if ufrag is not None else None
        if transport is None:
            self._refuse(connection, "ice_tcp_first_frame")
            return
        if not self._admits(transport):
            self._refuse(connection, "ice_tcp_transport")
            return
        # The worker makes a descriptor of its own when it comes to it, so ours stays until then, even if this task does not.
        adoption = asyncio.ensure_future(self._plane.adopt_tcp(transport, connection.fileno(), remote, first))
        adoption.add_done_callback(lambda _: connection.close())
        try:
            await asyncio.shield(adoption)
        except PlaneError as error:
            log.warning("an ICE-TCP connection found no place", why=str(error))

    async def _first_frame(self, connection: socket.socket) -> bytes:
        """Return what came until the first frame was whole; empty when it ended or is none of ours."""
        read = b""
        while len(read) < HEAD_BYTES or len(read) < HEAD_BYTES + int.from_bytes(read[:HEAD_BYTES]):
            if int.from_bytes(read[:HEAD_BYTES]) > MAX_REQUEST_BYTES and len(read) >= HEAD_BYTES:
                return b""
            more = await self._loop.sock_recv(connection, READ_BYTES)
            if not more:
                return b""
            read += more
        return read

    def _admits(self, transport: int) -> bool:
        now_ns = monotonic_ns()
        since_ns = now_ns - PER_TRANSPORT_S * 1_000_000_000
        self._taken = {number: times for number, times in self._taken.items() if times[-1] > since_ns}
        times = self._taken.setdefault(transport, deque(maxlen=PER_TRANSPORT))
        if len(times) == PER_TRANSPORT and times[0] > since_ns:
            return False
        times.append(now_ns)
        return True

    def _refuse(self, connection: socket.socket, reason: str) -> None:
        self._refusals[reason] = self._refusals.get(reason, 0) + 1
        connection.close()
