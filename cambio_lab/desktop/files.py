"""Files of a desktop's home, streamed, through the helper that runs inside as the desktop's own user."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from cambio_lab.errors import ActionError

from .base import FileInfo
from .machine import STDOUT, Machine, Process

_CHUNK = 64 * 1024


@cache
def _source() -> str:
    return Path(__file__).with_name("home_helper.py").read_text("utf-8")


async def read(machine: Machine, path: str, limit: int) -> AsyncIterator[bytes]:
    """Open ``path``; iterate over the result for its content, and close it (``aclose``) if not to the end.

    :class:`~cambio_lab.errors.ActionError` if it cannot be read or is larger than ``limit`` bytes.
    """
    process = await _start(machine, "read", path)
    try:
        answer, rest = await _answer(process, path)
        if answer["size"] > limit:
            raise ActionError(f"{path!r} has {answer['size']} bytes; at most {limit} can be transferred.")
    except BaseException:
        await _end(process)
        raise
    return _content(process, path, rest, limit)


async def _content(process: Process, path: str, rest: bytes, limit: int) -> AsyncIterator[bytes]:
    sent = len(rest)
    try:
        if rest:
            yield rest
        while (piece := await process.read()) is not None:
            if piece[0] != STDOUT:
                continue
            sent += len(piece[1])
            if sent > limit:
                raise ActionError(f"{path!r} grew beyond {limit} bytes while it was read.")
            yield piece[1]
    finally:
        await _end(process)


async def write(machine: Machine, path: str, chunks: AsyncIterator[bytes] | bytes, limit: int) -> int:
    """Write ``path``, all or nothing; the bytes written. Folders on the way are created."""
    process = await _start(machine, "write", path)
    total = 0
    try:
        with suppress(OSError):  # the helper refused and left; its answer says why
            async for chunk in _pieces(chunks):
                total += len(chunk)
                if total > limit:
                    raise ActionError(f"At most {limit} bytes can be written to a file.")
                await process.write(len(chunk).to_bytes(4, "big") + chunk)
            await process.write(b"\0\0\0\0")
        answer, _ = await _answer(process, path)
        return int(answer["size"])
    finally:
        await _end(process)


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
