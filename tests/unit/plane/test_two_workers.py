"""A plane with two workers: ports, streams that cross, and that nothing stays behind when either end goes."""

import asyncio
import struct

import pytest

from relay.plane import ListenAddress, Plane, PlaneError, SrtpKeys
from relay.plane.placement import FULL_LOAD
from relaycore import worker as relaycore_worker
from tests.support.engine import rtcp_packets
from tests.support.peer import MediaPeer
from tests.support.relay_process import free_port
from tests.unit.plane.test_plane import (
    LOOPBACK,
    VP8,
    Listener,
    Remote,
    egress_spec,
    receiver_spec,
)

E_UNKNOWN_STREAM, E_STATE = -16, -18


@pytest.fixture
async def plane():
    made = Plane([LOOPBACK], workers=2, seed=1)
    await made.start()
    yield made
    await made.stop()


class End:
    """One transport with its peer, connected."""

    def __init__(self, plane: Plane, rng, worker: int) -> None:
        self.plane, self.peer, self.listener, self.worker = plane, MediaPeer(rng), Listener(), worker
        self.remote = Remote(plane)

    async def open(self) -> "End":
        self.transport = await self.plane.add_transport(
            self.peer.ufrag, self.peer.password, self.listener, group=("worker", self.worker)
        )
        (address,) = self.plane.candidates(self.transport)
        self.remote.relay = address.ip, address.port
        await self.plane.set_srtp(self.transport, SrtpKeys(**self.peer.relay_keys()))
        self.remote.send(self.peer.check())
        await self.remote.receive()
        assert (await self.listener.next())[0] == "connected"
        return self

    async def media(self) -> bytes:
        """The next RTP packet in plain."""
        async with asyncio.timeout(5):
            while True:
                if (plain := self.peer.receive(await self.remote.receive())) is not None:
                    return plain

    async def rtcp(self, kind: int, count: int) -> bytes:
        """The body of the next RTCP packet of that kind."""
        async with asyncio.timeout(5):
            while True:
                for found, form, body in rtcp_packets(self.peer.rtcp):
                    if (found, form) == (kind, count):
                        self.peer.rtcp.clear()
                        return body
                self.peer.receive(await self.remote.receive())


@pytest.fixture
async def ends(plane, rng):
    """A publisher on worker 0 and two subscribers on worker 1."""
    made = [End(plane, rng, worker) for worker in (0, 1, 1)]
    for end in made:
        await end.open()
    yield made
    for end in made:
        end.remote.socket.close()


def packet(seq: int, payload: bytes, *, pt: int = 111, ssrc: int = 1234) -> bytes:
    return struct.pack("!BBHII", 0x80, pt, seq, 960 * seq, ssrc) + payload


async def subscribe(plane: Plane, end: End, receiver: int, **changes) -> int:
    """Add an egress and give its demand the time to reach the publisher's worker."""
    egress = await plane.add_egress(egress_spec(end.transport, receiver, **changes))
    await asyncio.sleep(0.05)
    return egress


async def figures(plane) -> dict[str, int]:
    return (await plane.snapshot()).counters


async def test_each_worker_has_the_next_port_and_its_own_candidates(rng):
    first = free_port()
    plane = Plane([ListenAddress("127.0.0.1", first, "192.0.2.7")], workers=2, seed=1)
    await plane.start()
    try:
        assert [address.port for address in plane.addresses] == [first, first + 1]
        places = [await plane.add_transport(f"abc{k}", "p" * 22, Listener(), group=k) for k in range(2)]
        assert [plane.candidates(place)[0].port for place in places] == [first, first + 1]
        assert [address.advertised_ip for address in plane.candidates(places[1])] == ["192.0.2.7"]
    finally:
        await plane.stop()


async def test_a_port_in_use_is_named_and_the_other_workers_end(plane):
    before = relaycore_worker.leaks()
    taken = plane.addresses[1]
    other = Plane([ListenAddress("127.0.0.1", taken.port - 1, "127.0.0.1")], workers=2)
    with pytest.raises(OSError, match=f"port {taken.port}"):
        await other.start()
    await other.stop()
    del other
    assert relaycore_worker.leaks() == before


async def test_a_room_spreads_when_its_worker_is_full(plane, rng):
    a, b = [await plane.add_transport(f"abc{k}", "p" * 22, Listener(), group="room") for k in range(2)]
    assert plane.candidates(a) == plane.candidates(b)
    receiver = await plane.add_receiver(a, receiver_spec("video", (VP8,)), Listener())
    count = 0
    while (await plane.snapshot()).workers[0].predicted_load < FULL_LOAD:
        count += 100
        await asyncio.gather(*(
            plane.add_egress(egress_spec(b, receiver, ssrc=count + k, codecs=(VP8,))) for k in range(100)
        ))
    c = await plane.add_transport("abcc", "p" * 22, Listener(), group="room")
    assert plane.candidates(c) != plane.candidates(a)
    assert [worker.transports for worker in (await plane.snapshot()).workers] == [2, 1]


async def test_audio_crosses_to_both_subscribers_by_one_copy(plane, ends):
    speaker, one, two = ends
    receiver = await plane.add_receiver(speaker.transport, receiver_spec(), Listener())
    for end in (one, two):
        await subscribe(plane, end, receiver)
    for seq in range(20):
        speaker.remote.send(speaker.peer.protect(packet(seq, bytes([seq]) * 50)))
        assert [(await end.media())[12:] for end in (one, two)] == [bytes([seq]) * 50] * 2
    counters = await figures(plane)
    assert counters["exported"] == counters["imported"] == 20
    assert counters["rtp_forwarded"] == 40


async def test_keyframe_requests_and_reports_cross(plane, ends):
    speaker, watcher, _ = ends
    heard = Listener()
    receiver = await plane.add_receiver(speaker.transport, receiver_spec("video", (VP8,)), heard)
    key = b"\x90\x80\x80\x01\x10" + bytes(40)
    speaker.remote.send(speaker.peer.protect(packet(1, key, pt=96)))
    assert await heard.next() == ("bound", 0, 1234)
    await subscribe(plane, watcher, receiver, codecs=(VP8,))
    assert struct.unpack_from("!I", await speaker.rtcp(206, 1), 4) == (1234,)
    speaker.remote.send(speaker.peer.protect_rtcp(struct.pack("!BBHIQIII", 0x80, 200, 6, 1234, 3_900_000_000 << 32, 960, 1, 1)))
    speaker.remote.send(speaker.peer.protect(packet(2, key, pt=96)))
    assert (await watcher.media())[-40:] == bytes(40)
    ntp, _ = struct.unpack_from("!QI", await watcher.rtcp(200, 0), 4)
    assert 0 <= (ntp >> 32) - 3_900_000_000 < 5


@pytest.mark.parametrize("which", ["egress", "receiver", "speaker", "subscribers"])
async def test_mirrors_go_with_whatever_goes(plane, ends, which):
    speaker, one, two = ends
    receiver = await plane.add_receiver(speaker.transport, receiver_spec(), Listener())
    egresses = [await plane.add_egress(egress_spec(end.transport, receiver, ssrc=77)) for end in (one, two)]
    if which == "egress":
        for egress in egresses:
            await plane.remove_egress(egress)
    elif which == "receiver":
        await plane.remove_receiver(receiver)
    elif which == "speaker":
        await plane.remove_transport(speaker.transport)
    else:
        for end in (one, two):
            await plane.remove_transport(end.transport)
    snapshot = await plane.snapshot()
    assert len(snapshot.egresses) == 0
    assert [feed.refused_posts for feed in plane._feeds] == [0, 0]
    # Nothing of that name is left on the second worker, and none is exported to.
    with pytest.raises(PlaneError) as refused:
        await plane._feeds[1].call(plane._feeds[1].worker.remove_receiver, receiver)
    assert refused.value.code == E_UNKNOWN_STREAM
    if which in ("egress", "subscribers"):
        speaker.remote.send(speaker.peer.protect(packet(1, bytes(50))))
        await asyncio.sleep(0.1)
        assert (await figures(plane))["exported"] == 0


async def test_a_mirror_comes_back_with_the_next_subscription(plane, ends):
    speaker, one, _ = ends
    receiver = await plane.add_receiver(speaker.transport, receiver_spec(), Listener())
    for turn in range(5):
        egress = await subscribe(plane, one, receiver, ssrc=100 + turn)
        speaker.remote.send(speaker.peer.protect(packet(turn, bytes([turn]) * 50)))
        assert (await one.media())[12:] == bytes([turn]) * 50
        await plane.remove_egress(egress)
    assert [feed.refused_posts for feed in plane._feeds] == [0, 0]


async def test_many_join_and_leave_at_once(plane, ends, rng):
    speaker, one, two = ends
    receiver = await plane.add_receiver(speaker.transport, receiver_spec(), Listener())

    async def come_and_go(number: int) -> None:
        end = (one, two)[number % 2]
        for turn in range(10):
            await asyncio.sleep(rng.random() / 200)
            egress = await plane.add_egress(egress_spec(end.transport, receiver, ssrc=1000 * number + turn + 1))
            await asyncio.sleep(rng.random() / 200)
            await plane.remove_egress(egress)

    await asyncio.gather(*(come_and_go(number) for number in range(8)))
    assert [feed.refused_posts for feed in plane._feeds] == [0, 0]
    assert (await plane.snapshot()).workers[1].predicted_load == pytest.approx(0)


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancelled_subscription_leaves_no_mirror(plane, ends, turns):
    speaker, one, _ = ends
    receiver = await plane.add_receiver(speaker.transport, receiver_spec(), Listener())
    task = asyncio.ensure_future(plane.add_egress(egress_spec(one.transport, receiver)))
    for _ in range(turns):
        await asyncio.sleep(0.0005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    if not task.cancelled():
        await plane.remove_egress(task.result())
    await asyncio.sleep(0.05)
    with pytest.raises(PlaneError) as refused:
        await plane._feeds[1].call(plane._feeds[1].worker.remove_receiver, receiver)
    assert refused.value.code == E_UNKNOWN_STREAM
    assert len((await plane.snapshot()).egresses) == 0


async def test_a_subscription_whose_publication_goes_meanwhile_is_refused(plane, ends):
    speaker, one, _ = ends
    receiver = await plane.add_receiver(speaker.transport, receiver_spec(), Listener())
    task = asyncio.ensure_future(plane.add_egress(egress_spec(one.transport, receiver)))
    await asyncio.sleep(0)
    await plane.remove_receiver(receiver)
    with pytest.raises(PlaneError):
        await task
    await asyncio.sleep(0.05)
    with pytest.raises(PlaneError) as refused:
        await plane._feeds[1].call(plane._feeds[1].worker.remove_receiver, receiver)
    assert refused.value.code == E_UNKNOWN_STREAM


async def test_start_and_stop_with_streams_that_cross_leave_nothing(rng):
    before = relaycore_worker.leaks()
    plane = Plane([LOOPBACK], workers=2, seed=1)
    await plane.start()
    speaker, one = [await End(plane, rng, worker).open() for worker in (0, 1)]
    receiver = await plane.add_receiver(speaker.transport, receiver_spec(), Listener())
    await plane.add_egress(egress_spec(one.transport, receiver))
    for seq in range(50):
        speaker.remote.send(speaker.peer.protect(packet(seq, bytes(50))))
    await plane.stop()
    for end in (speaker, one):
        end.remote.socket.close()
    del plane, speaker, one, end
    assert relaycore_worker.leaks() == before


async def test_dropped_keyframes_are_dropped_on_every_worker(plane, ends):
    """The mirror sends the cached keyframe to who comes late, and none from before it was dropped."""
    publisher, *viewers = ends
    receiver = await plane.add_receiver(publisher.transport, receiver_spec("video", (VP8,)), publisher.listener)
    first = await subscribe(plane, viewers[0], receiver, codecs=(VP8,))
    picture = bytes([0x10, 0x10]) + bytes(40)
    publisher.remote.send(publisher.peer.protect(packet(1, picture, pt=96)))
    assert (await viewers[0].media())[12:] == picture
    late = await subscribe(plane, viewers[1], receiver, codecs=(VP8,), ssrc=78)
    publisher.remote.send(publisher.peer.protect(packet(2, b"\x10\x11" + bytes(40), pt=96)))
    assert (await viewers[1].media())[12:] == picture
    assert (await figures(plane))["cache_hits"] == 1
    await plane.remove_egress(late)
    plane.drop_keyframe_cache(receiver)
    await subscribe(plane, viewers[1], receiver, codecs=(VP8,), ssrc=79)
    publisher.remote.send(publisher.peer.protect(packet(3, b"\x10\x11" + bytes(40), pt=96)))
    await viewers[0].media()
    assert (await figures(plane))["cache_hits"] == 1
    await plane.remove_egress(first)
    await plane.remove_receiver(receiver)
    plane.drop_keyframe_cache(receiver)
