"""The DevTools protocol over a program's own standard streams: NUL-terminated JSON, no port; and its key events.

Chromium runs inside the desktop, so what it answers is hostile: messages are bounded in size, calls in time, and the
handlers of events are given plain JSON that they must check.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any

from cambio_lab.errors import ActionError, DesktopError

from ..machine import STDOUT, Process
from ..rfb import Budget

log = logging.getLogger(__name__)

LARGEST_MESSAGE = 32 * 1024 * 1024
"""Bytes; a screenshot of a large screen in base64 is a few MB."""
LARGEST_PARSED = 4 * 1024 * 1024
"""Bytes of a message that is not a screenshot; a longer answer is an error, a longer event is dropped."""
MOST_VALUES = 100_000
"""Commas, brackets and braces: the parser keeps the interpreter's lock, 20 ms for as many."""
_IN_THREAD = 200_000
_PARSING = 10
"""What parsing a byte costs, times what receiving it costs (:data:`~..rfb.SECONDS_PER_BYTE`)."""
_SCREENSHOT = re.compile(rb'\{"id":(\d{1,9}),"result":\{"data":"')
_ANSWER = re.compile(rb'\{"id":(\d{1,9}),')
_DAMAGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

Handler = Callable[[str, Mapping[str, Any]], None]
"""Told the session (target) that an event belongs to, and its parameters."""


class BrowserClosed(ActionError):
    """The browser ended; the next call starts another one."""


class DevToolsError(DesktopError):
    """The browser refused a command. ``message`` is Chromium's own and must not reach the model."""


class DevTools:
    """One browser's DevTools connection."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._ids = count(1)
        self._calls: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.handlers: dict[str, Handler] = {}
        """By event; a handler must not block."""
        self._writing = asyncio.Lock()
        self._budget = Budget()
        self.closed = asyncio.Event()
        self._reader = asyncio.create_task(self._read(), name="devtools-reader")

    async def send(
        self, method: str, params: Mapping[str, Any] | None = None, *, session: str = "", timeout: float = 20.0
    ) -> dict[str, Any]:
        """Call ``method`` and return its result.

        Raises :class:`DevToolsError`, :class:`BrowserClosed`, and ``TimeoutError`` after ``timeout`` seconds.
        """
        if self.closed.is_set():
            raise BrowserClosed("The browser was closed.")
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": dict(params or {})}
        if session:
            message["sessionId"] = session
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        try:
            async with asyncio.timeout(timeout):
                async with self._writing:
                    await self._process.write(json.dumps(message).encode() + b"\0")
                return await future
        except OSError as error:
            raise BrowserClosed("The browser was closed.") from error
        finally:
            self._calls.pop(number, None)

    async def close(self) -> None:
        """End the browser and everything it started."""
        with suppress(Exception):
            async with asyncio.timeout(5):
                await self._process.kill()
        self._reader.cancel()
        await asyncio.wait([self._reader])
        self._end()
        self._process.abandon()

    async def _read(self) -> None:
        held = bytearray()
        try:
            while (piece := await self._process.read()) is not None:
                if piece[0] != STDOUT:
                    continue
                held += piece[1]
                if len(held) > LARGEST_MESSAGE:
                    log.warning("browser ended: message over %d bytes", LARGEST_MESSAGE)
                    break
                if b"\0" in piece[1]:
                    *messages, rest = bytes(held).split(b"\0")
                    held = bytearray(rest)
                    for message in messages:
                        await self._received(message)
        except _DAMAGE as error:
            log.warning("browser ended: damaged message: %s", type(error).__name__)
        except Exception:
            log.exception("DevTools reader failed")
        finally:
            self._end()

    def _end(self) -> None:
        self.closed.set()
        for future in self._calls.values():
            if not future.done():
                future.set_exception(BrowserClosed("The browser was closed."))
                future.exception()  # seen, where its caller is still writing

    async def _received(self, data: bytes) -> None:
        """Handle a message; the loop's time for one browser is shared out as for one desktop's pixels."""
        large = len(data) > _IN_THREAD
        if large:
            self._budget.received(len(data) * _PARSING)
            message = await asyncio.to_thread(_parse, data)
        self._budget.start_clock()
        self._handle(message if large else _parse(data))
        self._budget.stop_clock()
        if self._budget.due:
            await self._budget.pace()

    def _handle(self, message: Any) -> None:
        if not isinstance(message, dict):
            return
        if "id" in message:
            future = self._calls.get(message["id"]) if isinstance(message["id"], int) else None
            if future is not None and not future.done():
                result = message.get("result")
                if "error" in message:
                    future.set_exception(DevToolsError(str(message["error"])[:300]))
                else:
                    future.set_result(result if isinstance(result, dict) else {})
            return
        handler = self.handlers.get(str(message.get("method")))
        params = message.get("params")
        if handler is not None and isinstance(params, dict):
            handler(str(message.get("sessionId", "")), params)


def _parse(data: bytes) -> Any:
    """Return a message, or ``None`` for an event that would take too long to parse."""
    if len(data) > LARGEST_PARSED and (found := _SCREENSHOT.match(data)):
        end = data.find(b'"', found.end())
        return {"id": int(found[1]), "result": {"data": data[found.end() : end].decode("ascii", "replace")}}
    if len(data) > LARGEST_PARSED or sum(map(data.count, (b",", b"[", b"{"))) > MOST_VALUES:
        found = _ANSWER.match(data)
        return {"id": int(found[1]), "error": "the answer is too large"} if found else None
    return json.loads(data, parse_int=lambda digits: int(digits) if len(digits) < 20 else 0)


_ERRORS = {
    "ERR_NAME_NOT_RESOLVED": "the name is not known",
    "ERR_CONNECTION_REFUSED": "the server refused the connection",
    "ERR_INTERNET_DISCONNECTED": "there is no network",
    "ERR_CONNECTION_TIMED_OUT": "the server does not answer",
    "ERR_ADDRESS_UNREACHABLE": "the address cannot be reached",
    "ERR_BLOCKED_BY_CLIENT": "the address is not allowed in this session",
    "ERR_TUNNEL_CONNECTION_FAILED": "the address is not allowed in this session",
    "ERR_ABORTED": "the address is a download, or the page refused to load",
}


def network_error(text: str) -> str:
    """Return Chromium's error in fixed words."""
    code = text.removeprefix("net::")
    return _ERRORS.get(code, code if code.isascii() and code.replace("_", "").isupper() else "unknown error")


_MODIFIERS = {"alt": 1, "option": 1, "ctrl": 2, "control": 2, "super": 4, "meta": 4, "cmd": 4, "win": 4, "shift": 8}
_NAMES = {
    1: ("Alt", "AltLeft", 18),
    2: ("Control", "ControlLeft", 17),
    4: ("Meta", "MetaLeft", 91),
    8: ("Shift", "ShiftLeft", 16),
}
_KEYS: dict[str, tuple[str, str, int, str]] = {
    "return": ("Enter", "Enter", 13, "\r"),
    "space": (" ", "Space", 32, " "),
    **{f"f{number}": (f"F{number}", f"F{number}", 111 + number, "") for number in range(1, 13)},
}
for _key, _number in {
    "Backspace": 8, "Tab": 9, "Escape": 27, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36, "ArrowLeft": 37,
    "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Insert": 45, "Delete": 46,
}.items():  # fmt: skip
    _KEYS[_key.lower()] = (_key, _key, _number, "")
_ALIASES = {
    "enter": "return", "esc": "escape", "del": "delete", "ins": "insert", "page_up": "pageup", "prior": "pageup",
    "page_down": "pagedown", "next": "pagedown", "up": "arrowup", "down": "arrowdown", "left": "arrowleft",
    "right": "arrowright", "kp_enter": "return", "plus": "+", "minus": "-",
}  # fmt: skip
_PUNCTUATION = {
    "-": ("Minus", 189), "_": ("Minus", 189), "=": ("Equal", 187), "+": ("Equal", 187), "[": ("BracketLeft", 219),
    "]": ("BracketRight", 221), "\\": ("Backslash", 220), ";": ("Semicolon", 186), "'": ("Quote", 222),
    "`": ("Backquote", 192), ",": ("Comma", 188), ".": ("Period", 190), "/": ("Slash", 191),
}  # fmt: skip
LONGEST_SEQUENCE = 100
"""Keys in one call."""


def key_modifiers(chord: str | None) -> int:
    """Return DevTools' bits for ``ctrl+shift``; :class:`ActionError` for what is no modifier."""
    bits = 0
    for part in (chord or "").lower().split("+"):
        if part.strip():
            if part.strip() not in _MODIFIERS:
                raise ActionError(f"Unknown modifier {part.strip()[:20]!r}. Use shift, ctrl, alt or cmd.")
            bits |= _MODIFIERS[part.strip()]
    return bits


def key_presses(sequence: str, repeat: int = 1) -> list[list[dict[str, Any]]]:
    """Parse ``ctrl+a BackSpace`` into chords: for each its events, all downs first, then all ups."""
    if not 1 <= repeat <= 100:
        raise ActionError("repeat must be from 1 to 100.")
    chords = [_chord(part) for part in sequence.split()] or ([_chord("space")] if sequence else [])
    if not chords or len(chords) * repeat > LONGEST_SEQUENCE:
        raise ActionError(f"Press from 1 to {LONGEST_SEQUENCE} keys in one call.")
    return chords * repeat


def key_text(character: str) -> list[dict[str, Any]] | None:
    """Return the events that type ``character``, or ``None`` when no key of a US keyboard has it."""
    if character in "\n\t":
        return _events(_KEYS["return" if character == "\n" else "tab"], 0)
    return _events(_printable(character), 0) if " " <= character <= "~" else None


def _chord(text: str) -> list[dict[str, Any]]:
    parts = text.split("+") if text != "+" else ["+"]
    if parts[-1] == "" and len(parts) > 2:  # "ctrl++"
        parts = [*parts[:-2], "+"]
    *held, last = parts
    bits = key_modifiers("+".join(held))
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
