"""Key names to X keysyms: case-insensitive (but Eacute is not eacute), with the aliases people and models use.

A keysym says which character or key is meant, not where it sits on a keyboard, so the layout does not matter.
Numbers are from X11's ``keysymdef.h``; any character has one (Latin-1: its code; others: 0x01000000 + code point).
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import NamedTuple

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
    parts = _split(combo)
    symbols = [_lookup(part) for part in parts]
    modifier_symbols = set(MODIFIERS.values())
    for name, symbol in zip(parts[:-1], symbols[:-1], strict=True):
        if symbol not in modifier_symbols:
            raise ActionError(f"{name!r} is not a modifier key.", hint="Modifiers are shift, ctrl, alt and super.")
    key = symbols[-1]
    if any(symbol in (SHIFT, 0xFFE2) for symbol in symbols[:-1]) and len(parts[-1]) == 1:
        shifted = _SHIFTED.get(parts[-1], parts[-1].upper())
        key = character(shifted) if len(shifted) == 1 else key
    elif len(parts) > 1 and len(parts[-1]) == 1:
        key = character(_lowered(parts[-1]))  # names are case-insensitive: ctrl+S is ctrl+s, shift has to be said
    return Combo(tuple(symbols[:-1]), key)


def parse_modifiers(text: str | None) -> tuple[int, ...]:
    """``shift+ctrl`` as keysyms; empty for ``None`` or an empty text."""
    if not text:
        return ()
    symbols = []
    for part in _split(text):
        symbol = MODIFIERS.get(part.lower())
        if symbol is None:
            raise ActionError(f"{part!r} is not a modifier key.", hint="Modifiers are shift, ctrl, alt and super.")
        symbols.append(symbol)
    return tuple(dict.fromkeys(symbols))


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
