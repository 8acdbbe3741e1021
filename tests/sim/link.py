"""A seeded one-way link: loss single and in bursts, delay, jitter, reordering, duplicates, a rate with a bounded queue.

It has no clock of its own: the simulator runs it on virtual time, tests/support/proxy.py on the machine's. What becomes
of the n-th packet depends on the random numbers and n alone, except for the queue, which is a matter of time.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

IP_UDP_BYTES = 28


@dataclass(frozen=True)
class Burst:
    """Loss in bursts (Gilbert and Elliott): a packet enters one with probability `enter`, each further one leaves it
    with `leave`, so a burst is 1/`leave` packets long on average; inside it `loss` are lost."""

    enter: float
    leave: float
    loss: float = 1.0


@dataclass(frozen=True)
class Impairment:
    """Shares are 0..1; times in seconds. Jitter is uniform and keeps the order; what is reordered comes late alone."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay_s: float = 0.01
    reorder_delay_s: float = 0.02
    jitter_s: float = 0.0
    burst: Burst | None = None
    # 0: any rate. Else packets wait for each other, and what finds more than queue_bytes waiting is dropped.
    rate_bps: int = 0
    queue_bytes: int = 65_536


class Link:
    def __init__(self, rng: random.Random, impairment: Impairment) -> None:
        self.rng, self.impairment = rng, impairment
        self.sent = self.lost = self.queue_drops = self.duplicated = self.reordered = 0
        self._in_burst = False
        self._line_free_ns = self._latest_ns = 0
        self._queue: list[tuple[int, int, bytes]] = []
        self._order = 0

    def plan(self, size: int, now_ns: int) -> tuple[int, ...]:
        """Return when copies of a packet of `size` bytes arrive: none, one or two times in ns."""
        wanted, draw = self.impairment, self.rng.random
        # Drawn for every packet, used or not: the n-th packet's fate must not depend on earlier ones'.
        by_burst, in_burst, by_loss, by_copy, by_order, by_jitter = draw(), draw(), draw(), draw(), draw(), draw()
        self.sent += 1
        if wanted.rate_bps:
            waiting_ns = max(0, self._line_free_ns - now_ns)
            if waiting_ns * wanted.rate_bps > wanted.queue_bytes * 8_000_000_000:
                self.queue_drops += 1
                return ()
            now_ns += waiting_ns + (size + IP_UDP_BYTES) * 8_000_000_000 // wanted.rate_bps
            self._line_free_ns = now_ns
        if wanted.burst is not None:
            self._in_burst = by_burst >= wanted.burst.leave if self._in_burst else by_burst < wanted.burst.enter
        if by_loss < wanted.loss or (self._in_burst and in_burst < wanted.burst.loss):
            self.lost += 1
            return ()
        due_ns = now_ns + int((wanted.delay_s + by_jitter * wanted.jitter_s) * 1e9)
        if by_order < wanted.reorder:
            self.reordered += 1
            due_ns += int(by_order / wanted.reorder * wanted.reorder_delay_s * 1e9)
        else:
            due_ns = self._latest_ns = max(due_ns, self._latest_ns)
        if by_copy < wanted.duplicate:
            self.duplicated += 1
            return due_ns, due_ns
        return (due_ns,)

    def waiting_ns(self, now_ns: int) -> int:
        """Return how long the next packet would wait for those before it."""
        return max(0, self._line_free_ns - now_ns)

    def send(self, data: bytes, now_ns: int) -> None:
        for due_ns in self.plan(len(data), now_ns):
            self._order += 1
            heapq.heappush(self._queue, (due_ns, self._order, data))

    def next_ns(self) -> int | None:
        return self._queue[0][0] if self._queue else None

    def take_due(self, now_ns: int) -> list[bytes]:
        due = []
        while self._queue and self._queue[0][0] <= now_ns:
            due.append(heapq.heappop(self._queue)[2])
        return due
