"""What only the X server knows or can do, by scripts that run inside the desktop: the pointer's place and the keymap.

Xvnc types a character that its layout lacks by assigning it a free keycode, and never frees one: when none is left it
drops the character, and a program that has not yet learnt the new key drops it earlier. So no assignment is left to
Xvnc. The keymap has places for what European languages and typographers use; every other character gets a place before
it is typed, four on each key (plain, shift, level three, both), so that a slow program reads what was typed before with
its old meaning. When all 364 places are taken they are reassigned, after the program has had time to read.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress

from cambio_lab.errors import DesktopError

from . import keys
from .base import Point
from .machine import STDOUT, Machine, Process, run
from .rfb.client import Connection

log = logging.getLogger(__name__)

PLACES = [(code, level) for level in range(4) for code in (*range(136, 203), *range(208, 232))]
"""Keycode and level; the 24 other free keycodes are for what people type, which Xvnc places itself, from 255 down."""
PRESET = (
    "".join(map(chr, range(0xC0, 0x100)))
    + "€–—‘’‚“”„…•«»§°£¿¡·²ŒœŠšŽžŸ"  # up to here without Shift
    + "\xa0¢¤¥¦¨©ª¬\xad®¯±³´µ¶¸¹º¼½¾"
    + "†‡‰‹›™←↑→↓"
)
"""Characters that ``image/keymap.xkb`` has on the first places, in this order."""
Output = tuple[int, bytes, bytes]
_QUIET, _CAP = 0.5, 30.0
_LATENCY = 0.002
"""Seconds that a slow program (a GTK editor) takes at most for one character."""

# Runs in the desktop: takes the X server's keymap, puts the given keysyms on the given keys, and gives it back.
_LOADER = r"""
import json, os, re, subprocess, sys
display = os.environ["DISPLAY"]
keymap = subprocess.run(["xkbcomp", "-w0", display, "-"], capture_output=True, text=True, check=True).stdout
lines = []
for code, names in json.load(sys.stdin).items():
    keymap = re.sub(r"\n\s*key\s+<I%s>\s*\{[^}]*\};" % code, "", keymap)
    if "<I%s>" % code not in keymap:
        keymap = re.sub(r"(maximum = \d+;)", r"\1\n    <I%s> = %s;" % (code, code), keymap, count=1)
    lines.append('    key <I%s> { type="FOUR_LEVEL", symbols[Group1]=[ %s ] };' % (code, ", ".join(names)))
head = re.search(r"xkb_symbols\s+\"[^\"]*\"\s*\{", keymap).end()
keymap = keymap[:head] + "\n" + "\n".join(lines) + keymap[head:]
subprocess.run(["xkbcomp", "-w0", "-", display], input=keymap, text=True, check=True)
"""


class Keymap:
    """The desktop's keymap: which characters have a place on the keyboard, and typing with them."""

    def __init__(self, connection: Connection, machine: Machine) -> None:
        self._connection = connection
        self._machine = machine
        self._placed = {keys.character(char): index for index, char in enumerate(PRESET)}
        self._loading: asyncio.Task[Output] | None = None

    def forget(self) -> None:
        """Forget all places: another server typed here before, perhaps on another keymap."""
        self._placed = {}

    async def type(self, text: str) -> None:
        """Type ``text``. :class:`~cambio_lab.errors.ActionError` for what cannot be typed, before anything is."""
        symbols = [keys.character(char) for char in text.replace("\r\n", "\n")]
        start = 0
        while start < len(symbols):
            end = await self._prepare(symbols, start)
            client = await self._connection.client()
            self._connection.watch.input_sent()
            # Caps Lock, left on by a viewer, would invert the case of letters; it is restored afterwards.
            lock = [keys.CAPS_LOCK] if client.caps_lock else []
            await client.type([*lock, *symbols[start:end], *lock])
            start = end

    async def reserve(self, symbol: int) -> None:
        """Assign a place to one character, so that its key can be pressed."""
        await self._prepare([symbol], 0)

    async def _prepare(self, symbols: list[int], start: int) -> int:
        """Assign places to new characters from ``start`` on; return up to where the text can be typed now."""
        await self._machine.keyed.wait()
        await self._machine.managed.wait()  # the window manager's own keys work only then
        fresh: dict[int, None] = {}
        end = start
        while end < len(symbols):
            symbol = symbols[end]
            if not self._known(symbol) and symbol not in fresh:
                if len(self._placed) + len(fresh) >= len(PLACES):
                    break
                fresh[symbol] = None
            end += 1
        if fresh:
            await self._place(list(fresh))
        if end == start:
            log.info("all places on the keyboard are taken: reassigning them")
            # Programs get time to read what was typed.
            expect = 2 * _QUIET + _LATENCY * len(symbols)
            await self._connection.watch.settle(quiet=_QUIET, cap=_CAP, expect=expect)
            self._placed = {}
            return await self._prepare(symbols, start)
        return end

    def _known(self, symbol: int) -> bool:
        on_layout = symbol < 0x7F or 0xFE00 <= symbol <= 0xFFFF or symbol >= 0x10000000
        return on_layout or symbol in self._placed

    async def _place(self, fresh: list[int]) -> None:
        first = len(self._placed)
        placed = self._placed | {symbol: first + index for index, symbol in enumerate(fresh)}
        touched = {PLACES[index][0] for index in range(first, len(placed))}
        rows = {code: ["NoSymbol"] * 4 for code in touched}
        for symbol, index in placed.items():
            code, level = PLACES[index]
            if code in rows:
                rows[code][level] = f"U{symbol & 0xFFFFFF:04X}"
        code, _, error = await self._load(json.dumps(rows).encode())
        if code != 0:
            log.warning("the keymap could not be loaded: %s", error.decode("utf-8", "replace")[-300:])
            raise DesktopError("The keyboard could not be prepared for so many different characters.")
        self._placed = placed  # not before: a cancelled call must not count on it

    async def _load(self, rows: bytes) -> Output:
        """Load one keymap at a time. A cancelled caller does not cancel the loading; the next caller waits for it."""
        if self._loading is not None:
            await asyncio.wait([self._loading])
        loader = [self._machine.python, "-I", "-S", "-c", _LOADER]
        self._loading = asyncio.create_task(run(self._machine, loader, stdin=rows), name="keymap")
        self._loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._loading)


def expected_wait(text: str) -> float:
    """Seconds within which a program that got ``text`` shows something at the latest; 0 for a short one."""
    return _LATENCY * len(text) if len(text) > 200 else 0.0


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
