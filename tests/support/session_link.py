"""Two transports joined by a simulated path on virtual time: loss, delay and reordering from one seed."""

import heapq
import random
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import TypeVar

from relay.session import Certificate, DatagramReady, Event, Transport

MS = 1_000_000
Found = TypeVar("Found")


def fingerprints(transport_or_certificate: Transport | Certificate) -> list[tuple[str, str]]:
    """Return what an SDP `a=fingerprint` line would carry."""
    hash_name, value = transport_or_certificate.fingerprint.split(" ", 1)
    return [(hash_name, value)]


class Link:
    """`server` and `client` with a path between them. Time passes only inside `run`."""

    def __init__(
        self,
        *,
        seed: int = 1,
        loss: float = 0.0,
        delay_ms: float = 10.0,
        jitter_ms: float = 0.0,
        sctp: bool = True,
        max_message_bytes: int = 65_536,
        connect: bool = True,
    ) -> None:
        self.rng = random.Random(seed)
        self.loss = loss
        self.delay_ms = delay_ms
        self.jitter_ms = jitter_ms
        self.now_ns = 1_000 * MS
        self.server = Transport(Certificate.generate(), max_message_bytes=max_message_bytes)
        self.client = Transport(Certificate.generate(), max_message_bytes=max_message_bytes)
        self.events: dict[Transport, list[Event]] = {self.server: [], self.client: []}
        self.sent: dict[Transport, list[bytes]] = {self.server: [], self.client: []}
        self.on_datagram: Callable[[Transport, bytes], bytes | None] = lambda _sender, datagram: datagram
        self._order = count()
        self._flying: list[tuple[int, int, Transport, bytes]] = []
        if connect:
            self.server.set_remote(fingerprints(self.client), "server")
            self.client.set_remote(fingerprints(self.server), "client")
        if sctp:
            self.server.enable_sctp()
            self.client.enable_sctp()

    def other(self, transport: Transport) -> Transport:
        """Return the one at the far end."""
        return self.client if transport is self.server else self.server

    def run(self, duration_ms: float, until: Callable[[], bool] = lambda: False) -> float:
        """Let time pass; returns the milliseconds it took until `until` held, or the whole duration."""
        start_ns, end_ns = self.now_ns, self.now_ns + int(duration_ms * MS)
        self._poll_both()
        while not until():
            due = [self._flying[0][0]] if self._flying else []
            due += [t.next_timeout_ns for t in self.events if t.next_timeout_ns is not None]
            following_ns = max(self.now_ns + 1, min(due, default=end_ns))
            if following_ns > end_ns:
                self.now_ns = end_ns
                break
            self.now_ns = following_ns
            while self._flying and self._flying[0][0] <= self.now_ns:
                _, _, receiver, datagram = heapq.heappop(self._flying)
                receiver.receive_dtls(datagram, self.now_ns)
                self._poll(receiver)
            self._poll_both()
        return (self.now_ns - start_ns) / MS

    def connected(self, *, limit_ms: float = 20_000) -> "Link":
        """Run until both ends have an association, and return self."""
        self.run(limit_ms, lambda: self.server.association_state.value == self.client.association_state.value == "up")
        assert self.server.association_state.value == self.client.association_state.value == "up"
        return self

    def of(self, transport: Transport, kind: type[Found]) -> list[Found]:
        """Return the events of one kind that one end has reported."""
        return [event for event in self.events[transport] if isinstance(event, kind)]

    def close(self) -> None:
        """Close both ends, so that no association outlives its test."""
        self.server.close()
        self.client.close()
        self.run(500)

    def catch_up(self, now_ns: int) -> None:
        """Run to a moment given from outside."""
        self.run((now_ns - self.now_ns) / MS)

    def _poll_both(self) -> None:
        self._poll(self.server)
        self._poll(self.client)

    def _poll(self, transport: Transport) -> None:
        for event in transport.poll(self.now_ns):
            if isinstance(event, DatagramReady):
                self._carry(transport, event.data)
            else:
                self.events[transport].append(event)

    def _carry(self, sender: Transport, datagram: bytes) -> None:
        self.sent[sender].append(datagram)
        seen = self.on_datagram(sender, datagram)
        if seen is None or self.rng.random() < self.loss:
            return
        delay_ms = self.delay_ms + self.rng.uniform(0, self.jitter_ms)
        heapq.heappush(self._flying, (self.now_ns + int(delay_ms * MS), next(self._order), self.other(sender), seen))


def run_in_real_time(links: Sequence[Link], limit_s: float, until: Callable[[Link], object]) -> None:
    """Run several links side by side at the speed of the machine's clock, until all are done.

    For SCTP over loss: usrsctp repeats nothing that it sent less than a timeout ago by the machine's clock.
    """
    start_ns = time.monotonic_ns()
    offsets = [link.now_ns - start_ns for link in links]
    while time.monotonic_ns() - start_ns < limit_s * 1e9 and not all(until(link) for link in links):
        now_ns = time.monotonic_ns()
        for link, offset in zip(links, offsets, strict=True):
            link.catch_up(now_ns + offset)
        time.sleep(0.005)
