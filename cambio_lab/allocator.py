"""What the C library keeps of freed memory, held down for a server that moves many pictures on many threads."""

from __future__ import annotations

import ctypes
import os

ARENAS = 2
_M_ARENA_MAX = -8  # malloc.h of the GNU C library


def bound_arenas() -> bool:
    """Let all threads share ``ARENAS`` heaps; whether the C library took it.

    The GNU C library gives threads up to eight heaps for each core, and each keeps the holes that megabytes of pixels
    and requests leave in it: twenty sessions grew to 1.0 GB in ten minutes with 0.25 GB in use, and went on growing.
    With two heaps they stay flat at 0.6 GB (``python -m benchmarks.load``). A ``MALLOC_ARENA_MAX`` in the environment
    is left alone, and so are other C libraries, which have no such call.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS))
    except (AttributeError, OSError, TypeError):
        return False
