"""The relay under test: a data plane in a process of its own, driven by plain parameters, its Python idle while it forwards.

No signalling and no DTLS: ICE credentials and SRTP keys come by the pipe, as tests/bench/fan_out.py chooses them.

usage: python -m tests.bench.relay_host [--workers N]
stdin:  one JSON line with the room, then {"do": "counters"} or {"do": "lose", "share": 0.01} lines; ends with its stdin
stdout: one JSON line per line of input; the first says where each transport is reached
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any

import uvloop

from relay.plane import Codec, EgressSpec, ListenAddress, Plane, ReceiverSpec, SrtpKeys
from tests.bench.loss import lose


class Silent:
    """Listener of transports and receivers that has nothing to do."""

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


def keys(raw: dict[str, Any]) -> SrtpKeys:
    return SrtpKeys(**{name: bytes.fromhex(value) if isinstance(value, str) else value for name, value in raw.items()})


async def add_side(plane: Plane, side: dict[str, Any]) -> int:
    """Add one transport as the room's description has it."""
    transport = await plane.add_transport(side["ufrag"], side["password"], Silent())
    await plane.set_srtp(transport, keys(side["keys"]))
    if side["extensions"]:
        await plane.set_extensions(transport, side["extensions"])
    return transport


async def build(plane: Plane, room: dict[str, Any]) -> list[int]:
    """Add the publisher, its tracks, and every subscriber with an egress of each track; return where each is reached."""
    publisher = await add_side(plane, room["publisher"])
    transports = [publisher]
    receivers = []
    for track in room["tracks"]:
        codecs = (Codec(*track["codec"]),)
        rtx = (track["rtx_ssrc"],) if track["rtx_ssrc"] else ()
        spec = ReceiverSpec(track["kind"], track["mid"], codecs, (), (track["ssrc"],), rtx)
        receivers.append((await plane.add_receiver(publisher, spec, Silent()), track, codecs))
    for side in room["subscribers"]:
        transport = await add_side(plane, side)
        transports.append(transport)
        for (receiver, track, codecs), (ssrc, rtx_ssrc) in zip(receivers, side["ssrcs"], strict=True):
            await plane.add_egress(EgressSpec(transport, receiver, track["mid"], ssrc, rtx_ssrc, codecs, "bench", 0))
    return [plane.candidates(transport)[0].port for transport in transports]


async def main(workers: int) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    several = {"workers": workers} if workers > 1 else {}
    plane = Plane([ListenAddress("127.0.0.1", 0, "127.0.0.1")], seed=1, **several)
    await plane.start()
    while line := await reader.readline():
        order = json.loads(line)
        answer: dict[str, Any] = {}
        if "publisher" in order:
            answer = {"ports": await build(plane, order)}
        elif order["do"] == "counters":
            snapshot = await plane.snapshot()
            answer = {name: count for name, count in snapshot.counters.items() if count}
        elif order["do"] == "lose":
            lose([s["port"] for s in plane.sockets], order["share"])
        print(json.dumps(answer), flush=True)
    await plane.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=1)
    uvloop.run(main(parser.parse_args().workers))
