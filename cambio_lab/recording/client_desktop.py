"""A session's desktop for people and programs: what they put there and took from it becomes part of the record.

Only what a replay must be able to give again is noted: the clipboard, files up to :data:`MOST` bytes, and screenshots,
of which a program that asks for many gets :data:`MOST_PICTURES` noted. Thumbnails are not. Clients and the desktop give
each other the true bytes; what is noted has the placeholders of a session's secrets in place of their values.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

from ..desktop.base import Desktop, FileInfo, Picture
from . import observations
from .contents import Json
from .masking import Mask

MOST = 1_000_000
MOST_PICTURES = 1_000
CLIENT = "client"
Note = Callable[[Json], Awaitable[None]]
Keep = Callable[[Picture], Awaitable[None]]


class ClientDesktop:
    """Everything of ``desktop``; what a client does through it is told to ``note``, pictures to ``keep``."""

    def __init__(self, desktop: Desktop, note: Note, keep: Keep, count: Callable[[], int]) -> None:
        self.recorded = desktop
        self.mask = Mask()
        """The session's secrets, set by the session before anybody uses this."""
        self._note = note
        self._keep = keep
        self._count = count
        self._pictures_left = MOST_PICTURES

    def __getattr__(self, name: str) -> Any:
        return getattr(self.recorded, name)

    async def screenshot(self) -> Picture:
        picture = await self.recorded.screenshot()
        if self._pictures_left:
            self._pictures_left -= 1
            await self._keep(picture)
            await self._tell("screenshot", {}, observations.encode(picture))
        return picture

    async def get_clipboard(self) -> str:
        text = await self.recorded.get_clipboard()
        await self._tell("get_clipboard", {}, {"text": self.mask.text(text)})
        return text

    async def set_clipboard(self, text: str) -> None:
        await self.recorded.set_clipboard(text)
        await self._tell("set_clipboard", {"text": self.mask.text(text)}, {"none": True})

    async def list_files(self, path: str = "") -> list[FileInfo]:
        found = await self.recorded.list_files(path)
        noted = [replace(entry, path=self.mask.text(entry.path)) for entry in found]
        await self._tell("list_files", {"path": self.mask.text(path)}, observations.encode(noted))
        return found

    async def write_file(self, path: str, chunks: AsyncIterator[bytes] | bytes) -> int:
        # Of the masked bytes: the digest of a short secret alone would let it be guessed.
        digest, masked = hashlib.sha256(), self.mask.stream()

        async def passing() -> AsyncIterator[bytes]:
            if isinstance(chunks, bytes):
                digest.update(masked.feed(chunks))
                yield chunks
                return
            async for chunk in chunks:
                digest.update(masked.feed(chunk))
                yield chunk

        size = await self.recorded.write_file(path, passing())
        digest.update(masked.end())
        await self._tell("write_file", {"path": self.mask.text(path), "content": digest.hexdigest()}, {"number": size})
        return size

    async def read_file(self, path: str) -> AsyncIterator[bytes]:
        stream: Any = self.recorded.read_file(path)
        source = stream if hasattr(stream, "__aiter__") else await stream
        return Read(source, self._reading(path, source))

    async def _reading(self, path: str, source: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        kept: bytearray | None = bytearray()
        async for chunk in source:
            if kept is not None:
                kept += chunk
                if len(kept) > MOST:
                    kept = None
            yield chunk
        if kept is not None:
            masked = base64.b64encode(self.mask.data(bytes(kept))).decode()
            await self._tell("read_file", {"path": self.mask.text(path)}, {"bytes": masked})

    async def _tell(self, method: str, arguments: Json, result: Json) -> None:
        record = {"by": CLIENT, "method": method, "arguments": arguments, "at": time.time(), "ms": 0.0}
        await self._note({**record, "number": self._count(), "result": result})


class Read(AsyncIterator[bytes]):
    """A file's content on its way to a client, noted as it passes; ``size`` as the desktop told it."""

    def __init__(self, source: AsyncIterator[bytes], noted: AsyncGenerator[bytes, None]) -> None:
        self.size: int | None = getattr(source, "size", None)
        self._source = source
        self._noted = noted

    async def __anext__(self) -> bytes:
        return await anext(self._noted)

    async def aclose(self) -> None:
        """Let go of the file."""
        await self._noted.aclose()
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()


class ClientRecord:
    """The other way: what clients did in a recording, given again. Each recorded call is given once."""

    def __init__(self, calls: list[Json]) -> None:
        self._left = [call for call in calls if call.get("by") == CLIENT]

    def take(self, method: str, arguments: Json) -> Json | None:
        """The result of the first recorded call like this one that was not given yet."""
        for index, call in enumerate(self._left):
            if (call["method"], call["arguments"]) == (method, arguments):
                result: Json = self._left.pop(index)["result"]
                return result
        return None
