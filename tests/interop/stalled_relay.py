"""A data plane in a process of its own whose Python can be blocked on command, for test_stall.py.

stdin:  one JSON line with the keys of both transports and the publication; then `block SECONDS` or `stop` lines.
stdout: one JSON line with the media port and the port of a Python echo, the control that must stall.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import sys

import uvloop

from relay.plane import Codec, EgressSpec, ListenAddress, Plane, ReceiverSpec, SrtpKeys


class Silent:
    """Listener of a transport and a receiver that has nothing to do."""

    def on_dtls(self, datagram: bytes) -> None: ...
    def on_ice_connected(self, remote: tuple[str, int]) -> None: ...
    def on_ice_dead(self) -> None: ...
    def on_estimate(self, estimate_bps: int, loss: float, rtt_ms: int) -> None: ...
    def on_stream_bound(self, encoding: int, ssrc: int) -> None: ...
    def on_encoding_active(self, encoding: int, active: bool) -> None: ...
    def on_stopped(self, reason: str) -> None: ...
    def on_undeclared_encryption(self) -> None: ...

    def on_speaking(self, dbov: int) -> None: ...

    def on_layers(self, encoding: int, spatial_count: int, temporal_count: int) -> None: ...


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


def keys(raw: dict) -> SrtpKeys:
    return SrtpKeys(**{name: bytes.fromhex(value) if isinstance(value, str) else value for name, value in raw.items()})


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    setup = json.loads(await reader.readline())
    plane = Plane([ListenAddress("127.0.0.1", 0, "127.0.0.1")])
    await plane.start()
    opus = (Codec(111, "opus", 48_000, None),)
    ids = []
    for side in setup["transports"]:
        transport = await plane.add_transport(side["ufrag"], side["password"], Silent())
        await plane.set_srtp(transport, keys(side["keys"]))
        ids.append(transport)
    receiver = await plane.add_receiver(ids[0], ReceiverSpec("audio", "0", opus, (), (setup["ssrc"],), ()), Silent())
    await plane.add_egress(EgressSpec(ids[1], receiver, "0", 4242, None, opus, "cname", 0))
    echo, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    print(json.dumps({"port": plane.addresses[0].port, "echo": echo.get_extra_info("sockname")[1]}), flush=True)
    while line := await reader.readline():
        word, *rest = line.decode().split()
        if word == "stop":
            break
        # PyDLL keeps the GIL while it sleeps: no Python thread of this process runs meanwhile.
        ctypes.PyDLL(None).usleep(int(float(rest[0]) * 1e6))
    echo.close()
    await plane.stop()


if __name__ == "__main__":
    uvloop.run(main())
