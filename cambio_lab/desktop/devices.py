"""Mouse and keyboard over RFB. What is pressed here is released here, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from cambio_lab.errors import ActionError, DesktopLost

from . import keys
from .base import Button, Direction, Point
from .rfb.client import Connection, RfbClient
from .xserver import Pointer

_BUTTONS: dict[str, int] = {"left": 1, "middle": 2, "right": 4}
_WHEEL: dict[str, int] = {"up": 8, "down": 16, "left": 32, "right": 64}
_DRAG_STEP = 0.012
"""Seconds between the moves of a drag: programs begin one only when they see the pointer travel."""
_DRAG_STEPS = 12
_CLICKS_APART = 0.55
"""Seconds after which no toolkit joins two clicks: Tk 0.5, GTK and Firefox 0.4, xterm 0.25."""
_CLICK_DISTANCE = 16
"""Pixels beyond which no toolkit joins two clicks; a terminal's cell is the largest such place."""


class InputDevices:
    """All points are pixels of the X screen. ``primary_paste``: a middle click may paste the selected text."""

    def __init__(self, connection: Connection, pointer: Pointer, *, primary_paste: bool = False) -> None:
        self._connection = connection
        self._pointer = pointer
        self._primary_paste = primary_paste
        self._pressed = 0
        self._keys: list[int] = []
        self._last_click: tuple[float, int, Point] | None = None

    async def _client(self) -> RfbClient:
        client = await self._connection.client()
        self._connection.watch.input_sent()
        return client

    async def move(self, point: Point) -> None:
        """Move to ``point``; with a button down on a path, because a drag begins only when the pointer travels."""
        client = await self._client()
        if not self._pressed:
            client.pointer(*point, 0)
            return
        start = await self._pointer.locate()
        for step in _path(start, point):
            client.pointer(*step, self._pressed)
            await asyncio.sleep(_DRAG_STEP)

    async def click(self, button: Button, point: Point | None, count: int, modifiers: str | None) -> None:
        if not 1 <= count <= 3:
            raise ActionError("Between one and three clicks can be made at once.")
        mask, symbols = _mask(button), _modifiers(modifiers)
        here = point or await self._pointer.locate()
        await self._separate(mask, here)
        async with self._held(symbols) as client:
            client.pointer(*here, self._pressed)
            try:
                for _ in range(count):
                    client.pointer(*here, self._pressed | mask)
                    client.pointer(*here, self._pressed & ~mask)
            finally:
                self._pressed &= ~mask
                self._clicked(mask, here)

    async def _separate(self, mask: int, here: Point) -> None:
        """Wait until a press cannot make a double click with the last step's, nor paste what was selected."""
        if mask == _BUTTONS["middle"] and not self._primary_paste:
            await self._pointer.clear_selection()
        if self._last_click is None:
            return
        when, button, place = self._last_click
        near = max(abs(here.x - place.x), abs(here.y - place.y)) <= _CLICK_DISTANCE
        if button == mask and near:
            await asyncio.sleep(when + _CLICKS_APART - asyncio.get_running_loop().time())

    def _clicked(self, mask: int, here: Point) -> None:
        self._last_click = asyncio.get_running_loop().time(), mask, here

    async def button(self, button: Button, down: bool) -> None:
        mask, here = _mask(button), await self._pointer.locate()
        if down:
            await self._separate(mask, here)
        client = await self._client()
        self._pressed = self._pressed | mask if down else self._pressed & ~mask
        client.pointer(*here, self._pressed)
        self._clicked(mask, here)

    async def drag(self, start: Point, end: Point, modifiers: str | None) -> None:
        await self._separate(1, start)
        async with self._held(_modifiers(modifiers)) as client:
            client.pointer(*start, 0)
            await asyncio.sleep(_DRAG_STEP)
            self._pressed |= 1
            last = start
            try:
                client.pointer(*start, self._pressed)
                await asyncio.sleep(_DRAG_STEP * 2)
                for last in _path(start, end):
                    client.pointer(*last, self._pressed)
                    await asyncio.sleep(_DRAG_STEP)
                # A target that highlights under the pointer needs one more event to accept the drop.
                client.pointer(*end, self._pressed)
                await asyncio.sleep(_DRAG_STEP * 2)
            finally:
                self._pressed &= ~1
                self._clicked(1, last)
                client.pointer(*last, self._pressed)

    async def scroll(self, direction: Direction, amount: int, point: Point | None, modifiers: str | None) -> None:
        if direction not in _WHEEL:
            raise ActionError(f"{direction!r} is no direction.", hint="Use up, down, left or right.")
        if not 1 <= amount <= 50:
            raise ActionError("Between 1 and 50 wheel clicks can be made at once.")
        symbols = _modifiers(modifiers)
        here = point or await self._pointer.locate()
        async with self._held(symbols) as client:
            client.pointer(*here, self._pressed)
            for _ in range(amount):
                client.pointer(*here, self._pressed | _WHEEL[direction])
                client.pointer(*here, self._pressed)

    async def key(self, combo: keys.Combo, repeat: int) -> None:
        if not 1 <= repeat <= 100:
            raise ActionError("A key can be repeated between 1 and 100 times.")
        async with self._number_lock(combo.key), self._held(combo.modifiers) as client:
            client.keys([combo.key] * repeat)

    async def hold(self, combo: keys.Combo, seconds: float) -> None:
        if not 0 <= seconds <= 300:
            raise ActionError("A key can be held between 0 and 300 seconds.")
        async with self._number_lock(combo.key), self._held((*combo.modifiers, combo.key)):
            await asyncio.sleep(seconds)

    async def release_all(self) -> None:
        """Lift what is still down; quiet when the desktop is gone, for then nothing is held."""
        try:
            client = await self._connection.client()
            for symbol in reversed(self._keys):
                client.key(symbol, False)
            self._keys.clear()
            if self._pressed:
                self._pressed = 0
                client.pointer(*await self._pointer.locate(), 0)
        except DesktopLost:
            self._keys.clear()
            self._pressed = 0

    @asynccontextmanager
    async def _number_lock(self, symbol: int) -> AsyncIterator[None]:
        """The keypad's figures and its arrows are the same keys: Num Lock says which."""
        client = await self._client()
        wanted = symbol in keys.KEYPAD_FIGURES or (client.num_lock and symbol not in keys.KEYPAD_MOVES)
        lock = [keys.NUM_LOCK] if wanted != client.num_lock else []
        client.keys(lock)
        try:
            yield
        finally:
            if client.usable:
                client.keys(lock)

    @asynccontextmanager
    async def _held(self, symbols: Iterable[int]) -> AsyncIterator[RfbClient]:
        client = await self._client()
        held: list[int] = []
        try:
            for symbol in symbols:
                held.append(symbol)
                self._keys.append(symbol)
                client.key(symbol, True)
            yield client
        finally:
            for symbol in reversed(held):
                self._keys.remove(symbol)
                if client.usable:
                    client.key(symbol, False)
            self._connection.watch.input_sent()


def _modifiers(text: str | None) -> tuple[int, ...]:
    return keys.parse_modifiers(text) if text else ()


def _mask(button: str) -> int:
    if button not in _BUTTONS:
        raise ActionError(f"{button!r} is no mouse button.", hint="Use left, middle or right.")
    return _BUTTONS[button]


def _path(start: Point, end: Point) -> list[Point]:
    """Points between ``start`` and ``end``, the end included; the first is a few pixels away, as a hand begins."""
    return [
        Point(
            round(start.x + (end.x - start.x) * step / _DRAG_STEPS),
            round(start.y + (end.y - start.y) * step / _DRAG_STEPS),
        )
        for step in range(1, _DRAG_STEPS + 1)
    ]
