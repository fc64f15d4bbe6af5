"""Where a desktop's programs run: a container or a user environment of this machine; what shell and files return.

One primitive, :meth:`Machine.spawn`; shell, files and single programs are all built on it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

STDOUT, STDERR = 1, 2
_MANAGED_TIMEOUT = 5.0
_PIECES = 16
"""Pieces of output read ahead of the consumer; then the program has to wait."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a shell command left.

    ``exit_code`` is ``None`` after a time-out. ``truncated`` says that output was dropped, ``shell_ended`` that the
    command ended the shell itself (``exit``, ``exec``, a signal): the next command gets a new one.
    """

    stdout: str
    stderr: str
    exit_code: int | None
    timed_out: bool = False
    truncated: bool = False
    shell_ended: bool = False


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One entry of a listing; ``path`` is relative to the desktop's home."""

    path: str
    size: int
    modified: float
    is_dir: bool


class FileContent(AsyncIterator[bytes]):
    """A file's content in pieces; close it (``aclose``) if it is not read to its end.

    ``read`` generates the pieces; it sets ``size`` to the bytes in total where the desktop tells them.
    """

    def __init__(self, read: Callable[[FileContent], AsyncGenerator[bytes, None]]) -> None:
        self.size: int | None = None
        """Known once the first piece was read, if at all."""
        self._pieces = read(self)

    async def __anext__(self) -> bytes:
        return await anext(self._pieces)

    async def aclose(self) -> None:
        await self._pieces.aclose()


class Listing(list[FileInfo]):
    """The entries of a folder by name; ``truncated`` when it has more than a desktop tells."""

    def __init__(self, entries: Iterable[FileInfo] = (), truncated: bool = False) -> None:
        super().__init__(entries)
        self.truncated = truncated


class Process(Protocol):
    """One running program with its three streams."""

    async def write(self, data: bytes) -> None:
        """Send to standard input; waits while the program does not read. ``OSError`` when it is gone."""

    async def close_stdin(self) -> None: ...

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next piece of output (1 or 2 says of which stream), ``None`` at the end of both."""

    async def wait(self) -> int:
        """Return the exit code, after the end of the output; negative for a signal."""

    async def kill(self, spare: Sequence[int] = ()) -> None:
        """Kill the program's whole session except the process groups in ``spare``."""

    def abandon(self) -> None:
        """Close the streams without waiting."""


class Streams:
    """The three pipes of a :class:`Process`; output is read ahead, bounded."""

    def __init__(self, stdin: asyncio.StreamWriter, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader) -> None:
        self._stdin = stdin
        self._pieces: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(_PIECES)
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


MOST_HELPERS = 8


class Machine(ABC):
    """Starts programs as the desktop's own user, with its own home and display.

    Absolute paths of files may lie in ``roots``.
    """

    def __init__(self, home: str, roots: Sequence[str], python: str) -> None:
        self.home, self.roots, self.python = home, roots, python
        self.managed: asyncio.Task[None] | None = None
        """Ends when the window manager has the screen. Until then no program starts: it would not get the focus."""
        self.helpers = asyncio.Semaphore(MOST_HELPERS)
        """Held by each call of the file helper."""
        self.keyed = asyncio.Event()
        """Set once the X server has its keymap. Until then nothing is typed."""
        self.keyed.set()

    @abstractmethod
    async def spawn(self, argv: Sequence[str]) -> Process:
        """Start ``argv``. :class:`~cambio_lab.errors.DesktopLost` when the machine is gone."""


@cache
def helper_source(name: str) -> str:
    """Return a script of this package that runs inside the desktop."""
    return Path(__file__).with_name(name).read_text("utf-8")


async def until_managed(machine: Machine) -> None:
    """Wait for the window manager, but not for ever: a desktop without one is still of use."""
    if machine.managed is not None and not machine.managed.done():
        await asyncio.wait([machine.managed], timeout=_MANAGED_TIMEOUT)


async def run(
    machine: Machine, argv: Sequence[str], *, stdin: bytes | None = None, timeout: float = 30.0, limit: int = 10_000_000
) -> tuple[int, bytes, bytes]:
    """Run one program: exit code, stdout and stderr, each cut at ``limit`` bytes. May raise ``TimeoutError``."""
    process = await machine.spawn(argv)
    output = {STDOUT: bytearray(), STDERR: bytearray()}
    try:
        async with asyncio.timeout(timeout):
            feeding = asyncio.create_task(_feed(process, stdin or b""))
            try:
                while (piece := await process.read()) is not None:
                    kept = output[piece[0]]
                    kept += piece[1][: max(0, limit - len(kept))]
            finally:
                feeding.cancel()
                await asyncio.wait([feeding])
            code = await process.wait()
    except BaseException:
        # Also when cancelled: a program without a reader must not run on.
        with suppress(Exception):
            await asyncio.shield(_kill(process))
        raise
    finally:
        process.abandon()
    return code, bytes(output[STDOUT]), bytes(output[STDERR])


async def _kill(process: Process) -> None:
    async with asyncio.timeout(5):
        await process.kill()


async def _feed(process: Process, data: bytes) -> None:
    # A program need not read what it is given.
    with suppress(OSError):
        for start in range(0, len(data), 65536):
            await process.write(data[start : start + 65536])
        await process.close_stdin()
