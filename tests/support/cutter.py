"""A TCP relay that cuts the connections of one client, in the ways that networks do; media does not come through here.

    async with cutter(relay.port) as wire:
        await client.join(f"ws://127.0.0.1:{wire.port}", token, …)
        wire.cut()            # both ends see a reset
        wire.cut(half=True)   # the client sees a reset; its server goes on writing to nobody, as after a change of network
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

CHUNK_BYTES = 65_536


class Cutter:
    """What passes through one port of loopback."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.cuts = 0
        self._target_port = target_port
        self._live: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        # Ends that think they are still connected.
        self._forgotten: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        return len(self._live)

    def cut(self, *, half: bool = False) -> int:
        """End every connection; return how many there were."""
        live, self._live = self._live, set()
        for client, server in live:
            client.transport.abort()
            if half:
                self._forgotten.append(server)
            else:
                server.transport.abort()
        self.cuts += bool(live)
        return len(live)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, to_server)
        self._live.add(pair)
        try:
            await asyncio.gather(self._pass(reader, to_server, pair), self._pass(from_server, writer, pair))
        except asyncio.CancelledError:
            # By `close`; asyncio's server would log it.
            pass

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(CHUNK_BYTES):
                if pair in self._live:
                    writer.write(chunk)
                    await writer.drain()
        # One end is gone or has said all: so has the other.
        if pair in self._live:
            self._live.discard(pair)
            for end in pair:
                end.close()

    def close(self) -> None:
        self.cut()
        for server in self._forgotten:
            server.transport.abort()
        for task in self._tasks:
            task.cancel()


@contextlib.asynccontextmanager
async def cutter(target_port: int) -> AsyncIterator[Cutter]:
    """Listen, and end everything in the end."""
    wire = Cutter(target_port)
    server = await asyncio.start_server(wire.accept, "127.0.0.1", 0)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        wire.close()
