"""The two desktops of a recorded session: what the agent and what clients do through them is recorded.

The agent's is recorded call by call. Of what clients do, only what a replay must return again is: the clipboard, files
up to :data:`MAX_FILE` bytes, and at most :data:`MAX_SCREENSHOTS` screenshots. Thumbnails are not. Clients and the
desktop exchange the true bytes; the recording has the placeholders of a session's secrets in place of their values.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

from ..desktop.base import Desktop, Screenshot
from ..desktop.delegating import DelegatingDesktop
from ..desktop.machine import FileContent, Listing
from ..errors import DesktopError
from . import observations
from .contents import Json
from .masking import Mask

MAX_FILE = 1_000_000
MAX_SCREENSHOTS = 1_000
CLIENT, HUMAN = "client", "human"
T = TypeVar("T")
Note = Callable[[Json], Awaitable[None]]
Keep = Callable[[Screenshot], Awaitable[None]]


class RecordingDesktop(DelegatingDesktop):
    """The agent's: tells ``note`` of each call with its arguments, result and time."""

    def __init__(self, inner: Desktop, note: Note, count: Callable[[], int]) -> None:
        super().__init__(inner)
        self._note = note
        self._count = count

    async def call(self, kind: type[T], method: str, **arguments: Any) -> T:
        record = self._begin(method, arguments)
        began = time.perf_counter()
        try:
            result = await super().call(kind, method, **arguments)
        except BaseException as error:
            await self._fail(record, began, error)
            raise
        await self._end(record, began, observations.encode(result))
        return result

    def read_file(self, path: str) -> FileContent:
        return FileContent(lambda content: self._read(path))

    async def _read(self, path: str) -> AsyncGenerator[bytes, None]:
        record = self._begin("read_file", {"path": path})
        began, chunks = time.perf_counter(), []
        try:
            async for chunk in self.inner.read_file(path):
                chunks.append(chunk)
                yield chunk
        except BaseException as error:
            await self._fail(record, began, error)
            raise
        await self._end(record, began, observations.encode(b"".join(chunks)))

    def _begin(self, method: str, arguments: Json) -> Json:
        """``at`` is for people; the wall clock may be set back, so calls are ordered by ``number``."""
        named = observations.encode_arguments(arguments)
        return {"method": method, "arguments": named, "at": time.time(), "number": self._count()}

    async def _end(self, record: Json, began: float, result: Json) -> None:
        await self._note({**record, "ms": _since(began), "result": result})

    async def _fail(self, record: Json, began: float, error: BaseException) -> None:
        if isinstance(error, DesktopError):
            told = observations.encode_error(error)
        else:
            kind = "Unexpected" if isinstance(error, Exception) else "Cancelled"
            told = {"type": kind, "message": "", "hint": ""}
        await self._note({**record, "ms": _since(began), "error": told})


def _since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)


class ClientDesktop(DelegatingDesktop):
    """What clients do through it is told to ``note``, screenshots to ``keep``. ``mask`` knows the session's secrets."""

    def __init__(self, inner: Desktop, note: Note, keep: Keep, count: Callable[[], int], mask: Mask) -> None:
        super().__init__(inner)
        self._mask = mask
        self._note = note
        self._keep = keep
        self._count = count
        self._screenshots_left = MAX_SCREENSHOTS

    async def screenshot(self) -> Screenshot:
        screenshot = await self.inner.screenshot()
        if self._screenshots_left:
            self._screenshots_left -= 1
            await self._keep(screenshot)
            await self._tell("screenshot", {}, observations.encode(screenshot))
        return screenshot

    async def get_clipboard(self) -> str:
        text = await self.inner.get_clipboard()
        await self._tell("get_clipboard", {}, {"text": self._mask.text(text)})
        return text

    async def set_clipboard(self, text: str) -> None:
        await self.inner.set_clipboard(text)
        await self._tell("set_clipboard", {"text": self._mask.text(text)}, {"none": True})

    async def list_files(self, path: str = "") -> Listing:
        found = await self.inner.list_files(path)
        noted = await asyncio.to_thread(self._noted, found)
        await self._tell("list_files", {"path": self._mask.text(path)}, noted)
        return found

    def _noted(self, found: Listing) -> Json:
        return observations.encode([replace(entry, path=self._mask.text(entry.path)) for entry in found])

    async def write_file(self, path: str, chunks: AsyncIterator[bytes] | bytes) -> int:
        # Of the masked bytes: the digest of a short secret alone would let it be guessed.
        digest, masked = hashlib.sha256(), self._mask.stream()

        async def passing() -> AsyncIterator[bytes]:
            if isinstance(chunks, bytes):
                digest.update(masked.feed(chunks))
                yield chunks
                return
            async for chunk in chunks:
                digest.update(masked.feed(chunk))
                yield chunk

        size = await self.inner.write_file(path, passing())
        digest.update(masked.end())
        await self._tell("write_file", {"path": self._mask.text(path), "content": digest.hexdigest()}, {"number": size})
        return size

    def read_file(self, path: str) -> FileContent:
        return FileContent(lambda content: self._read(content, path))

    async def _read(self, content: FileContent, path: str) -> AsyncGenerator[bytes, None]:
        kept: bytearray | None = bytearray()
        async with aclosing(self.inner.read_file(path)) as source:
            async for chunk in source:
                content.size = source.size
                if kept is not None:
                    kept += chunk
                    if len(kept) > MAX_FILE:
                        kept = None
                yield chunk
        if kept is not None:
            masked = base64.b64encode(self._mask.data(bytes(kept))).decode()
            await self._tell("read_file", {"path": self._mask.text(path)}, {"bytes": masked})

    async def _tell(self, method: str, arguments: Json, result: Json) -> None:
        record = {"by": CLIENT, "method": method, "arguments": arguments, "at": time.time(), "ms": 0.0}
        await self._note({**record, "number": self._count(), "result": result})


class ClientRecord:
    """The results of what clients did in a recording; each recorded call is answered once."""

    def __init__(self, calls: list[Json]) -> None:
        self._left = [call for call in calls if call.get("by") == CLIENT]

    def take(self, method: str, arguments: Json) -> Json | None:
        """Return the result of the first such call that was not answered yet."""
        for index, call in enumerate(self._left):
            if (call["method"], call["arguments"]) == (method, arguments):
                result: Json = self._left.pop(index)["result"]
                return result
        return None
