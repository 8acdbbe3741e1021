"""One WebSocket of a LiveKit client: its frames in, its outbox out."""

import asyncio
import contextlib
from collections import deque

from aiohttp import WSCloseCode, WSMsgType, web
from livekit.protocol import rtc

from relay.log import get_logger
from relay.rooms.endpoint import LeaveReason
from relay.signaling.livekit import messages
from relay.signaling.livekit.outbox import Outbox
from relay.signaling.livekit.participant import LivekitParticipant

log = get_logger(__name__)

# Pings of the WebSocket itself (LiveKit: every 10 s): Go clients send no others, and NATs forget idle flows.
HEARTBEAT_S = 10.0
# How long a client may take to answer our close frame; native ones just drop the connection.
CLOSE_TIMEOUT_S = 1.0


def new_socket(max_message_bytes: int) -> web.WebSocketResponse:
    """Return a socket that takes messages of this size and no compressed ones: a small frame stays a small message."""
    return web.WebSocketResponse(
        heartbeat=HEARTBEAT_S, max_msg_size=max_message_bytes, compress=False, timeout=CLOSE_TIMEOUT_S, autoping=True
    )


class Writer:
    """Moves messages from an outbox to its socket. A client too slow for its queue is cut off, and may come back."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse, outbox: Outbox) -> None:
        self._request = request
        self._socket = socket
        self._outbox = outbox
        self._ready = asyncio.Event()
        outbox.on_ready = self._ready.set
        outbox.on_overflow = self._cut
        outbox.on_replaced = self._abort

    async def run(self) -> None:
        """Write until the outbox is finished, then close."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            while not self._socket.closed:
                item = self._outbox.take()
                if item is None:
                    if self._outbox.is_finished:
                        break
                    self._ready.clear()
                    await self._ready.wait()
                    continue
                if isinstance(item, str):
                    await self._socket.send_str(item)
                else:
                    await self._socket.send_bytes(item)
                self._outbox.written(item)
            await self._socket.close(code=WSCloseCode.OK)

    def _cut(self) -> None:
        log.warning("a client does not read its signalling connection")
        self._abort()

    def _abort(self) -> None:
        self._outbox.on_ready()
        if self._request.transport is not None:
            self._request.transport.abort()


async def serve(
    request: web.Request,
    socket: web.WebSocketResponse,
    participant: LivekitParticipant,
    first: deque[rtc.SignalRequest],
) -> None:
    """Run the connection of a participant who is in its room, until either side ends it; `first` came with its URL.

    What is handled of `first` is taken out of it: it may be large, and a connection lasts for hours.
    """
    # The participant's own may be another one before this connection ends.
    outbox = participant.outbox
    writer = asyncio.create_task(Writer(request, socket, outbox).run(), name="signal writer")
    try:
        while first and participant.outbox is outbox:
            await participant.handle(first.popleft())
        async for message in socket:
            if message.type in (WSMsgType.BINARY, WSMsgType.TEXT):
                await participant.on_frame(message.data, outbox)
            elif message.type is WSMsgType.ERROR:
                # The socket has closed itself already.
                is_too_big = getattr(message.data, "code", None) == WSCloseCode.MESSAGE_TOO_BIG
                participant.refuse("signal_size" if is_too_big else "signal_protocol")
    finally:
        # What is queued may hold the `leave` that says why; a client that does not read it is not waited for.
        participant.on_signal_lost(outbox)
        done, _ = await asyncio.wait([writer], timeout=CLOSE_TIMEOUT_S)
        if not done:
            writer.cancel()


async def refuse(
    request: web.Request, socket: web.WebSocketResponse, outbox: Outbox, reason: LeaveReason, *, come_back: bool
) -> None:
    """Tell a client whose WebSocket is open that there is no session for it."""
    outbox.put(messages.leave(reason, come_back=come_back))
    await Writer(request, socket, outbox).run()
