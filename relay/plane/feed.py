"""One worker on the event loop: commands with their acknowledgements as awaitables, events to listeners.

A full command ring is not an error: what does not fit waits here in order and follows as acknowledgements come in. All
calls and callbacks are on the loop's thread; a listener that raises is reported and costs nobody else their event.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from relay.log import get_logger
from relay.plane.capture import Captures
from relay.plane.commands import E_STATE, PlaneError
from relay.plane.journal import Journal
from relaycore.worker import EventKind, Worker

log = get_logger(__name__)

# Events per turn of the loop: about a millisecond of Python, so that sockets and timers get theirs in between.
EVENTS_PER_TURN = 256
STOP_TIMEOUT_S = 10.0


class TransportListener(Protocol):
    """Hears of one transport; all calls on the loop's thread."""

    def on_dtls(self, datagram: bytes) -> None: ...

    def on_ice_connected(self, remote: tuple[str, int]) -> None:
        """The selected address, the first one and each changed one."""

    def on_ice_dead(self) -> None: ...

    def on_estimate(self, estimate_bps: int, loss: float, rtt_ms: int) -> None:
        """The path to a subscriber carries this much: told at once when it falls. loss: share of what was sent lately."""


class ReceiverListener(Protocol):
    """Hears of one published m-line; all calls on the loop's thread."""

    def on_stream_bound(self, encoding: int, ssrc: int) -> None: ...

    def on_encoding_active(self, encoding: int, active: bool) -> None:
        """Packets flow (again), or of video none came for 1 s; audio that pauses stays active."""

    def on_stopped(self, reason: str) -> None:
        """Declared encrypted, but its frames are not: nothing of it is forwarded any more. "unmarked" or "plaintext"."""

    def on_undeclared_encryption(self) -> None:
        """Declared clear, but for 3 s its frames were not those of its codec. Told once; it is forwarded as before."""

    def on_speaking(self, dbov: int) -> None:
        """Somebody spoke for the last 400 ms, at this mean level in -dBov (0 is the loudest, 35 the quietest told)."""

    def on_layers(self, encoding: int, spatial_count: int, temporal_count: int) -> None:
        """An encoding of video has so many layers now: known for the first time, or changed."""


class Shared:
    """Work that several wait for: a waiter's cancellation is its own, the work goes on. `on_end` hears whether it succeeded."""

    def __init__(self, work: Coroutine[Any, Any, None], on_end: Callable[[bool], None]) -> None:
        self._task = asyncio.ensure_future(work)
        self._task.add_done_callback(lambda task: on_end(not task.cancelled() and task.exception() is None))

    @property
    def is_done(self) -> bool:
        return self._task.done()

    async def wait(self) -> None:
        await asyncio.shield(self._task)


class Feed:
    """A worker, from `start` to `stop`."""

    def __init__(self, worker: Worker, index: int = 0, journal: Journal | None = None) -> None:
        self.worker = worker
        self.index = index
        self.captures = Captures(worker)
        self._journal = journal
        self.transports: dict[int, TransportListener] = {}
        self.receivers: dict[int, ReceiverListener] = {}
        self.refused_posts = 0
        self._answers: dict[int, tuple[str, asyncio.Future[int] | None]] = {}
        self._waiting: deque[tuple[asyncio.Future[int] | None, Callable[..., int], tuple[Any, ...]]] = deque()
        self._snapshot_task: asyncio.Task[dict[str, Any]] | None = None
        self._closing = False
        self._bell_is_due = False

    async def start(self) -> None:
        """Start the worker and listen to it; OSError when an address cannot be bound."""
        self._loop = asyncio.get_running_loop()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self.worker.start()
        # A turn of the loop often has several commands, such as the records of a handshake: they share one wake-up.
        self.worker.hold_bell()
        self._event_fd = self.worker.event_fd
        self._loop.add_reader(self._event_fd, self._on_readable)

    async def stop(self) -> None:
        """Let everything asked for so far be done, then end the thread, close its sockets and free its memory."""
        if self._closing:
            await asyncio.shield(self._stopped)
            return
        self.post(self.worker.request_stop)
        self._closing = True
        try:
            await asyncio.wait_for(asyncio.shield(self._stopped), STOP_TIMEOUT_S)
        finally:
            self._loop.remove_reader(self._event_fd)
            self.worker.stop()
            self._fail_rest()

    def call(self, method: Callable[..., int], *arguments: Any) -> "asyncio.Future[int]":
        """Submit a command; the future ends with the worker's code, PlaneError for a negative one."""
        future: asyncio.Future[int] = self._loop.create_future()
        self._submit(future, method, arguments)
        return future

    def post(self, method: Callable[..., int], *arguments: Any) -> None:
        """Submit a command whose answer nobody waits for; refusals are counted."""
        self._submit(None, method, arguments)

    def post_unless_over(self, method: Callable[..., int], *arguments: Any) -> None:
        """Post what tidies up; a worker that is stopping takes everything along anyway."""
        if not self._closing:
            self.post(method, *arguments)

    async def snapshot(self) -> dict[str, Any]:
        """Return Worker.snapshot(); callers at the same time share one."""
        if self._snapshot_task is None:
            self._snapshot_task = self._loop.create_task(self._take_snapshot())
            self._snapshot_task.add_done_callback(self._forget_snapshot)
        # One caller's cancellation must not leave the others, or the worker's buffers, in the middle.
        return await asyncio.shield(self._snapshot_task)

    async def _take_snapshot(self) -> dict[str, Any]:
        wanted: tuple[int, ...] = (64, 256, 1024, 1024)
        while True:
            await self.call(self.worker.request_snapshot, *wanted)
            snapshot = self.worker.snapshot()
            found = snapshot["found"]
            if all(have <= room for have, room in zip(found, wanted, strict=True)):
                return snapshot
            wanted = tuple(max(room, have * 2) for have, room in zip(found, wanted, strict=True))

    def _forget_snapshot(self, task: "asyncio.Task[dict[str, Any]]") -> None:
        self._snapshot_task = None
        if not task.cancelled():
            # Seen here also when every caller has gone.
            task.exception()

    # --- commands out ---

    def _submit(
        self, future: "asyncio.Future[int] | None", method: Callable[..., int], arguments: tuple[Any, ...]
    ) -> None:
        if self._closing:
            raise PlaneError(method.__name__, E_STATE)
        if self._waiting or self.worker.free_places == 0:
            self._waiting.append((future, method, arguments))
        else:
            self._answers[method(*arguments)] = (method.__name__, future)
            self._ring_soon()

    def _ring_soon(self) -> None:
        if not self._bell_is_due:
            self._bell_is_due = True
            self._loop.call_soon(self._ring)

    def _ring(self) -> None:
        self._bell_is_due = False
        if self.worker.is_running:
            self.worker.ring()

    def _submit_waiting(self) -> None:
        while self._waiting and self.worker.free_places > 0:
            future, method, arguments = self._waiting.popleft()
            try:
                self._answers[method(*arguments)] = (method.__name__, future)
                self._ring_soon()
            except ValueError as error:
                if future is None:
                    self._report("a queued command was wrong", error)
                elif not future.done():
                    future.set_exception(error)

    def _fail_rest(self) -> None:
        rest = [*self._answers.values(), *((method.__name__, future) for future, method, _ in self._waiting)]
        self._answers.clear()
        self._waiting.clear()
        for what, future in rest:
            if future is not None and not future.done():
                future.set_exception(PlaneError(what, E_STATE))

    # --- events in ---

    def _on_readable(self) -> None:
        for event in self.worker.take_events(EVENTS_PER_TURN):
            try:
                self._dispatch(event)
            except Exception as error:
                self._report("a listener failed", error)
        self._submit_waiting()

    def _dispatch(self, event: tuple[Any, ...]) -> None:
        kind = event[0]
        if self._journal is not None:
            self._journal.on_event(event)
        if kind == EventKind.ACK:
            self._on_answer(event[1], event[2])
        elif kind == EventKind.DTLS:
            if (transport := self.transports.get(event[1])) is not None:
                transport.on_dtls(event[2])
        elif kind == EventKind.ICE_SELECTED:
            if (transport := self.transports.get(event[1])) is not None:
                transport.on_ice_connected(event[2])
        elif kind == EventKind.ICE_DEAD:
            if (transport := self.transports.get(event[1])) is not None:
                transport.on_ice_dead()
        elif kind == EventKind.STREAM_BOUND:
            if (receiver := self.receivers.get(event[1])) is not None:
                receiver.on_stream_bound(event[2], event[3])
        elif kind in (EventKind.ENCODING_ACTIVE, EventKind.ENCODING_SILENT):
            if (receiver := self.receivers.get(event[1])) is not None:
                receiver.on_encoding_active(event[2], kind == EventKind.ENCODING_ACTIVE)
        elif kind == EventKind.RECEIVER_STOPPED:
            if (receiver := self.receivers.get(event[1])) is not None:
                receiver.on_stopped(event[2])
        elif kind == EventKind.UNDECLARED_ENCRYPTION:
            if (receiver := self.receivers.get(event[1])) is not None:
                receiver.on_undeclared_encryption()
        elif kind == EventKind.ESTIMATE:
            if (transport := self.transports.get(event[1])) is not None:
                transport.on_estimate(event[2], event[3] / 1000, event[4])
        elif kind == EventKind.SPEAKING:
            if (receiver := self.receivers.get(event[1])) is not None:
                receiver.on_speaking(event[2])
        elif kind == EventKind.LAYERS:
            if (receiver := self.receivers.get(event[1])) is not None:
                receiver.on_layers(event[2], event[3], event[4])
        elif kind == EventKind.STOPPED and not self._stopped.done():
            self._stopped.set_result(None)

    def _on_answer(self, number: int, code: int) -> None:
        what, future = self._answers.pop(number)
        if future is None:
            if code < 0:
                self.refused_posts += 1
        elif not future.done():
            if code < 0:
                future.set_exception(PlaneError(what, code))
            else:
                future.set_result(code)

    def _report(self, sentence: str, error: Exception) -> None:
        self._loop.call_exception_handler({"message": f"plane: {sentence}", "exception": error})
