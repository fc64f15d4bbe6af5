"""A Unix socket in front of the real Docker Engine that can be slow, silent or gone, as engines are."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from pathlib import Path
from typing import Literal

Mode = Literal["up", "gone", "silent"]

_REASON = json.dumps(
    {
        "message": "failed to create shim task: OCI runtime create failed: runc create failed: unable to start "
        'container process: exec: "/sbin/docker-init": stat /sbin/docker-init: permission denied: unknown'
    }
).encode()
NOT_STARTED = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_REASON),
    _REASON,
)


class EngineProxy:
    """``mode`` ``gone``: connections are refused and open ones cut. ``silent``: accepted, never answered.

    ``delay`` is how many seconds each connection waits before it is passed on. ``failing_starts`` containers are not
    started: the engine's answer is the one that runc 1.1.5 gave when it could not see a container's first program.
    """

    def __init__(self, real: str, path: Path) -> None:
        self.path = path
        self.delay = 0.0
        self.mode: Mode = "up"
        self.connections = 0
        self.failing_starts = 0
        self._real = real.removeprefix("unix://")
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def host(self) -> str:
        return f"unix://{self.path}"

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def become(self, mode: Mode) -> None:
        """Change, cutting every open connection."""
        self.mode = mode
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        if mode == "gone":
            await self.stop()
        elif self._server is None:
            await self.start()

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
            self.path.unlink(missing_ok=True)
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.connections += 1
        try:
            await asyncio.sleep(self.delay)
            if self.mode == "silent":
                await asyncio.Event().wait()
            head = await reader.read(65536)
            if self.failing_starts and re.match(rb"POST \S+/containers/\w+/start ", head):
                self.failing_starts -= 1
                writer.write(NOT_STARTED)
                await writer.drain()
                return
            there, back = await asyncio.open_unix_connection(self._real)
            try:
                back.write(head)
                await asyncio.gather(_pipe(reader, back), _pipe(there, writer))
            finally:
                back.close()
        except (OSError, asyncio.CancelledError):
            pass  # either side left, or the test cut the connection
        finally:
            self._open.discard(task)
            writer.close()


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()
    with contextlib.suppress(OSError, RuntimeError):
        target.write_eof()
