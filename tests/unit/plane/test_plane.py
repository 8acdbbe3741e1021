"""The plane over a real worker on the loopback: commands, events, removal, stopping."""

import asyncio
import ipaddress
import socket

import pytest
import uvloop

from relay.plane import (
    Codec,
    EgressSpec,
    ListenAddress,
    Plane,
    PlaneError,
    ReceiverSpec,
    SrtpKeys,
)
from relaycore import worker as relaycore_worker
from tests.support.peer import MediaPeer

LOOPBACK = ListenAddress("127.0.0.1", 0, "192.0.2.7")
OPUS = Codec(111, "opus", 48000, None)
VP8 = Codec(96, "vp8", 90000, 97)
E_UNKNOWN_TRANSPORT, E_UNKNOWN_STREAM, E_STATE = -15, -16, -18


class Listener:
    """A transport's and a receiver's listener that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple] = asyncio.Queue()
        self.layers: list[tuple[int, int, int]] = []

    def on_dtls(self, datagram: bytes) -> None:
        self.heard.put_nowait(("dtls", datagram))

    def on_ice_connected(self, remote: tuple[str, int]) -> None:
        self.heard.put_nowait(("connected", remote))

    def on_estimate(self, estimate_bps: int, loss: float, rtt_ms: int) -> None: ...

    def on_ice_dead(self) -> None:
        self.heard.put_nowait(("dead",))

    def on_stream_bound(self, encoding: int, ssrc: int) -> None:
        self.heard.put_nowait(("bound", encoding, ssrc))

    def on_encoding_active(self, encoding: int, active: bool) -> None:
        self.heard.put_nowait(("active", encoding, active))

    def on_stopped(self, reason: str) -> None:
        self.heard.put_nowait(("stopped", reason))

    def on_undeclared_encryption(self) -> None:
        self.heard.put_nowait(("undeclared",))

    def on_speaking(self, dbov: int) -> None:
        self.heard.put_nowait(("speaking", dbov))

    def on_layers(self, encoding: int, spatial_count: int, temporal_count: int) -> None:
        self.layers.append((encoding, spatial_count, temporal_count))

    async def next(self) -> tuple:
        return await asyncio.wait_for(self.heard.get(), 5)


class Remote:
    """A peer's socket on the loop."""

    def __init__(self, plane: Plane) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.relay = (plane.addresses[0].ip, plane.addresses[0].port)
        self.address = self.socket.getsockname()

    def send(self, datagram: bytes) -> None:
        self.socket.sendto(datagram, self.relay)

    async def receive(self) -> bytes:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, 2000), 5)


@pytest.fixture
async def plane():
    made = Plane([LOOPBACK], seed=1)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def remote(plane):
    made = Remote(plane)
    yield made
    made.socket.close()


def receiver_spec(kind: str = "audio", codecs: tuple[Codec, ...] = (OPUS,), **changes) -> ReceiverSpec:
    return ReceiverSpec(
        **{"kind": kind, "mid": "0", "codecs": codecs, "rids": (), "ssrcs": (1234,), "rtx_ssrcs": (), **changes}
    )


def egress_spec(transport: int, receiver: int, **changes) -> EgressSpec:
    defaults = {"mid": "0", "ssrc": 77, "rtx_ssrc": None, "codecs": (OPUS,), "cname": "c", "encoding": 0}
    return EgressSpec(**{"transport": transport, "receiver": receiver, **defaults, **changes})


async def test_candidates_carry_the_port_really_bound(plane):
    (candidate,) = plane.addresses
    assert candidate.advertised_ip == "192.0.2.7"
    assert candidate.port != 0
    assert plane.sockets[0]["port"] == candidate.port
    assert plane.sockets[0]["receive_buffer_bytes"] > 0
    assert plane.srtp_backend


async def test_start_and_stop_leave_nothing():
    before = relaycore_worker.leaks()
    plane = Plane([LOOPBACK, ListenAddress("::1", 0, "::1")], seed=1)
    assert [c.port for c in plane.addresses] == [0, 0]
    await plane.start()
    assert relaycore_worker.leaks()["workers"] == before["workers"] + 1
    await plane.add_transport("abcd", "p" * 22, Listener())
    await plane.stop()
    assert relaycore_worker.leaks() == before
    await plane.stop()
    with pytest.raises(PlaneError) as refused:
        await plane.add_transport("abcd", "p" * 22, Listener())
    assert refused.value.code == E_STATE


async def test_an_address_in_use_is_named(plane):
    other = Plane([plane.addresses[0]])
    with pytest.raises(OSError, match=f"127.0.0.1 port {plane.addresses[0].port}"):
        await other.start()
    await other.stop()


async def test_a_check_connects_and_dtls_passes_both_ways(plane, remote, rng):
    peer, listener = MediaPeer(rng), Listener()
    transport = await plane.add_transport(peer.ufrag, peer.password, listener)
    remote.send(peer.check())
    assert (await remote.receive())[:2] == b"\x01\x01"
    assert await listener.next() == ("connected", remote.address)
    remote.send(b"\x16client hello")
    assert await listener.next() == ("dtls", b"\x16client hello")
    plane.send_dtls(transport, b"\x16server hello")
    assert await remote.receive() == b"\x16server hello"


async def test_restarted_ice_answers_to_its_new_name(plane, remote, rng):
    peer, again, listener = MediaPeer(rng), MediaPeer(rng), Listener()
    transport = await plane.add_transport(peer.ufrag, peer.password, listener)
    await plane.restart_ice(transport, again.ufrag, again.password)
    remote.send(again.check())
    assert (await remote.receive())[:2] == b"\x01\x01"


async def subscribe(plane, publisher: MediaPeer, subscriber: MediaPeer) -> tuple[int, int, int, int, Listener]:
    heard = Listener()
    one = await plane.add_transport(publisher.ufrag, publisher.password, Listener())
    two = await plane.add_transport(subscriber.ufrag, subscriber.password, Listener())
    await plane.set_srtp(one, SrtpKeys(**publisher.relay_keys()))
    await plane.set_srtp(two, SrtpKeys(**subscriber.relay_keys()))
    await plane.set_extensions(one, {"urn:ietf:params:rtp-hdrext:sdes:mid": 1, "urn:of:nobody": 2})
    receiver = await plane.add_receiver(one, receiver_spec(), heard)
    egress = await plane.add_egress(egress_spec(two, receiver))
    return one, two, receiver, egress, heard


async def test_media_reaches_the_subscriber_and_the_listener(plane, remote, rng):
    publisher, subscriber = MediaPeer(rng), MediaPeer(rng)
    one, two, receiver, egress, heard = await subscribe(plane, publisher, subscriber)
    assert len({one, two, receiver, egress}) == 4
    other = Remote(plane)
    remote.send(publisher.check())
    other.send(subscriber.check())
    await remote.receive()
    await other.receive()
    for seq in range(3):
        remote.send(
            publisher.protect(bytes([0x80, 111, 0, seq]) + bytes(4) + (1234).to_bytes(4, "big") + b"sound%d" % seq)
        )
    while len(subscriber.rtp) < 3:
        subscriber.receive(await other.receive())
    assert [p[12:] for p in subscriber.rtp] == [b"sound0", b"sound1", b"sound2"]
    assert await heard.next() == ("bound", 0, 1234)
    assert await heard.next() == ("active", 0, True)
    snapshot = await plane.snapshot()
    assert snapshot.egresses["egress"].tolist() == [egress]
    assert snapshot.egresses["packets"].tolist() == [3]
    assert snapshot.streams["receiver"].tolist() == [receiver]
    assert sorted(snapshot.transports["transport"]) == [one, two]
    row = snapshot.transports[snapshot.transports["transport"] == two][0]
    assert (str(ipaddress.ip_address(bytes(row["remote_ip"][:4]))), row["remote_port"]) == other.address
    assert snapshot.counters["rtp_received"] == 3
    assert snapshot.errors["E_AUTH"] == 0
    other.socket.close()


async def test_keyframes_and_encodings_are_asked_for_by_id(plane, rng):
    peer = MediaPeer(rng)
    transport = await plane.add_transport(peer.ufrag, peer.password, Listener())
    await plane.set_srtp(transport, SrtpKeys(**peer.relay_keys()))
    spec = receiver_spec("video", (VP8,), rids=("q", "h", "f"), ssrcs=())
    receiver = await plane.add_receiver(transport, spec, Listener())
    await plane.request_keyframe(receiver, 2)
    with pytest.raises(PlaneError, match="E_INVALID"):
        await plane.request_keyframe(receiver, 3)
    egress = await plane.add_egress(egress_spec(transport, receiver, codecs=(VP8,), encoding=None))
    await plane.select_encoding(egress, 1)
    assert (await plane.snapshot()).egresses["wanted"].tolist() == [1]
    await plane.select_encoding(egress, None)
    assert (await plane.snapshot()).egresses["wanted"].tolist() == [-1]


async def test_other_codecs_are_told_apart_by_kind(plane, rng):
    peer = MediaPeer(rng)
    transport = await plane.add_transport(peer.ufrag, peer.password, Listener())
    for number, kind in enumerate(("audio", "video")):
        other = Codec(100, "other", 90000, None)
        receiver = await plane.add_receiver(
            transport, receiver_spec(kind, (other,), mid=kind, ssrcs=(number + 1,)), Listener()
        )
        await plane.add_egress(egress_spec(transport, receiver, codecs=(other,), mid=kind, ssrc=80 + number))
    with pytest.raises(ValueError, match="text"):
        await plane.add_receiver(transport, receiver_spec("text"), Listener())


async def test_too_many_codecs_are_refused_and_leave_nothing(plane, rng):
    peer = MediaPeer(rng)
    transport = await plane.add_transport(peer.ufrag, peer.password, Listener())
    many = tuple(Codec(n, "vp8", 90000, None) for n in range(96, 113))
    with pytest.raises(ValueError, match="17 codecs"):
        await plane.add_receiver(transport, receiver_spec("video", many), Listener())
    receiver = await plane.add_receiver(transport, receiver_spec(), Listener())
    with pytest.raises(ValueError, match="17 codecs"):
        await plane.add_egress(egress_spec(transport, receiver, codecs=many))
    assert len((await plane.snapshot()).egresses) == 0


async def test_unknown_ids_are_refused(plane):
    for coroutine, code in (
        (plane.remove_transport(99), E_UNKNOWN_TRANSPORT),
        (plane.restart_ice(99, "abcd", "p" * 22), E_UNKNOWN_TRANSPORT),
        (plane.add_receiver(99, receiver_spec(), Listener()), E_UNKNOWN_TRANSPORT),
        (plane.remove_receiver(99), E_UNKNOWN_STREAM),
        (plane.remove_egress(99), E_UNKNOWN_STREAM),
        (plane.select_encoding(99, 0), E_UNKNOWN_STREAM),
    ):
        with pytest.raises(PlaneError) as refused:
            await coroutine
        assert refused.value.code == code
        assert "E_UNKNOWN" in str(refused.value)
    plane.send_dtls(99, b"x")


async def test_a_refusal_of_the_worker_arrives_with_its_name(plane, rng):
    peer = MediaPeer(rng)
    transport = await plane.add_transport(peer.ufrag, peer.password, Listener())
    keys = SrtpKeys(**peer.relay_keys())
    await plane.set_srtp(transport, keys)
    with pytest.raises(PlaneError, match="set_srtp: E_STATE"):
        await plane.set_srtp(transport, keys)
    with pytest.raises(PlaneError):
        await plane.add_transport(peer.ufrag, peer.password, Listener())
    assert len((await plane.snapshot()).transports) == 1


async def test_keys_do_not_show_in_logs(rng):
    keys = MediaPeer(rng).relay_keys()
    shown = repr(SrtpKeys(**keys))
    assert shown == "SrtpKeys(profile=7)"


async def test_what_depends_on_a_receiver_goes_with_it(plane, rng):
    one, two, receiver, egress, _ = await subscribe(plane, MediaPeer(rng), MediaPeer(rng))
    await plane.remove_receiver(receiver)
    with pytest.raises(PlaneError):
        await plane.remove_egress(egress)
    with pytest.raises(PlaneError):
        await plane.add_egress(egress_spec(two, receiver))
    assert len((await plane.snapshot()).egresses) == 0
    # The same m-line may come back.
    again = await plane.add_receiver(one, receiver_spec(), Listener())
    assert again not in (one, two, receiver, egress)


async def test_what_lives_on_a_transport_goes_with_it(plane, rng):
    one, two, receiver, egress, _ = await subscribe(plane, MediaPeer(rng), MediaPeer(rng))
    await plane.remove_transport(two)
    with pytest.raises(PlaneError):
        await plane.select_encoding(egress, 0)
    await plane.request_keyframe(receiver, 0)
    await plane.remove_transport(one)
    with pytest.raises(PlaneError):
        await plane.request_keyframe(receiver, 0)
    snapshot = await plane.snapshot()
    assert (len(snapshot.transports), len(snapshot.streams), len(snapshot.egresses)) == (0, 0, 0)


async def test_a_removed_transport_is_not_heard_of_any_more(plane, remote, rng):
    peer, listener = MediaPeer(rng), Listener()
    transport = await plane.add_transport(peer.ufrag, peer.password, listener)
    remote.send(peer.check())
    assert (await listener.next())[0] == "connected"
    for _ in range(50):
        remote.send(b"\x16more")
    await plane.remove_transport(transport)
    heard = listener.heard.qsize()
    await plane.snapshot()
    assert listener.heard.qsize() == heard
    plane.send_dtls(transport, b"late")


async def test_a_listener_that_raises_costs_the_others_nothing(plane, remote, rng):
    class Broken(Listener):
        def on_ice_connected(self, remote):
            raise RuntimeError("broken listener")

    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    broken, peer, listener = MediaPeer(rng), MediaPeer(rng), Listener()
    await plane.add_transport(broken.ufrag, broken.password, Broken())
    await plane.add_transport(peer.ufrag, peer.password, listener)
    remote.send(broken.check())
    remote.send(peer.check())
    assert (await listener.next())[0] == "connected"
    assert [str(context["exception"]) for context in reported] == ["broken listener"]


async def test_more_commands_than_the_ring_holds_wait_their_turn(plane, rng):
    peer = MediaPeer(rng)
    transport = await plane.add_transport(peer.ufrag, peer.password, Listener())
    receiver = await plane.add_receiver(transport, receiver_spec(), Listener())
    count = 3000
    numbers = await asyncio.gather(
        *(plane.add_egress(egress_spec(transport, receiver, ssrc=1000 + n)) for n in range(count))
    )
    assert numbers == sorted(numbers)
    assert len((await plane.snapshot()).egresses) == count


async def test_a_flood_of_dtls_arrives_in_order(plane, remote, rng):
    peer, listener = MediaPeer(rng), Listener()
    transport = await plane.add_transport(peer.ufrag, peer.password, listener)
    remote.send(peer.check())
    await remote.receive()
    count = 2500
    remote.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    for n in range(count):
        plane.send_dtls(transport, b"\x16" + n.to_bytes(2, "big"))
    got = [int.from_bytes((await remote.receive())[1:], "big") for _ in range(100)]
    assert got == list(range(100))


async def test_stop_carries_out_what_was_asked_before(rng):
    plane = Plane([LOOPBACK], seed=1)
    await plane.start()
    peer = MediaPeer(rng)
    tasks = [asyncio.create_task(plane.add_transport(f"uf{n:04d}", peer.password, Listener())) for n in range(2000)]
    await asyncio.sleep(0)
    await plane.stop()
    numbers = await asyncio.gather(*tasks)
    assert len(set(numbers)) == 2000
    with pytest.raises(PlaneError):
        await plane.snapshot()


async def test_a_cancelled_addition_leaves_nothing_behind(plane, rng):
    peer = MediaPeer(rng)
    task = asyncio.create_task(plane.add_transport(peer.ufrag, peer.password, Listener()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len((await plane.snapshot()).transports) == 0


async def test_snapshots_at_the_same_time_share_one_and_survive_a_cancelled_caller(plane, rng):
    for n in range(70):
        await plane.add_transport(f"uf{n:04d}", "p" * 22, Listener())
    tasks = [asyncio.create_task(plane.snapshot()) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    # More transports than the first try has room for: asked again with more.
    assert [len(r.transports) for r in results[1:]] == [70] * 4
    assert len((await plane.snapshot()).transports) == 70


def test_the_plane_runs_on_uvloop(rng):
    async def call() -> None:
        plane = Plane([LOOPBACK], seed=1)
        await plane.start()
        remote, peer, listener = Remote(plane), MediaPeer(rng), Listener()
        await plane.add_transport(peer.ufrag, peer.password, listener)
        remote.send(peer.check())
        assert await listener.next() == ("connected", remote.address)
        await plane.stop()
        remote.socket.close()

    before = relaycore_worker.leaks()
    uvloop.run(call())
    assert relaycore_worker.leaks() == before
