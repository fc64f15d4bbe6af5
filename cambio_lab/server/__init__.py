"""What a server that runs for days needs: heaps without holes, a bounded log; and an end of its threads."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import threading
import time
from dataclasses import dataclass

MEMORY_ARENAS = 2
TRIM_SECONDS = 30.0
_M_ARENA_MAX = -8  # malloc.h of the GNU C library


def bound_arenas() -> bool:
    """Let all threads share ``MEMORY_ARENAS`` heaps; whether the C library took it.

    The GNU C library gives threads up to eight heaps for each core, and each keeps the holes that megabytes of pixels
    and requests leave in it: twenty sessions grew to 1.0 GB in ten minutes with 0.25 GB in use, and went on growing
    (``python -m benchmarks.load``). A ``MALLOC_ARENA_MAX`` in the environment is left alone.
    """
    return "MALLOC_ARENA_MAX" not in os.environ and _ask_malloc("mallopt", _M_ARENA_MAX, MEMORY_ARENAS)


def trim() -> bool:
    """Give whole free pages in the middle of the heaps back to the system; whether there were any.

    Call it in a thread: it takes milliseconds, without the interpreter's lock.
    """
    return _ask_malloc("malloc_trim", 0)


async def keep_trimmed() -> None:
    """:func:`trim` now and then, until cancelled."""
    while True:
        await asyncio.sleep(TRIM_SECONDS)
        await asyncio.to_thread(trim)


def _ask_malloc(function: str, *arguments: int) -> bool:
    try:
        return bool(ctypes.CDLL(None)[function](*arguments))
    except (AttributeError, OSError, TypeError):  # another C library, without such a call
        return False


@dataclass
class _Bucket:
    tokens: float
    at: float
    dropped: int = 0


class Throttle(logging.Filter):
    """Passes ``burst`` lines of each place in the code at once, ``per_second`` on average, and counts the others.

    A refused request costs a line, and a flood of them must not fill the disk. Lines for debugging pass.
    """

    def __init__(self, burst: int = 50, per_second: float = 2.0) -> None:
        super().__init__()
        self._burst = burst
        self._per_second = per_second
        self._buckets: dict[tuple[str, int, int], _Bucket] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno <= logging.DEBUG:
            return True
        now = time.monotonic()
        place = (record.pathname, record.lineno, record.levelno)
        bucket = self._buckets.setdefault(place, _Bucket(self._burst, now))
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._per_second)
        bucket.at = now
        if bucket.tokens < 1:
            bucket.dropped += 1
            return False
        bucket.tokens -= 1
        if bucket.dropped:
            record.msg, record.args = f"{record.getMessage()} ({bucket.dropped} similar lines left out)", None
            bucket.dropped = 0
        return True


def throttle(*logs: logging.Logger) -> None:
    """Bound what each handler of ``logs``, and asyncio's own logger, write."""
    for target in (*(handler for log in logs for handler in log.handlers), logging.getLogger("asyncio")):
        if not any(isinstance(known, Throttle) for known in target.filters):
            target.addFilter(Throttle())


def stop_worker_threads() -> None:
    """End AnyIO's idle worker threads, which are not daemons.

    Each waits for the task that first used it. A page that was open may leave such a task unfinished when Jupyter stops
    the loop, and the process would then never exit.
    """
    from anyio._backends._asyncio import WorkerThread

    for thread in threading.enumerate():
        if isinstance(thread, WorkerThread):
            thread.stop()
