"""What a person does with mouse and keyboard, from RFB events to the actions that the agent's tools have."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..keys import ALT, CTRL, MODIFIERS, NAMES, SUPER

BUTTONS = {1: "left", 2: "middle", 4: "right"}
WHEEL = {8: "up", 16: "down", 32: "left", 64: "right"}
CLICKS = ("left_click", "double_click", "triple_click")
NEAR = 4
"""Pixels that the mouse may move between press and release, or between two clicks, of one click."""
AGAIN_SECONDS, PAUSE_SECONDS = 0.5, 0.6
"""A click that follows within the first belongs to a double click; a pause of the second ends an action."""
MOST_WAITING = 64
"""Actions that wait to be taken; more of them are dropped."""
LONGEST_TEXT = 2_000
_LEFT = frozenset({CTRL, ALT, SUPER})
_MODIFIER_NAMES = {code: name for name, code in reversed(MODIFIERS.items())}
_KEY_NAMES = {code: name.capitalize() for name, code in reversed(NAMES.items())}


@dataclass(slots=True)
class HumanAction:
    """One action: a member of the computer toolset with its arguments, in pixels of the X screen.

    ``type`` has the ``text`` that was typed: what may be kept of it is for the caller to say.
    """

    tool: str
    arguments: dict[str, Any]
    ended: float

    def grow(self, name: str, more: Any) -> None:
        """It goes on."""
        self.arguments[name] += more
        self.ended = time.monotonic()


class HumanActions:
    """Feed it each pointer and key event that reaches the desktop; :meth:`take` what they add up to."""

    def __init__(self) -> None:
        self._done: list[HumanAction] = []
        self._open: HumanAction | None = None
        """May still grow: a second click, another character, another notch of the wheel."""
        self._buttons = 0
        self._pressed: dict[int, tuple[int, int]] = {}
        self._modifiers: dict[int, None] = {}

    @property
    def waiting(self) -> bool:
        return bool(self._done or self._open)

    def take(self, *, everything: bool = False) -> list[HumanAction]:
        """Return the actions that are complete: all but the latest, which may go on for a moment."""
        if self._open is not None and (everything or time.monotonic() - self._open.ended >= PAUSE_SECONDS):
            self._close()
        found, self._done = self._done, []
        return found

    def release(self) -> None:
        """The person lost control: what is held down is not held any more."""
        self._buttons = 0
        self._pressed.clear()
        self._modifiers.clear()

    def pointer(self, buttons: int, x: int, y: int) -> None:
        """The mouse is at a pixel with these buttons (a bit each) down."""
        changed, self._buttons = buttons ^ self._buttons, buttons
        for bit, direction in WHEEL.items():
            if changed & buttons & bit:
                self._scroll(direction, x, y)
        for bit, name in BUTTONS.items():
            if changed & buttons & bit:
                self._pressed[bit] = (x, y)
            elif changed & bit and bit in self._pressed:
                self._release(name, self._pressed.pop(bit), (x, y))

    def key(self, down: bool, symbol: int) -> None:
        """A key went down or up."""
        if symbol in _MODIFIER_NAMES:
            if down:
                self._modifiers[symbol] = None
            else:
                self._modifiers.pop(symbol, None)
        elif down:
            character = _character(symbol)
            command = any(code in _LEFT for code in self._modifiers)
            whole = not character or (command and character.isalpha())  # other characters imply their shift
            held = [code for code in self._modifiers if whole or code in _LEFT]
            if character and not held:
                self._type(character)
            else:
                names = [_MODIFIER_NAMES[code] for code in held]
                name = character.lower() if character.strip() else _KEY_NAMES.get(symbol, f"0x{symbol:x}")
                self._begin("key", {"text": "+".join([*names, name])})

    def _release(self, button: str, begin: tuple[int, int], end: tuple[int, int]) -> None:
        if not _near(begin, end):
            self._begin("left_click_drag", {"start_coordinate": list(begin), "coordinate": list(end)})
            return
        before = self._open
        if button != "left":
            self._begin(f"{button}_click", {"coordinate": list(begin)})
        elif before is not None and before.tool in CLICKS[:2] and self._again(before, begin):
            before.tool, before.ended = CLICKS[CLICKS.index(before.tool) + 1], time.monotonic()
        else:
            self._begin("left_click", {"coordinate": list(begin)})

    def _again(self, before: HumanAction, point: tuple[int, int]) -> bool:
        return time.monotonic() - before.ended < AGAIN_SECONDS and _near(before.arguments["coordinate"], point)

    def _scroll(self, direction: str, x: int, y: int) -> None:
        before = self._open
        if before is not None and before.tool == "scroll" and before.arguments["scroll_direction"] == direction:
            before.grow("scroll_amount", 1)
        else:
            self._begin("scroll", {"coordinate": [x, y], "scroll_direction": direction, "scroll_amount": 1})

    def _type(self, character: str) -> None:
        before = self._open
        if before is not None and before.tool == "type" and len(before.arguments["text"]) < LONGEST_TEXT:
            before.grow("text", character)
        else:
            self._begin("type", {"text": character})

    def _begin(self, tool: str, arguments: dict[str, Any]) -> None:
        self._close()
        self._open = HumanAction(tool, arguments, time.monotonic())

    def _close(self) -> None:
        if self._open is not None and len(self._done) < MOST_WAITING:
            self._done.append(self._open)
        self._open = None


def _near(one: Sequence[int], other: Sequence[int]) -> bool:
    return abs(one[0] - other[0]) <= NEAR and abs(one[1] - other[1]) <= NEAR


def _character(symbol: int) -> str:
    """Return the character that a keysym types; empty for a key that types none."""
    if 0x20 <= symbol <= 0x7E or 0xA0 <= symbol <= 0xFF:
        return chr(symbol)
    code = symbol - 0x01000000
    return chr(code) if 0x100 <= code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF else ""
