"""`make e2ee-matrix`: encrypted frames of every codec from every sender to every receiver, and a table of what was decoded.

One call a sender: it publishes camera and microphone (or clips), and Chromium, Firefox and Python receive. Counted are
the frames of the encoding that is forwarded, outside half a second on either side of each switch.

usage: python -m tests.interop.e2ee_matrix [ROW...]      rows by number or by a part of their name
"""

import argparse
import asyncio
import base64
import contextlib
import itertools
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.interop.clients.base import State
from tests.interop.clients.builtin import BuiltIn, built_in
from tests.interop.clients.livekit_python import livekit_python
from tests.interop.clients.recorded import Recorded
from tests.interop.matrix import CONNECT_S, leave_all, until
from tests.interop.recorded.formats import Format, LinkKey, Passphrase
from tests.support.relay_process import RelayProcess, relay_process

PASSPHRASE = "correct horse battery"
LINK_KEY = bytes(range(32))
FORMATS: dict[str, Format] = {"sframe": LinkKey(LINK_KEY), "livekit_gcm": Passphrase(PASSPHRASE)}
RECEIVERS = ("chromium", "firefox", "python")
MIN_SHARE = 0.95
WARM_UP_S, WINDOW_S, SAMPLE_S = 3.0, 8.0, 0.2
# On either side of a switch, together the second that the issue leaves out.
AROUND_SWITCH_S = 0.5

SIMULCAST = {"encodings": None}
SVC = {"encodings": [{"scalabilityMode": "L3T3_KEY", "maxBitrate": 1_200_000}]}
SINGLE = {"encodings": [{"scalabilityMode": "L1T3", "maxBitrate": 800_000}]}
# Two encodings: 320 and 640 wide.
CAMERA = {"width": 640, "height": 360, "frameRate": 15}
# Three layers need a picture that can be halved twice.
LARGE_CAMERA = {"width": 1280, "height": 720, "frameRate": 15}


@dataclass(frozen=True)
class Row:
    """One sender. `shape` is how a browser encodes; a program in Python sends one stream."""

    sender: str
    format: str
    codec: str
    shape: str = ""
    # Receivers that cannot take it, with the reason.
    impossible: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join(filter(None, (self.sender, self.format, self.codec, self.shape))) + " + opus"


NO_H264 = {"firefox": "this Firefox has no H264"}
ROWS = (
    Row("chromium", "sframe", "vp8", "simulcast"),
    Row("chromium", "sframe", "vp9", "L3T3_KEY"),
    Row("chromium", "sframe", "av1", "L1T3"),
    Row("chromium", "sframe", "av1", "L3T3_KEY"),
    Row("firefox", "sframe", "vp8", "simulcast"),
    Row("firefox", "sframe", "vp9", "simulcast"),
    Row("firefox", "sframe", "av1", "simulcast"),
    Row("python", "sframe", "vp8"),
    Row("python", "sframe", "vp9"),
    Row("python", "sframe", "av1"),
    Row("chromium", "livekit_gcm", "vp8", "simulcast"),
    Row("chromium", "livekit_gcm", "vp9", "L3T3_KEY"),
    Row("chromium", "livekit_gcm", "h264", "simulcast", NO_H264),
    Row("firefox", "livekit_gcm", "vp8", "simulcast"),
    Row("firefox", "livekit_gcm", "vp9", "simulcast"),
    Row("livekit-sdk", "livekit_gcm", "vp8", "simulcast"),
    Row("python", "livekit_gcm", "vp9"),
    Row("python", "livekit_gcm", "h264", "", NO_H264),
)
# What no sender can do, listed so that nobody looks for it in the table.
IMPOSSIBLE = (
    "AV1 in livekit_gcm: the format has none (livekit-client throws)",
    "H264 in sframe: its packetisation reads what SFrame hides",
    "Firefox sending VP9 or AV1 in layers: it ignores scalabilityMode",
    "livekit-sdk in sframe: it speaks LiveKit's format alone",
    "Firefox receiving H264: this build has no H264",
)
MIME = {"vp8": "video/VP8", "vp9": "video/VP9", "av1": "video/AV1", "h264": "video/H264"}
FMTP = {"vp9": "profile-id=0", "h264": "packetization-mode=1;profile-level-id=42e01f"}


@dataclass(frozen=True)
class Sample:
    """Counters of both ends at one moment: frames sent by width of the encoding, and what a receiver has."""

    at_s: float
    sent: dict[int, int]
    decoded: int
    width: int


@dataclass(frozen=True)
class Cell:
    """What one receiver got of one sender."""

    row: Row
    receiver: str
    frames: float = 0.0
    width: int = 0
    switches: int = 0
    counted: int = 0
    audio: float = 0.0
    problem: str = ""

    def __str__(self) -> str:
        if self.problem:
            return self.problem
        switched = f", {self.switches} switches" if self.switches else ""
        return f"{self.frames:.1%} of {self.counted} frames, {self.width} wide{switched}, {self.audio:.0%} of sound"


def judge(row: Row, receiver: str, samples: Sequence[Sample], audio: float) -> Cell:
    """Return the share of frames decoded in the stretches between switches."""
    switched_at = [b.at_s for a, b in itertools.pairwise(samples) if a.width != b.width]
    made = got = 0
    for width, stretch in itertools.groupby(samples, key=lambda s: s.width):
        kept = [s for s in stretch if all(abs(s.at_s - at) > AROUND_SWITCH_S for at in switched_at) and width in s.sent]
        if len(kept) > 1:
            made += kept[-1].sent[width] - kept[0].sent[width]
            got += kept[-1].decoded - kept[0].decoded
    share = got / made if made else 0.0
    wrong = []
    if made < WINDOW_S:
        wrong.append(f"{made} frames to count, last {samples[-1].width} wide of {sorted(samples[-1].sent)}")
    elif not MIN_SHARE <= share <= 2 - MIN_SHARE:
        wrong.append(f"{share:.1%} of {made} frames")
    if audio < MIN_SHARE:
        wrong.append(f"{audio:.0%} of sound")
    return Cell(row, receiver, share, samples[-1].width, len(switched_at), made, audio, ", ".join(wrong))


class Stage:
    """The programs of a run; each is started when a row first needs it."""

    def __init__(self, relay: RelayProcess, stack: contextlib.AsyncExitStack) -> None:
        self._relay, self._stack = relay, stack
        self._clients: dict[tuple[str, str], Any] = {}
        self._rooms = itertools.count(1)

    async def _client(self, kind: str, role: str) -> Any:
        """Sender and receiver of one kind are two programs."""
        if (kind, role) not in self._clients:
            starts = livekit_python(Path(sys.executable), version("livekit")) if kind == "livekit-sdk" else built_in(kind)
            self._clients[kind, role] = await self._stack.enter_async_context(starts)
        return self._clients[kind, role]

    async def call(self, row: Row, receivers: Sequence[str] = RECEIVERS) -> list[Cell]:
        """Run one row; return its cells."""
        room = f"matrix-{next(self._rooms)}"
        inside: list[Any] = []
        try:
            listeners: dict[str, Any] = {}
            for name in (name for name in receivers if name not in row.impossible):
                is_sdk = name == "python" and row.format == "livekit_gcm"
                listener = (
                    await self._client("livekit-sdk" if is_sdk else name, "receiver")
                    if is_sdk or name != "python"
                    else Recorded(FORMATS[row.format])
                )
                inside.append(listener)
                await self._enter(listener, row, room, name)
                listeners[name] = listener
            sender = (
                Recorded(FORMATS[row.format], (row.codec, "opus"))
                if row.sender == "python"
                else await self._client(row.sender, "sender")
            )
            inside.append(sender)
            identity = await self._enter(sender, row, room, "sender", sends=True)
            await sender.publish(audio=True, video=True)
            return await measure(row, identity, sender, listeners)
        except Exception as error:
            return [Cell(row, name, problem=f"{type(error).__name__}: {error}"[:200]) for name in receivers]
        finally:
            await leave_all(inside)

    async def _enter(self, client: Any, row: Row, room: str, identity: str, *, sends: bool = False) -> str:
        token = self._relay.token(identity, room=room, attributes=FORMATS[row.format].attributes)
        options: dict[str, Any] = {"room": room, "identity": identity}
        if row.format == "livekit_gcm":
            options["passphrase"] = PASSPHRASE
        elif isinstance(client, BuiltIn):
            options["link_key"] = base64.urlsafe_b64encode(LINK_KEY).decode().rstrip("=")
        if isinstance(client, BuiltIn) and sends:
            shape = {"L3T3_KEY": SVC, "L1T3": SINGLE}.get(row.shape, SIMULCAST)
            constraints = LARGE_CAMERA if row.shape == "L3T3_KEY" else CAMERA
            options["video"] = {
                "constraints": constraints,
                "mime": MIME[row.codec],
                "fmtp": FMTP.get(row.codec, ""),
                **shape,
            }
        return await client.join(self._relay.ws_url, token, **options)


async def measure(row: Row, identity: str, sender: Any, listeners: dict[str, Any]) -> list[Cell]:
    """Wait until everybody has everything, then count."""

    async def states() -> dict[str, State]:
        found = await asyncio.gather(*(listener.state() for listener in listeners.values()))
        return dict(zip(listeners, found, strict=True))

    async def flows() -> bool:
        found = [state.of(identity) for state in (await states()).values()]
        return all(mine.frames_decoded > 0 and mine.audio_energy > 0 for mine in found)

    await until(flows, CONNECT_S)
    await asyncio.sleep(WARM_UP_S)
    samples: dict[str, list[Sample]] = {name: [] for name in listeners}
    begun = time.monotonic()
    first_spoken, first = await asyncio.gather(sender.audio_packets_sent(), states())
    while (now := time.monotonic() - begun) < WINDOW_S:
        sent, got = await asyncio.gather(sender.sent(), states())
        widths = {s.width: s.frames for s in sent}
        for name, state in got.items():
            mine = state.of(identity)
            samples[name].append(Sample(now, widths, mine.frames_decoded, mine.width))
        await asyncio.sleep(SAMPLE_S)
    spoken, last = await asyncio.gather(sender.audio_packets_sent(), states())
    cells = []
    for name in listeners:
        before, after = first[name].of(identity), last[name].of(identity)
        has_sound = after.audio_energy > before.audio_energy
        audio = (after.audio_packets - before.audio_packets) / max(1, spoken - first_spoken) if has_sound else 0.0
        cells.append(judge(row, name, samples[name], audio))
    return cells


@contextlib.asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """A relay, and the programs that its calls need."""
    async with relay_process() as relay, contextlib.AsyncExitStack() as stack:
        yield Stage(relay, stack)


async def run(rows: Sequence[Row]) -> bool:
    """Run the rows, print the table; return whether every possible cell passed."""
    console = Console(width=150 if not sys.stdout.isatty() else None)
    cells: list[Cell] = []
    async with stage() as calls:
        for row in rows:
            for cell in await calls.call(row):
                if cell.receiver not in row.impossible:
                    print(f"{'FAIL' if cell.problem else 'ok  '} {row} to {cell.receiver}: {cell}", flush=True)
                    cells.append(cell)
    table = Table(title="Frames decoded of those sent on the forwarded encoding, its width, sound", show_lines=True)
    for title in ("sender", *RECEIVERS):
        table.add_column(title)
    for row in rows:
        mine = {cell.receiver: f"[{'red' if cell.problem else 'green'}]{cell}[/]" for cell in cells if cell.row == row}
        table.add_row(str(row), *(mine.get(name, f"impossible: {row.impossible.get(name, '')}") for name in RECEIVERS))
    console.print(table)
    for words in IMPOSSIBLE:
        print(f"impossible: {words}")
    passed = sum(not cell.problem for cell in cells)
    print(f"{passed} of {len(cells)} cells passed")
    return passed == len(cells) > 0


def main() -> None:
    parser = argparse.ArgumentParser(description="encrypted frames of every codec, from every sender to every receiver")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="numbers from 1, or parts of a row's name")
    wanted = parser.parse_args().rows
    rows = [
        row
        for number, row in enumerate(ROWS, 1)
        if not wanted or any(word == str(number) or (not word.isdigit() and word in str(row)) for word in wanted)
    ]
    if not rows:
        parser.error(f"no such row; there are: {', '.join(str(row) for row in ROWS)}")
    sys.exit(0 if asyncio.run(run(rows)) else 1)


if __name__ == "__main__":
    main()
