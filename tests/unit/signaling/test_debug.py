"""/debug of a whole relay: a participant's own transports, and nobody else's business."""

import asyncio
import dataclasses
import socket

import aiohttp

from relay.server import Server
from tests.support.captured import read_pcapng
from tests.support.local_relay import settings
from tests.support.peer import stun_check


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
