"""Tasks that nobody awaits: kept alive, cancelled together, and never silent about an exception."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from relay.log import get_logger

log = get_logger(__name__)


class Tasks:
    """The background tasks of one owner."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        """Start `work`; what it raises is logged under `what`."""
        task = asyncio.get_running_loop().create_task(work, name=what)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def cancel(self) -> None:
        """Cancel everything but the caller."""
        current = asyncio.current_task()
        for task in tuple(self._running):
            if task is not current:
                task.cancel()

    async def wait(self) -> None:
        """Return when all of them have ended."""
        current = asyncio.current_task()
        others = [task for task in self._running if task is not current]
        if others:
            await asyncio.gather(*others, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task failed", task=task.get_name(), exc_info=error)
