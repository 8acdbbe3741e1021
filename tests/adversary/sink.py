"""Takes everything and means nothing: `python -m tests.adversary.sink` prints its UDP and TCP port.

Where garbage goes in a control run: the sender does the same work, and nobody is hurt. HTTP is answered just enough that
the senders go on: 101 to an upgrade, 400 to the rest.
"""

from __future__ import annotations

import asyncio
import json

import uvloop

from tests.adversary.generators import HOST


class _Datagrams(asyncio.DatagramProtocol):
    def datagram_received(self, data: bytes, addr: tuple) -> None:
        pass


class _Stream(asyncio.Protocol):
    """Answers one request head, then drops what comes; closes once the other end has said all it wanted to."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._is_open = False

    def data_received(self, data: bytes) -> None:
        if self._is_open:
            # A close frame with the mask 0 and the code 1000.
            if data.endswith(b"\x88\x82\0\0\0\0\x03\xe8"):
                self._transport.close()
        elif b"\r\n\r\n" in data:
            if b"Upgrade: websocket" in data and b".signature" in data:
                self._is_open = True
                self._transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            else:
                self._transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                if b"Upgrade" not in data:
                    self._transport.close()


async def main() -> None:
    loop = asyncio.get_running_loop()
    datagrams, _ = await loop.create_datagram_endpoint(_Datagrams, local_addr=(HOST, 0))
    server = await loop.create_server(_Stream, HOST, 0, backlog=1024)
    ports = {"udp": datagrams.get_extra_info("sockname")[1], "tcp": server.sockets[0].getsockname()[1]}
    print(json.dumps(ports), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
