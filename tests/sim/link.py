"""A seeded one-way link on virtual time: loss, delay, jitter that reorders, duplicates."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Impairment:
    """Shares are 0..1; times in seconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay_s: float = 0.01
    reorder_delay_s: float = 0.02


class Link:
    def __init__(self, rng: random.Random, impairment: Impairment) -> None:
        self.rng, self.impairment = rng, impairment
        self.sent = self.lost = 0
        self._queue: list[tuple[int, int, bytes]] = []
        self._order = 0

    def send(self, data: bytes, now_ns: int) -> None:
        self.sent += 1
        if self.rng.random() < self.impairment.loss:
            self.lost += 1
            return
        copies = 2 if self.rng.random() < self.impairment.duplicate else 1
        for _ in range(copies):
            delay = self.impairment.delay_s
            if self.rng.random() < self.impairment.reorder:
                delay += self.rng.random() * self.impairment.reorder_delay_s
            self._order += 1
            heapq.heappush(self._queue, (now_ns + int(delay * 1e9), self._order, data))

    def next_ns(self) -> int | None:
        return self._queue[0][0] if self._queue else None

    def take_due(self, now_ns: int) -> list[bytes]:
        due = []
        while self._queue and self._queue[0][0] <= now_ns:
            due.append(heapq.heappop(self._queue)[2])
        return due
