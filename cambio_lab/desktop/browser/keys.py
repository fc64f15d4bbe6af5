"""Keys and text as DevTools' ``Input.dispatchKeyEvent`` wants them."""

from __future__ import annotations

from typing import Any

from cambio_lab.errors import ActionError

_MODIFIERS = {"alt": 1, "option": 1, "ctrl": 2, "control": 2, "super": 4, "meta": 4, "cmd": 4, "win": 4, "shift": 8}
_NAMES = {
    1: ("Alt", "AltLeft", 18),
    2: ("Control", "ControlLeft", 17),
    4: ("Meta", "MetaLeft", 91),
    8: ("Shift", "ShiftLeft", 16),
}
_KEYS: dict[str, tuple[str, str, int, str]] = {
    "return": ("Enter", "Enter", 13, "\r"),
    "tab": ("Tab", "Tab", 9, ""),
    "escape": ("Escape", "Escape", 27, ""),
    "backspace": ("Backspace", "Backspace", 8, ""),
    "delete": ("Delete", "Delete", 46, ""),
    "insert": ("Insert", "Insert", 45, ""),
    "space": (" ", "Space", 32, " "),
    "up": ("ArrowUp", "ArrowUp", 38, ""),
    "down": ("ArrowDown", "ArrowDown", 40, ""),
    "left": ("ArrowLeft", "ArrowLeft", 37, ""),
    "right": ("ArrowRight", "ArrowRight", 39, ""),
    "home": ("Home", "Home", 36, ""),
    "end": ("End", "End", 35, ""),
    "pageup": ("PageUp", "PageUp", 33, ""),
    "pagedown": ("PageDown", "PageDown", 34, ""),
    **{f"f{number}": (f"F{number}", f"F{number}", 111 + number, "") for number in range(1, 13)},
}
_ALIASES = {
    "enter": "return", "esc": "escape", "del": "delete", "ins": "insert", "page_up": "pageup", "prior": "pageup",
    "page_down": "pagedown", "next": "pagedown", "arrowup": "up", "arrowdown": "down", "arrowleft": "left",
    "arrowright": "right", "kp_enter": "return", "plus": "+", "minus": "-",
}  # fmt: skip
_PUNCTUATION = {
    "-": ("Minus", 189), "_": ("Minus", 189), "=": ("Equal", 187), "+": ("Equal", 187), "[": ("BracketLeft", 219),
    "]": ("BracketRight", 221), "\\": ("Backslash", 220), ";": ("Semicolon", 186), "'": ("Quote", 222),
    "`": ("Backquote", 192), ",": ("Comma", 188), ".": ("Period", 190), "/": ("Slash", 191),
}  # fmt: skip
LONGEST_SEQUENCE = 100
"""Keys in one call."""


def modifiers(chord: str | None) -> int:
    """Return DevTools' bits for ``ctrl+shift``; :class:`ActionError` for what is no modifier."""
    bits = 0
    for part in (chord or "").lower().split("+"):
        if part.strip():
            if part.strip() not in _MODIFIERS:
                raise ActionError(f"Unknown modifier {part.strip()[:20]!r}. Use shift, ctrl, alt or cmd.")
            bits |= _MODIFIERS[part.strip()]
    return bits


def presses(sequence: str, repeat: int = 1) -> list[list[dict[str, Any]]]:
    """Parse ``ctrl+a BackSpace`` into chords: for each its events, all downs first, then all ups."""
    if not 1 <= repeat <= 100:
        raise ActionError("repeat must be from 1 to 100.")
    chords = [_chord(part) for part in sequence.split()] or ([_chord("space")] if sequence else [])
    if not chords or len(chords) * repeat > LONGEST_SEQUENCE:
        raise ActionError(f"Press from 1 to {LONGEST_SEQUENCE} keys in one call.")
    return chords * repeat


def text(character: str) -> list[dict[str, Any]] | None:
    """Return the events that type ``character``, or ``None`` when no key of a US keyboard has it."""
    if character in "\n\t":
        return _events(_KEYS["return" if character == "\n" else "tab"], 0)
    return _events(_printable(character), 0) if " " <= character <= "~" else None


def _chord(text: str) -> list[dict[str, Any]]:
    parts = text.split("+") if text != "+" else ["+"]
    if parts[-1] == "" and len(parts) > 2:  # "ctrl++"
        parts = [*parts[:-2], "+"]
    *held, last = parts
    bits = modifiers("+".join(held))
    name = _ALIASES.get(last.lower(), last.lower())
    if name in _KEYS:
        key = _KEYS[name]
    elif name in _MODIFIERS:
        key = (*_NAMES[_MODIFIERS[name]], "")
    elif len(last) == 1 or len(name) == 1:
        key = _printable(last if len(last) == 1 else name)
    else:
        raise ActionError(f"Unknown key {last[:30]!r}. Use names such as Return, Tab, Escape, BackSpace or ctrl+a.")
    pressed = [
        {"type": "rawKeyDown", "key": name, "code": code, "windowsVirtualKeyCode": number, "modifiers": bits}
        for bit, (name, code, number) in _NAMES.items()
        if bits & bit
    ]
    released = [{**event, "type": "keyUp", "modifiers": 0} for event in reversed(pressed)]
    down, up = _events(key, bits)
    return [*pressed, down, up, *released]


def _printable(character: str) -> tuple[str, str, int, str]:
    if character.isascii() and character.isalpha():
        return character, f"Key{character.upper()}", ord(character.upper()), character
    if character.isascii() and character.isdigit():
        return character, f"Digit{character}", ord(character), character
    if character == " ":
        return _KEYS["space"]
    code, number = _PUNCTUATION.get(character, ("", 0))
    return character, code, number, character


def _events(key: tuple[str, str, int, str], bits: int) -> list[dict[str, Any]]:
    name, code, number, typed = key
    event: dict[str, Any] = {"key": name, "code": code, "windowsVirtualKeyCode": number, "modifiers": bits}
    shortcut = bits & ~8  # with ctrl, alt or meta a key is a command and types nothing
    down = {**event, "type": "rawKeyDown" if shortcut or not typed else "keyDown"}
    if typed and not shortcut:
        down["text"] = typed.upper() if bits & 8 else typed
    return [down, {**event, "type": "keyUp"}]
