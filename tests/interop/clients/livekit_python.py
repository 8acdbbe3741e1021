"""Driver of `python_bot.py`, which runs the Python SDK in its own process and environment.

A process of its own, because the native SDK ends its whole process on a message it does not like, which is exactly
what an interop test must survive and report.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from tests.interop.clients.base import Sent, State, read_state

BOT = Path(__file__).with_name("python_bot.py")
ANSWER_S = 75.0


class LiveKitPython:
    """One bot."""

    chooses_size = True

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process
        self._count = 0
        # One question at a time: both directions of a call are measured at once.
        self._turn = asyncio.Lock()
        self._last_words: list[str] = []

    async def _ask(self, do: str, *arguments: Any) -> Any:
        async with self._turn, asyncio.timeout(ANSWER_S):
            self._count += 1
            assert self._process.stdin is not None and self._process.stdout is not None
            line = json.dumps({"id": self._count, "do": do, "with": arguments}) + "\n"
            self._process.stdin.write(line.encode())
            while read := await self._process.stdout.readline():
                text = read.decode(errors="replace")
                if not text.startswith("@"):
                    self._last_words = [*self._last_words[-20:], text]
                    continue
                answer = json.loads(text[1:])
                # A question that timed out may be answered late.
                if answer["id"] != self._count:
                    continue
                if "error" in answer:
                    raise RuntimeError(f"{self.name}: {do}: {answer['error']}")
                return answer["result"]
        code = await self._process.wait()
        raise RuntimeError(f"{self.name} ended with {code} while asked to {do}:\n{''.join(self._last_words)}")

    async def join(self, url: str, token: str, *, room: str, identity: str, passphrase: str = "") -> str:
        await self._ask("join", url, token, passphrase)
        return identity

    async def publish(self, *, audio: bool, video: bool, width: int = 640, height: int = 360, fps: int = 15) -> None:
        await self._ask("publish", audio, video, width, height, fps)

    async def send_data(self, text: str) -> None:
        await self._ask("send_data", text)

    async def mute(self, muted: bool) -> float:
        return await self._ask("mute", muted)

    async def sent(self) -> list[Sent]:
        return [Sent(**encoding) for encoding in await self._ask("sent")]

    async def audio_packets_sent(self) -> int:
        return await self._ask("audio_packets_sent")

    async def state(self) -> State:
        return read_state(await self._ask("state"))

    async def want_quality(self, identity: str, quality: str) -> None:
        await self._ask("want_quality", identity, quality)

    async def stream(self, prefix: str, count: int, per_s: float) -> None:
        await self._ask("stream", prefix, count, per_s)

    async def streamed(self) -> dict[str, Any]:
        return await self._ask("streamed")

    async def watch(self, identity: str) -> None:
        await self._ask("watch", identity)

    async def longest_gap_ms(self) -> float:
        return await self._ask("longest_gap_ms")

    async def leave(self) -> float:
        return await self._ask("leave")


@contextlib.asynccontextmanager
async def livekit_python(python: Path, version: str, *, inside: Sequence[str] = ()) -> AsyncIterator[LiveKitPython]:
    """Start a bot with this interpreter, whose environment has the SDK; `inside` is the command that runs it elsewhere."""
    if not python.exists():
        raise RuntimeError(f"{python} is not there: run scripts/interop-venvs.sh")
    process = await asyncio.create_subprocess_exec(
        *inside,
        str(python),
        str(BOT),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 22,
    )
    try:
        yield LiveKitPython(f"python {version}", process)
    finally:
        if process.returncode is None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), 5)
            except TimeoutError:
                process.kill()
                await process.wait()
