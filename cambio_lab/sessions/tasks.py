"""Tasks that belong to one owner: none is lost while it runs, and the owner's end cancels them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from cambio_lab.errors import SessionEnded, StoreUnavailable

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
