"""Files of a desktop's home, streamed, through the helper that runs inside as the desktop's own user.

Other programs of that user can write to the helper's output, so whatever comes is hostile: typed, bounded and timed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import starmap
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from cambio_lab.errors import ActionError, DesktopUnavailable

from .machine import MOST_HELPERS, STDOUT, Machine, Process, helper_source

_CHUNK = 64 * 1024
_MOST_ANSWER = 2_000_000
"""Bytes of an answer, the longest of which is a listing."""
_MOST_ERROR = 4096
_ANSWER_SECONDS = 20.0
_TURN_SECONDS = 15.0
"""Seconds to wait for other transfers."""
_STALL_SECONDS = 30.0
"""Seconds in which a file's next bytes must come, or be taken."""
_EARLIEST, _LATEST = -62135596800, 253402300799
"""The years 1 to 9999, in seconds since 1970."""
_LAST_WORD = 3.0
"""Seconds for the helper to clear up after an upload that was cut off."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One entry of a listing; ``path`` is relative to the desktop's home."""

    path: str
    size: int
    modified: float
    is_dir: bool


class _Answer(BaseModel):
    """What the helper says."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    error: str = ""
    size: NonNegativeInt | None = None
    entries: list[tuple[str, NonNegativeInt, Annotated[float, Field(ge=_EARLIEST, le=_LATEST)], bool]] = []
    truncated: bool = False


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


def read(machine: Machine, path: str, limit: int) -> FileContent:
    """Return the content of ``path``.

    Reading raises :class:`~cambio_lab.errors.ActionError` if it cannot be read, is larger than ``limit`` bytes, or
    ends before its size.
    """
    return FileContent(lambda content: _content(content, machine, path, limit))


async def _content(content: FileContent, machine: Machine, path: str, limit: int) -> AsyncGenerator[bytes, None]:
    async with _helper(machine, "read", path) as process:
        answer, first = await _answer(process, path)
        size = content.size = _size(answer, path)
        if size > limit:
            raise ActionError(f"{path!r} has {size} bytes; at most {limit} can be transferred.")
        left = size
        while left > 0:
            piece = (first or await _more(process, path, size - left, size))[:left]
            first = b""
            left -= len(piece)
            yield piece


async def _more(process: Process, path: str, done: int, size: int) -> bytes:
    """Return the next bytes on standard output."""
    try:
        async with asyncio.timeout(_STALL_SECONDS):
            while (piece := await process.read()) is not None:
                if piece[0] == STDOUT and piece[1]:
                    return piece[1]
    except TimeoutError:
        raise ActionError(f"{path!r} stalled after {done} of {size} bytes.", hint="Try again.") from None
    raise ActionError(f"{path!r} broke off after {done} of {size} bytes.", hint="Try again.")


async def write(machine: Machine, path: str, chunks: AsyncIterator[bytes] | bytes, limit: int) -> int:
    """Write ``path``, all or nothing; the bytes written. Folders on the way are created.

    :class:`~cambio_lab.errors.ActionError` when the desktop refuses, which may be before the last chunk is asked for.
    """
    if path.rpartition("/")[2] in ("", ".", ".."):
        raise ActionError(
            f"{path!r} is a folder's path; only files can be written.",
            hint="End it in a file's name, without a slash: folders on the way are created.",
        )
    async with _helper(machine, "write", path) as process:
        await _answer(process, path)
        # The second answer may come early, for example from a full disk: nothing more is sent then.
        answering = asyncio.create_task(_answer(process, path, bounded=False), name="file answer")
        sending = asyncio.create_task(_send(process, chunks, limit), name="file upload")
        try:
            await asyncio.wait({answering, sending}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                await sending
            await asyncio.wait({answering}, timeout=_ANSWER_SECONDS)
            if not answering.done():
                raise ActionError(f"{path!r}: the desktop does not say whether it was written.")
            return _size((await answering)[0], path)
        finally:
            await _stop(sending)
            # The end of its input makes the helper remove what it has and say so; abandoned at once, it may be killed.
            with suppress(OSError):
                await process.close_stdin()
            await asyncio.wait([answering], timeout=_LAST_WORD)
            await _stop(answering)


async def _send(process: Process, chunks: AsyncIterator[bytes] | bytes, limit: int) -> None:
    """All of it and the commit; less when the helper leaves, because its answer says why."""
    total, pieces = 0, _pieces(chunks)
    try:
        while True:
            async with asyncio.timeout(_STALL_SECONDS):
                if (chunk := await anext(pieces, None)) is None:
                    break
                total += len(chunk)
                if total > limit:
                    raise ActionError(f"At most {limit} bytes can be written to a file.")
                await process.write(len(chunk).to_bytes(4, "big") + chunk)
    except TimeoutError:
        raise ActionError(f"The upload stalled for {_STALL_SECONDS:g} seconds.", hint="Try again.") from None
    except OSError:
        return
    with suppress(OSError):
        await process.write(b"\0\0\0\0")


async def _stop(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # seen: else asyncio would report it as forgotten


async def entries(machine: Machine, path: str) -> Listing:
    """Return what the folder ``path`` holds, by name; at most 10,000 entries and a megabyte of them."""
    async with _helper(machine, "list", path) as process:
        answer, _ = await _answer(process, path)
    return await asyncio.to_thread(lambda: Listing(starmap(FileInfo, answer.entries), answer.truncated))


def _size(answer: _Answer, path: str) -> int:
    if answer.size is None:
        raise _damaged(path)
    return answer.size


def _damaged(path: str) -> ActionError:
    return ActionError(f"{path!r}: another program of the desktop damaged the answer.", hint="Try again.")


@asynccontextmanager
async def _helper(machine: Machine, verb: str, path: str) -> AsyncIterator[Process]:
    """Start the helper when it is this call's turn: clients that read slowly would start any number of programs."""
    arguments = [verb, machine.home, ":".join(machine.roots), path]
    if "\0" in path:
        raise ActionError("A path cannot contain a NUL character.")
    try:
        async with asyncio.timeout(_TURN_SECONDS):
            await machine.helpers.acquire()
    except TimeoutError:
        raise DesktopUnavailable(
            f"{MOST_HELPERS} files of this desktop are being transferred.", hint="Try again when one of them is done."
        ) from None
    process = None
    try:
        process = await machine.spawn([machine.python, "-I", "-S", "-c", helper_source("home_helper.py"), *arguments])
        yield process
    finally:
        machine.helpers.release()
        if process is not None:
            # The end of its input ends a helper that waits for a chunk; without a commit it leaves nothing behind.
            with suppress(OSError):
                await process.close_stdin()
            process.abandon()


async def _answer(process: Process, path: str, *, bounded: bool = True) -> tuple[_Answer, bytes]:
    """Return the helper's first line, and what of the content came with it."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS if bounded else None):
            line, rest = await _line(process, path)
    except TimeoutError:
        raise ActionError(f"{path!r}: the desktop does not answer.", hint="Try again.") from None
    try:
        answer = await asyncio.to_thread(_Answer.model_validate_json, line)
    except ValidationError:
        raise _damaged(path) from None
    if answer.error:
        raise ActionError(f"{path!r}: {answer.error[:500]}.")
    return answer, rest


async def _line(process: Process, path: str) -> tuple[bytes, bytes]:
    buffer, errors = bytearray(), b""
    while (piece := await process.read()) is not None:
        if piece[0] != STDOUT:
            errors = (errors + piece[1])[-_MOST_ERROR:]
            continue
        ends = b"\n" in piece[1]
        buffer += piece[1]
        if ends:
            line, _, rest = bytes(buffer).partition(b"\n")
            return line, rest
        if len(buffer) > _MOST_ANSWER:
            raise _damaged(path)
    said = errors.decode("utf-8", "replace").strip().splitlines()
    raise ActionError(f"{path!r} cannot be reached: {said[-1][:500] if said else 'the helper ended early'}.")


async def _pieces(chunks: AsyncIterator[bytes] | bytes) -> AsyncIterator[bytes]:
    if isinstance(chunks, bytes):
        for start in range(0, len(chunks), _CHUNK):
            yield chunks[start : start + _CHUNK]
        return
    async for chunk in chunks:
        for start in range(0, len(chunk), _CHUNK):
            yield chunk[start : start + _CHUNK]
