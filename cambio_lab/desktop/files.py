"""Files of a desktop's home, streamed, through the helper that runs inside as the desktop's own user."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from cambio_lab.errors import ActionError

from .base import FileContent, FileInfo
from .machine import STDOUT, Machine, Process

_CHUNK = 64 * 1024
_LAST_WORD = 3.0
"""Seconds for the helper to clear up after an upload that was cut off."""


@cache
def _source() -> str:
    return Path(__file__).with_name("home_helper.py").read_text("utf-8")


def read(machine: Machine, path: str, limit: int) -> FileContent:
    """Return the content of ``path``.

    Reading raises :class:`~cambio_lab.errors.ActionError` if it cannot be read, is larger than ``limit`` bytes, or
    ends before its size.
    """
    return FileContent(lambda content: _content(content, machine, path, limit))


async def _content(content: FileContent, machine: Machine, path: str, limit: int) -> AsyncGenerator[bytes, None]:
    process = await _start(machine, "read", path)
    try:
        answer, first = await _answer(process, path)
        size = content.size = answer["size"]
        if size > limit:
            raise ActionError(f"{path!r} has {size} bytes; at most {limit} can be transferred.")
        left = size - len(first)
        if first:
            yield first
        while left > 0:
            piece = await process.read()
            if piece is None:
                raise ActionError(f"{path!r} broke off after {size - left} of {size} bytes.", hint="Try again.")
            if piece[0] == STDOUT:
                left -= len(piece[1])
                yield piece[1]
    finally:
        await _end(process)


async def write(machine: Machine, path: str, chunks: AsyncIterator[bytes] | bytes, limit: int) -> int:
    """Write ``path``, all or nothing; the bytes written. Folders on the way are created.

    :class:`~cambio_lab.errors.ActionError` when the desktop refuses, which may be before the last chunk is asked for.
    """
    if path.rpartition("/")[2] in ("", ".", ".."):
        raise ActionError(
            f"{path!r} is a folder's path; only files can be written.",
            hint="End it in a file's name, without a slash: folders on the way are created.",
        )
    process = await _start(machine, "write", path)
    try:
        await _answer(process, path)
        # The second answer may come early, for example from a full disk: nothing more is sent then.
        answering = asyncio.create_task(_answer(process, path), name="file answer")
        sending = asyncio.create_task(_send(process, chunks, limit), name="file upload")
        try:
            await asyncio.wait({answering, sending}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                await sending
            return int((await answering)[0]["size"])
        finally:
            await _stop(sending)
            # The end of its input makes the helper remove what it has and say so; abandoned at once, it may be killed.
            with suppress(OSError):
                await process.close_stdin()
            await asyncio.wait([answering], timeout=_LAST_WORD)
            await _stop(answering)
    finally:
        await _end(process)


async def _send(process: Process, chunks: AsyncIterator[bytes] | bytes, limit: int) -> None:
    """All of it and the commit; less when the helper leaves, because its answer says why."""
    total = 0
    async for chunk in _pieces(chunks):
        total += len(chunk)
        if total > limit:
            raise ActionError(f"At most {limit} bytes can be written to a file.")
        try:
            await process.write(len(chunk).to_bytes(4, "big") + chunk)
        except OSError:
            return
    with suppress(OSError):
        await process.write(b"\0\0\0\0")


async def _stop(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # seen: else asyncio would report it as forgotten


async def entries(machine: Machine, path: str) -> list[FileInfo]:
    """What the folder ``path`` holds, by name; at most 10,000 entries."""
    process = await _start(machine, "list", path)
    try:
        answer, _ = await _answer(process, path)
        return [FileInfo(*entry) for entry in answer["entries"]]
    finally:
        await _end(process)


async def _start(machine: Machine, verb: str, path: str) -> Process:
    arguments = [verb, machine.home, ":".join(machine.roots), path]
    if "\0" in path:
        raise ActionError("A path cannot contain a NUL character.")
    return await machine.spawn([machine.python, "-I", "-S", "-c", _source(), *arguments])


async def _answer(process: Process, path: str) -> tuple[dict[str, Any], bytes]:
    """The helper's first line, and what of the content came with it."""
    buffer, errors = bytearray(), bytearray()
    while b"\n" not in buffer:
        piece = await process.read()
        if piece is None:
            said = errors.decode("utf-8", "replace").strip().splitlines()
            raise ActionError(f"{path!r} cannot be reached: {said[-1] if said else 'the helper ended early'}.")
        (buffer if piece[0] == STDOUT else errors).extend(piece[1])
    line, _, rest = bytes(buffer).partition(b"\n")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise ActionError(f"{path!r}: {answer['error']}.")
    return answer, rest


async def _pieces(chunks: AsyncIterator[bytes] | bytes) -> AsyncIterator[bytes]:
    if isinstance(chunks, bytes):
        for start in range(0, len(chunks), _CHUNK):
            yield chunks[start : start + _CHUNK]
        return
    async for chunk in chunks:
        for start in range(0, len(chunk), _CHUNK):
            yield chunk[start : start + _CHUNK]


async def _end(process: Process) -> None:
    # Closing its input ends a helper that still waits for a chunk; without a commit it leaves nothing behind.
    with suppress(OSError):
        await process.close_stdin()
    process.abandon()
