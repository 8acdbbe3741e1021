"""The ICE-TCP port over a real worker: whose a connection is, what a stream does to packets, and who is shown the door."""

import asyncio
import random
import socket
import struct

import pytest

from relay.plane import ListenAddress, Plane
from relay.session.binding import local_ufrag
from relay.signaling import ice_tcp
from relay.signaling.ice_tcp import IceTcp
from relaycore.worker import leaks
from tests.support.peer import MediaPeer
from tests.unit.plane.test_plane import Listener

pytestmark = pytest.mark.timeout(20)


def frame(packet: bytes) -> bytes:
    return struct.pack("!H", len(packet)) + packet


class Caller:
    """One transport of the plane, and its other end on TCP."""

    def __init__(self, seed: int = 1) -> None:
        self.peer, self.listener, self.transport = MediaPeer(random.Random(seed)), Listener(), 0
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def connect(self, port: int) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)

    async def packet(self) -> bytes:
        head = await asyncio.wait_for(self.reader.readexactly(2), 5)
        return await asyncio.wait_for(self.reader.readexactly(int.from_bytes(head)), 5)

    async def is_closed(self) -> bool:
        try:
            return await asyncio.wait_for(self.reader.read(1), 8) == b""
        except ConnectionError:
            return True


class Port:
    async def __aenter__(self) -> "Port":
        self.plane = Plane([ListenAddress("127.0.0.1", 0, "192.0.2.7")], seed=1)
        await self.plane.start()
        self.refusals: dict[str, int] = {}
        self.tcp = IceTcp(self.plane, [("127.0.0.1", "192.0.2.7")], 0, self.refusals)
        self.tcp.start()
        [(ip, self.number)] = self.tcp.candidates
        assert ip == "192.0.2.7"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.tcp.stop()
        await self.plane.stop()
        assert leaks()["connections"] == 0

    async def caller(self, seed: int = 1) -> Caller:
        caller = Caller(seed)
        caller.transport = await self.plane.add_transport(caller.peer.ufrag, caller.peer.password, caller.listener)
        await caller.connect(self.number)
        return caller

    async def counter(self, name: str) -> int:
        return (await self.plane.snapshot()).counters[name]


async def test_a_check_over_tcp_is_answered_and_what_follows_reaches_the_transport():
    async with Port() as port:
        caller = await port.caller()
        caller.writer.write(frame(caller.peer.check()))
        caller.peer.receive(await caller.packet())
        assert caller.peer.stun, "the answer came back over the connection"
        name, remote = await caller.listener.next()
        assert (name, remote) == ("connected", caller.writer.get_extra_info("sockname")[:2])
        hello = bytes([22]) + bytes(60)
        caller.writer.write(frame(hello))
        assert await caller.listener.next() == ("dtls", hello)
        port.plane.send_dtls(caller.transport, hello * 3)
        assert await caller.packet() == hello * 3
        assert await port.counter("tcp_opened") == 1


async def test_a_stream_cut_anywhere_carries_the_same_packets():
    async with Port() as port:
        caller = await port.caller()
        packets = [bytes([22, n]) + bytes(n) for n in range(40)]
        stream = frame(caller.peer.check()) + b"\0\0" + b"".join(frame(packet) for packet in packets)
        for at in range(len(stream)):
            caller.writer.write(stream[at : at + 1])
            if at % 16 == 0:
                await caller.writer.drain()
                await asyncio.sleep(0)
        heard = [event for event in [await caller.listener.next() for _ in range(41)] if event[0] == "dtls"]
        assert [event[1] for event in heard] == packets


async def test_a_frame_that_is_too_long_is_passed_over_and_the_next_one_read():
    async with Port() as port:
        caller = await port.caller()
        caller.writer.write(frame(caller.peer.check()) + frame(bytes([22]) + bytes(59_999)) + frame(bytes([22, 7])))
        await caller.listener.next()
        assert await caller.listener.next() == ("dtls", bytes([22, 7]))
        assert (await port.plane.snapshot()).errors["E_LENGTH"] == 1


@pytest.mark.parametrize(
    "first",
    [b"GET / HTTP/1.1\r\n\r\n", frame(b"\x16" + bytes(99)), frame(bytes(19)), b"\xff\xff" + bytes(100), frame(b"")],
    ids=["http", "tls", "short", "huge", "empty"],
)
async def test_who_begins_with_anything_else_is_shown_the_door(first: bytes):
    async with Port() as port:
        caller = await port.caller()
        caller.writer.write(first)
        caller.writer.write_eof()
        assert await caller.is_closed()
        assert port.refusals == {"ice_tcp_first_frame": 1}
        assert await port.counter("tcp_opened") == 0


async def test_an_unknown_name_and_a_slow_starter_are_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ice_tcp, "FIRST_FRAME_S", 0.3)
    async with Port() as port:
        stranger = await port.caller()
        await port.plane.remove_transport(stranger.transport)
        stranger.writer.write(frame(stranger.peer.check()))
        slow = await port.caller(2)
        slow.writer.write(frame(slow.peer.check())[:30])
        assert await stranger.is_closed() and await slow.is_closed()
        assert port.refusals == {"ice_tcp_first_frame": 2}


async def test_idle_connections_of_one_address_are_bounded_and_do_not_keep_out_who_speaks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ice_tcp, "MAX_WAITING_PER_IP", 4)
    monkeypatch.setattr(ice_tcp, "FIRST_FRAME_S", 0.5)
    async with Port() as port:
        idle = [socket.create_connection(("127.0.0.1", port.number)) for _ in range(12)]
        await asyncio.sleep(0.1)
        assert port.refusals == {"ice_tcp_waiting": 8}
        await asyncio.sleep(0.6)
        caller = await port.caller()
        caller.writer.write(frame(caller.peer.check()))
        caller.peer.receive(await caller.packet())
        for connection in idle:
            connection.close()


@pytest.mark.timeout(60)
async def test_a_thousand_silent_connections_displace_each_other_and_nobody_who_speaks():
    async with Port() as port:
        idle = []
        for number in range(1000):
            connection = socket.socket()
            connection.bind((f"127.0.1.{1 + number % 40}", 0))
            connection.connect(("127.0.0.1", port.number))
            idle.append(connection)
            if number % 100 == 0:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert port.refusals == {"ice_tcp_displaced": 1000 - ice_tcp.MAX_WAITING}
        caller = await port.caller()
        caller.writer.write(frame(caller.peer.check()))
        caller.peer.receive(await caller.packet())
        assert caller.peer.stun
        for connection in idle:
            connection.close()


async def test_a_stop_takes_along_who_has_said_nothing(monkeypatch: pytest.MonkeyPatch):
    async with Port() as port:
        silent = await port.caller()
        await asyncio.sleep(0.05)
        port.tcp.stop()
        assert await silent.is_closed()
        assert port.refusals == {}


async def test_slow_starters_are_closed_however_often_they_say_something(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ice_tcp, "FIRST_FRAME_S", 0.4)
    async with Port() as port:
        slow = await port.caller()
        check = frame(slow.peer.check())
        for at in range(40):
            slow.writer.write(check[at : at + 1])
            await asyncio.sleep(0.02)
        assert await slow.is_closed()
        assert port.refusals == {"ice_tcp_first_frame": 1}


async def test_a_name_alone_takes_so_many_places_and_only_for_so_long(monkeypatch: pytest.MonkeyPatch):
    """Who heard a ufrag on the way, but not the password."""
    monkeypatch.setattr(ice_tcp, "PER_TRANSPORT", 3)
    async with Port() as port:
        caller = await port.caller()
        check = caller.peer.check()
        forged = frame(check[:-1] + bytes([check[-1] ^ 1]))
        callers = [caller]
        for _ in range(5):
            other = Caller()
            await other.connect(port.number)
            callers.append(other)
        for one in callers:
            one.writer.write(forged)
        await asyncio.sleep(0.1)
        assert port.refusals == {"ice_tcp_transport": 3}
        assert all([await one.is_closed() for one in callers])
        assert await port.counter("tcp_opened") == await port.counter("tcp_closed") == 3
        assert await port.counter("stun_received") == 3


def test_one_network_is_one_home_in_ipv6():
    assert ice_tcp._home("2001:db8::1") == ice_tcp._home("2001:db8::ffff:1") != ice_tcp._home("2001:db8:0:1::1")
    assert ice_tcp._home("192.0.2.1") != ice_tcp._home("192.0.2.2")


async def test_a_connection_that_ends_frees_the_way_for_another():
    """The selected pair is gone at once, not after its five seconds of silence."""
    async with Port() as port:
        caller = await port.caller()
        caller.writer.write(frame(caller.peer.check()))
        await caller.packet()
        await caller.listener.next()
        caller.writer.close()
        await caller.writer.wait_closed()
        await caller.connect(port.number)
        caller.writer.write(frame(caller.peer.check()))
        await caller.packet()
        name, remote = await caller.listener.next()
        assert (name, remote) == ("connected", caller.writer.get_extra_info("sockname")[:2])


async def test_a_reader_that_stops_loses_whole_packets_and_nothing_else_waits():
    async with Port() as port:
        caller = await port.caller()
        caller.writer.write(frame(caller.peer.check()))
        await caller.packet()
        datagram = bytes([22]) + bytes(1199)
        for _ in range(60):
            for _ in range(100):
                port.plane.send_dtls(caller.transport, datagram)
            await asyncio.sleep(0.005)
        assert await port.counter("tcp_dropped") > 0
        got = 0
        while got < 20:
            # Whole frames only, whatever was dropped between.
            assert await caller.packet() == datagram
            got += 1


def test_the_name_in_a_request_is_found_and_nothing_else_is():
    peer = MediaPeer(random.Random(3))
    check = peer.check()
    assert local_ufrag(check) == peer.ufrag
    for cut in range(len(check)):
        assert local_ufrag(check[:cut]) is None
    rng = random.Random(4)
    for _ in range(500):
        noise = bytearray(check)
        noise[rng.randrange(len(noise))] ^= 1 << rng.randrange(8)
        local_ufrag(bytes(noise))
    assert local_ufrag(b"\1\1" + check[2:]) is None
