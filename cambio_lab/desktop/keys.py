"""Key names to X keysyms, and what a person does with keys and mouse as the actions that the agent's tools have.

Names are case-insensitive (but Eacute is not eacute), with the aliases people and models use. A keysym says which
character or key is meant, not where it sits on a keyboard, so the layout does not matter. Numbers are from X11's
``keysymdef.h``; any character has one (Latin-1: its code; others: 0x01000000 + code point).
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cambio_lab.errors import ActionError

SHIFT, CTRL, ALT, SUPER = 0xFFE1, 0xFFE3, 0xFFE9, 0xFFEB
RETURN, TAB, BACKSPACE, ESCAPE, CAPS_LOCK, NUM_LOCK = 0xFF0D, 0xFF09, 0xFF08, 0xFF1B, 0xFFE5, 0xFF7F
KEYPAD_FIGURES, KEYPAD_MOVES = frozenset(range(0xFFAE, 0xFFBA)) - {0xFFAF}, range(0xFF95, 0xFFA0)

MODIFIERS = {
    "shift": SHIFT, "shift_l": SHIFT, "shift_r": 0xFFE2,
    "ctrl": CTRL, "control": CTRL, "control_l": CTRL, "ctrl_l": CTRL, "control_r": 0xFFE4, "ctrl_r": 0xFFE4,
    "alt": ALT, "alt_l": ALT, "option": ALT, "opt": ALT, "alt_r": 0xFFEA,
    "altgr": 0xFE03, "iso_level3_shift": 0xFE03,
    "super": SUPER, "super_l": SUPER, "super_r": 0xFFEC, "cmd": SUPER, "command": SUPER, "win": SUPER,
    "windows": SUPER, "meta": 0xFFE7, "meta_l": 0xFFE7, "meta_r": 0xFFE8, "hyper_l": 0xFFED, "hyper_r": 0xFFEE,
}  # fmt: skip


def _table(name: str) -> list[tuple[int, list[str]]]:
    """Lines of a hexadecimal number and names."""
    lines = Path(__file__).with_name(name).read_text("ascii").splitlines()
    return [(int(number, 16), names) for number, *names in map(str.split, lines) if number != "#"]


_NAMED = {name: symbol for symbol, names in _table("key_names.txt") for name in names}
_NAMED |= {f"f{n}": 0xFFBE + n - 1 for n in range(1, 36)}
_NAMED |= {f"kp_{n}": 0xFFB0 + n for n in range(10)}
KEYSYMS = {name: first + place for first, names in _table("keysyms.txt") for place, name in enumerate(names)}
# Where X11's name and an alias are the same (hyphen, its soft one), what people mean by it goes first.
NAMES = {name.lower(): symbol for name, symbol in KEYSYMS.items()} | KEYSYMS | MODIFIERS | _NAMED

# What shift makes of a key on the layout that Xvnc starts with. A server that is told "shift down, then 1" would lift
# shift to give the 1 that was asked for; a person who says shift+1 means the key.
_SHIFTED = dict(zip("`1234567890-=[]\\;',./", '~!@#$%^&*()_+{}|:"<>?', strict=True))
_CONTROLS = {"\r": RETURN, "\n": RETURN, "\t": TAB, "\b": BACKSPACE, "\x1b": ESCAPE}


class Combo(NamedTuple):
    """Modifiers to hold, in order, and the key to press (``None``: the last modifier itself is the key)."""

    modifiers: tuple[int, ...]
    key: int


def character(char: str) -> int:
    """The keysym that types one character; newline is Return, tab is Tab. Raises for what is no character."""
    if char in _CONTROLS:
        return _CONTROLS[char]
    code = ord(char)
    if code < 0x20 or 0x7F <= code < 0xA0:
        raise ActionError(f"The control character U+{code:04X} cannot be typed.", hint="Use a key name with `key`.")
    if 0xD800 <= code < 0xE000:
        raise ActionError(
            f"U+{code:04X} is half of a surrogate pair and cannot be typed.", hint="Send the whole character."
        )
    return code if code < 0x100 else 0x01000000 + code


def parse(combo: str) -> Combo:
    """``ctrl+shift+t``, ``Return``, ``+``, ``ctrl++`` ... Raises ``ActionError`` that suggests near names."""
    *before, name = _split(combo)
    modifiers, key = _modifiers(before), _lookup(name)
    if len(name) == 1 and not {SHIFT, 0xFFE2}.isdisjoint(modifiers):
        shifted = _SHIFTED.get(name, name.upper())
        key = character(shifted) if len(shifted) == 1 else key
    elif before and len(name) == 1:
        key = character(_lowered(name))  # names are case-insensitive: ctrl+S is ctrl+s, shift has to be said
    return Combo(modifiers, key)


def parse_modifiers(text: str) -> tuple[int, ...]:
    """``shift+ctrl`` as keysyms."""
    return tuple(dict.fromkeys(_modifiers(_split(text))))


def _modifiers(names: list[str]) -> tuple[int, ...]:
    symbols = tuple(map(_lookup, names))
    for name, symbol in zip(names, symbols, strict=True):
        if symbol not in MODIFIERS.values():
            raise ActionError(f"{name!r} is not a modifier key.", hint="Modifiers are shift, ctrl, alt and super.")
    return symbols


def _split(combo: str) -> list[str]:
    text = combo if combo in (" ", "\t", "\n") else combo.strip()
    if not text:
        raise ActionError("An empty key name.", hint="Name a key, such as Return or ctrl+s.")
    if text == "+":
        return ["+"]
    if text.endswith("++"):
        return [*_split(text[:-2]), "+"] if len(text) > 2 else ["+"]
    parts = [part if part == " " else part.strip() for part in text.split("+")]
    if not all(parts):
        raise ActionError(f"{combo!r} is not a key combination.", hint="Join keys with one +, as in ctrl+s.")
    return parts


def _lowered(char: str) -> str:
    """The key that gives ``char`` with shift. Not every small letter is one character, or comes back to the same."""
    small = char.lower()
    return small if len(small) == 1 and small.upper() == char else char


def _lookup(name: str) -> int:
    symbol = NAMES.get(name, NAMES.get(name.lower()))
    if symbol is None and len(name) == 1:
        return character(name)
    if symbol is None:
        symbol = NAMES.get(name.lower().replace("-", "_").replace(" ", "_"))
    if symbol is None and (code := _unicode_name(name)) is not None:
        return character(chr(code))
    if symbol is None:
        near = _near(name.lower())
        suggestion = f"Did you mean {' or '.join(near)}?" if near else "Names are those of X11, such as Page_Down."
        raise ActionError(f"No key is called {name!r}.", hint=suggestion)
    return symbol


def _near(name: str) -> list[str]:
    """Up to three names like ``name``, those that are in common use first."""
    common = difflib.get_close_matches(name, MODIFIERS | _NAMED, n=3, cutoff=0.6)
    others = difflib.get_close_matches(name, map(str.lower, KEYSYMS), n=3, cutoff=0.7)
    return list(dict.fromkeys(common + others))[:3]


def _unicode_name(name: str) -> int | None:
    """``U+00E4`` splits at its plus and never arrives here; ``U00E4`` is X11's own way to say it."""
    digits = name[1:]
    if name[0] in "uU" and 4 <= len(digits) <= 6 and all(digit in "0123456789abcdefABCDEF" for digit in digits):
        code = int(digits, 16)
        return code if code <= 0x10FFFF and not 0xD800 <= code < 0xE000 else None
    return None


BUTTONS = {1: "left", 2: "middle", 4: "right"}
WHEEL = {8: "up", 16: "down", 32: "left", 64: "right"}
CLICKS = ("left_click", "double_click", "triple_click")
NEAR = 4
"""Pixels that the mouse may move between press and release, or between two clicks, of one click."""
AGAIN_SECONDS, PAUSE_SECONDS = 0.5, 0.6
"""A click that follows within the first belongs to a double click; a pause of the second ends an action."""
MOST_WAITING = 64
"""Actions that wait to be taken; more of them are dropped."""
LONGEST_TYPED = 2_000
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
                before = self._open
                if before is None or before.arguments.get("scroll_direction") != direction:
                    self._begin("scroll", {"coordinate": [x, y], "scroll_direction": direction, "scroll_amount": 0})
                self._grow("scroll_amount", 1)
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
        if not _together(begin, end):
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
        return time.monotonic() - before.ended < AGAIN_SECONDS and _together(before.arguments["coordinate"], point)

    def _type(self, character: str) -> None:
        if self._open is None or self._open.tool != "type" or len(self._open.arguments["text"]) >= LONGEST_TYPED:
            self._begin("type", {"text": ""})
        self._grow("text", character)

    def _grow(self, name: str, more: Any) -> None:
        """The latest action goes on."""
        assert self._open is not None
        self._open.arguments[name] += more
        self._open.ended = time.monotonic()

    def _begin(self, tool: str, arguments: dict[str, Any]) -> None:
        self._close()
        self._open = HumanAction(tool, arguments, time.monotonic())

    def _close(self) -> None:
        if self._open is not None and len(self._done) < MOST_WAITING:
            self._done.append(self._open)
        self._open = None


def _together(one: Sequence[int], other: Sequence[int]) -> bool:
    return abs(one[0] - other[0]) <= NEAR and abs(one[1] - other[1]) <= NEAR


def _character(symbol: int) -> str:
    """Return the character that a keysym types; empty for a key that types none."""
    if 0x20 <= symbol <= 0x7E or 0xA0 <= symbol <= 0xFF:
        return chr(symbol)
    code = symbol - 0x01000000
    return chr(code) if 0x100 <= code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF else ""
