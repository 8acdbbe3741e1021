"""/debug of a whole relay: a participant's own transports, and nobody else's business."""

import asyncio
import dataclasses
import socket

import aiohttp

from relay.clock import monotonic_ns
from relay.plane import ListenAddress, Plane, journal
from relay.server import Server
from relay.session import Certificate, DatagramReady, SrtpKeysReady, Transport
from relay.signaling.transports import TransportDriver, handshake_pool
from tests.support.captured import read_pcapng
from tests.support.local_relay import settings
from tests.support.peer import stun_check
from tests.support.session_link import fingerprints


async def ask(server: Server, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> tuple[int, bytes]:
    url = f"http://127.0.0.1:{server.http_port}/debug/{path}"
    async with aiohttp.ClientSession() as http, http.request(method, url, headers=headers) as answer:
        return answer.status, await answer.read()


async def test_a_participants_transports_are_captured_by_its_name(connect, relay: Server) -> None:
    ana, bo = await connect("ana"), await connect("bo")
    assert relay.conference is not None
    session = relay.conference.find_session(ana.sid)
    assert session is not None
    transport = session.subscriber.driver.transport
    asking = asyncio.ensure_future(ask(relay, f"capture?participant={ana.sid}&seconds=1"))
    (candidate,) = relay.conference.plane.candidates(session.subscriber.driver.id)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        while not asking.done():
            ours.sendto(stun_check(transport.ufrag, transport.password), (candidate.ip, candidate.port))
            await asyncio.sleep(0.05)
        address = ours.getsockname()[1]
    status, blob = await asking
    comment, packets = read_pcapng(blob)
    assert status == 200 and ana.sid in comment and bo.sid not in comment
    assert {(p.source[1], p.data) for p in packets if not p.is_sent} == {(address, b"")}
    assert {p.comment.partition(",")[0] for p in packets} == {"stun"}
    assert transport.password.encode() not in blob and transport.ufrag.encode() not in blob


async def test_who_left_is_nobody(connect, relay: Server) -> None:
    ana = await connect("ana")
    assert (await ask(relay, f"log?participant={ana.sid}", method="POST"))[0] == 200
    await ana.send(leave={})
    async with asyncio.timeout(5):
        while relay.conference.find_session(ana.sid) is not None:
            await asyncio.sleep(0.01)
        while relay.conference.plane.journal.followed:
            await asyncio.sleep(0.01)
    assert (await ask(relay, f"capture?participant={ana.sid}"))[0] == 404


async def test_without_a_token_only_dev_is_believed() -> None:
    config = settings()
    for changed, headers, status in (
        (dataclasses.replace(config, dev=False), {}, 403),
        (config, {}, 404),
        (dataclasses.replace(config, server=dataclasses.replace(config.server, metrics_token="t")), {}, 403),
        (
            dataclasses.replace(config, dev=False, server=dataclasses.replace(config.server, metrics_token="t")),
            {"Authorization": "Bearer t"},
            404,
        ),
    ):
        server = Server(changed)
        await server.start()
        try:
            assert (await ask(server, "capture?participant=PA_x", headers))[0] == status
        finally:
            await server.stop()


class Owner:
    """Whom a driver tells; keeps nothing."""

    def __getattr__(self, name: str):
        return lambda *_: None


async def test_a_followed_transport_tells_its_handshake_and_its_end_but_no_key(monkeypatch) -> None:
    told: list[tuple[str, dict]] = []
    monkeypatch.setattr(journal.log, "info", lambda event, **fields: told.append((event, fields)), raising=False)
    plane = Plane([ListenAddress("127.0.0.1", 0, "127.0.0.1")], seed=1)
    await plane.start()
    pool = handshake_pool()
    driver = TransportDriver(
        plane, Certificate.generate(), pool, Owner(), max_message_bytes=65_536, group="g", refusals={}
    )
    await driver.open()
    plane.journal.follow(driver.id, participant="PA_a")
    client = Transport(Certificate.generate(), max_message_bytes=65_536)
    client.set_remote(fingerprints(driver.transport), "client")
    driver.set_remote(fingerprints(client), "server", sctp_port=None)
    loop = asyncio.get_running_loop()
    keys = None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.bind(("127.0.0.1", 0))
        ours.setblocking(False)
        relay_at = plane.addresses[0].ip, plane.addresses[0].port
        ours.sendto(stun_check(driver.transport.ufrag, driver.transport.password), relay_at)
        async with asyncio.timeout(10):
            while keys is None or not driver.is_connected:
                for event in client.poll(monotonic_ns()):
                    if isinstance(event, DatagramReady):
                        ours.sendto(event.data, relay_at)
                    elif isinstance(event, SrtpKeysReady):
                        keys = event.keys
                if driver.is_connected and keys is not None:
                    break
                try:
                    datagram = await asyncio.wait_for(loop.sock_recv(ours, 2000), 0.05)
                except TimeoutError:
                    continue
                if datagram[0] > 3:
                    client.receive_dtls(datagram, monotonic_ns())
        # The far end says goodbye.
        client.close()
        for event in client.poll(monotonic_ns()):
            if isinstance(event, DatagramReady):
                ours.sendto(event.data, relay_at)
        async with asyncio.timeout(5):
            while not any(event == "transport: dtls over" for event, _ in told):
                await asyncio.sleep(0.01)
    await driver.close()
    await plane.stop()
    pool.shutdown()
    events = [event.removeprefix("transport: ") for event, _ in told]
    steps = ("first ice check", "ice pair selected", "dtls handshake", "dtls connected")
    order = [events.index(step) for step in steps]
    assert order == sorted(order)
    assert {fields["transport"] for _, fields in told} == {driver.id}
    text = str(told)
    for secret in (keys.send_key, keys.send_salt, keys.receive_key, keys.receive_salt):
        assert secret.hex() not in text and repr(secret) not in text
    assert driver.transport.password not in text and driver.transport.ufrag not in text
