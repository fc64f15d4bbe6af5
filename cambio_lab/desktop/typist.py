"""Any text by keysym, however many different characters it has.

Xvnc types a character that its layout lacks by giving it a free keycode, and never takes one back: at some point it
drops what it is sent. Our keymap leaves 115 keycodes free. The first new characters are left to Xvnc. Beyond those,
the others get places in the keymap before they are typed, four on each key (plain, shift, level three, both), so that
nothing that was typed before changes its meaning while a slow program has yet to read it. Only when all 364 places are
taken are they given anew, after the program has had time to catch up.
"""

from __future__ import annotations

import json
import logging

from cambio_lab.errors import DesktopError

from . import keys
from .connection import Connection
from .hands import Hands
from .machine import Machine, run

log = logging.getLogger(__name__)

LEFT_TO_XVNC = 16
"""New characters that Xvnc may place itself, at 255 and below; some of these keycodes stay free for people's keys."""
PLACES = [(code, level) for level in range(4) for code in (*range(136, 203), *range(208, 232))]
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


class Typist:
    """Keeps account of which characters have a place on the keyboard."""

    def __init__(self, hands: Hands, connection: Connection, machine: Machine) -> None:
        self._hands = hands
        self._connection = connection
        self._machine = machine
        self._left: set[int] = set()
        self._placed: dict[int, int] = {}
        self._unknown = False

    def forget(self) -> None:
        """Another server typed here before: what it left to Xvnc is not known, so nothing more is."""
        self._unknown = True

    async def type(self, text: str) -> None:
        """Type ``text``. :class:`~cambio_lab.errors.ActionError` for what cannot be typed, before anything is."""
        symbols = [keys.character(char) for char in text.replace("\r\n", "\n")]
        start = 0
        while start < len(symbols):
            end = await self._prepare(symbols, start)
            await self._hands.type_keysyms(symbols[start:end])
            start = end

    async def reserve(self, symbol: int) -> None:
        """Make sure that one key can be pressed."""
        await self._prepare([symbol], 0)

    async def _prepare(self, symbols: list[int], start: int) -> int:
        """Give places to what is new from ``start`` on; up to where the text can be typed now."""
        await self._machine.keyed.wait()
        fresh: dict[int, None] = {}
        end = start
        while end < len(symbols):
            symbol = symbols[end]
            if not self._known(symbol) and symbol not in fresh:
                if len(self._placed) + len(fresh) >= len(PLACES):
                    break
                fresh[symbol] = None
            end += 1
        if not self._unknown and len(self._left) + len(fresh) <= LEFT_TO_XVNC:
            self._left.update(fresh)
        elif fresh:
            await self._place(list(fresh))
        if end == start:
            await self._start_anew(len(symbols))
            return await self._prepare(symbols, start)
        return end

    def _known(self, symbol: int) -> bool:
        on_layout = symbol < 0x7F or 0xFE00 <= symbol <= 0xFFFF or symbol >= 0x10000000
        return on_layout or symbol in self._left or symbol in self._placed

    async def _place(self, fresh: list[int]) -> None:
        first = len(self._placed)
        self._placed.update((symbol, first + index) for index, symbol in enumerate(fresh))
        touched = {PLACES[index][0] for index in range(first, len(self._placed))}
        rows = {code: ["NoSymbol"] * 4 for code in touched}
        for symbol, index in self._placed.items():
            code, level = PLACES[index]
            if code in rows:
                rows[code][level] = f"U{symbol & 0xFFFFFF:04X}"
        loader = [self._machine.python, "-I", "-S", "-c", _LOADER]
        code, _, error = await run(self._machine, loader, stdin=json.dumps(rows).encode())
        if code != 0:
            log.warning("the keymap could not be loaded: %s", error.decode("utf-8", "replace")[-300:])
            raise DesktopError("The keyboard could not be prepared for so many different characters.")

    async def _start_anew(self, typed: int) -> None:
        """All places are taken: wait until what was typed has certainly been read, then give them again."""
        log.info("every place on the keyboard is taken: giving them anew")
        await self._connection.watch.settle(quiet=_QUIET, cap=_CAP, expect=2 * _QUIET + _LATENCY * typed)
        self._placed.clear()


def expected_wait(text: str) -> float:
    """Seconds within which a program that got ``text`` shows something at the latest; 0 for a short one."""
    return _LATENCY * len(text) if len(text) > 200 else 0.0
