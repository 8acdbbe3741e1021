"""A UDP proxy that impairs, in a process of its own: clients talk to its address, it to the relay's.

    async with proxy_process(("127.0.0.2", port), ("127.0.0.1", port), seed=1, up=BAD, down=BAD) as proxy:
        ...
        figures = await proxy.stats()

The relay listens on 127.0.0.1 and advertises 127.0.0.2 (`media.advertise_ips`), so browsers come here without a word of
their SDP changed. Every client address gets a socket of its own towards the relay, as behind a NAT, and two links of its
own, seeded by (seed, number of the client, direction): tests/sim/link.py says what they do to a packet.

What it adds of its own: a packet is due at the kernel's receive time plus its link's delay, so only a late wake-up is
added; `late_us` of the figures is its distribution (how far behind its due time a packet left). Measured at 3,000
packets/s on two cores: p50 50 us, p99 150 us, 17 % of a core, most of it wake-ups. Where allowed, the process runs at
real-time priority, so that loaded cores do not delay it.

usage: python -m tests.support.proxy IP:PORT IP:PORT SEED UP DOWN      listen, target; links as JSON of Impairment
stdin: JSON lines, {"up": …, "down": …} for other links, {"move": true} to give every client another address towards the relay, as
a NAT that forgets its mappings, or {"stats": true}; ends with its stdin.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import gc
import heapq
import json
import os
import random
import select
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.sim.link import Burst, Impairment, Link

ROOT = Path(__file__).resolve().parents[2]
SO_TIMESTAMPNS = 35
TIMESTAMP_SPACE = socket.CMSG_SPACE(16)
BUFFER_BYTES = 4 * 1024 * 1024
# More than one turn's worth would make due packets wait.
PACKETS_PER_TURN = 16
# Bounds what a stranger can make it open.
CLIENT_LIMIT = 512
LATE_LIMIT_US = 100_000
CLOCK_SYNC_NS = 1_000_000_000

Address = tuple[str, int]


class Timer:
    """A timerfd: Python's own poll timeouts are whole milliseconds."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        nonblocking_cloexec = os.O_NONBLOCK | os.O_CLOEXEC
        self.fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, nonblocking_cloexec)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def set(self, at_ns: int) -> None:
        """Become readable at a time of the monotonic clock."""
        value = struct.pack("qqqq", 0, 0, at_ns // 1_000_000_000, at_ns % 1_000_000_000)
        if self._libc.timerfd_settime(self.fd, 1, value, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")


class Client:
    """One client address: its socket towards the relay and its two links."""

    def __init__(self, number: int, address: Address, target: Address, seed: int, up: Impairment, down: Impairment) -> None:
        self.address = address
        self._target = target
        self.move()
        self.up = Link(random.Random(f"{seed}:{number}:up"), up)
        self.down = Link(random.Random(f"{seed}:{number}:down"), down)


    def move(self) -> None:
        """Take another address towards the relay; what still comes to the former one is lost."""
        self.socket = receiving_socket()
        self.socket.bind((self._target[0], 0))
        self.socket.connect(self._target)


class Proxy:
    """The forwarding loop; `run` returns when standard input ends."""

    def __init__(self, listen: Address, target: Address, seed: int, up: Impairment, down: Impairment) -> None:
        self._target, self._seed, self._up, self._down = target, seed, up, down
        self._front = receiving_socket()
        self._front.bind(listen)
        self.listen: Address = self._front.getsockname()
        self._by_address: dict[Address, Client] = {}
        self._by_fd: dict[int, Client] = {}
        # (due, order, client, whether it goes up, bytes)
        self._queue: list[tuple[int, int, Client, bool, bytes]] = []
        self._order = 0
        self._late_us = [0] * (LATE_LIMIT_US // 10 + 1)
        self._refused = self._strangers = 0
        self._timer = Timer()
        self._armed_ns = 0
        self._clock_offset_ns = self._clock_read_ns = 0
        self._cpu_before_s = time.process_time()

    def run(self) -> None:
        poll = select.epoll()
        control = sys.stdin.fileno()
        os.set_blocking(control, False)
        pending = b""
        for fd in (self._front.fileno(), self._timer.fd, control):
            poll.register(fd, select.EPOLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._timer.fd:
                    self._armed_ns = 0
                    with contextlib.suppress(BlockingIOError):
                        os.read(fd, 8)
                elif fd == self._front.fileno():
                    self._take_from_clients(poll)
                elif fd in self._by_fd:
                    self._take_from_relay(self._by_fd[fd])
                else:
                    chunk = os.read(control, 65536)
                    if not chunk:
                        return
                    *lines, pending = (pending + chunk).split(b"\n")
                    for line in lines:
                        self._obey(json.loads(line), poll)
            self._send_due()

    def _take_from_clients(self, poll: select.epoll) -> None:
        for _ in range(PACKETS_PER_TURN):
            try:
                data, control, _, address = self._front.recvmsg(2048, TIMESTAMP_SPACE)
            except BlockingIOError:
                return
            client = self._by_address.get(address)
            if client is None:
                number = len(self._by_address)
                if number == CLIENT_LIMIT:
                    self._strangers += 1
                    continue
                client = Client(number, address, self._target, self._seed, self._up, self._down)
                self._by_address[address] = self._by_fd[client.socket.fileno()] = client
                poll.register(client.socket.fileno(), select.EPOLLIN)
            self._push(client, True, client.up.plan(len(data), self._arrival_ns(control)), data)

    def _take_from_relay(self, client: Client) -> None:
        for _ in range(PACKETS_PER_TURN):
            try:
                data, control, _, _ = client.socket.recvmsg(2048, TIMESTAMP_SPACE)
            except (BlockingIOError, ConnectionRefusedError):
                return
            self._push(client, False, client.down.plan(len(data), self._arrival_ns(control)), data)

    def _push(self, client: Client, is_up: bool, due: tuple[int, ...], data: bytes) -> None:
        for due_ns in due:
            self._order += 1
            heapq.heappush(self._queue, (due_ns, self._order, client, is_up, data))

    def _arrival_ns(self, control: list[tuple[int, int, bytes]]) -> int:
        """Return the kernel's receive time on the monotonic clock."""
        now_ns = time.monotonic_ns()
        if now_ns - self._clock_read_ns > CLOCK_SYNC_NS:
            self._clock_read_ns = now_ns
            self._clock_offset_ns = time.time_ns() - time.monotonic_ns()
        seconds, nanoseconds = struct.unpack("qq", control[0][2])
        # A step of the wall clock must not hold a packet back.
        return min(now_ns, max(seconds * 1_000_000_000 + nanoseconds - self._clock_offset_ns, now_ns - CLOCK_SYNC_NS))

    def _send_due(self) -> None:
        queue = self._queue
        while queue and queue[0][0] <= (now_ns := time.monotonic_ns()):
            due_ns, _, client, is_up, data = heapq.heappop(queue)
            self._late_us[min((now_ns - due_ns) // 10_000, LATE_LIMIT_US // 10)] += 1
            try:
                if is_up:
                    client.socket.send(data)
                else:
                    self._front.sendto(data, client.address)
            except OSError:
                self._refused += 1
        if queue and queue[0][0] != self._armed_ns:
            self._armed_ns = queue[0][0]
            self._timer.set(self._armed_ns)

    def _obey(self, order: dict[str, Any], poll: select.epoll) -> None:
        if "move" in order:
            for client in self._by_address.values():
                former = client.socket
                poll.unregister(former.fileno())
                del self._by_fd[former.fileno()]
                client.move()
                former.close()
                self._by_fd[client.socket.fileno()] = client
                poll.register(client.socket.fileno(), select.EPOLLIN)
        if "up" in order:
            self._up, self._down = impairment(order["up"]), impairment(order["down"])
            for client in self._by_address.values():
                client.up.impairment, client.down.impairment = self._up, self._down
        if "stats" in order:
            print(json.dumps(self.stats()), flush=True)

    def stats(self) -> dict[str, Any]:
        """Return counts by direction over all clients, and how late packets left, in us."""
        names = ("sent", "lost", "queue_drops", "duplicated", "reordered")
        found: dict[str, Any] = {
            side: {name: sum(getattr(getattr(c, side), name) for c in self._by_address.values()) for name in names}
            for side in ("up", "down")
        }
        total = sum(self._late_us)

        def late(share: float) -> int:
            passed = 0
            for slot, count in enumerate(self._late_us):
                passed += count
                if count and passed >= share * total:
                    return slot * 10 + 10
            return 0

        found["late_us"] = {"p50": late(0.5), "p99": late(0.99), "p999": late(0.999), "max": late(1.0)}
        found |= {"clients": len(self._by_address), "refused": self._refused, "strangers": self._strangers}
        found["cpu_s"] = round(time.process_time() - self._cpu_before_s, 3)
        return found


def receiving_socket() -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setblocking(False)
    opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        opened.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    return opened


def impairment(raw: dict[str, Any]) -> Impairment:
    """Return the Impairment that dataclasses.asdict wrote."""
    burst = raw.get("burst")
    return Impairment(**{**raw, "burst": Burst(**burst) if burst else None})


# --- the caller's side ---


class ProxyProcess:
    """A running proxy."""

    def __init__(self, process: asyncio.subprocess.Process, address: Address) -> None:
        self.process = process
        self.address = address

    async def stats(self) -> dict[str, Any]:
        self._say({"stats": True})
        return json.loads(await asyncio.wait_for(self.process.stdout.readline(), 10))

    def impair(self, up: Impairment, down: Impairment) -> None:
        """Change all links; what is on its way keeps its time."""
        self._say({"up": dataclasses.asdict(up), "down": dataclasses.asdict(down)})

    def move(self) -> None:
        """Give every client another address towards the relay."""
        self._say({"move": True})

    def _say(self, order: dict[str, Any]) -> None:
        self.process.stdin.write(json.dumps(order).encode() + b"\n")


@contextlib.asynccontextmanager
async def proxy_process(
    listen: Address, target: Address, *, seed: int, up: Impairment, down: Impairment
) -> AsyncIterator[ProxyProcess]:
    """Start a proxy and end it."""
    links = (json.dumps(dataclasses.asdict(link)) for link in (up, down))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.proxy", *(f"{ip}:{port}" for ip, port in (listen, target)), str(seed), *links,
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        ip, port = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))["listen"]
        yield ProxyProcess(process, (ip, port))
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()


def main(listen: str, target: str, seed: str, up: str, down: str) -> None:
    def address(text: str) -> Address:
        ip, _, port = text.rpartition(":")
        return ip, int(port)

    proxy = Proxy(address(listen), address(target), int(seed), impairment(json.loads(up)), impairment(json.loads(down)))
    # Only root may; elsewhere late_us tells.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))
    gc.collect()
    gc.freeze()
    gc.disable()
    print(json.dumps({"listen": proxy.listen}), flush=True)
    proxy.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
