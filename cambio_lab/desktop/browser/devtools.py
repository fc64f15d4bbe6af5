"""The DevTools protocol over a program's own standard streams: NUL-terminated JSON, no port.

Chromium runs inside the desktop, so what it answers is hostile: messages are bounded in size, calls in time, and the
handlers of events are given plain JSON that they must check.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any

from cambio_lab.errors import ActionError, DesktopError

from ..machine import STDOUT, Process

log = logging.getLogger(__name__)

LARGEST_MESSAGE = 32 * 1024 * 1024
"""Bytes; a screenshot of a large screen in base64 is a few MB."""
EVENTS_PER_SECOND = 5_000
"""More than this, for longer than a second, and the browser is ended: every event is work on the event loop."""

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
        self._events = 0
        self._second = 0.0
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
        except Exception:
            log.exception("DevTools reader failed")
        finally:
            self._end()

    def _end(self) -> None:
        self.closed.set()
        for future in self._calls.values():
            if not future.done():
                future.set_exception(BrowserClosed("The browser was closed."))

    async def _received(self, data: bytes) -> None:
        message = await asyncio.to_thread(json.loads, data) if len(data) > 200_000 else json.loads(data)
        if not isinstance(message, dict):
            return
        if "id" in message:
            future = self._calls.get(message["id"]) if isinstance(message["id"], int) else None
            if future is not None and not future.done():
                if "error" in message:
                    future.set_exception(DevToolsError(str(message["error"])[:300]))
                else:
                    future.set_result(message.get("result") or {})
            return
        await self._throttle()
        handler = self._handlers.get(str(message.get("method")))
        params = message.get("params")
        if handler is not None and isinstance(params, dict):
            handler(str(message.get("sessionId", "")), params)

    async def _throttle(self) -> None:
        """Read no faster than :data:`EVENTS_PER_SECOND`; Chromium then waits for us."""
        now = asyncio.get_running_loop().time()
        if now - self._second >= 1.0:
            self._second, self._events = now, 0
        self._events += 1
        if self._events > EVENTS_PER_SECOND:
            await asyncio.sleep(self._second + 1.0 - now)
        elif self._events % 100 == 0:
            await asyncio.sleep(0)
