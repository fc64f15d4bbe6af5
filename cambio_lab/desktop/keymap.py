"""Type any text by keysym, however many different characters it has.

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

from cambio_lab.errors import DesktopError

from . import keys
from .devices import InputDevices
from .machine import Machine, run, until_managed
from .rfb.connection import Connection

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

    def __init__(self, devices: InputDevices, connection: Connection, machine: Machine) -> None:
        self._devices = devices
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
            await self._devices.type_keysyms(symbols[start:end])
            start = end

    async def reserve(self, symbol: int) -> None:
        """Assign a place to one character, so that its key can be pressed."""
        await self._prepare([symbol], 0)

    async def _prepare(self, symbols: list[int], start: int) -> int:
        """Assign places to new characters from ``start`` on; return up to where the text can be typed now."""
        await self._machine.keyed.wait()
        await until_managed(self._machine)  # the window manager's own keys work only then
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
            await self._free_all(len(symbols))
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

    async def _free_all(self, typed: int) -> None:
        """Free all places after programs have had time to read what was typed."""
        log.info("all places on the keyboard are taken: reassigning them")
        await self._connection.watch.settle(quiet=_QUIET, cap=_CAP, expect=2 * _QUIET + _LATENCY * typed)
        self._placed = {}


def expected_wait(text: str) -> float:
    """Seconds within which a program that got ``text`` shows something at the latest; 0 for a short one."""
    return _LATENCY * len(text) if len(text) > 200 else 0.0
