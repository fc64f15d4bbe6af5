"""What only the X server knows or can do: where the pointer is, because RFB does not tell when a person moved it, and
taking the primary selection away, which a middle click would paste."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from cambio_lab.errors import DesktopError

from ..base import Point
from ..machine import STDOUT, Machine, Process

# Xlib through ctypes: nothing to install, and one process answers for the whole session.
_SOURCE = """
import ctypes, sys
x = ctypes.CDLL("libX11.so.6")
x.XOpenDisplay.restype = ctypes.c_void_p
display = ctypes.c_void_p(x.XOpenDisplay(None))
if not display: sys.exit("no X display")
x.XDefaultRootWindow.restype = ctypes.c_ulong
root = ctypes.c_ulong(x.XDefaultRootWindow(display))
a, b = ctypes.c_ulong(), ctypes.c_ulong()
px, py, wx, wy, mask = (ctypes.c_int() for _ in range(5))
while question := sys.stdin.buffer.read(1):
    if question == b"!":
        # xterm pastes a cut buffer (atoms 9 to 16) where no program owns the primary selection (atom 1).
        x.XSetSelectionOwner(display, ctypes.c_ulong(1), ctypes.c_ulong(0), ctypes.c_ulong(0))
        for buffer in range(9, 17): x.XDeleteProperty(display, root, ctypes.c_ulong(buffer))
    x.XQueryPointer(display, root, *map(ctypes.byref, (a, b, px, py, wx, wy, mask)))
    sys.stdout.write("%d %d\\n" % (px.value, py.value)); sys.stdout.flush()
"""

_LONGEST, _LARGEST = 64, 65535
"""Bytes of an answer, and the largest coordinate in RFB: a program of the desktop can write to the helper's output."""


class Pointer:
    """Starts its helper at the first question and keeps it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._process: Process | None = None
        self._lock = asyncio.Lock()

    async def locate(self) -> Point:
        """Pixels of the X screen. :class:`~cambio_lab.errors.DesktopError` when the X server does not answer."""
        return await self._answer(b"?")

    async def clear_selection(self) -> None:
        """Leave nothing that a middle click could paste. :class:`~cambio_lab.errors.DesktopError` as above."""
        await self._answer(b"!")

    async def _answer(self, question: bytes) -> Point:
        async with self._lock:
            for _ in range(2):
                try:
                    async with asyncio.timeout(10):
                        return await self._ask(question)
                except (OSError, EOFError, TimeoutError, ValueError):
                    self.close()  # the helper died or talks nonsense; a new one may do better
                except BaseException:
                    self.close()  # also when cancelled: its answer would be taken for that to the next question
                    raise
            raise DesktopError("The desktop's X server does not answer.")

    async def _ask(self, question: bytes) -> Point:
        if self._process is None:
            python = [self._machine.python, "-I", "-S", "-c", _SOURCE]
            self._process = await self._machine.spawn(python)
        await self._process.write(question)
        line = bytearray()
        while not line.endswith(b"\n"):
            piece = await self._process.read()
            if piece is None:
                raise EOFError
            line += piece[1] if piece[0] == STDOUT else b""
            if len(line) > _LONGEST:
                raise ValueError("the helper does not end its answer")
        x, y = map(int, line.split())
        if not (0 <= x <= _LARGEST and 0 <= y <= _LARGEST):
            raise ValueError("the helper names a place outside any screen")
        return Point(x, y)

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(OSError):
                process.abandon()
