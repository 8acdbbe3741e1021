"""The impairing proxy between real sockets: it forwards both ways, keeps its seed's word and adds little of its own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from tests.sim.link import Impairment
from tests.support.proxy import ProxyProcess, proxy_process

CLEAN = Impairment(delay_s=0)


class Notes(asyncio.DatagramProtocol):
    """Keeps what arrives and when; an echo also sends it back."""

    def __init__(self, *, is_echo: bool = False) -> None:
        self.is_echo = is_echo
        self.seen: list[tuple[float, bytes]] = []
        self.addresses: set = set()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.seen.append((time.monotonic(), data))
        self.addresses.add(addr)
        if self.is_echo:
            self.transport.sendto(data, addr)


@contextlib.asynccontextmanager
async def proxied(*, seed: int = 1, up: Impairment = CLEAN, down: Impairment = CLEAN) -> AsyncIterator[tuple]:
    """An echo behind a proxy, and a function that makes clients."""
    loop = asyncio.get_running_loop()
    server, echo = await loop.create_datagram_endpoint(lambda: Notes(is_echo=True), local_addr=("127.0.0.1", 0))
    opened = [server]

    async with proxy_process(("127.0.0.2", 0), server.get_extra_info("sockname"), seed=seed, up=up, down=down) as proxy:

        async def client() -> Notes:
            transport, notes = await loop.create_datagram_endpoint(Notes, remote_addr=proxy.address)
            opened.append(transport)
            return notes

        try:
            yield proxy, echo, client
        finally:
            for transport in opened:
                transport.close()


async def pour(client: Notes, count: int, *, interval_s: float = 0.001) -> dict[bytes, float]:
    """Send numbered packets; return when each left."""
    sent = {}
    for i in range(count):
        data = b"%06d" % i + bytes(1000)
        sent[data] = time.monotonic()
        client.transport.sendto(data)
        await asyncio.sleep(interval_s)
    return sent


async def settled(proxy: ProxyProcess, wait_s: float = 0.2) -> dict:
    await asyncio.sleep(wait_s)
    return await proxy.stats()


async def test_each_client_has_its_own_address_towards_the_relay():
    async with proxied() as (proxy, echo, client):
        one, two = await client(), await client()
        for name, who in ((b"one", one), (b"two", two), (b"one", one)):
            who.transport.sendto(name)
        stats = await settled(proxy)
        assert sorted(data for _, data in echo.seen) == [b"one", b"one", b"two"]
        assert [data for _, data in one.seen] == [b"one", b"one"] and [data for _, data in two.seen] == [b"two"]
        assert len(echo.addresses) == stats["clients"] == 2
        assert {ip for ip, _ in echo.addresses} == {"127.0.0.1"}


async def test_the_same_seed_loses_the_same_packets_and_another_others():
    async def lost(seed: int) -> list[int]:
        async with proxied(seed=seed, up=Impairment(loss=0.2, delay_s=0)) as (proxy, echo, client):
            sent = await pour(await client(), 300)
            stats = await settled(proxy)
            arrived = {data for _, data in echo.seen}
            gone = [i for i, data in enumerate(sent) if data not in arrived]
            assert len(gone) == stats["up"]["lost"] and 30 <= len(gone) <= 90
            return gone

    first = await lost(1)
    assert first == await lost(1) != await lost(2)


async def test_round_trip_time_is_the_two_delays():
    half = Impairment(delay_s=0.025)
    async with proxied(up=half, down=half) as (proxy, _, client):
        notes = await client()
        sent = await pour(notes, 300)
        stats = await settled(proxy)
        took = sorted(at - sent[data] for at, data in notes.seen)
        assert len(took) == 300
        # Both of its ways; what else is added here is this test's own loop, hence the median.
        assert 0.05 <= took[0] and took[150] < 0.056, took[150]
        assert stats["late_us"]["p50"] < 1000, stats


async def test_links_change_while_it_runs():
    async with proxied() as (proxy, echo, client):
        notes = await client()
        await pour(notes, 20)
        await settled(proxy)
        assert len(echo.seen) == 20
        proxy.impair(Impairment(loss=1.0), CLEAN)
        await settled(proxy, 0.05)
        await pour(notes, 20)
        assert (await settled(proxy))["up"]["lost"] == 20
        assert len(echo.seen) == 20
