"""Strangers who take their time."""

import asyncio
import contextlib

from aiohttp import web

from relay.config import Limits
from relay.signaling.doorman import Doorman

PATIENCE_S = 0.3


async def test_a_request_that_never_ends_is_cut_off_and_counted() -> None:
    refusals: dict[str, int] = {}
    doorman = Doorman(Limits(), trust_forwarded=False, refusals=refusals, waiting_s=PATIENCE_S)

    async def hello(_request: web.BaseRequest) -> web.Response:
        return web.Response(text="hello")

    server = web.Server(hello)
    listener = await asyncio.get_running_loop().create_server(doorman.factory(server), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\n")
    start = asyncio.get_running_loop().time()
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(10 * PATIENCE_S):
            while not reader.at_eof():
                # Every byte resets a timeout that only knows silence.
                writer.write(b"X")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1), PATIENCE_S / 10)
    assert asyncio.get_running_loop().time() - start >= PATIENCE_S
    assert refusals == {"connection_silent": 1}
    assert doorman.waiting == 0
    writer.close()
    # Who comes next is served.
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b"hello")
    writer.close()
    listener.close()
    await server.shutdown()
