"""Tasks that belong to one owner: none is lost while it runs, and the owner's end cancels them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from cambio_lab.errors import SessionEnded, StoreUnavailable

from .interfaces import Clock

logger = logging.getLogger(__name__)
T = TypeVar("T")


class OwnedTasks:
    """The tasks of one owner. A failure is logged as soon as it happens."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def own(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start ``work``; the task may be awaited, and need not be."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def cancel(self) -> None:
        """Cancel what still runs and wait until it has ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, SessionEnded | StoreUnavailable):
                logger.info("%s: %s", task.get_name(), error)
            else:
                logger.error("%s failed", task.get_name(), exc_info=error)


class Periodic:
    """Work that is due from time to time: in a task of its own, never twice at once."""

    def __init__(self, tasks: OwnedTasks, clock: Clock, seconds: float, name: str) -> None:
        self._tasks = tasks
        self._clock = clock
        self._seconds = seconds
        self._name = name
        self._task: asyncio.Task[Any] | None = None
        self._began = float("-inf")

    def run(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Begin ``work`` if the latest has ended and began ``seconds`` ago."""
        idle, now = self._task is None or self._task.done(), self._clock.monotonic()
        if idle and now - self._began >= self._seconds:
            self._began = now
            self._task = self._tasks.own(work(), self._name)
