"""A participant that sends recorded frames and decodes what it gets with FFmpeg's decoders, sealed and opened by relay/e2ee."""

import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from tests.interop.clients.base import Received, Sent, State
from tests.interop.recorded.caller import Caller
from tests.interop.recorded.clips import record
from tests.interop.recorded.formats import Format


class Recorded:
    """One caller. What it publishes is said before it joins: its frames begin with its channel."""

    chooses_size = False

    def __init__(self, format_: Format, codecs: Sequence[str] = ()) -> None:
        self.name = "relay/e2ee in Python"
        self._format = format_
        self._codecs = codecs
        self._caller: Caller | None = None
        self._stack = contextlib.AsyncExitStack()

    async def join(self, url: str, token: str, *, room: str, identity: str, passphrase: str = "") -> str:
        """`passphrase` is the format's already."""
        clips = [record(codec) for codec in self._codecs]
        self._caller = await self._stack.enter_async_context(Caller(url, token, self._format, publish=clips))
        return identity

    async def publish(self, *, audio: bool, video: bool, width: int = 640, height: int = 360, fps: int = 15) -> None:
        """Begun with the join."""

    async def sent(self) -> list[Sent]:
        assert self._caller is not None
        return [Sent("", record(s.codec).width, s.frames) for s in self._caller.sent() if s.codec != "opus"]

    async def audio_packets_sent(self) -> int:
        assert self._caller is not None
        return sum(s.frames for s in self._caller.sent() if s.codec == "opus")

    async def state(self) -> State:
        """Sound counts when it was opened and decoded: energy is the number of its blocks."""
        assert self._caller is not None
        received: dict[str, Received] = {}
        for identity, kind, counts in self._caller.everything():
            mine = vars(received.get(identity, Received()))
            if kind == "audio":
                mine = mine | {"audio_packets": counts.opened, "audio_energy": float(counts.decoded)}
            else:
                mine = mine | {"frames_decoded": counts.decoded, "width": counts.width}
            received[identity] = Received(**mine)
        return State("connected", received)

    async def failures(self) -> list[str]:
        """What did not open, by identity and kind."""
        assert self._caller is not None
        return [f"{who} {kind}: {dict(c.failures)}" for who, kind, c in self._caller.everything() if c.failures]

    async def leave(self) -> float:
        at = time.time() * 1000
        self._caller = None
        await self._stack.aclose()
        return at


@contextlib.asynccontextmanager
async def recorded(format_: Format, codecs: Sequence[str] = ()) -> AsyncIterator[Recorded]:
    """A caller that leaves on leaving."""
    caller = Recorded(format_, codecs)
    try:
        yield caller
    finally:
        await caller.leave()
