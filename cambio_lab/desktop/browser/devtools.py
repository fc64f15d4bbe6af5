"""The DevTools protocol over a program's own standard streams: NUL-terminated JSON, no port.

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
from ..rfb.budget import Budget

log = logging.getLogger(__name__)

LARGEST_MESSAGE = 32 * 1024 * 1024
"""Bytes; a screenshot of a large screen in base64 is a few MB."""
LARGEST_PARSED = 4 * 1024 * 1024
"""Bytes of a message that is not a screenshot; a longer answer is an error, a longer event is dropped."""
MOST_VALUES = 100_000
"""Commas, brackets and braces: the parser keeps the interpreter's lock, 20 ms for as many."""
_IN_THREAD = 200_000
_PARSING = 10
"""What parsing a byte costs, times what receiving it costs (:data:`~..rfb.budget.SECONDS_PER_BYTE`)."""
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
        self._handlers: dict[str, Handler] = {}
        self._writing = asyncio.Lock()
        self._budget = Budget()
        self.closed = asyncio.Event()
        self._reader = asyncio.create_task(self._read(), name="devtools-reader")

    def on(self, event: str, handler: Handler) -> None:
        """Call ``handler`` for each ``event``; it must not block."""
        self._handlers[event] = handler

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
        handler = self._handlers.get(str(message.get("method")))
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
    return json.loads(data, parse_int=_number)


def _number(text: str) -> int:
    return int(text) if len(text) < 20 else 0


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
