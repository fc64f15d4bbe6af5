"""The three pipes of a running program, as :class:`~cambio_lab.desktop.machine.Process` has them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from .machine import STDERR, STDOUT

_QUEUE = 16
"""Pieces of output read ahead of the consumer; then the program has to wait."""


class Streams:
    """Reads output ahead, bounded; ``None`` from :meth:`read` is the end of both."""

    def __init__(self, stdin: asyncio.StreamWriter, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader) -> None:
        self._stdin = stdin
        self._pieces: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(_QUEUE)
        self._open = 2
        self._readers = [
            asyncio.create_task(self._pump(STDOUT, stdout)),
            asyncio.create_task(self._pump(STDERR, stderr)),
        ]

    async def _pump(self, number: int, stream: asyncio.StreamReader) -> None:
        try:
            while data := await stream.read(65536):
                await self._pieces.put((number, data))
        finally:
            self._open -= 1
            if self._open == 0:
                with suppress(asyncio.QueueFull):
                    self._pieces.put_nowait(None)

    async def write(self, data: bytes) -> None:
        self._stdin.write(data)
        await self._stdin.drain()

    async def close_stdin(self) -> None:
        self._stdin.close()

    async def read(self) -> tuple[int, bytes] | None:
        if self._open == 0 and self._pieces.empty():
            return None
        return await self._pieces.get()

    def abandon(self) -> None:
        for reader in self._readers:
            reader.cancel()
