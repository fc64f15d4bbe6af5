"""What the C library keeps of freed memory, held down for a server that moves many screenshots on many threads."""

from __future__ import annotations

import asyncio
import ctypes
import os

ARENAS = 2
TRIM_SECONDS = 30.0
_M_ARENA_MAX = -8  # malloc.h of the GNU C library


def bound_arenas() -> bool:
    """Let all threads share ``ARENAS`` heaps; whether the C library took it.

    The GNU C library gives threads up to eight heaps for each core, and each keeps the holes that megabytes of pixels
    and requests leave in it: twenty sessions grew to 1.0 GB in ten minutes with 0.25 GB in use, and went on growing
    (``python -m benchmarks.load``). A ``MALLOC_ARENA_MAX`` in the environment is left alone, and so are other C
    libraries, which have no such call.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS))
    except (AttributeError, OSError, TypeError):
        return False


def trim() -> bool:
    """Give whole free pages in the middle of the heaps back to the system; whether there were any.

    Call it in a thread: it takes milliseconds, without the interpreter's lock.
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError, TypeError):
        return False


async def keep_trimmed(period: float = TRIM_SECONDS) -> None:
    """:func:`trim` now and then, until cancelled."""
    while True:
        await asyncio.sleep(period)
        await asyncio.to_thread(trim)
