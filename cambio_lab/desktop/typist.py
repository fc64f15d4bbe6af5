"""Any text by keysym, however many different characters it has.

Xvnc types a character that its layout lacks by giving it a free keycode, and never takes one back. Our keymap leaves
116 keycodes free; a text that needs more (Chinese, say) is typed in parts, and between two of them, once the program
has caught up, the keymap is loaded anew. Loading it earlier would change letters that the program has yet to read.
"""

from __future__ import annotations

import logging

from cambio_lab.errors import DesktopError

from . import keys
from .connection import Connection
from .hands import Hands
from .machine import Machine, run

log = logging.getLogger(__name__)

CAPACITY = 100
"""Characters beyond the layout between two resets; some of the 116 stay free for people who type meanwhile."""
DRAIN_QUIET, DRAIN_CAP = 0.3, 30.0
_LATENCY = 0.002
"""Seconds that a slow program (a GTK editor) takes at most for one character."""


class Typist:
    """``keymap`` is the keymap's path as the desktop's own programs see it."""

    def __init__(self, hands: Hands, connection: Connection, machine: Machine, keymap: str) -> None:
        self._hands = hands
        self._connection = connection
        self._machine = machine
        self._keymap = keymap
        self._extra: set[int] | None = set()

    def forget(self) -> None:
        """Another server typed here before: what it used up is not known."""
        self._extra = None

    async def type(self, text: str) -> None:
        """Type ``text``. :class:`~cambio_lab.errors.ActionError` for what cannot be typed, before anything is."""
        symbols = [keys.character(char) for char in text.replace("\r\n", "\n")]
        start = 0
        while start < len(symbols):
            end = self._fitting(symbols, start)
            if end == start:
                await self._reset()
                continue
            await self._hands.type_keysyms(symbols[start:end])
            start = end
            if start < len(symbols):
                await self._connection.watch.settle(
                    quiet=DRAIN_QUIET, cap=DRAIN_CAP, expect=DRAIN_QUIET + _LATENCY * (end - start)
                )

    async def reserve(self, symbol: int) -> None:
        """Make sure that one key can be pressed."""
        if self._fitting([symbol], 0) == 0:
            await self._connection.watch.settle(quiet=DRAIN_QUIET, cap=DRAIN_CAP, expect=DRAIN_QUIET)
            await self._reset()
            self._fitting([symbol], 0)

    def _fitting(self, symbols: list[int], start: int) -> int:
        """Up to where ``symbols`` can be typed before a reset; takes note of what that uses up."""
        for index in range(start, len(symbols)):
            symbol = symbols[index]
            if symbol < 0x7F or 0xFE00 <= symbol <= 0xFFFF:
                continue
            if self._extra is None or (symbol not in self._extra and len(self._extra) >= CAPACITY):
                return index
            self._extra.add(symbol)
        return len(symbols)

    async def _reset(self) -> None:
        code, _, error = await run(self._machine, ["sh", "-c", f'exec xkbcomp -w0 "{self._keymap}" "$DISPLAY"'])
        if code != 0:
            log.warning("xkbcomp failed: %s", error.decode("utf-8", "replace")[-300:])
            raise DesktopError("The keyboard could not be prepared for so many different characters.")
        self._extra = set()


def expected_wait(text: str) -> float:
    """Seconds within which a program that got ``text`` shows something at the latest; 0 for a short one."""
    return _LATENCY * len(text) if len(text) > 200 else 0.0
